# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=False
"""Compiled kernels of instance normalization: forward and backward over (rows, length).

Design
------
An (N, C, spatial...) array in C order is `rows = N * C` rows of `length`
elements; every row is normalized by itself, and row r belongs to channel
`r % C`. So 1d, 2d and 3d share these kernels.

This file has the constants, and at its end what Python calls. The kernels are in
the files of `kernels/`, which are read in between, each from the small to the
large: block, row, all rows. A row is cut into blocks of BLOCK elements, which stay
in the first-level cache while they are read more than once:

* block: a pilot close to the block's mean, then the sums of (x - pilot) and of
  (x - pilot)^2. E[x^2] - E[x]^2 is never formed. Sums run over LANES
  independent accumulators, so that the compiler can vectorize them without
  reassociating anything, in float for at most FLUSH steps, then in double.
  Blocks of up to SHORT elements, and those whose squares float cannot hold well,
  sum in double from the start.
* row: the blocks merge in order, in compensated double (Chan, Golub and LeVeque
  1983; Neumaier 1974). The mean is kept as `origin + offset`, so that a mean 10^5
  standard deviations away from zero loses nothing.
* all rows: threads share the rows, or, where there are fewer rows than threads
  could use, the blocks of each row. Both ways form the same sums in the same
  order: the result does not depend on the number of threads, bit by bit.

Channels-last memory, (N, spatial..., C), is walked in its own order, with the accumulators
side by side over the channels; see `kernels/channels_last.pxi`.

The last pass computes STEP elements at a time, a cache line, and writes them past
the cache where the whole result would not stay there.

float16 and bfloat16 are widened to float32 when they are read, and rounded once when they
are written.

Arguments are marked IN, OUT or INOUT. Outputs are allocated by the caller. The
entries check what would be a memory error otherwise and nothing else; the
array functions in `arrays.py` do the rest.
"""

cimport numpy as cnp
from cython cimport floating
from cython.parallel cimport prange
from libc.math cimport NAN, fabs, isfinite, isnan, sqrt
from libc.stdlib cimport free, malloc

cnp.import_array()

cdef enum:
    LANES = 32            # independent accumulators of a sum
    HALF = 16             # of LANES, for the sums that run in double from the start
    FLUSH = 16            # steps that a lane sums in the input's own precision
    SHORT = 256           # up to here, fewer passes beat narrower numbers
    GROUP = 16            # short rows that go through each step together
    BLOCK = 2048          # elements summed together: 8 KiB of float32
    SAMPLES = 4           # steps of LANES that a block's pilot is the mean of
    STEP = 16             # elements of the last pass that are computed together
    CHUNK = 512           # half precision elements that are widened together
    TILE = 4              # wide pixels of the last pass that are computed together
    FOLDED = 500          # elements up to which pixels are taken together for the sake of LANES
    BUFFERED = 1024       # elements of a half precision pixel up to which it is streamed
    WIDE = 128            # elements of a pixel, beyond which few pixels share the first cache
    BLOCK_LAST = 65536    # elements of a block in channels-last memory, about
    NUMBERS = 5           # arrays of a wide pixel that the last pass needs at most
    # Below this many elements a thread team costs more than it gives.
    # A team also waits, for milliseconds, where another library's idle threads spin on the
    # processors, as OpenBLAS's do after each matrix product: so not for what takes less.
    SERIAL_BELOW = 262144
    # Elements up to which the call costs more than the kernel, and the entries for small
    # arrays are worth their lines.
    SMALL = 16384
    # Bytes, of all arrays that a pass reads and writes, beyond which it writes past the caches;
    # less in channels-last memory, where a sample is read again when all of it was read. And of
    # a row that is worth it.
    STREAM_ABOVE = 100663296
    STREAM_PIXELS_ABOVE = 25165824
    STREAM_ROW = 2048
    # Bytes of a channels-last sample that one processor's own cache does not hold.
    SHARE_ABOVE = 1048576

cdef float TINY = 1.17549435e-38    # of normal numbers the least

include "kernels/machine.pxi"
include "kernels/half.pxi"
include "kernels/statistics.pxi"
include "kernels/forward.pxi"
include "kernels/backward.pxi"
include "kernels/channels_last.pxi"

HAS_OPENMP = bool(INSTNORM_HAS_OPENMP)
HAS_FMA = bool(INSTNORM_HAS_FMA)
COMPILER = INSTNORM_COMPILER.decode()
BLOCK_SIZE = BLOCK
STREAM_BYTES = STREAM_ABOVE
STREAM_PIXELS_BYTES = STREAM_PIXELS_ABOVE


