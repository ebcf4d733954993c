# The job that an entry hands to the kernels, and the coefficients of the last pass: what each
# row, or channel, is multiplied by and what is added.
#
# Forward: y = (x - centre) * scale + shift. `centre` is the mean as the computing type holds it;
# `shift` has the part of the mean that was lost there. float32 loses a part of the scale as
# well, which `scale_rest` has: y = (x - centre) * scale + ((x - centre) * scale_rest + shift).
#
# Backward: grad_input = (g - grad_mean) * grad_scale + ((x - centre) * x_scale + shift).

cdef struct Affine:
    # Weight and bias of each channel, float or double; NULL stands for ones, zeros.
    const void *weight
    const void *bias
    bint weight_is_double
    bint bias_is_double


cdef struct Job:
    # Memory is (samples, channels, length), or (samples, length, channels) if channels_last.
    bint channels_last
    Py_ssize_t samples
    Py_ssize_t channels
    Py_ssize_t rows             # samples * channels
    Py_ssize_t length           # product of the spatial sizes
    int threads
    Py_ssize_t l2_bytes         # of the second-level cache, which one processor has to itself
    bint split_rows             # threads share each row
    bint stream                 # the last pass writes past the caches
    Affine affine
    double eps
    double *mean                # rows; written by forward, read by the others
    double *rstd                # rows
    bint through_statistics     # backward: mean and rstd are x's own
    double *sum_grad            # rows; backward writes the sums of grad_output here
    double *sum_product         # rows; and of grad_output * (x - mean)


cdef struct Scales:
    # Of the forward pass.
    double centre
    double scale
    double shift


cdef struct GradScales:
    # Of the backward pass.
    double grad_mean
    double grad_scale
    double centre
    double x_scale
    double shift


cdef inline Py_ssize_t share(Py_ssize_t count, int threads, int thread) noexcept nogil:
    """Where the part of a thread begins, of `count` things that threads share."""
    return count * thread // threads


# ------------------------------------------------------------------- affine

cdef inline double parameter_at(
    const void *values, bint is_double, double default, Py_ssize_t channel
) noexcept nogil:
    if values == NULL:
        return default
    return (<const double *>values)[channel] if is_double else (<const float *>values)[channel]


cdef inline double weight_of(const Job *job, Py_ssize_t channel) noexcept nogil:
    return parameter_at(job.affine.weight, job.affine.weight_is_double, 1, channel)


cdef inline double bias_of(const Job *job, Py_ssize_t channel) noexcept nogil:
    return parameter_at(job.affine.bias, job.affine.bias_is_double, 0, channel)


cdef inline doubles parameters_at(
    const void *values, bint is_double, double default, Py_ssize_t channel, Py_ssize_t channels
) noexcept nogil:
    """Of GROUP channels; after the last comes the first again."""
    cdef double some[GROUP]
    cdef Py_ssize_t i
    if values == NULL:
        return splat_doubles(default)
    if channel + GROUP <= channels:
        if is_double:
            return load_doubles(<const double *>values + channel)
        return load_as_doubles(<const float *>values + channel)
    for i in range(GROUP):
        some[i] = parameter_at(values, is_double, default, (channel + i) % channels)
    return load_doubles(some)


cdef inline doubles weights_of(const Job *job, Py_ssize_t channel) noexcept nogil:
    return parameters_at(
        job.affine.weight, job.affine.weight_is_double, 1, channel, job.channels
    )


cdef inline doubles biases_of(const Job *job, Py_ssize_t channel) noexcept nogil:
    return parameters_at(job.affine.bias, job.affine.bias_is_double, 0, channel, job.channels)


cdef inline doubles load_some(const double *values, Py_ssize_t n) noexcept nogil:
    """GROUP of n values; the last one in the places that are left."""
    cdef double some[GROUP]
    cdef Py_ssize_t i
    if n >= GROUP:
        return load_doubles(values)
    for i in range(GROUP):
        some[i] = values[min(i, n - 1)]
    return load_doubles(some)


cdef inline void store_some(double *values, doubles numbers, Py_ssize_t n) noexcept nogil:
    """The first n of GROUP numbers, or all."""
    cdef double some[GROUP]
    cdef Py_ssize_t i
    if n >= GROUP:
        store_doubles(values, numbers)
        return
    store_doubles(some, numbers)
    for i in range(n):
        values[i] = some[i]


# --------------------------------------------------------------- formulas

cdef inline numbers inverse_std(numbers var, double eps) noexcept nogil:
    """1 / sqrt(var + eps), and 0 for a constant row at eps = 0: it stays finite."""
    cdef numbers sum_of_both = var + eps
    return zero_where_zero(sum_of_both, reciprocal_root(sum_of_both))


cdef inline numbers variance(
    numbers sum1, numbers sum2, numbers offset, double one_nth
) noexcept nogil:
    """From the sums of (x - pilot) and (x - pilot)^2, and the mean's distance from the pilot."""
    # Rounding can leave a negative number near zero.
    return not_negative(sum2 - sum1 * offset) * one_nth


cdef inline numbers rest_of_scale(numbers scale) noexcept nogil:
    """What is to be added to a scale's part that float32 holds."""
    return (scale - toward_zero(scale)) + scale * REST_NUDGE


cdef inline numbers scale_by_x(
    numbers grad_scale, numbers rstd, numbers sum_product, double one_nth
) noexcept nogil:
    """What (x - mean) is multiplied by in grad_input."""
    # In this order, as rstd * rstd may leave the range of double where its product does not.
    return (grad_scale * rstd) * ((sum_product * one_nth) * rstd) * -1.0


