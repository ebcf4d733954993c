# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=False
# distutils: language = c++
"""What Python calls of the compiled loops of the other layers: convolution, pooling, activations.

The loops are in the headers of `_layer_kernels/`; here are the checks of what would be a memory
error, and the threads. The same source is compiled once for each SIMD level, as `_core.pyx` is.
"""

cimport numpy as cnp
from cython.parallel cimport prange

cnp.import_array()

cdef extern from "_layer_kernels/convolution.hpp" namespace "instnorm" nogil:
    cdef struct Axis:
        Py_ssize_t kernel, stride, dilation, padding, large, small

    cdef cppclass Images[T]:
        T *data
        Py_ssize_t sample, channel
        Py_ssize_t axis[3]

    cdef struct Convolution:
        Axis axis[3]
        Py_ssize_t samples, groups, large_channels, small_channels

    cdef cppclass Convolver[T]:
        Convolver(
            Convolution, bint to_small, Images[T] source, const T *weight, const T *bias,
            Images[T] result,
        ) except +
        Py_ssize_t units()
        bint run(Py_ssize_t unit) noexcept

    cdef cppclass WeightGradient[T]:
        WeightGradient(
            Convolution, Images[T] large, Images[T] small, T *grad_weight, T *grad_bias
        ) except +
        Py_ssize_t parts()
        bint run(Py_ssize_t part) noexcept
        void finish() noexcept

ctypedef fused real:
    float
    double


# ------------------------------------------------------------ threads

cdef int thread_count = 1
cdef bint threads_allowed = True

cdef enum:
    # Products, or elements, below which a team of threads costs more than it gives.
    SERIAL_PRODUCTS = 400000
    SERIAL_ELEMENTS = 65536


def set_num_threads(int n):
    """Use at most n threads in the calls that follow."""
    global thread_count
    thread_count = n


def forbid_threads():
    """Stay on the calling thread from now on: in a forked child, libgomp would hang."""
    global threads_allowed
    threads_allowed = False


cdef inline int threads_for(double work, double least) noexcept nogil:
    return thread_count if threads_allowed and work >= least else 1


# ------------------------------------------------------------ arrays

cdef int check(cnp.ndarray array, str name, int typenum, int axes, bint written) except -1:
    if cnp.PyArray_TYPE(array) != typenum:
        raise TypeError(f"{name} has dtype {array.dtype}, which does not fit the other arrays")
    if axes and cnp.PyArray_NDIM(array) != axes:
        raise ValueError(f"{name} has {array.ndim} axes, expected {axes}")
    if not cnp.PyArray_ISALIGNED(array):
        raise ValueError(f"{name} must be aligned")
    if written and not cnp.PyArray_ISWRITEABLE(array):
        raise ValueError(f"{name} must be writeable")
    return 0


cdef Images[real] images(const real *like, cnp.ndarray array) noexcept:
    """How to walk (N, C, spatial...), as three spatial axes."""
    cdef Images[real] result
    cdef int d, axes = cnp.PyArray_NDIM(array) - 2
    result.data = <real *>cnp.PyArray_DATA(array)
    result.sample = cnp.PyArray_STRIDE(array, 0) // <Py_ssize_t>sizeof(real)
    result.channel = cnp.PyArray_STRIDE(array, 1) // <Py_ssize_t>sizeof(real)
    for d in range(3):
        result.axis[d] = 0
    for d in range(axes):
        result.axis[3 - axes + d] = (
            cnp.PyArray_STRIDE(array, 2 + d) // <Py_ssize_t>sizeof(real)
        )
    return result