# ------------------------------------------------------------ Python entries

def cpu_supports(str level):
    """Whether the processor, and the operating system, run code of a SIMD level."""
    if level == "avx512":
        return instnorm_has_avx512()
    if level == "avx2":
        return instnorm_has_avx2()
    return level == "baseline"


cdef int thread_count = 1
cdef bint threads_allowed = INSTNORM_HAS_OPENMP


def set_num_threads(int n):
    """Use at most n threads in the calls that follow."""
    global thread_count
    thread_count = n


def get_num_threads():
    """Threads that a large input is shared among; 1 without OpenMP, or after a fork."""
    return thread_count if threads_allowed else 1


def forbid_threads():
    """Stay on the calling thread from now on: in a forked child, libgomp would hang."""
    global threads_allowed
    threads_allowed = False


cdef inline int threads_for(Py_ssize_t elements) noexcept nogil:
    if elements < SERIAL_BELOW or not threads_allowed:
        return 1
    return thread_count


cdef inline bint split_inside_rows(Py_ssize_t rows, Py_ssize_t length, int threads) noexcept nogil:
    """Whole rows give some thread up to twice another's share: then share out blocks."""
    return threads > 1 and rows < 4 * threads and rows % threads != 0 and length >= 2 * BLOCK


cdef struct Geometry:
    bint channels_last      # memory is (N, pixels, C)
    Py_ssize_t samples      # N
    Py_ssize_t rows         # N * C
    Py_ssize_t channels
    Py_ssize_t length       # product of the spatial sizes
    int typenum             # float32, float64, float16, or uint16: the bits of bfloat16
    int threads
    bint inside             # whether threads share each row


cdef Geometry geometry_of(cnp.ndarray x, bint channels_last) except *:
    """How to walk an array of shape (N, C, spatial...), or (N, spatial..., C)."""
    cdef Geometry shape
    if cnp.PyArray_NDIM(x) < 2:
        raise ValueError(f"x has {cnp.PyArray_NDIM(x)} axes, expected (N, C, spatial...)")
    shape.typenum = cnp.PyArray_TYPE(x)
    if shape.typenum not in (cnp.NPY_FLOAT, cnp.NPY_DOUBLE, cnp.NPY_FLOAT16, cnp.NPY_USHORT):
        raise TypeError(
            f"x has dtype {x.dtype}, expected float32, float64, float16, "
            "or uint16 for the bits of bfloat16"
        )
    shape.channels_last = channels_last
    shape.samples = cnp.PyArray_DIM(x, 0)
    shape.channels = cnp.PyArray_DIM(x, cnp.PyArray_NDIM(x) - 1 if channels_last else 1)
    shape.rows = shape.samples * shape.channels
    shape.length = cnp.PyArray_SIZE(x) // shape.rows if shape.rows else 0
    shape.threads = threads_for(shape.rows * shape.length)
    shape.inside = split_inside_rows(shape.rows, shape.length, shape.threads)
    return shape


cdef inline bint worth_streaming(
    const void *x, const void *y, int arrays, Geometry shape, Py_ssize_t itemsize
) noexcept nogil:
    """Whether to write past the cache, as it does not hold so many `arrays` of this shape."""
    cdef Py_ssize_t nbytes = arrays * shape.rows * shape.length * itemsize
    if x == y:
        return False
    if shape.channels_last:
        return nbytes >= STREAM_PIXELS_ABOVE
    return nbytes >= STREAM_ABOVE and shape.length * itemsize >= STREAM_ROW


cdef void *checked(object array, str name, int typenum, Py_ssize_t size, bint written) except NULL:
    """The address of an array's data, once it is safe to walk it as C memory."""
    if not isinstance(array, cnp.ndarray):
        raise TypeError(f"{name} must be an ndarray, got {type(array).__name__}")
    if cnp.PyArray_TYPE(array) != typenum:
        raise TypeError(f"{name} has dtype {array.dtype}, which does not fit the other arrays")
    if not cnp.PyArray_ISCARRAY_RO(array):
        raise ValueError(f"{name} must be C-contiguous and aligned")
    if written and not cnp.PyArray_ISWRITEABLE(array):
        raise ValueError(f"{name} must be writeable")
    if cnp.PyArray_SIZE(array) != size:
        raise ValueError(f"{name} has {array.size} elements, expected {size}")
    return cnp.PyArray_DATA(array)