cdef inline bint fits_float(double scale) noexcept nogil:
    """Whether float32 holds `scale`, its rest, and the differences that it multiplies.

    NaN is as good in float32, and so another channel's bits do not change beside it.
    """
    return (
        scale == 0 or not isfinite(scale)
        or FLOAT_SCALE_LEAST < fabs(scale) < FLOAT_SCALE_MOST
    )


cdef inline bint square_sum_fits(double sum2, Py_ssize_t n) noexcept nogil:
    """Whether float32 squares neither overflowed nor lost digits."""
    return FLOAT_SUM_LEAST * n < sum2 < FLOAT_SUM_MOST


cdef inline bint product_sum_fits(
    double sum_grad, double sum_product, Py_ssize_t n
) noexcept nogil:
    """Whether float32 products neither overflowed nor lost digits."""
    return isfinite(sum_grad) and FLOAT_SUM_LEAST * n < fabs(sum_product) < FLOAT_SUM_MOST


cdef inline double head_of_scale(const element *like, double scale) noexcept nogil:
    """The part of a scale that `scale_rest` is added to."""
    return scale if element is double else toward_zero(scale)


cdef inline Scales scales_of(
    const element *like, double pilot, double offset, double rstd, double weight, double bias
) noexcept nogil:
    """Of a row whose mean is pilot + offset."""
    cdef Scales out
    out.centre = rounded(like, pilot + offset)
    out.scale = rstd * weight
    out.shift = bias - ((pilot - out.centre) + offset) * out.scale
    return out


cdef inline GradScales grad_scales_of(
    const element *like, double sum_grad, double sum_product, Py_ssize_t n,
    double mean, double rstd, double weight,
) noexcept nogil:
    """Of a row, from the sums of grad_output and of grad_output * (x - mean)."""
    cdef GradScales out
    cdef double one_nth = 1 / <double>n
    cdef double grad_mean = sum_grad * one_nth
    out.centre = rounded(like, mean)
    out.grad_mean = rounded(like, grad_mean)
    out.grad_scale = weight * rstd
    out.x_scale = scale_by_x(out.grad_scale, rstd, sum_product, one_nth)
    out.shift = (
        (out.grad_mean - grad_mean) * out.grad_scale - (mean - out.centre) * out.x_scale
    )
    return out


# ------------------------------------------- of eight rows, or channels, at once

cdef inline bint all_fit(const element *like, doubles scale) noexcept nogil:
    """As fits_float, of eight."""
    cdef double values[GROUP]
    cdef Py_ssize_t i, misfits = 0
    if element is not double:
        if not all_within(scale, FLOAT_SCALE_LEAST, FLOAT_SCALE_MOST):
            store_doubles(values, scale)
            for i in range(GROUP):
                misfits += not fits_float(values[i])
    return misfits == 0


cdef struct Coefficients:
    # Of the last pass, in the type that it computes in. The arrays are as long as the pixel, or
    # the group of rows, that they are for.
    void *centre
    void *scale             # forward
    void *scale_rest
    void *shift
    void *grad_mean         # backward
    void *grad_scale
    void *x_scale


cdef inline octet[element] *octet_at(
    const element *like, void *values, Py_ssize_t place
) noexcept nogil:
    """Eight of the numbers of an array of the type that elements are computed in."""
    return <octet[element] *>values + place // GROUP


cdef inline bint set_scales(
    const element *like, Coefficients *out, Py_ssize_t place,
    doubles pilot, doubles offset, doubles rstd, doubles weight, doubles bias,
) noexcept nogil:
    """As scales_of. False: float32 does not hold a scale."""
    cdef octet[element] centre = narrow(like, pilot + offset)
    cdef doubles scale = rstd * weight
    octet_at(like, out.centre, place)[0] = centre
    octet_at(like, out.shift, place)[0] = narrow(
        like, bias - ((pilot - widen(centre)) + offset) * scale
    )
    if element is double:
        octet_at(like, out.scale, place)[0] = narrow(like, scale)
    else:
        octet_at(like, out.scale, place)[0] = narrow(like, toward_zero(scale))
        octet_at(like, out.scale_rest, place)[0] = narrow(like, rest_of_scale(scale))
    return all_fit(like, scale)


cdef inline bint set_grad_scales(
    const element *like, Coefficients *out, Py_ssize_t place,
    doubles sum_grad, doubles sum_product, double one_nth, doubles mean, doubles rstd,
    doubles weight,
) noexcept nogil:
    """As grad_scales_of. False: float32 does not hold a scale."""
    cdef octet[element] centre = narrow(like, mean)
    cdef doubles exact_grad_mean = sum_grad * one_nth
    cdef octet[element] grad_mean = narrow(like, exact_grad_mean)
    cdef doubles grad_scale = weight * rstd
    cdef doubles x_scale = scale_by_x(grad_scale, rstd, sum_product, one_nth)
    octet_at(like, out.centre, place)[0] = centre
    octet_at(like, out.grad_mean, place)[0] = grad_mean
    octet_at(like, out.grad_scale, place)[0] = narrow(like, grad_scale)
    octet_at(like, out.x_scale, place)[0] = narrow(like, x_scale)
    octet_at(like, out.shift, place)[0] = narrow(
        like,
        (widen(grad_mean) - exact_grad_mean) * grad_scale - (mean - widen(centre)) * x_scale,
    )
    return all_fit(like, grad_scale) and all_fit(like, x_scale)
