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

cdef extern from "_kernels/machine.hpp" nogil:
    const int INSTNORM_HAS_OPENMP

cdef extern from "_layer_kernels/work.hpp" namespace "instnorm" nogil:
    # What is done in units that know nothing of each other. False: no memory.
    cdef cppclass Work:
        Py_ssize_t units()
        bint run(Py_ssize_t unit) noexcept

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

    cdef cppclass Convolver[T](Work):
        Convolver(
            Convolution, bint to_small, Images[T] source, const T *weight, const T *bias,
            Images[T] result,
        ) except +

    cdef cppclass WeightGradient[T](Work):
        WeightGradient(
            Convolution, Images[T] large, Images[T] small, T *grad_weight, T *grad_bias
        ) except +
        void finish() noexcept

ctypedef fused real:
    float
    double


# ------------------------------------------------------------ threads

include "_runtime/threads.pxi"

cdef enum:
    # Products, or elements, below which one thread does the work: some 80 us of it. An idle team
    # is there within 2 us; but where other programs run beside, a thread of it may be without a
    # processor for milliseconds, and a step of a small net would wait for that in every layer.
    SERIAL_PRODUCTS = 4000000
    SERIAL_ELEMENTS = 262144


cdef bint run_all(Work *work, int threads) except -1:
    """All units of some work, which threads share."""
    cdef Py_ssize_t i, units = work.units(), failed = 0
    with nogil:
        if threads == 1 or units == 1:
            for i in range(units):
                failed += not work.run(i)
        else:
            for i in prange(units, num_threads=threads, schedule="static"):
                failed += not work.run(i)
    if failed:
        raise MemoryError("no memory for what a layer's loops put side by side")
    return True


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
    try:
        run_all(convolver, threads)
    finally:
        del convolver
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
    try:
        run_all(gradient, threads)
        with nogil:
            gradient.finish()
    finally:
        del gradient
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


# ------------------------------------------------------------ products of matrices

cdef extern from "_layer_kernels/product.hpp" namespace "instnorm" nogil:
    cdef cppclass Matrix[T]:
        T *data
        Py_ssize_t row, column, batch

    cdef cppclass Product[T](Work):
        Product(
            Matrix[T] a, Matrix[T] b, const T *bias, Matrix[T] out, Py_ssize_t rows,
            Py_ssize_t depth, Py_ssize_t columns, Py_ssize_t batch,
        )


cdef Matrix[real] matrix(const real *like, cnp.ndarray array) noexcept:
    cdef Matrix[real] result
    cdef int axes = cnp.PyArray_NDIM(array)
    result.data = <real *>cnp.PyArray_DATA(array)
    result.row = cnp.PyArray_STRIDE(array, axes - 2) // <Py_ssize_t>sizeof(real)
    result.column = cnp.PyArray_STRIDE(array, axes - 1) // <Py_ssize_t>sizeof(real)
    result.batch = 0
    if axes == 3:
        result.batch = cnp.PyArray_STRIDE(array, 0) // <Py_ssize_t>sizeof(real)
    return result


cdef bint run_product(
    const real *like, cnp.ndarray a, cnp.ndarray b, cnp.ndarray bias, cnp.ndarray out, int threads
) except -1:
    cdef const real *bias_data = NULL
    cdef int axes = cnp.PyArray_NDIM(out)
    if bias is not None:
        bias_data = <const real *>cnp.PyArray_DATA(bias)
    cdef Product[real] *product = new Product[real](
        matrix(like, a), matrix(like, b), bias_data, matrix(like, out),
        cnp.PyArray_DIM(out, axes - 2), cnp.PyArray_DIM(a, axes - 1),
        cnp.PyArray_DIM(out, axes - 1), cnp.PyArray_DIM(out, 0) if axes == 3 else 1,
    )
    try:
        run_all(product, threads)
    finally:
        del product
    return True