cdef Affine affine_from(object weight, object bias, Py_ssize_t channels) except *:
    cdef Affine affine
    affine.weight = NULL
    affine.bias = NULL
    affine.weight_is_double = False
    affine.bias_is_double = False
    affine.channels = channels
    if weight is not None:
        affine.weight_is_double = cnp.PyArray_TYPE(weight) == cnp.NPY_DOUBLE
        affine.weight = checked(
            weight, "weight", cnp.NPY_DOUBLE if affine.weight_is_double else cnp.NPY_FLOAT,
            channels, False,
        )
    if bias is not None:
        affine.bias_is_double = cnp.PyArray_TYPE(bias) == cnp.NPY_DOUBLE
        affine.bias = checked(
            bias, "bias", cnp.NPY_DOUBLE if affine.bias_is_double else cnp.NPY_FLOAT,
            channels, False,
        )
    return affine


cdef bint forward_any(
    const element *x, element *y, Geometry shape, Affine affine, double eps,
    double *mean, double *rstd,
) noexcept nogil:
    """Choose the way to walk the rows. False: no memory."""
    cdef bint stream = worth_streaming(x, y, 2, shape, sizeof(element))
    if shape.channels_last:
        if element is double:
            return forward_channels_last(
                x, y, shape.samples, grid_of(shape.length, shape.channels), affine, eps,
                mean, rstd, shape.threads, stream, <double>0,
            )
        else:
            return forward_channels_last(
                x, y, shape.samples, grid_of(shape.length, shape.channels), affine, eps,
                mean, rstd, shape.threads, stream, <float>0,
            )
    elif shape.length <= SHORT:
        forward_short(x, y, shape.rows, shape.length, affine, eps, mean, rstd, shape.threads)
    elif shape.inside:
        return forward_by_blocks(
            x, y, shape.rows, shape.length, affine, eps, mean, rstd, shape.threads, stream
        )
    else:
        forward_by_rows(
            x, y, shape.rows, shape.length, affine, eps, mean, rstd, shape.threads, stream
        )
    return True


def forward(
    cnp.ndarray x,          # IN  (N, C, spatial...), or (N, spatial..., C) if channels_last;
                            #     float32, float64, float16, or uint16: bits of bfloat16
    cnp.ndarray y,          # OUT as x; may be x
    weight,                 # IN  (C,) float32 or float64, or None
    bias,                   # IN  (C,) float32 or float64, or None
    cnp.ndarray mean,       # OUT (N, C) float64
    cnp.ndarray rstd,       # OUT (N, C) float64
    double eps,
    bint channels_last=False,
):
    """Instance normalization of x into y by x's own statistics."""
    cdef Geometry shape = geometry_of(x, channels_last)
    cdef Py_ssize_t size = shape.rows * shape.length
    cdef Affine affine = affine_from(weight, bias, shape.channels)
    cdef void *x_data = checked(x, "x", shape.typenum, size, False)
    cdef void *y_data = checked(y, "y", shape.typenum, size, True)
    cdef double *mean_data = <double *>checked(mean, "mean", cnp.NPY_DOUBLE, shape.rows, True)
    cdef double *rstd_data = <double *>checked(rstd, "rstd", cnp.NPY_DOUBLE, shape.rows, True)
    cdef bint done
    if size == 0:
        return
    with nogil:
        if shape.typenum == cnp.NPY_FLOAT:
            done = forward_any(
                <float *>x_data, <float *>y_data, shape, affine, eps, mean_data, rstd_data)
        elif shape.typenum == cnp.NPY_DOUBLE:
            done = forward_any(
                <double *>x_data, <double *>y_data, shape, affine, eps, mean_data, rstd_data)
        elif shape.typenum == cnp.NPY_FLOAT16:
            done = forward_any(
                <float16 *>x_data, <float16 *>y_data, shape, affine, eps, mean_data, rstd_data)
        else:
            done = forward_any(
                <bfloat16 *>x_data, <bfloat16 *>y_data, shape, affine, eps, mean_data, rstd_data)
    if not done:
        raise MemoryError("no memory for the partial sums")


cdef bint statistics_any(
    const element *x, Geometry shape, double eps, double *mean, double *rstd
) noexcept nogil:
    """False: no memory."""
    cdef Affine affine
    if not shape.channels_last:
        statistics_by_rows(x, shape.rows, shape.length, eps, mean, rstd, shape.threads)
        return True
    affine.weight = NULL
    affine.bias = NULL
    if element is double:
        return forward_channels_last(
            x, <element *>NULL, shape.samples, grid_of(shape.length, shape.channels), affine, eps,
            mean, rstd, shape.threads, False, <double>0,
        )
    else:
        return forward_channels_last(
            x, <element *>NULL, shape.samples, grid_of(shape.length, shape.channels), affine, eps,
            mean, rstd, shape.threads, False, <float>0,
        )


