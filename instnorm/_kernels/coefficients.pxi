# The job that an entry hands to the kernels, and the coefficients of the last pass: what each
# row, or channel, is multiplied by and what is added.
#
# Forward: y = (x - centre) * scale + shift. `centre` is the mean as the computing type holds it;
# `shift` has the part of the mean that was lost there. float32 loses a part of the scale as
# well, which `scale_rest` has: y = (x - centre) * scale + ((x - centre) * scale_rest + shift).
#
# Backward: grad_input = (g - grad_mean) * grad_scale + ((x - centre) * x_scale + shift). Where
# float64 does not hold x_scale, (x - centre) is multiplied by a power of two first, the unit.

cdef struct Affine:
    # Weight and bias, float or double; NULL stands for ones, zeros.
    const void *weight
    const void *bias
    bint weight_is_double
    bint bias_is_double
    Py_ssize_t size             # one for each channel, or for each row


cdef struct Job:
    # Memory is (samples, channels, stride), or (samples, stride, channels) if channels_last.
    bint channels_last
    Py_ssize_t samples
    Py_ssize_t channels
    Py_ssize_t rows             # samples * channels
    Py_ssize_t stride           # product of the spatial sizes
    Py_ssize_t length           # elements of a row to walk: all, or those before a mask ends
    Py_ssize_t count            # elements of a row that its statistics are of
    int threads
    Py_ssize_t l2_bytes         # of the second-level cache, which one processor has to itself
    bint split_rows             # threads share each row
    bint in_place               # the last pass writes over what it reads
    bint stream                 # the last pass writes past the caches
    Affine affine
    double eps
    bint exact                  # all sums in double
    double *mean                # rows; written by forward, read by the others
    double *rstd                # rows
    bint through_statistics     # backward: mean and rstd are x's own
    double *sum_grad            # rows; backward writes the sums of grad_output here
    double *sum_product         # rows; and of grad_output * (x - mean)
    double *offset              # rows; and what the mean has beyond its rounded value
    # The epilogue, see epilogue.hpp.
    bint has_epilogue
    const void *residual        # as x, or NULL
    void *grad_residual         # as x, or NULL
    const unsigned char *mask   # (samples, stride), or NULL
    int activation
    const double *slope         # of the activation, or NULL
    Py_ssize_t slopes           # 1, or as many as channels
    bint from_output            # backward: what stands in the place of x is the output
    double *sum_slope           # rows; or NULL: the gradient of the slope is not asked for


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
    double unit             # (x - centre) is multiplied by it first


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


cdef inline double weight_of(const Job *job, Py_ssize_t row) noexcept nogil:
    return parameter_at(
        job.affine.weight, job.affine.weight_is_double, 1, row % job.affine.size
    )


cdef inline double bias_of(const Job *job, Py_ssize_t row) noexcept nogil:
    return parameter_at(job.affine.bias, job.affine.bias_is_double, 0, row % job.affine.size)


cdef inline double slope_of(const Job *job, Py_ssize_t row) noexcept nogil:
    if job.slope == NULL:
        return 0
    return job.slope[0] if job.slopes == 1 else job.slope[row % job.channels]


cdef inline double inverse_of(double slope) noexcept nogil:
    return 1 / slope if slope != 0 else 0


cdef inline doubles parameters_at(
    const void *values, bint is_double, double default, Py_ssize_t row, Py_ssize_t size
) noexcept nogil:
    """Of GROUP rows; after the last parameter comes the first again."""
    cdef double some[GROUP]
    cdef Py_ssize_t i, at = row % size
    if values == NULL:
        return splat_doubles(default)
    if at + GROUP <= size:
        if is_double:
            return load_doubles(<const double *>values + at)
        return load_as_doubles(<const float *>values + at)
    for i in range(GROUP):
        some[i] = parameter_at(values, is_double, default, (at + i) % size)
    return load_doubles(some)


cdef inline doubles weights_of(const Job *job, Py_ssize_t row) noexcept nogil:
    return parameters_at(
        job.affine.weight, job.affine.weight_is_double, 1, row, job.affine.size
    )


cdef inline doubles biases_of(const Job *job, Py_ssize_t row) noexcept nogil:
    return parameters_at(job.affine.bias, job.affine.bias_is_double, 0, row, job.affine.size)


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
    numbers grad_scale, numbers rstd,
    numbers rstd_in_units,      # rstd / unit
    numbers sum_product, double one_nth,
) noexcept nogil:
    """What (x - mean) * unit is multiplied by in grad_input."""
    # In this order, as rstd * rstd may leave the range of double where its product does not.
    return (grad_scale * rstd_in_units) * ((sum_product * one_nth) * rstd) * -1.0


cdef inline bint fits_float(double scale) noexcept nogil:
    """Whether float32 holds `scale`, its rest, and the differences that it multiplies.

    NaN is as good in float32, and so another channel's bits do not change beside it.
    """
    return (
        scale == 0 or not isfinite(scale)
        or FLOAT_SCALE_LEAST < fabs(scale) < FLOAT_SCALE_MOST
    )