def multiply(
    cnp.ndarray a,          # IN  (M, K) or (B, M, K) float32 or float64, any strides
    cnp.ndarray b,          # IN  (K, N) or (B, K, N)
    cnp.ndarray bias,       # IN  (M,) contiguous, added to each column; or None
    cnp.ndarray out,        # OUT (M, N) or (B, M, N), any strides
):
    """out = a @ b + bias[:, None]."""
    cdef int typenum = cnp.PyArray_TYPE(out), axes = cnp.PyArray_NDIM(out)
    cdef Py_ssize_t rows, columns, depth
    check(a, "a", typenum, axes, False)
    check(b, "b", typenum, axes, False)
    check(out, "out", typenum, axes, True)
    if axes != 2 and axes != 3:
        raise ValueError(f"out has {axes} axes, expected 2 or 3")
    rows, columns = cnp.PyArray_DIM(out, axes - 2), cnp.PyArray_DIM(out, axes - 1)
    depth = cnp.PyArray_DIM(a, axes - 1)
    if (
        cnp.PyArray_DIM(a, axes - 2) != rows or cnp.PyArray_DIM(b, axes - 2) != depth
        or cnp.PyArray_DIM(b, axes - 1) != columns
        or axes == 3 and not (
            cnp.PyArray_DIM(a, 0) == cnp.PyArray_DIM(b, 0) == cnp.PyArray_DIM(out, 0)
        )
    ):
        raise ValueError("the shapes of a, b and out do not fit each other")
    if bias is not None:
        check(bias, "bias", typenum, 1, False)
        if not cnp.PyArray_ISCARRAY_RO(bias) or cnp.PyArray_DIM(bias, 0) != rows:
            raise ValueError("bias must be contiguous and have a number for each row")
    if cnp.PyArray_SIZE(out) == 0:
        return
    cdef int threads = threads_for(<double>cnp.PyArray_SIZE(out) * depth, SERIAL_PRODUCTS)
    if typenum == cnp.NPY_FLOAT:
        run_product(<const float *>NULL, a, b, bias, out, threads)
    elif typenum == cnp.NPY_DOUBLE:
        run_product(<const double *>NULL, a, b, bias, out, threads)
    else:
        raise TypeError(f"out has dtype {out.dtype}, expected float32 or float64")


# ------------------------------------------------------------ pooling and other places

cdef extern from "_layer_kernels/pooling.hpp" namespace "instnorm" nogil:
    cdef cppclass Planes[T]:
        T *data
        Py_ssize_t sample, channel, step

    cdef struct Pooling:
        Axis axis[3]
        Py_ssize_t samples, channels

    cdef struct Range:
        Py_ssize_t low, high, count

    void largest[T](const Pooling &p, Planes[T] x, Planes[T] y, Planes[int] winners, Py_ssize_t i)
    void pick[T](const Pooling &p, Planes[T] x, Planes[int] winners, Planes[T] y, Py_ssize_t i)
    void put[T](const Pooling &p, Planes[T] y, Planes[int] winners, Planes[T] x, Py_ssize_t i)
    void mean[T](const Pooling &p, const Range *ranges, Planes[T] x, Planes[T] y, Py_ssize_t i)
    void spread[T](const Pooling &p, const Range *ranges, Planes[T] y, Planes[T] x, Py_ssize_t i)
    void take[T](const Pooling &p, const int *places, Planes[T] x, Planes[T] y, Py_ssize_t i)
    void give_back[T](const Pooling &p, const int *places, Planes[T] y, Planes[T] x, Py_ssize_t i)

cdef enum PlaneTask:
    LARGEST, PICK, PUT, MEAN, SPREAD, TAKE, GIVE_BACK

TASKS = {
    "largest": LARGEST, "pick": PICK, "put": PUT, "mean": MEAN, "spread": SPREAD, "take": TAKE,
    "give_back": GIVE_BACK,
}

ctypedef fused pooled:
    float
    double
    int


cdef Planes[pooled] planes(const pooled *like, cnp.ndarray array, str name) except *:
    """How to walk (N, C, spatial...), whose spatial axes have to lie densely."""
    cdef Planes[pooled] result
    cdef int d, axes = cnp.PyArray_NDIM(array)
    cdef Py_ssize_t step = 0, expected = 0
    for d in range(axes - 1, 1, -1):
        if cnp.PyArray_DIM(array, d) == 1:
            continue
        if step == 0:
            step = expected = cnp.PyArray_STRIDE(array, d)
        if cnp.PyArray_STRIDE(array, d) != expected:
            raise ValueError(f"the spatial axes of {name} must lie densely in memory")
        expected *= cnp.PyArray_DIM(array, d)
    result.data = <pooled *>cnp.PyArray_DATA(array)
    result.sample = cnp.PyArray_STRIDE(array, 0) // <Py_ssize_t>sizeof(pooled)
    result.channel = cnp.PyArray_STRIDE(array, 1) // <Py_ssize_t>sizeof(pooled)
    result.step = step // <Py_ssize_t>sizeof(pooled) if step else 1
    return result