def statistics(
    cnp.ndarray x,          # IN  as in forward
    cnp.ndarray mean,       # OUT (N, C) float64
    cnp.ndarray rstd,       # OUT (N, C) float64
    double eps,
    bint channels_last=False,
):
    """The mean and 1 / sqrt(var + eps) of each channel of each sample of x."""
    cdef Geometry shape = geometry_of(x, channels_last)
    cdef Py_ssize_t size = shape.rows * shape.length
    cdef void *data = checked(x, "x", shape.typenum, size, False)
    cdef double *mean_data = <double *>checked(mean, "mean", cnp.NPY_DOUBLE, shape.rows, True)
    cdef double *rstd_data = <double *>checked(rstd, "rstd", cnp.NPY_DOUBLE, shape.rows, True)
    cdef bint done
    if size == 0:
        return
    with nogil:
        if shape.typenum == cnp.NPY_FLOAT:
            done = statistics_any(<float *>data, shape, eps, mean_data, rstd_data)
        elif shape.typenum == cnp.NPY_DOUBLE:
            done = statistics_any(<double *>data, shape, eps, mean_data, rstd_data)
        elif shape.typenum == cnp.NPY_FLOAT16:
            done = statistics_any(<float16 *>data, shape, eps, mean_data, rstd_data)
        else:
            done = statistics_any(<bfloat16 *>data, shape, eps, mean_data, rstd_data)
    if not done:
        raise MemoryError("no memory for the partial sums")


cdef bint forward_given_any(
    const element *x, element *y, Geometry shape, Affine affine,
    const double *mean, const double *rstd,
) noexcept nogil:
    """False: no memory."""
    cdef bint stream = worth_streaming(x, y, 2, shape, sizeof(element))
    if not shape.channels_last:
        apply_by_blocks(
            x, y, shape.rows, shape.length, affine, mean, rstd, shape.threads, stream
        )
        return True
    if element is double:
        return apply_channels_last(
            x, y, shape.samples, grid_of(shape.length, shape.channels), affine, mean, rstd,
            shape.threads, stream, <double>0,
        )
    else:
        return apply_channels_last(
            x, y, shape.samples, grid_of(shape.length, shape.channels), affine, mean, rstd,
            shape.threads, stream, <float>0,
        )


def forward_given(
    cnp.ndarray x,          # IN  as in forward
    cnp.ndarray y,          # OUT as x; may be x
    weight,                 # IN  (C,) float32 or float64, or None
    bias,                   # IN  (C,) float32 or float64, or None
    cnp.ndarray mean,       # IN  (N, C) float64
    cnp.ndarray rstd,       # IN  (N, C) float64
    bint channels_last=False,
):
    """Instance normalization of x into y by statistics that are given."""
    cdef Geometry shape = geometry_of(x, channels_last)
    cdef bint done
    cdef Py_ssize_t size = shape.rows * shape.length
    cdef Affine affine = affine_from(weight, bias, shape.channels)
    cdef void *x_data = checked(x, "x", shape.typenum, size, False)
    cdef void *y_data = checked(y, "y", shape.typenum, size, True)
    cdef double *mean_data = <double *>checked(mean, "mean", cnp.NPY_DOUBLE, shape.rows, False)
    cdef double *rstd_data = <double *>checked(rstd, "rstd", cnp.NPY_DOUBLE, shape.rows, False)
    if size == 0:
        return
    with nogil:
        if shape.typenum == cnp.NPY_FLOAT:
            done = forward_given_any(
                <float *>x_data, <float *>y_data, shape, affine, mean_data, rstd_data)
        elif shape.typenum == cnp.NPY_DOUBLE:
            done = forward_given_any(
                <double *>x_data, <double *>y_data, shape, affine, mean_data, rstd_data)
        elif shape.typenum == cnp.NPY_FLOAT16:
            done = forward_given_any(
                <float16 *>x_data, <float16 *>y_data, shape, affine, mean_data, rstd_data)
        else:
            done = forward_given_any(
                <bfloat16 *>x_data, <bfloat16 *>y_data, shape, affine, mean_data, rstd_data)
    if not done:
        raise MemoryError("no memory for the parameters of a pixel")