cdef Convolution convolution(
    cnp.ndarray large, cnp.ndarray small, cnp.ndarray weight, tuple window, Py_ssize_t groups
) except *:
    """The geometry; `window` is (stride, dilation, padding) of each spatial axis."""
    cdef Convolution c
    cdef int d, i, axes = cnp.PyArray_NDIM(large) - 2
    if len(window) != 3 * axes or not 1 <= axes <= 3:
        raise ValueError(f"window has {len(window)} numbers, expected 3 for each of {axes} axes")
    c.samples = cnp.PyArray_DIM(large, 0)
    c.groups = groups
    c.large_channels = cnp.PyArray_DIM(weight, 1)
    c.small_channels = cnp.PyArray_DIM(weight, 0) // groups
    if (
        cnp.PyArray_DIM(small, 0) != c.samples
        or cnp.PyArray_DIM(large, 1) != c.large_channels * groups
        or cnp.PyArray_DIM(small, 1) != c.small_channels * groups
        or cnp.PyArray_DIM(weight, 0) != c.small_channels * groups
    ):
        raise ValueError("the arrays' samples and channels do not fit each other")
    for d in range(3):
        i = d - (3 - axes)
        if i < 0:
            c.axis[d].kernel = c.axis[d].stride = c.axis[d].dilation = 1
            c.axis[d].large = c.axis[d].small = 1
            c.axis[d].padding = 0
            continue
        c.axis[d].kernel = cnp.PyArray_DIM(weight, 2 + i)
        c.axis[d].stride = window[3 * i]
        c.axis[d].dilation = window[3 * i + 1]
        c.axis[d].padding = window[3 * i + 2]
        c.axis[d].large = cnp.PyArray_DIM(large, 2 + i)
        c.axis[d].small = cnp.PyArray_DIM(small, 2 + i)
        if (
            c.axis[d].kernel < 1 or c.axis[d].stride < 1 or c.axis[d].dilation < 1
            or c.axis[d].padding < 0
        ):
            raise ValueError(f"window {window} has a number that is too small")
    return c


cdef double products(cnp.ndarray small, cnp.ndarray weight) noexcept:
    """Multiplications of a convolution, about."""
    cdef double filters = cnp.PyArray_DIM(weight, 0)
    if filters == 0:
        return 0
    return <double>cnp.PyArray_SIZE(small) * (<double>cnp.PyArray_SIZE(weight) / filters)


cdef bint run_convolver(
    const real *like, Convolution c, bint to_small, cnp.ndarray source, cnp.ndarray weight, bias,
    cnp.ndarray result, int threads,
) except -1:
    cdef const real *bias_data = NULL
    if bias is not None:
        bias_data = <const real *>cnp.PyArray_DATA(bias)
    cdef Convolver[real] *convolver = new Convolver[real](
        c, to_small, images(like, source), <const real *>cnp.PyArray_DATA(weight), bias_data,
        images(like, result),
    )
    cdef Py_ssize_t i, units = convolver.units(), failed = 0
    with nogil:
        if threads == 1 or units == 1:
            for i in range(units):
                failed += not convolver.run(i)
        else:
            for i in prange(units, num_threads=threads, schedule="static"):
                failed += not convolver.run(i)
    del convolver
    if failed:
        raise MemoryError("no memory for the convolution's grid")
    return True


def convolve(
    cnp.ndarray source,     # IN  (N, C, spatial...) float32 or float64, any strides
    cnp.ndarray weight,     # IN  (small channels, large channels / groups, window...), contiguous
    bias,                   # IN  (channels of the result,), contiguous, or None
    cnp.ndarray result,     # OUT (N, C', spatial...), any strides
    tuple window,           # (stride, dilation, padding) of each spatial axis
    Py_ssize_t groups,
    bint adjoint=False,     # source is what the convolution gives, result is as its input
):
    """Convolution of the source, or the adjoint of that."""
    cdef int typenum = cnp.PyArray_TYPE(source), axes = cnp.PyArray_NDIM(source)
    cdef cnp.ndarray large = result if adjoint else source
    cdef cnp.ndarray small = source if adjoint else result
    check(source, "source", typenum, axes, False)
    check(weight, "weight", typenum, axes, False)
    check(result, "result", typenum, axes, True)
    if not cnp.PyArray_ISCARRAY_RO(weight):
        raise ValueError("weight must be C-contiguous")
    cdef Convolution c = convolution(large, small, weight, window, groups)
    if bias is not None:
        check(bias, "bias", typenum, 1, False)
        if not cnp.PyArray_ISCARRAY_RO(bias) or len(bias) != cnp.PyArray_DIM(result, 1):
            raise ValueError("bias must be contiguous and have a number for each channel")
    if cnp.PyArray_SIZE(result) == 0:
        return
    cdef int threads = threads_for(products(small, weight), SERIAL_PRODUCTS)
    if typenum == cnp.NPY_FLOAT:
        run_convolver(<const float *>NULL, c, not adjoint, source, weight, bias, result, threads)
    elif typenum == cnp.NPY_DOUBLE:
        run_convolver(<const double *>NULL, c, not adjoint, source, weight, bias, result, threads)
    else:
        raise TypeError(f"source has dtype {source.dtype}, expected float32 or float64")