cdef void run_plane(
    PlaneTask task, const Pooling &p, Planes[real] x, Planes[real] y, Planes[int] winners,
    const void *table, Py_ssize_t i,
) noexcept nogil:
    if task == LARGEST:
        largest(p, x, y, winners, i)
    elif task == PICK:
        pick(p, x, winners, y, i)
    elif task == PUT:
        put(p, y, winners, x, i)
    elif task == MEAN:
        mean(p, <const Range *>table, x, y, i)
    elif task == SPREAD:
        spread(p, <const Range *>table, y, x, i)
    elif task == TAKE:
        take(p, <const int *>table, x, y, i)
    else:
        give_back(p, <const int *>table, y, x, i)


cdef bint run_planes(
    const real *like, PlaneTask task, Pooling p, cnp.ndarray large, cnp.ndarray small,
    cnp.ndarray extra, int threads,
) except -1:
    cdef Planes[real] x = planes(like, large, "large"), y = planes(like, small, "small")
    cdef Planes[int] winners
    cdef void *table = NULL
    cdef Py_ssize_t i, count = p.samples * p.channels
    winners.data = NULL
    if extra is not None:
        table = cnp.PyArray_DATA(extra)
        if task <= PUT:
            winners = planes(<const int *>NULL, extra, "winners")
    with nogil:
        if threads == 1:
            for i in range(count):
                run_plane(task, p, x, y, winners, table, i)
        else:
            for i in prange(count, num_threads=threads, schedule="static"):
                run_plane(task, p, x, y, winners, table, i)
    return True


def pool(
    str task,               # a key of TASKS
    cnp.ndarray large,      # (N, C, spatial...) float32 or float64; OUT of put, spread, give_back
    cnp.ndarray small,      # (N, C, spatial...) as large; OUT of largest, pick, mean, take
    cnp.ndarray extra,      # of largest (OUT), pick, put (IN): as small, int32: where in its plane
                            #   of large the largest element of a window is; None: not wanted.
                            # of mean, spread: IN (spatial, 3) intp: low, high, count of the places
                            #   of each axis. of take, give_back: IN int32: the places of each axis
    tuple window=(),        # of largest: (kernel, stride, dilation, padding) of each spatial axis
):
    """Pool planes, or take their elements from other places; or the adjoint of that."""
    cdef int typenum = cnp.PyArray_TYPE(large), axes = cnp.PyArray_NDIM(large), d, i
    cdef PlaneTask number = TASKS[task]
    cdef bint to_small = number == LARGEST or number == PICK or number == MEAN or number == TAKE
    cdef Pooling p
    cdef Py_ssize_t places = 0
    check(large, "large", typenum, axes, not to_small)
    check(small, "small", typenum, axes, to_small)
    if not 3 <= axes <= 5 or len(window) != (4 * (axes - 2) if number == LARGEST else 0):
        raise ValueError(f"large has {axes} axes, window {len(window)} numbers, which do not fit")
    p.samples = cnp.PyArray_DIM(large, 0)
    p.channels = cnp.PyArray_DIM(large, 1)
    if cnp.PyArray_DIM(small, 0) != p.samples or cnp.PyArray_DIM(small, 1) != p.channels:
        raise ValueError("large and small must have the same samples and channels")
    for d in range(3):
        i = d - (5 - axes)
        p.axis[d].kernel = p.axis[d].stride = p.axis[d].dilation = 1
        p.axis[d].large = p.axis[d].small = 1
        p.axis[d].padding = 0
        if i >= 0:
            p.axis[d].large = cnp.PyArray_DIM(large, 2 + i)
            p.axis[d].small = cnp.PyArray_DIM(small, 2 + i)
            if number == LARGEST:
                p.axis[d].kernel, p.axis[d].stride = window[4 * i], window[4 * i + 1]
                p.axis[d].dilation, p.axis[d].padding = window[4 * i + 2], window[4 * i + 3]
        places += p.axis[d].small
    if cnp.PyArray_SIZE(large) == 0 or cnp.PyArray_SIZE(small) == 0:
        return
    if extra is not None and number <= PUT:
        check(extra, "extra", cnp.NPY_INT32, axes, number == LARGEST)
        if cnp.PyArray_SIZE(extra) != cnp.PyArray_SIZE(small):
            raise ValueError("winners must have the shape of small")
    elif extra is not None or number != LARGEST:
        check(extra, "extra", cnp.NPY_INT32 if number >= TAKE else cnp.NPY_INTP, 0, False)
        if (
            not cnp.PyArray_ISCARRAY_RO(extra)
            or cnp.PyArray_SIZE(extra) != places * (1 if number >= TAKE else 3)
        ):
            raise ValueError(f"extra must be contiguous, of {places} places")
    cdef int threads = threads_for(
        <double>cnp.PyArray_SIZE(large) + cnp.PyArray_SIZE(small), SERIAL_ELEMENTS
    )
    if typenum == cnp.NPY_FLOAT:
        run_planes(<const float *>NULL, number, p, large, small, extra, threads)
    elif typenum == cnp.NPY_DOUBLE:
        run_planes(<const double *>NULL, number, p, large, small, extra, threads)
    else:
        raise TypeError(f"large has dtype {large.dtype}, expected float32 or float64")


