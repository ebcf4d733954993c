# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=False
# distutils: language = c++
"""What Python calls of the compiled kernels, and nothing else.

The kernels are in the files of `_kernels/`, which are read in below, from the small to the large:

* `registers.hpp` makes registers a type; `half.hpp` widens and rounds float16 and bfloat16;
  `memory.hpp` loads and stores; `epilogue.hpp` has what the last passes do with a register;
  `machine.hpp` knows the compiler. `registers.pxi` declares them.
* `constants.pxi` has all sizes and limits, each with its reason.
* `coefficients.pxi` has the formulas, from sums to the coefficients of the last pass.
* `moments.pxi` sums blocks of long rows, exactly enough; `long_rows.pxi` and `short_rows.pxi`
  walk (N, C, spatial...) memory, `channels_last.pxi` walks (N, spatial..., C).

One text serves float32, float64, float16 and bfloat16: loading widens, storing rounds. The same
source is compiled once for each SIMD level; see `_runtime/simd.py`.

Arguments are marked IN, OUT or INOUT. Outputs are allocated by the caller. The entries check
what would be a memory error otherwise and nothing else; `arrays.py` does the rest.
"""

cimport numpy as cnp
from cython.parallel cimport prange
from libc.math cimport fabs, ilogb, isfinite, ldexp, sqrt
from libc.stdlib cimport free, malloc
from libc.string cimport memset

cnp.import_array()

include "_kernels/registers.pxi"
include "_runtime/threads.pxi"
include "_kernels/constants.pxi"
include "_kernels/coefficients.pxi"
include "_kernels/moments.pxi"
include "_kernels/long_rows.pxi"
include "_kernels/short_rows.pxi"
include "_kernels/channels_last.pxi"

HAS_OPENMP = bool(INSTNORM_HAS_OPENMP)
HAS_FMA = bool(HAS_FMA_INSTRUCTION)
HAS_SIMD = bool(HAS_VECTORS)
COMPILER = INSTNORM_COMPILER.decode()
BLOCK_SIZE = BLOCK
STREAM_BYTES = STREAM_ABOVE
STREAM_PIXELS_BYTES = STREAM_PIXELS_ABOVE


# ------------------------------------------------------------ Python entries

cdef Py_ssize_t l2_bytes = instnorm_l2_bytes()


cdef int new_job(Job *job, cnp.ndarray x, bint channels_last, double eps) except -1:
    """How to walk an array of shape (N, C, spatial...), or (N, spatial..., C). Its type number."""
    cdef int typenum = cnp.PyArray_TYPE(x), axes = cnp.PyArray_NDIM(x)
    if axes < 2:
        raise ValueError(f"x has {axes} axes, expected (N, C, spatial...)")
    if typenum not in (cnp.NPY_FLOAT, cnp.NPY_DOUBLE, cnp.NPY_FLOAT16, cnp.NPY_USHORT):
        raise TypeError(
            f"x has dtype {x.dtype}, expected float32, float64, float16, "
            "or uint16 for the bits of bfloat16"
        )
    job.channels_last = channels_last
    job.samples = cnp.PyArray_DIM(x, 0)
    job.channels = cnp.PyArray_DIM(x, axes - 1 if channels_last else 1)
    job.rows = job.samples * job.channels
    job.stride = cnp.PyArray_SIZE(x) // job.rows if job.rows else 0
    job.length = job.count = job.stride
    job.threads = threads_for(job.rows * job.length, SERIAL_BELOW)
    job.l2_bytes = l2_bytes
    # Whole rows would give some thread up to twice another's share: then share out blocks.
    job.split_rows = (
        job.threads > 1 and job.rows < ROWS_PER_THREAD * job.threads
        and job.rows % job.threads != 0 and job.length >= job.threads * BLOCK
    )
    job.in_place = False
    job.stream = False
    job.eps = eps
    job.exact = False
    job.through_statistics = True
    job.mean = NULL
    job.rstd = NULL
    job.sum_grad = NULL
    job.sum_product = NULL
    job.affine.weight = NULL
    job.affine.bias = NULL
    job.affine.weight_is_double = False
    job.affine.bias_is_double = False
    job.affine.size = job.channels
    job.has_epilogue = False
    job.residual = NULL
    job.grad_residual = NULL
    job.mask = NULL
    job.activation = NO_ACTIVATION
    job.slope = NULL
    job.slopes = 1
    job.from_output = False
    job.sum_slope = NULL
    return typenum