cdef bint run_weight_gradient(
    const real *like, Convolution c, cnp.ndarray large, cnp.ndarray small, cnp.ndarray grad_weight,
    grad_bias, int threads,
) except -1:
    cdef real *bias_data = NULL
    if grad_bias is not None:
        bias_data = <real *>cnp.PyArray_DATA(grad_bias)
    cdef WeightGradient[real] *gradient = new WeightGradient[real](
        c, images(like, large), images(like, small), <real *>cnp.PyArray_DATA(grad_weight),
        bias_data,
    )
    cdef Py_ssize_t i, parts = gradient.parts(), failed = 0
    with nogil:
        if threads == 1 or parts == 1:
            for i in range(parts):
                failed += not gradient.run(i)
        else:
            for i in prange(parts, num_threads=threads, schedule="static"):
                failed += not gradient.run(i)
        if not failed:
            gradient.finish()
    del gradient
    if failed:
        raise MemoryError("no memory for the convolution's grid")
    return True


def weight_gradient(
    cnp.ndarray large,          # IN  (N, C, spatial...), what the convolution takes
    cnp.ndarray small,          # IN  (N, C', spatial...), the gradient of what it gives
    cnp.ndarray grad_weight,    # OUT (C', C / groups, window...), contiguous
    grad_bias,                  # OUT (C',), contiguous, or None
    tuple window,               # (stride, dilation, padding) of each spatial axis
    Py_ssize_t groups,
):
    """The gradients of a convolution's weight and bias; bitwise the same for any threads."""
    cdef int typenum = cnp.PyArray_TYPE(large), axes = cnp.PyArray_NDIM(large)
    check(large, "large", typenum, axes, False)
    check(small, "small", typenum, axes, False)
    check(grad_weight, "grad_weight", typenum, axes, True)
    if not cnp.PyArray_ISCARRAY(grad_weight):
        raise ValueError("grad_weight must be C-contiguous")
    cdef Convolution c = convolution(large, small, grad_weight, window, groups)
    if grad_bias is not None:
        check(grad_bias, "grad_bias", typenum, 1, True)
        if not cnp.PyArray_ISCARRAY(grad_bias) or len(grad_bias) != cnp.PyArray_DIM(small, 1):
            raise ValueError("grad_bias must be contiguous and have a number for each channel")
    if cnp.PyArray_SIZE(small) == 0 or cnp.PyArray_SIZE(large) == 0:
        grad_weight.fill(0)
        if grad_bias is not None:
            grad_bias.fill(0)
        return
    cdef int threads = threads_for(products(small, grad_weight), SERIAL_PRODUCTS)
    if typenum == cnp.NPY_FLOAT:
        run_weight_gradient(<const float *>NULL, c, large, small, grad_weight, grad_bias, threads)
    elif typenum == cnp.NPY_DOUBLE:
        run_weight_gradient(<const double *>NULL, c, large, small, grad_weight, grad_bias, threads)
    else:
        raise TypeError(f"large has dtype {large.dtype}, expected float32 or float64")