# ------------------------------------------------------------ element by element

cdef extern from "_layer_kernels/elementwise.hpp" namespace "instnorm" nogil:
    void rectify[T](const T *x, T *y, T slope, Py_ssize_t n)
    void rectify_gradient[T](const T *g, const T *x, T *out, T slope, Py_ssize_t n)
    void tanh_gradient[T](const T *g, const T *y, T *out, Py_ssize_t n)
    void sigmoid_gradient[T](const T *g, const T *y, T *out, Py_ssize_t n)
    void add_arrays "instnorm::add"[T](const T *a, const T *b, T *out, Py_ssize_t n)
    double sum_of_errors[T](const T *a, const T *b, bint squared, Py_ssize_t n)
    void error_gradient[T](
        const T *a, const T *b, T *out, T scale, bint squared, Py_ssize_t n
    )
    double cross_entropy_of "instnorm::cross_entropy"[T](
        const T *scores, const long long *labels, long long ignored, T *p, Py_ssize_t rows,
        Py_ssize_t classes
    )
    void gradient_of_cross_entropy "instnorm::cross_entropy_gradient"[T](
        const T *p, const long long *labels, long long ignored, T scale, T *out, Py_ssize_t rows,
        Py_ssize_t classes
    )
    cdef struct Descent:
        double lr, momentum, dampening, weight_decay
        bint nesterov, maximize
    void descend[T](
        T *parameter, const T *gradient, T *buffer, bint first, const Descent &o, Py_ssize_t n
    )

cdef enum ElementTask:
    ADD, RECTIFY, RECTIFY_GRADIENT, TANH_GRADIENT, SIGMOID_GRADIENT, ABSOLUTE_GRADIENT
    SQUARE_GRADIENT

ELEMENT_TASKS = {
    "add": ADD, "rectify": RECTIFY, "rectify_gradient": RECTIFY_GRADIENT,
    "tanh_gradient": TANH_GRADIENT, "sigmoid_gradient": SIGMOID_GRADIENT,
    "absolute_gradient": ABSOLUTE_GRADIENT, "square_gradient": SQUARE_GRADIENT,
}


cdef bint is_dense(cnp.ndarray a) noexcept:
    """Whether memory has no gaps, in some order of the axes."""
    if cnp.PyArray_ISCARRAY_RO(a):
        return True
    cdef int axes = cnp.PyArray_NDIM(a), d, found
    cdef Py_ssize_t expected = cnp.PyArray_ITEMSIZE(a)
    cdef unsigned int left = (1u << axes) - 1
    if axes > 16 or not cnp.PyArray_ISALIGNED(a):
        return False
    while left:
        found = -1
        for d in range(axes):
            if left >> d & 1 and (
                cnp.PyArray_DIM(a, d) == 1 or cnp.PyArray_STRIDE(a, d) == expected
            ):
                found = d
                break
        if found < 0:
            return False
        if cnp.PyArray_DIM(a, found) != 1:
            expected *= cnp.PyArray_DIM(a, found)
        left &= ~(1u << found)
    return True


cdef bint lie_alike(cnp.ndarray a, cnp.ndarray b) noexcept:
    cdef int d
    if cnp.PyArray_TYPE(a) != cnp.PyArray_TYPE(b) or cnp.PyArray_NDIM(a) != cnp.PyArray_NDIM(b):
        return False
    for d in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_DIM(a, d) != cnp.PyArray_DIM(b, d):
            return False
        if cnp.PyArray_DIM(a, d) > 1 and cnp.PyArray_STRIDE(a, d) != cnp.PyArray_STRIDE(b, d):
            return False
    return cnp.PyArray_ISALIGNED(b) and not cnp.PyArray_ISBYTESWAPPED(b)