cdef inline void choose_streaming(Job *job, int arrays, Py_ssize_t itemsize) noexcept nogil:
    """Write past the caches where they do not hold so many arrays."""
    cdef Py_ssize_t nbytes = arrays * job.rows * job.stride * itemsize
    if job.in_place:
        job.stream = False
    elif job.channels_last:
        job.stream = nbytes >= STREAM_PIXELS_ABOVE
    else:
        job.stream = nbytes >= STREAM_ABOVE and job.stride * itemsize >= STREAM_ROW


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


cdef inline bint is_double(object array) noexcept:
    return isinstance(array, cnp.ndarray) and cnp.PyArray_TYPE(array) == cnp.NPY_DOUBLE


cdef const void *parameter(Job *job, object array, str name) except? NULL:
    """The address of a weight or bias, or NULL."""
    if array is None:
        return NULL
    return checked(
        array, name, cnp.NPY_DOUBLE if is_double(array) else cnp.NPY_FLOAT, job.affine.size, False
    )


cdef int set_affine(Job *job, object weight, object bias) except -1:
    """Weight and bias have one number for each channel, or both have one for each row."""
    for array in (weight, bias):
        if array is not None and cnp.PyArray_SIZE(array) == job.rows:
            job.affine.size = job.rows
    job.affine.weight = parameter(job, weight, "weight")
    job.affine.bias = parameter(job, bias, "bias")
    job.affine.weight_is_double = is_double(weight)
    job.affine.bias_is_double = is_double(bias)
    return 0


cdef int set_mask(Job *job, object mask) except -1:
    if mask is not None:
        job.mask = <const unsigned char *>checked(
            mask, "mask", cnp.NPY_BOOL, job.samples * job.stride, False
        )
        job.has_epilogue = True
    return 0


cdef int set_epilogue(
    Job *job, int typenum, object residual, object mask, int activation, object slope
) except -1:
    cdef Py_ssize_t size = job.rows * job.stride
    set_mask(job, mask)
    if residual is not None:
        job.residual = checked(residual, "residual", typenum, size, False)
        job.has_epilogue = True
    if not NO_ACTIVATION <= activation <= LEAKY_RELU:
        raise ValueError(f"activation is {activation}, expected one of the numbers from 0 to 2")
    job.activation = activation
    if activation == LEAKY_RELU:
        job.slopes = 1 if cnp.PyArray_SIZE(slope) == 1 else job.channels
        job.slope = <const double *>checked(slope, "slope", cnp.NPY_DOUBLE, job.slopes, False)
    if activation != NO_ACTIVATION:
        job.has_epilogue = True
    return 0


cdef int set_statistics(Job *job, object mean, object rstd, bint written) except -1:
    job.mean = <double *>checked(mean, "mean", cnp.NPY_DOUBLE, job.rows, written)
    job.rstd = <double *>checked(rstd, "rstd", cnp.NPY_DOUBLE, job.rows, written)
    return 0


# -------------------------------------------------------- which kernel, which type

cdef enum Task:
    FORWARD         # y, mean and rstd
    STATISTICS      # mean and rstd
    APPLY           # y from mean and rstd
    BACKWARD        # grad_input and the sums of the rows


cdef void run_span(
    Task task, const element *grad_output, const element *x, element *out, const Job *job,
    Py_ssize_t first, Py_ssize_t end, const row_kind *kind,
) noexcept nogil:
    """Rows from `first` up to `end`, all of the same length."""
    cdef bint backward = task == BACKWARD
    if task == APPLY:
        apply_rows(x, out, job, first, end, kind)
    # In a buffer, rows that are shorter than a vec would lie otherwise than their mask; and where
    # nothing counts, there is no element to put there.
    elif job.length == 0 or (job.mask != NULL and job.length < 8):
        if backward:
            exact_backward(grad_output, x, out, job, first, end, kind)
        else:
            exact_forward(x, out, job, first, end, kind)
    elif backward and job.length <= SHORT:
        backward_short(grad_output, x, out, job, first, end, kind)
    elif backward:
        backward_rows(grad_output, x, out, job, first, end, kind)
    elif job.length <= SHORT:
        forward_short(x, out, job, first, end, kind)
    else:
        forward_rows(x, out, job, first, end, kind)