cdef bint backward_any(
    const element *grad_output, const element *x, element *grad_input,
    Geometry shape, Affine affine, const double *mean, const double *rstd,
    bint through_statistics, double *sum_grad, double *sum_product,
) noexcept nogil:
    """Choose the way to walk the rows. False: no memory."""
    cdef bint stream = (
        x != grad_input
        and worth_streaming(grad_output, grad_input, 3, shape, sizeof(element))
    )
    if shape.channels_last:
        if element is double:
            return backward_channels_last(
                grad_output, x, grad_input, shape.samples,
                grid_of(shape.length, shape.channels), affine, mean, rstd, through_statistics,
                sum_grad, sum_product, shape.threads, stream, <double>0,
            )
        else:
            return backward_channels_last(
                grad_output, x, grad_input, shape.samples,
                grid_of(shape.length, shape.channels), affine, mean, rstd, through_statistics,
                sum_grad, sum_product, shape.threads, stream, <float>0,
            )
    elif shape.length <= SHORT:
        backward_short(
            grad_output, x, grad_input, shape.rows, shape.length, affine, mean, rstd,
            through_statistics, sum_grad, sum_product, shape.threads,
        )
    elif shape.inside:
        return backward_by_blocks(
            grad_output, x, grad_input, shape.rows, shape.length, affine, mean, rstd,
            through_statistics, sum_grad, sum_product, shape.threads, stream,
        )
    else:
        backward_by_rows(
            grad_output, x, grad_input, shape.rows, shape.length, affine, mean, rstd,
            through_statistics, sum_grad, sum_product, shape.threads, stream,
        )
    return True


def backward(
    cnp.ndarray grad_output,    # IN  as in forward
    cnp.ndarray x,              # IN  as grad_output
    cnp.ndarray grad_input,     # OUT as grad_output; may be grad_output or x
    weight,                     # IN  (C,) float32 or float64, or None
    cnp.ndarray mean,           # IN  (N, C) float64
    cnp.ndarray rstd,           # IN  (N, C) float64
    cnp.ndarray grad_weight,    # OUT (C,) float64
    cnp.ndarray grad_bias,      # OUT (C,) float64
    bint through_statistics,    # whether mean and rstd are x's own
    bint channels_last=False,
):
    """Gradients of instance normalization for the input, the weight and the bias."""
    cdef Geometry shape = geometry_of(x, channels_last)
    cdef Py_ssize_t rows = shape.rows, channels = shape.channels, size = rows * shape.length
    cdef Affine affine = affine_from(weight, None, channels)
    cdef void *x_data = checked(x, "x", shape.typenum, size, False)
    cdef void *g_data = checked(grad_output, "grad_output", shape.typenum, size, False)
    cdef void *d_data = checked(grad_input, "grad_input", shape.typenum, size, True)
    cdef double *mean_data = <double *>checked(mean, "mean", cnp.NPY_DOUBLE, rows, False)
    cdef double *rstd_data = <double *>checked(rstd, "rstd", cnp.NPY_DOUBLE, rows, False)
    cdef double *gw_data = <double *>checked(
        grad_weight, "grad_weight", cnp.NPY_DOUBLE, channels, True)
    cdef double *gb_data = <double *>checked(
        grad_bias, "grad_bias", cnp.NPY_DOUBLE, channels, True)
    cdef bint done
    cdef double *sums
    if size == 0:
        grad_weight.fill(0)
        grad_bias.fill(0)
        return
    sums = <double *>malloc(2 * rows * sizeof(double))
    if sums == NULL:
        raise MemoryError("no memory for the sums of the rows")
    with nogil:
        if shape.typenum == cnp.NPY_FLOAT:
            done = backward_any(
                <float *>g_data, <float *>x_data, <float *>d_data, shape, affine,
                mean_data, rstd_data, through_statistics, sums, sums + rows)
        elif shape.typenum == cnp.NPY_DOUBLE:
            done = backward_any(
                <double *>g_data, <double *>x_data, <double *>d_data, shape, affine,
                mean_data, rstd_data, through_statistics, sums, sums + rows)
        elif shape.typenum == cnp.NPY_FLOAT16:
            done = backward_any(
                <float16 *>g_data, <float16 *>x_data, <float16 *>d_data, shape, affine,
                mean_data, rstd_data, through_statistics, sums, sums + rows)
        else:
            done = backward_any(
                <bfloat16 *>g_data, <bfloat16 *>x_data, <bfloat16 *>d_data, shape, affine,
                mean_data, rstd_data, through_statistics, sums, sums + rows)
        if done:
            reduce_over_batch(sums, sums + rows, rstd_data, rows, channels, gw_data, gb_data)
        free(sums)
    if not done:
        raise MemoryError("no memory for the partial sums")


# ------------------------------------------- Python entries for small arrays

cdef extern from "numpy/arrayobject.h":
    object PyArray_NewLikeArray(cnp.ndarray, cnp.NPY_ORDER, void *descr, int subok)