cdef void run_elements(
    ElementTask task, const real *a, const real *b, real *out, double number, Py_ssize_t n
) noexcept nogil:
    if task == ADD:
        add_arrays(a, b, out, n)
    elif task == RECTIFY:
        rectify(a, out, <real>number, n)
    elif task == RECTIFY_GRADIENT:
        rectify_gradient(a, b, out, <real>number, n)
    elif task == TANH_GRADIENT:
        tanh_gradient(a, b, out, n)
    elif task == SIGMOID_GRADIENT:
        sigmoid_gradient(a, b, out, n)
    else:
        error_gradient(a, b, out, <real>number, task == SQUARE_GRADIENT, n)


cdef void share_elements(
    ElementTask task, const real *a, const real *b, real *out, double number, Py_ssize_t n,
    int threads,
) noexcept nogil:
    cdef int i
    cdef Py_ssize_t first
    if threads == 1:
        run_elements(task, a, b, out, number, n)
        return
    for i in prange(threads, num_threads=threads, schedule="static"):
        first = n * i // threads
        run_elements(
            task, a + first, b + first, out + first, number,
            n * (i + 1) // threads - first,
        )


def elementwise(
    str task,               # a key of ELEMENT_TASKS
    cnp.ndarray a,          # IN  float32 or float64
    cnp.ndarray b,          # IN  as a, or None where the task has one argument
    cnp.ndarray out,        # OUT as a
    double number=0,        # a slope or scale
):
    """Apply a task to each element. False, and nothing done, where the arrays lie differently."""
    cdef ElementTask number_of_task = ELEMENT_TASKS[task]
    cdef int typenum = cnp.PyArray_TYPE(a)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(a)
    if b is None and number_of_task != RECTIFY:
        raise TypeError(f"{task} needs two arrays")
    if typenum != cnp.NPY_FLOAT and typenum != cnp.NPY_DOUBLE or cnp.PyArray_ISBYTESWAPPED(a):
        return False
    if not cnp.PyArray_ISWRITEABLE(out) or not is_dense(a) or not lie_alike(a, out):
        return False
    if b is not None and not lie_alike(a, b):
        return False
    cdef void *a_data = cnp.PyArray_DATA(a)
    cdef void *b_data = cnp.PyArray_DATA(a if b is None else b)
    cdef void *out_data = cnp.PyArray_DATA(out)
    cdef int threads = threads_for(n, SERIAL_ELEMENTS)
    with nogil:
        if typenum == cnp.NPY_FLOAT:
            share_elements(
                number_of_task, <const float *>a_data, <const float *>b_data, <float *>out_data,
                number, n, threads,
            )
        else:
            share_elements(
                number_of_task, <const double *>a_data, <const double *>b_data,
                <double *>out_data, number, n, threads,
            )
    return True


def error_sum(
    cnp.ndarray a,          # IN  float32 or float64
    cnp.ndarray b,          # IN  as a
    bint squared,
):
    """The sum of (a - b)^2, or of |a - b|; None where the arrays lie differently."""
    cdef int typenum = cnp.PyArray_TYPE(a)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(a)
    if typenum != cnp.NPY_FLOAT and typenum != cnp.NPY_DOUBLE or cnp.PyArray_ISBYTESWAPPED(a):
        return None
    if not is_dense(a) or not lie_alike(a, b):
        return None
    if typenum == cnp.NPY_FLOAT:
        return sum_of_errors(
            <const float *>cnp.PyArray_DATA(a), <const float *>cnp.PyArray_DATA(b), squared, n
        )
    return sum_of_errors(
        <const double *>cnp.PyArray_DATA(a), <const double *>cnp.PyArray_DATA(b), squared, n
    )


cdef int check_scores(cnp.ndarray scores, cnp.ndarray labels, cnp.ndarray p, int typenum) except -1:
    check(scores, "scores", typenum, 2, False)
    check(p, "p", typenum, 2, True)
    check(labels, "labels", cnp.NPY_INT64, 1, False)
    if typenum != cnp.NPY_FLOAT and typenum != cnp.NPY_DOUBLE:
        raise TypeError(f"scores has dtype {scores.dtype}, expected float32 or float64")
    if not (
        cnp.PyArray_ISCARRAY_RO(scores) and cnp.PyArray_ISCARRAY(p)
        and cnp.PyArray_ISCARRAY_RO(labels) and cnp.PyArray_SIZE(p) == cnp.PyArray_SIZE(scores)
        and cnp.PyArray_DIM(labels, 0) == cnp.PyArray_DIM(scores, 0)
    ):
        raise ValueError("scores, labels and p must be contiguous and fit each other")
    return 0