cdef inline bint leaves_range(const element *like, double rstd) noexcept nogil:
    """Whether float64's squares and products may have overflowed, or lost digits."""
    return element is double and not RSTD_LEAST < fabs(rstd) < RSTD_MOST


cdef inline double power_near(double value) noexcept nogil:
    """The power of two below a value, that is not 0, or close to it at the ends of the range."""
    return ldexp(1, max(-UNIT_EXPONENT, min(ilogb(value), UNIT_EXPONENT)))


cdef inline double unit_of(const element *like, double rstd) noexcept nogil:
    """What makes differences of such a row neither large nor small, if they are."""
    if leaves_range(like, rstd) and rstd != 0 and isfinite(rstd):
        return power_near(rstd)
    return 1


cdef inline bint all_without_units(const element *like, doubles rstd) noexcept nogil:
    """Whether unit_of is 1 for each of eight."""
    cdef double values[GROUP]
    cdef Py_ssize_t i, units = 0
    if element is double:
        if not all_within(rstd, RSTD_LEAST, RSTD_MOST):
            store_doubles(values, rstd)
            for i in range(GROUP):
                units += unit_of(like, values[i]) != 1
    return units == 0


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
    const element *like, const Job *job, Py_ssize_t row
) noexcept nogil:
    """Of a row whose sums are there."""
    cdef GradScales out
    cdef double mean = job.mean[row], rstd = job.rstd[row]
    cdef double one_nth = 1 / <double>job.count, grad_mean = 0
    out.grad_scale = weight_of(job, row) * rstd
    out.x_scale = 0
    out.unit = 1
    if job.through_statistics:
        grad_mean = job.sum_grad[row] * one_nth
        out.unit = unit_of(like, rstd)
        out.x_scale = scale_by_x(
            out.grad_scale, rstd, rstd / out.unit, job.sum_product[row], one_nth
        )
    out.centre = rounded(like, mean)
    out.grad_mean = rounded(like, grad_mean)
    out.shift = (
        (out.grad_mean - grad_mean) * out.grad_scale
        - (job.offset[row] * out.unit) * out.x_scale
    )
    return out


cdef inline bint grad_scales_fit(const element *like, const GradScales *scales) noexcept nogil:
    if element is double:
        return scales.unit == 1
    else:
        return fits_float(scales.grad_scale) and fits_float(scales.x_scale)


cdef inline double offset_of(
    const element *like, const Job *job, Py_ssize_t row,
    double distance,        # the sum of (x - centre)
) noexcept nogil:
    """What the mean of a row has beyond its rounded value, around which the sums were taken.

    float64 rounds the mean itself, to 10^-11 standard deviations where it is 10^5 of them.
    """
    if element is double:
        # Of a sample of which nothing counts, this and all other sums are 0.
        return distance / max(job.count, <Py_ssize_t>1) if job.through_statistics else 0
    else:
        return job.mean[row] - rounded(like, job.mean[row])


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


cdef inline octet[element] *octet_at(
    const element *like, void *values, Py_ssize_t place
) noexcept nogil:
    """Eight of the numbers of an array of the type that elements are computed in."""
    return <octet[element] *>values + place // GROUP


cdef inline bint set_scales(
    const element *like, coefficients *out, Py_ssize_t place,
    const doubles *pilot, const doubles *offset,    # IN  mean = pilot + offset
    const Job *job, Py_ssize_t row,
    Py_ssize_t n,           # rows there are, of the eight
) noexcept nogil:
    """As scales_of, of the rows from `row` on. False: float32 does not hold a scale."""
    cdef octet[element] centre = narrow(like, pilot[0] + offset[0])
    cdef doubles scale = load_some(job.rstd + row, n) * weights_of(job, row)
    octet_at(like, out.centre, place)[0] = centre
    octet_at(like, out.shift, place)[0] = narrow(
        like, biases_of(job, row) - ((pilot[0] - widen(centre)) + offset[0]) * scale
    )
    if element is double:
        octet_at(like, out.scale, place)[0] = narrow(like, scale)
    else:
        octet_at(like, out.scale, place)[0] = narrow(like, toward_zero(scale))
        octet_at(like, out.scale_rest, place)[0] = narrow(like, rest_of_scale(scale))
    return all_fit(like, scale)