cdef enum:
    FEW = 256   # rows whose statistics are kept on the stack where nobody asked for them


cdef inline bint is_plain(object array, int typenum) noexcept:
    """Whether this is an aligned, native array of the type, and no subclass."""
    return (
        type(array) is cnp.ndarray
        and cnp.PyArray_TYPE(<cnp.ndarray>array) == typenum
        and cnp.PyArray_ISBEHAVED_RO(<cnp.ndarray>array)
    )


cdef inline bint is_rows(object array) noexcept:
    """Whether memory is C-contiguous."""
    return cnp.PyArray_IS_C_CONTIGUOUS(<cnp.ndarray>array)


cdef inline bint is_channels_last(object array) noexcept:
    """Whether memory is C-contiguous as (N, spatial..., C)."""
    cdef cnp.npy_intp *sizes = cnp.PyArray_DIMS(<cnp.ndarray>array)
    cdef cnp.npy_intp *strides = cnp.PyArray_STRIDES(<cnp.ndarray>array)
    cdef cnp.npy_intp step = cnp.PyArray_ITEMSIZE(<cnp.ndarray>array)
    cdef int last = cnp.PyArray_NDIM(<cnp.ndarray>array) - 1, i, axis
    for i in range(last + 1):
        # C, then the spatial axes from the last one on, then N.
        axis = 1 if i == 0 else last + 1 - i if i < last else 0
        # The stride of one element says nothing.
        if sizes[axis] != 1 and strides[axis] != step:
            return False
        step *= sizes[axis]
    return True


cdef inline bint is_parameter(object array, Py_ssize_t channels) noexcept:
    """Whether this is None, or a plain, contiguous float32 or float64 array of shape (C,)."""
    return array is None or (
        (is_plain(array, cnp.NPY_FLOAT) or is_plain(array, cnp.NPY_DOUBLE))
        and is_rows(array)
        and cnp.PyArray_NDIM(<cnp.ndarray>array) == 1
        and cnp.PyArray_DIM(<cnp.ndarray>array, 0) == channels
    )


cdef inline bint is_small(object x) noexcept:
    """Whether x is plain, float32 or float64, dense, and has statistics of its own."""
    cdef cnp.ndarray array
    cdef Py_ssize_t size, rows
    if not (is_plain(x, cnp.NPY_FLOAT) or is_plain(x, cnp.NPY_DOUBLE)):
        return False
    array = <cnp.ndarray>x
    size = cnp.PyArray_SIZE(array)
    if cnp.PyArray_NDIM(array) < 3 or not 0 < size <= SMALL:
        return False
    rows = cnp.PyArray_DIM(array, 0) * cnp.PyArray_DIM(array, 1)
    return size >= 2 * rows and (is_rows(x) or is_channels_last(x))


cdef inline Geometry small_geometry_of(cnp.ndarray x) except *:
    """How to walk a small array: where its memory is both, as rows, like `layouts.walk_of`."""
    cdef Geometry shape = geometry_of(x, False)
    shape.channels_last = not is_rows(x)
    return shape


cdef inline cnp.ndarray new_like(cnp.ndarray array, int axes, int typenum):
    """A C-contiguous array of the leading axes of another one's shape."""
    return cnp.PyArray_EMPTY(axes, cnp.PyArray_DIMS(array), typenum, 0)


cdef inline cnp.ndarray new_in_layout_of(cnp.ndarray array):
    """An array of another one's shape, dtype and memory layout."""
    if is_rows(array):
        return new_like(array, cnp.PyArray_NDIM(array), cnp.PyArray_TYPE(array))
    return PyArray_NewLikeArray(array, cnp.NPY_KEEPORDER, NULL, 0)