cdef void clear_rows(
    element *out, const Job *job, Py_ssize_t first, Py_ssize_t end
) noexcept nogil:
    cdef Py_ssize_t row
    if out != NULL and job.length < job.stride:
        for row in range(first, end):
            clear_after(out + row * job.stride, job, 1)


cdef bint run_split(
    Task task, const element *grad_output, const element *x, element *out, const Job *job,
    Py_ssize_t first, Py_ssize_t end, const row_kind *kind,
) noexcept nogil:
    """As run_span, but that threads share each row that is long enough. False: no memory."""
    if job.length >= job.threads * BLOCK and task != APPLY:
        if task == BACKWARD:
            return backward_split_rows(grad_output, x, out, job, first, end, kind)
        return forward_split_rows(x, out, job, first, end, kind)
    run_span(task, grad_output, x, out, job, first, end, kind)
    return True


cdef bint run_rows(
    Task task, const element *grad_output, const element *x, element *out, const Job *job,
    Py_ssize_t first, Py_ssize_t end, bint split, const row_kind *kind,
) noexcept nogil:
    """Rows from `first` up to `end`; each sample has a mask of its own. False: no memory."""
    cdef Job of_sample = job[0]
    cdef Py_ssize_t start = first, next_sample
    cdef bint done = True
    if job.mask == NULL and not split:
        run_span(task, grad_output, x, out, job, first, end, kind)
        return True
    while start < end and done:
        next_sample = min(end, (start // job.channels + 1) * job.channels)
        take_mask(&of_sample, job, start // job.channels)
        if split:
            done = run_split(task, grad_output, x, out, &of_sample, start, next_sample, kind)
        else:
            run_span(task, grad_output, x, out, &of_sample, start, next_sample, kind)
        clear_rows(out, &of_sample, start, next_sample)
        clear_rows(<element *>job.grad_residual, &of_sample, start, next_sample)
        start = next_sample
    return done


cdef bint run_threads(
    Task task, const element *grad_output, const element *x, element *out, const Job *job,
    const row_kind *kind,
) noexcept nogil:
    """Rows, by all threads. False: no memory."""
    cdef int thread
    # A parallel loop, even of one thread, costs more than small rows do.
    if job.split_rows or job.threads == 1:
        return run_rows(
            task, grad_output, x, out, job, 0, job.rows, job.split_rows and task != APPLY, kind
        )
    for thread in prange(job.threads, num_threads=job.threads, schedule="static"):
        run_rows(
            task, grad_output, x, out, job, share(job.rows, job.threads, thread),
            share(job.rows, job.threads, thread + 1), False, kind,
        )
    return True


cdef inline bint just_activates(const Job *job) noexcept nogil:
    """Whether an activation is all of the epilogue."""
    return (
        job.activation != NO_ACTIVATION and job.residual == NULL and job.mask == NULL
        and job.grad_residual == NULL and not job.from_output
    )


cdef bint run_all(
    Task task, const element *grad_output, const element *x, element *out, Job *job
) noexcept nogil:
    """Choose the way to walk the array. False: no memory."""
    cdef bint given = task == APPLY
    job.in_place = out == x or out == grad_output or (out != NULL and out == job.residual)
    choose_streaming(job, 3 if task == BACKWARD else 2, sizeof(element))
    if job.channels_last:
        if just_activates(job):
            return channels_last(grad_output, x, out, job, given, <const pixel_activation *>NULL)
        if job.has_epilogue:
            return channels_last(grad_output, x, out, job, given, <const pixel_epilogue *>NULL)
        return channels_last(grad_output, x, out, job, given, <const no_epilogue *>NULL)
    if just_activates(job):
        return run_threads(task, grad_output, x, out, job, <const row_activation *>NULL)
    if job.has_epilogue:
        return run_threads(task, grad_output, x, out, job, <const row_epilogue *>NULL)
    return run_threads(task, grad_output, x, out, job, <const no_epilogue *>NULL)


cdef int run(
    Task task, int typenum, const void *grad_output, const void *x, void *out, Job *job
) except -1 nogil:
    cdef bint done
    if typenum == cnp.NPY_FLOAT:
        done = run_all(task, <const float *>grad_output, <const float *>x, <float *>out, job)
    elif typenum == cnp.NPY_DOUBLE:
        done = run_all(task, <const double *>grad_output, <const double *>x, <double *>out, job)
    elif typenum == cnp.NPY_FLOAT16:
        done = run_all(task, <const float16 *>grad_output, <const float16 *>x, <float16 *>out, job)
    else:
        done = run_all(
            task, <const bfloat16 *>grad_output, <const bfloat16 *>x, <bfloat16 *>out, job
        )
    if not done:
        with gil:
            raise MemoryError("no memory for the partial sums")
    return 0


# The epilogue of the entries below, see `_kernels/epilogue.hpp`:
#     residual      IN  as x, or None
#     mask          IN  (N, spatial...) bool, True where elements count, or None
#     activation    0: none, 1: ReLU, 2: leaky ReLU
#     slope         IN  (1,) or (C,) float64, of the leaky ReLU

def forward(
    cnp.ndarray x,          # IN  (N, C, spatial...), or (N, spatial..., C) if channels_last;
                            #     float32, float64, float16, or uint16: bits of bfloat16
    cnp.ndarray y,          # OUT as x; may be x, or residual
    weight,                 # IN  (C,) or (N, C) float32 or float64, or None
    bias,                   # IN  as weight
    cnp.ndarray mean,       # OUT (N, C) float64
    cnp.ndarray rstd,       # OUT (N, C) float64
    double eps,
    bint channels_last=False,
    residual=None,
    mask=None,
    int activation=0,
    slope=None,
):
    """Instance normalization of x into y by x's own statistics."""
    cdef Job job
    cdef int typenum = new_job(&job, x, channels_last, eps)
    cdef Py_ssize_t size = job.rows * job.stride
    cdef void *x_data = checked(x, "x", typenum, size, False)
    cdef void *y_data = checked(y, "y", typenum, size, True)
    set_affine(&job, weight, bias)
    set_statistics(&job, mean, rstd, True)
    set_epilogue(&job, typenum, residual, mask, activation, slope)
    if size == 0:
        return
    with nogil:
        run(FORWARD, typenum, NULL, x_data, y_data, &job)


def statistics(
    cnp.ndarray x,          # IN  as in forward
    cnp.ndarray mean,       # OUT (N, C) float64
    cnp.ndarray rstd,       # OUT (N, C) float64
    double eps,
    bint channels_last=False,
    mask=None,
    bint exact=False,       # to the last digits of double, and not the bits of forward
):
    """The mean and 1 / sqrt(var + eps) of each channel of each sample of x."""
    cdef Job job
    cdef int typenum = new_job(&job, x, channels_last, eps)
    cdef void *data = checked(x, "x", typenum, job.rows * job.stride, False)
    set_statistics(&job, mean, rstd, True)
    set_mask(&job, mask)
    job.exact = exact
    if job.rows * job.stride == 0:
        return
    with nogil:
        run(STATISTICS, typenum, NULL, data, NULL, &job)


def forward_given(
    cnp.ndarray x,          # IN  as in forward
    cnp.ndarray y,          # OUT as x; may be x, or residual
    weight,                 # IN  as in forward
    bias,                   # IN  as in forward
    cnp.ndarray mean,       # IN  (N, C) float64
    cnp.ndarray rstd,       # IN  (N, C) float64
    bint channels_last=False,
    residual=None,
    mask=None,
    int activation=0,
    slope=None,
):
    """Instance normalization of x into y by statistics that are given."""
    cdef Job job
    cdef int typenum = new_job(&job, x, channels_last, 0)
    cdef Py_ssize_t size = job.rows * job.stride
    cdef void *x_data = checked(x, "x", typenum, size, False)
    cdef void *y_data = checked(y, "y", typenum, size, True)
    set_affine(&job, weight, bias)
    set_statistics(&job, mean, rstd, False)
    set_epilogue(&job, typenum, residual, mask, activation, slope)
    if size == 0:
        return
    with nogil:
        run(APPLY, typenum, NULL, x_data, y_data, &job)


cdef int run_backward(
    int typenum, const void *grad_output, const void *x, void *grad_input,
    double *grad_weight,    # OUT as many as job.affine.size
    double *grad_bias,      # OUT as grad_weight
    double *grad_slope,     # OUT as many as job.slopes; NULL: not asked for
    Job *job,
) except -1:
    cdef Py_ssize_t row, i
    job.sum_grad = <double *>malloc(4 * job.rows * sizeof(double))
    if job.sum_grad == NULL:
        raise MemoryError("no memory for the sums of the rows")
    job.sum_product = job.sum_grad + job.rows
    job.offset = job.sum_product + job.rows
    if grad_slope != NULL:
        job.sum_slope = job.offset + job.rows
    try:
        with nogil:
            run(BACKWARD, typenum, grad_output, x, grad_input, job)
            for i in range(job.affine.size):
                grad_weight[i] = 0
                grad_bias[i] = 0
            for row in range(job.rows):
                i = row % job.affine.size
                grad_weight[i] += job.sum_product[row] * job.rstd[row]
                grad_bias[i] += job.sum_grad[row]
            if grad_slope != NULL:
                for i in range(job.slopes):
                    grad_slope[i] = 0
                for row in range(job.rows):
                    grad_slope[row % job.channels % job.slopes] += job.sum_slope[row]
    finally:
        free(job.sum_grad)
    return 0


def backward(
    cnp.ndarray grad_output,    # IN  as in forward
    cnp.ndarray x,              # IN  as grad_output
    cnp.ndarray grad_input,     # OUT as grad_output; may be grad_output or x
    weight,                     # IN  (C,) or (N, C) float32 or float64, or None
    cnp.ndarray mean,           # IN  (N, C) float64
    cnp.ndarray rstd,           # IN  (N, C) float64
    cnp.ndarray grad_weight,    # OUT (C,) or, with such a weight or bias, (N, C) float64
    cnp.ndarray grad_bias,      # OUT as grad_weight
    bint through_statistics,    # whether mean and rstd are x's own
    bint channels_last=False,
    bias=None,                  # IN  as weight; for the sign of what the activation was applied to
    residual=None,
    mask=None,
    int activation=0,
    slope=None,
    grad_residual=None,         # OUT as grad_output, or None: not asked for
    grad_slope=None,            # OUT as slope, or None: not asked for
    bint from_output=False,     # x is the output: mean is to be the bias,
                                #     rstd 1 / weight, and weight the square of it times rstd
):
    """Gradients of instance normalization for the input, the weight and the bias."""
    cdef Job job
    cdef int typenum = new_job(&job, x, channels_last, 0)
    cdef Py_ssize_t size = job.rows * job.stride
    cdef void *x_data = checked(x, "x", typenum, size, False)
    cdef void *g_data = checked(grad_output, "grad_output", typenum, size, False)
    cdef void *d_data = checked(grad_input, "grad_input", typenum, size, True)
    cdef double *gw_data
    cdef double *gb_data
    cdef double *gs_data = NULL
    set_affine(&job, weight, bias)
    gw_data = <double *>checked(grad_weight, "grad_weight", cnp.NPY_DOUBLE, job.affine.size, True)
    gb_data = <double *>checked(grad_bias, "grad_bias", cnp.NPY_DOUBLE, job.affine.size, True)
    set_statistics(&job, mean, rstd, False)
    set_epilogue(&job, typenum, residual, mask, activation, slope)
    job.through_statistics = through_statistics
    job.from_output = from_output
    if grad_residual is not None:
        job.grad_residual = checked(grad_residual, "grad_residual", typenum, size, True)
        job.has_epilogue = True
    if grad_slope is not None:
        gs_data = <double *>checked(grad_slope, "grad_slope", cnp.NPY_DOUBLE, job.slopes, True)
    if size == 0:
        for gradient in (grad_weight, grad_bias, grad_slope):
            if gradient is not None:
                gradient.fill(0)
        return
    run_backward(typenum, g_data, x_data, d_data, gw_data, gb_data, gs_data, &job)


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


cdef inline cnp.ndarray new_like(cnp.ndarray array, int axes, int typenum):
    """A C-contiguous array of the leading axes of another one's shape."""
    return cnp.PyArray_EMPTY(axes, cnp.PyArray_DIMS(array), typenum, 0)


cdef inline cnp.ndarray new_in_layout_of(cnp.ndarray array):
    """An array of another one's shape, dtype and memory layout."""
    if is_rows(array):
        return new_like(array, cnp.PyArray_NDIM(array), cnp.PyArray_TYPE(array))
    return PyArray_NewLikeArray(array, cnp.NPY_KEEPORDER, NULL, 0)


def forward_small(x, weight, bias, eps, bint return_stats):
    """y, or (y, mean, rstd), as new arrays; None where the arguments are not small and plain.

    The checks are those that most callers pass. Whoever gets None finds out what is wrong.
    """
    cdef cnp.ndarray y, mean = None, rstd = None
    cdef double few[2 * FEW]
    cdef Job job
    cdef int typenum
    if not is_small(x) or type(eps) is not float or not 0 <= <double>eps <= 1e300:
        return None
    # Memory that is both is walked as rows, as `_layouts.walk_of` would have it.
    typenum = new_job(&job, x, False, <double>eps)
    job.channels_last = not is_rows(x)
    if not is_parameter(weight, job.channels) or not is_parameter(bias, job.channels):
        return None
    set_affine(&job, weight, bias)
    job.mean = few
    job.rstd = few + FEW
    y = new_in_layout_of(x)
    if return_stats or job.rows > FEW:
        mean = new_like(x, 2, cnp.NPY_DOUBLE)
        rstd = new_like(x, 2, cnp.NPY_DOUBLE)
        job.mean = <double *>cnp.PyArray_DATA(mean)
        job.rstd = <double *>cnp.PyArray_DATA(rstd)
    run(FORWARD, typenum, NULL, cnp.PyArray_DATA(x), cnp.PyArray_DATA(y), &job)
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


cdef inline bint is_statistic(object array, const Job *job) noexcept:
    """Whether this is a plain, contiguous float64 array of shape (N, C)."""
    return (
        is_plain(array, cnp.NPY_DOUBLE)
        and is_rows(array)
        and cnp.PyArray_NDIM(<cnp.ndarray>array) == 2
        and cnp.PyArray_DIM(<cnp.ndarray>array, 0) == job.samples
        and cnp.PyArray_DIM(<cnp.ndarray>array, 1) == job.channels
    )


def backward_small(grad_output, x, weight, mean, rstd, bint through_statistics):
    """(grad_input, grad_weight, grad_bias) as new arrays; None as forward_small."""
    cdef cnp.ndarray grad_input, grad_weight, grad_bias
    cdef Job job
    cdef cnp.npy_intp channels
    cdef int typenum, parameter_type
    if not is_small(x) or not is_plain(grad_output, cnp.PyArray_TYPE(<cnp.ndarray>x)):
        return None
    if not cnp.PyArray_SAMESHAPE(<cnp.ndarray>x, <cnp.ndarray>grad_output):
        return None
    typenum = new_job(&job, x, False, 0)
    job.channels_last = not is_rows(x)
    if not (is_channels_last(grad_output) if job.channels_last else is_rows(grad_output)):
        return None
    if not is_parameter(weight, job.channels):
        return None
    if not is_statistic(mean, &job) or not is_statistic(rstd, &job):
        return None
    set_affine(&job, weight, None)
    set_statistics(&job, mean, rstd, False)
    job.through_statistics = through_statistics
    parameter_type = cnp.PyArray_TYPE(<cnp.ndarray>(x if weight is None else weight))
    grad_input = new_in_layout_of(x)
    channels = job.channels
    grad_weight = cnp.PyArray_EMPTY(1, &channels, cnp.NPY_DOUBLE, 0)
    grad_bias = cnp.PyArray_EMPTY(1, &channels, cnp.NPY_DOUBLE, 0)
    run_backward(
        typenum, cnp.PyArray_DATA(grad_output), cnp.PyArray_DATA(x),
        cnp.PyArray_DATA(grad_input), <double *>cnp.PyArray_DATA(grad_weight),
        <double *>cnp.PyArray_DATA(grad_bias), NULL, &job,
    )
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
    counts=None,            # IN  (N,) int64: so many where that differs, or None
):
    """Take in the statistics of a batch; False where the running ones are not plain arrays."""
    cdef Py_ssize_t samples = cnp.PyArray_DIM(mean, 0), channels = cnp.PyArray_DIM(mean, 1)
    cdef Py_ssize_t n, c
    cdef double sum_mean, sum_var, var, unbiased = <double>length / (length - 1)
    cdef cnp.int64_t *count = NULL
    cdef double *means = <double *>checked(mean, "mean", cnp.NPY_DOUBLE, samples * channels, False)
    cdef double *rstds = <double *>checked(rstd, "rstd", cnp.NPY_DOUBLE, samples * channels, False)
    if counts is not None:
        count = <cnp.int64_t *>checked(counts, "counts", cnp.NPY_INT64, samples, False)
        unbiased = 1
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
                if count != NULL:
                    var *= <double>count[n] / (count[n] - 1)
                sum_var += 0 if var < 0 else var
        blend(running_mean, c, momentum, sum_mean / samples)
        blend(running_var, c, momentum, sum_var / samples * unbiased)
    return True