cdef inline bint set_grad_scales(
    const element *like, coefficients *out, Py_ssize_t place, const Job *job, Py_ssize_t row,
    Py_ssize_t n,           # rows there are, of the eight
) noexcept nogil:
    """As grad_scales_of, of the rows from `row` on. False: some row has to be done in double.

    Because float32 does not hold a scale of its, or needs a unit.
    """
    cdef doubles mean = load_some(job.mean + row, n), rstd = load_some(job.rstd + row, n)
    cdef doubles grad_scale = weights_of(job, row) * rstd
    cdef doubles exact_grad_mean = splat_doubles(0), x_scale = exact_grad_mean
    cdef octet[element] centre = narrow(like, mean), grad_mean
    cdef double one_nth = 1 / <double>job.count
    cdef bint fit = not job.through_statistics or all_without_units(like, rstd)
    if job.through_statistics:
        exact_grad_mean = load_some(job.sum_grad + row, n) * one_nth
        x_scale = scale_by_x(
            grad_scale, rstd, rstd, load_some(job.sum_product + row, n), one_nth
        )
    grad_mean = narrow(like, exact_grad_mean)
    out.through_statistics = job.through_statistics
    octet_at(like, out.centre, place)[0] = centre
    octet_at(like, out.grad_mean, place)[0] = grad_mean
    octet_at(like, out.grad_scale, place)[0] = narrow(like, grad_scale)
    octet_at(like, out.x_scale, place)[0] = narrow(like, x_scale)
    octet_at(like, out.grad_shift, place)[0] = narrow(
        like,
        (widen(grad_mean) - exact_grad_mean) * grad_scale
        - load_some(job.offset + row, n) * x_scale,
    )
    return fit and all_fit(like, grad_scale) and all_fit(like, x_scale)


cdef inline void set_signs(
    const element *like, coefficients *out, Py_ssize_t place, const Job *job, Py_ssize_t row,
    Py_ssize_t n,           # rows there are, of the eight
) noexcept nogil:
    """On which side of zero the affine map has x, for the rows from `row` on."""
    cdef doubles scale = load_some(job.rstd + row, n) * weights_of(job, row)
    cdef doubles sign = sign_of_scale(like, scale)
    octet_at(like, out.sign_scale, place)[0] = narrow(like, sign)
    octet_at(like, out.sign_shift, place)[0] = narrow(
        like, sign_shift(like, load_some(job.mean + row, n), scale, biases_of(job, row), sign)
    )


# ------------------------------------------------------------- the epilogue

cdef inline void *place(const element *like, const void *array, Py_ssize_t at) noexcept nogil:
    """The address of an element of an array that may be missing."""
    return NULL if array == NULL else <void *>(<element *>array + at)


cdef inline void set_row_epilogue(
    const element *x, row_epilogue *out, const Job *job, Py_ssize_t row
) noexcept nogil:
    """Of a row; the affine map is left to set_affine_map."""
    cdef Py_ssize_t at = row * job.stride
    out.residual = place(x, job.residual, at)
    out.grad_residual = place(x, job.grad_residual, at)
    out.mask = job.mask
    if job.mask != NULL:
        out.mask = job.mask + row // job.channels * job.stride
    out.activation = job.activation
    out.slope_asked = job.sum_slope != NULL
    out.from_output = job.from_output
    out.cut_off = job.length < job.stride
    out.slope = number_of(slope_of(job, row))
    out.inverse_slope = number_of(inverse_of(out.slope.exact))


cdef inline void set_affine_map(
    const element *like, row_epilogue *out, const Scales *scales, const Job *job, Py_ssize_t row
) noexcept nogil:
    """What the activation was applied to is computed once more by these."""
    cdef octet[element] numbers[COEFFICIENTS]
    cdef coefficients k = coefficients_in(numbers, sizeof(octet[element]))
    set_signs(like, &k, 0, job, row, 1)
    take_affine_map(like, out, &k, 0)
    out.centre = number_of(scales.centre)
    out.scale = number_of(scales.scale)
    out.scale.single = <float>toward_zero(scales.scale)
    out.scale_rest = number_of(rest_of_scale(scales.scale))
    out.shift = number_of(scales.shift)


cdef inline void set_channel_epilogue(
    const element *x, row_epilogue *out, const Job *job, Py_ssize_t row
) noexcept nogil:
    """Of a channel of channels-last memory, which begins at the channel's first element."""
    cdef Py_ssize_t c = row % job.channels, at = (row - c) * job.stride + c
    set_row_epilogue(x, out, job, row)
    out.residual = place(x, job.residual, at)
    out.grad_residual = place(x, job.grad_residual, at)


# ------------------------------------------------------------------ masks

cdef inline void take_mask(Job *out, const Job *job, Py_ssize_t sample) noexcept nogil:
    """What of a sample is walked: as a shorter one where its mask only cuts off the end."""
    cdef const unsigned char *mask
    cdef Py_ssize_t count
    if job.mask == NULL:
        return
    mask = job.mask + sample * job.stride
    count = count_nonzero(mask, job.stride)
    out.count = count
    if count_nonzero(mask, count) == count:
        out.length = count
        out.mask = NULL
    else:
        out.length = job.stride
        out.mask = job.mask


cdef inline void clear_after(element *out, const Job *job, Py_ssize_t channels) noexcept nogil:
    """What was cut off at the end of a row, or of the `channels` of each pixel of a sample."""
    if job.length < job.stride:
        memset(
            out + job.length * channels, 0,
            (job.stride - job.length) * channels * <Py_ssize_t>sizeof(element),
        )