cdef bint forward_on_this_thread(
    const floating *x, floating *y, Geometry shape, Affine affine, double eps,
    double *mean, double *rstd,
) noexcept nogil:
    """As forward_any. A parallel loop, even of one thread, costs more than small rows do."""
    cdef Py_ssize_t group, row, at
    if shape.channels_last:
        return forward_any(x, y, shape, affine, eps, mean, rstd)
    if shape.length <= SHORT:
        for group in range((shape.rows + GROUP - 1) // GROUP):
            row = group * GROUP
            at = row * shape.length
            forward_group(
                x + at, y + at, row, min(shape.rows - row, <Py_ssize_t>GROUP), shape.length,
                affine, eps, mean + row, rstd + row,
            )
        return True
    for row in range(shape.rows):
        at = row * shape.length
        forward_row(
            x + at, y + at, row, shape.length, affine, eps, mean + row, rstd + row, False
        )
    return True


cdef bint backward_on_this_thread(
    const floating *grad_output, const floating *x, floating *grad_input,
    Geometry shape, Affine affine, const double *mean, const double *rstd,
    bint through_statistics, double *sum_grad, double *sum_product,
) noexcept nogil:
    """As backward_any."""
    cdef Py_ssize_t group, row, at
    if shape.channels_last:
        return backward_any(
            grad_output, x, grad_input, shape, affine, mean, rstd, through_statistics,
            sum_grad, sum_product,
        )
    if shape.length <= SHORT:
        for group in range((shape.rows + GROUP - 1) // GROUP):
            row = group * GROUP
            at = row * shape.length
            backward_group(
                grad_output + at, x + at, grad_input + at, row,
                min(shape.rows - row, <Py_ssize_t>GROUP), shape.length, affine, mean + row,
                rstd + row, through_statistics, sum_grad + row, sum_product + row,
            )
        return True
    for row in range(shape.rows):
        at = row * shape.length
        backward_row(
            grad_output + at, x + at, grad_input + at, shape.length, weight_of(affine, row),
            mean[row], rstd[row], through_statistics, &sum_grad[row], &sum_product[row], False,
        )
    return True


def forward_small(x, weight, bias, eps, bint return_stats):
    """y, or (y, mean, rstd), as new arrays; None where the arguments are not small and plain.

    The checks are those that most callers pass. Whoever gets None finds out what is wrong.
    """
    cdef cnp.ndarray y, mean = None, rstd = None
    cdef double few[2 * FEW]
    cdef double *mean_data = few
    cdef double *rstd_data = few + FEW
    cdef Geometry shape
    cdef Affine affine
    cdef bint done
    if not is_small(x) or type(eps) is not float or not 0 <= <double>eps <= 1e300:
        return None
    shape = small_geometry_of(x)
    if not is_parameter(weight, shape.channels) or not is_parameter(bias, shape.channels):
        return None
    affine = affine_from(weight, bias, shape.channels)
    y = new_in_layout_of(x)
    if return_stats or shape.rows > FEW:
        mean = new_like(x, 2, cnp.NPY_DOUBLE)
        rstd = new_like(x, 2, cnp.NPY_DOUBLE)
        mean_data = <double *>cnp.PyArray_DATA(mean)
        rstd_data = <double *>cnp.PyArray_DATA(rstd)
    if shape.typenum == cnp.NPY_FLOAT:
        done = forward_on_this_thread(
            <float *>cnp.PyArray_DATA(<cnp.ndarray>x), <float *>cnp.PyArray_DATA(y), shape, affine,
            <double>eps, mean_data, rstd_data,
        )
    else:
        done = forward_on_this_thread(
            <double *>cnp.PyArray_DATA(<cnp.ndarray>x), <double *>cnp.PyArray_DATA(y), shape,
            affine, <double>eps, mean_data, rstd_data,
        )
    if not done:
        raise MemoryError("no memory for the partial sums")
    return (y, mean, rstd) if return_stats else y


cdef cnp.ndarray narrowed(cnp.ndarray values, int typenum):
    """Doubles as float32 where asked for: infinite beyond its range, without a warning."""
    cdef cnp.ndarray out
    cdef Py_ssize_t i
    if typenum == cnp.NPY_DOUBLE:
        return values
    out = new_like(values, 1, cnp.NPY_FLOAT)
    for i in range(cnp.PyArray_DIM(values, 0)):
        (<float *>cnp.PyArray_DATA(out))[i] = <float>(<double *>cnp.PyArray_DATA(values))[i]
    return out


def backward_small(grad_output, x, weight, mean, rstd, bint through_statistics):
    """(grad_input, grad_weight, grad_bias) as new arrays; None as forward_small."""
    cdef cnp.ndarray grad_input, grad_weight, grad_bias
    cdef Geometry shape
    cdef Affine affine
    cdef cnp.npy_intp channels
    cdef int parameter_type
    cdef double *sums
    cdef double *mean_data
    cdef double *rstd_data
    cdef void *x_data
    cdef void *g_data
    cdef bint done
    if not is_small(x) or not is_plain(grad_output, cnp.PyArray_TYPE(<cnp.ndarray>x)):
        return None
    if not cnp.PyArray_SAMESHAPE(<cnp.ndarray>x, <cnp.ndarray>grad_output):
        return None
    shape = small_geometry_of(x)
    if not (is_channels_last(grad_output) if shape.channels_last else is_rows(grad_output)):
        return None
    if not is_parameter(weight, shape.channels):
        return None
    for statistic in (mean, rstd):
        if not is_plain(statistic, cnp.NPY_DOUBLE) or not is_rows(statistic):
            return None
        if cnp.PyArray_NDIM(<cnp.ndarray>statistic) != 2:
            return None
        if cnp.PyArray_DIM(<cnp.ndarray>statistic, 0) != shape.samples:
            return None
        if cnp.PyArray_DIM(<cnp.ndarray>statistic, 1) != shape.channels:
            return None
    affine = affine_from(weight, None, shape.channels)
    parameter_type = cnp.PyArray_TYPE(<cnp.ndarray>(x if weight is None else weight))
    grad_input = new_in_layout_of(x)
    channels = shape.channels
    grad_weight = cnp.PyArray_EMPTY(1, &channels, cnp.NPY_DOUBLE, 0)
    grad_bias = cnp.PyArray_EMPTY(1, &channels, cnp.NPY_DOUBLE, 0)
    x_data = cnp.PyArray_DATA(<cnp.ndarray>x)
    g_data = cnp.PyArray_DATA(<cnp.ndarray>grad_output)
    mean_data = <double *>cnp.PyArray_DATA(<cnp.ndarray>mean)
    rstd_data = <double *>cnp.PyArray_DATA(<cnp.ndarray>rstd)
    sums = <double *>malloc(2 * shape.rows * sizeof(double))
    if sums == NULL:
        raise MemoryError("no memory for the sums of the rows")
    if shape.typenum == cnp.NPY_FLOAT:
        done = backward_on_this_thread(
            <float *>g_data, <float *>x_data, <float *>cnp.PyArray_DATA(grad_input), shape, affine,
            mean_data, rstd_data, through_statistics, sums, sums + shape.rows,
        )
    else:
        done = backward_on_this_thread(
            <double *>g_data, <double *>x_data, <double *>cnp.PyArray_DATA(grad_input), shape,
            affine, mean_data, rstd_data, through_statistics, sums, sums + shape.rows,
        )
    if done:
        reduce_over_batch(
            sums, sums + shape.rows, rstd_data, shape.rows, shape.channels,
            <double *>cnp.PyArray_DATA(grad_weight), <double *>cnp.PyArray_DATA(grad_bias),
        )
    free(sums)
    if not done:
        raise MemoryError("no memory for the partial sums")
    return grad_input, narrowed(grad_weight, parameter_type), narrowed(grad_bias, parameter_type)


cdef inline void blend(cnp.ndarray running, Py_ssize_t i, double momentum, double new) noexcept:
    """Move a running statistic, float32 or float64, towards a new value."""
    cdef float *as_float = <float *>cnp.PyArray_DATA(running)
    cdef double *as_double = <double *>cnp.PyArray_DATA(running)
    if cnp.PyArray_TYPE(running) == cnp.NPY_FLOAT:
        as_float[i] = <float>((1 - momentum) * as_float[i] + momentum * new)
    else:
        as_double[i] = (1 - momentum) * as_double[i] + momentum * new


def update_running(
    running_mean,           # INOUT (C,)
    running_var,            # INOUT (C,)
    cnp.ndarray mean,       # IN  (N, C) float64
    cnp.ndarray rstd,       # IN  (N, C) float64
    double momentum,
    double eps,
    Py_ssize_t length,      # elements that each statistic was taken of
):
    """Take in the statistics of a batch; False where the running ones are not plain arrays."""
    cdef Py_ssize_t samples = cnp.PyArray_DIM(mean, 0), channels = cnp.PyArray_DIM(mean, 1)
    cdef Py_ssize_t n, c
    cdef double sum_mean, sum_var, var
    cdef double *means = <double *>checked(mean, "mean", cnp.NPY_DOUBLE, samples * channels, False)
    cdef double *rstds = <double *>checked(rstd, "rstd", cnp.NPY_DOUBLE, samples * channels, False)
    for running in (running_mean, running_var):
        if running is None or not is_parameter(running, channels):
            return False
        if not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>running):
            return False
    for c in range(channels):
        sum_mean = sum_var = 0
        for n in range(samples):
            sum_mean += means[n * channels + c]
            # rstd is 0 where var + eps is: then the variance is 0 too. NaN stays.
            if rstds[n * channels + c] != 0:
                var = 1 / rstds[n * channels + c]
                var = var * var - eps
                sum_var += 0 if var < 0 else var
        blend(running_mean, c, momentum, sum_mean / samples)
        blend(
            running_var, c, momentum, sum_var / samples * (<double>length / (length - 1))
        )
    return True