def cross_entropy(
    cnp.ndarray scores,     # IN  (N, classes) float32 or float64, contiguous
    cnp.ndarray labels,     # IN  (N,) int64, contiguous
    long long ignored,      # a label of rows that do not count
    cnp.ndarray p,          # OUT as scores: the softmax
):
    """The sum of the cross entropies of the rows, and how many rows count."""
    cdef int typenum = cnp.PyArray_TYPE(scores)
    check_scores(scores, labels, p, typenum)
    cdef Py_ssize_t i, rows = cnp.PyArray_DIM(scores, 0), classes = cnp.PyArray_DIM(scores, 1)
    cdef Py_ssize_t count = 0
    cdef double total
    cdef const long long *label = <const long long *>cnp.PyArray_DATA(labels)
    for i in range(rows):
        if label[i] != ignored:
            count += 1
            if not 0 <= label[i] < classes:
                raise IndexError(
                    f"target {label[i]} is no class, expected from 0 to {classes - 1}"
                )
    if typenum == cnp.NPY_FLOAT:
        total = cross_entropy_of(
            <const float *>cnp.PyArray_DATA(scores), label, ignored, <float *>cnp.PyArray_DATA(p),
            rows, classes,
        )
    else:
        total = cross_entropy_of(
            <const double *>cnp.PyArray_DATA(scores), label, ignored,
            <double *>cnp.PyArray_DATA(p), rows, classes,
        )
    return total, count


def cross_entropy_gradient(
    cnp.ndarray p,          # IN  (N, classes), what `cross_entropy` left there
    cnp.ndarray labels,     # IN  (N,) int64, as given to `cross_entropy`
    long long ignored,      # likewise
    double scale,
    cnp.ndarray out,        # OUT as p
):
    """The gradient for the scores, times scale."""
    cdef int typenum = cnp.PyArray_TYPE(p)
    check_scores(p, labels, out, typenum)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(p, 0), classes = cnp.PyArray_DIM(p, 1)
    cdef const long long *label = <const long long *>cnp.PyArray_DATA(labels)
    if typenum == cnp.NPY_FLOAT:
        gradient_of_cross_entropy(
            <const float *>cnp.PyArray_DATA(p), label, ignored, <float>scale,
            <float *>cnp.PyArray_DATA(out), rows, classes,
        )
    else:
        gradient_of_cross_entropy(
            <const double *>cnp.PyArray_DATA(p), label, ignored, scale,
            <double *>cnp.PyArray_DATA(out), rows, classes,
        )


def descend_step(
    cnp.ndarray parameter,  # INOUT float32 or float64
    cnp.ndarray gradient,   # IN    as parameter
    cnp.ndarray buffer,     # INOUT as parameter, or None without momentum
    bint first,             # the buffer has no value yet
    double lr,
    double momentum,
    double dampening,
    double weight_decay,
    bint nesterov,
    bint maximize,
):
    """A step of stochastic gradient descent. False, and nothing done, where arrays lie apart."""
    cdef Descent options
    cdef int typenum = cnp.PyArray_TYPE(parameter)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(parameter)
    cdef void *buffer_data = NULL
    if typenum != cnp.NPY_FLOAT and typenum != cnp.NPY_DOUBLE:
        return False
    if cnp.PyArray_ISBYTESWAPPED(parameter) or not cnp.PyArray_ISWRITEABLE(parameter):
        return False
    if not is_dense(parameter) or not lie_alike(parameter, gradient):
        return False
    if buffer is not None:
        if not lie_alike(parameter, buffer) or not cnp.PyArray_ISWRITEABLE(buffer):
            return False
        buffer_data = cnp.PyArray_DATA(buffer)
    options.lr, options.momentum, options.dampening = lr, momentum, dampening
    options.weight_decay, options.nesterov, options.maximize = weight_decay, nesterov, maximize
    if typenum == cnp.NPY_FLOAT:
        descend(
            <float *>cnp.PyArray_DATA(parameter), <const float *>cnp.PyArray_DATA(gradient),
            <float *>buffer_data, first, options, n,
        )
    else:
        descend(
            <double *>cnp.PyArray_DATA(parameter), <const double *>cnp.PyArray_DATA(gradient),
            <double *>buffer_data, first, options, n,
        )
    return True
