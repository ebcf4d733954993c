# Rows of up to SHORT elements, eight at a time.
#
# One short row's way is a chain: load, sum, sum across, mean, differences, sums, sums across,
# square root, division, last pass. Each step waits for the one before it, and the processor
# finds no other work. So eight rows take each step together: their sums across are turned into
# one vec by a tree that transposes, and the mean, the square root, the division and the
# coefficients of all are computed at once.
#
# A row of fewer than eight elements is taken to a buffer, so that it ends where a vec ends.

cdef struct Group:
    # Which rows: those of a row that there is not are those of the last one.
    Py_ssize_t row          # the first
    Py_ssize_t count        # at most GROUP
    Py_ssize_t length


cdef inline void stage(
    const element *x, const element **row, element *buffer, const Group *group
) noexcept nogil:
    """Where the rows of a group are; in `buffer`, of GROUP * 8 elements, if they are too short."""
    cdef Py_ssize_t i, j, n = group.length
    if group.count == GROUP:
        for i in range(GROUP):
            row[i] = x + i * n
    else:
        for i in range(GROUP):
            row[i] = x + min(i, group.count - 1) * n
    if n < 8:
        for i in range(GROUP):
            for j in range(8):
                buffer[8 * i + j] = row[i][max(j - (8 - n), <Py_ssize_t>0)]
            row[i] = buffer + 8 * i + 8 - n


cdef inline void prefetch_group(const element *x, const Group *group) noexcept nogil:
    """Ask for the rows of the next group, should it be as large."""
    cdef Py_ssize_t i, n = GROUP * group.length * <Py_ssize_t>sizeof(element)
    cdef const char *next_rows = <const char *>x + n
    for i in range(0, n, 64):
        instnorm_prefetch(next_rows + i)


# ---------------------------------------------------------------- statistics

cdef inline void add_square(doubles d, doubles *sum1, doubles *sum2) noexcept nogil:
    sum1[0] = sum1[0] + d
    sum2[0] = fma(d, d, sum2[0])


cdef inline void square_two(
    const element **row,    # IN  two rows of n elements
    Py_ssize_t n,
    const double *pilot,    # IN  of two rows
    doubles *sum1,          # OUT of (x - pilot), of two rows
    doubles *sum2,          # OUT of (x - pilot)^2
) noexcept nogil:
    """Two rows at once: their sums are as many as registers hold."""
    cdef const element *a = row[0]
    cdef const element *b = row[1]
    cdef doubles a1 = splat_doubles(0), b1 = a1, a2 = a1, b2 = a1
    cdef doubles pilot_a = splat_doubles(pilot[0]), pilot_b = splat_doubles(pilot[1])
    cdef Py_ssize_t i, whole = n - n % 8
    for i in range(0, whole, 8):
        add_square(load_as_doubles(a + i) - pilot_a, &a1, &a2)
        add_square(load_as_doubles(b + i) - pilot_b, &b1, &b2)
    if whole < n:
        add_square(tail(load_as_doubles(a + n - 8) - pilot_a, n - whole), &a1, &a2)
        add_square(tail(load_as_doubles(b + n - 8) - pilot_b, n - whole), &b1, &b2)
    sum1[0] = a1
    sum1[1] = b1
    sum2[0] = a2
    sum2[1] = b2


cdef inline void statistics_of_group(
    const element **row, const Group *group, const Job *job,
    double *pilot,          # OUT GROUP
    double *offset,         # OUT GROUP: mean = pilot + offset
) noexcept nogil:
    """As moments_in_double, of each row. Writes mean and rstd as well."""
    cdef doubles part1[GROUP]
    cdef doubles part2[GROUP]
    cdef doubles sum1, sum2, offsets
    cdef Py_ssize_t i, n = group.length
    for i in range(GROUP):
        pilot[i] = load_one(row[i])
    for i in range(0, GROUP, 2):
        square_two(row + i, n, pilot + i, part1 + i, part2 + i)
    if element is double:
        store_doubles(pilot, load_doubles(pilot) + totals(<const doubles *>part1) / <double>n)
        for i in range(0, GROUP, 2):
            square_two(row + i, n, pilot + i, part1 + i, part2 + i)
    sum1 = totals(<const doubles *>part1)
    sum2 = totals(<const doubles *>part2)
    offsets = sum1 / <double>n
    store_doubles(offset, offsets)
    store_some(job.mean + group.row, load_doubles(pilot) + offsets, group.count)
    store_some(
        job.rstd + group.row,
        inverse_std(variance(sum1, sum2, offsets, 1 / <double>n), job.eps), group.count,
    )


# ------------------------------------------------------------ the last passes

cdef inline void normalize_octets(
    const element *x, element *y, Py_ssize_t n, octet[element] centre,
    octet[element] scale, octet[element] scale_rest, octet[element] shift,
) noexcept nogil:
    """Of a row of eight elements at least; y may be x."""
    cdef Py_ssize_t i
    cdef octet[element] last = normalized(
        load_octet(x + n - 8), centre, scale, scale_rest, shift
    )
    for i in range(0, n - 7, 8):
        store_octet(y + i, normalized(load_octet(x + i), centre, scale, scale_rest, shift))
    store_octet(y + n - 8, last)


cdef inline void normalize_short(
    const element *x, element *y, Py_ssize_t n, const Scales *scales
) noexcept nogil:
    """As normalize, of at most SHORT elements."""
    cdef element buffer[8]
    cdef Py_ssize_t i
    cdef octet[element] centre = splat_octet(x, scales.centre)
    cdef octet[element] scale = splat_octet(x, head_of_scale(x, scales.scale))
    cdef octet[element] scale_rest = splat_octet(x, rest_of_scale(scales.scale))
    cdef octet[element] shift = splat_octet(x, scales.shift)
    if element is not double:
        if not fits_float(scales.scale):
            normalize_in_double(x, y, n, 1, scales)
            return
    if n < 8:
        for i in range(8):
            buffer[i] = x[min(i, n - 1)]
        normalize_octets(
            <const element *>buffer, buffer, 8, centre, scale, scale_rest, shift
        )
        for i in range(n):
            y[i] = buffer[i]
    else:
        normalize_octets(x, y, n, centre, scale, scale_rest, shift)


cdef inline void differentiate_octets(
    const element *grad_output, const element *x, element *grad_input, Py_ssize_t n,
    octet[element] grad_mean, octet[element] grad_scale, octet[element] centre,
    octet[element] x_scale, octet[element] shift,
) noexcept nogil:
    """Of a row of eight elements at least; grad_input may be grad_output or x."""
    cdef Py_ssize_t i
    cdef octet[element] last = gradient(
        load_octet(grad_output + n - 8), load_octet(x + n - 8),
        grad_mean, grad_scale, centre, x_scale, shift,
    )
    for i in range(0, n - 7, 8):
        store_octet(
            grad_input + i,
            gradient(
                load_octet(grad_output + i), load_octet(x + i),
                grad_mean, grad_scale, centre, x_scale, shift,
            ),
        )
    store_octet(grad_input + n - 8, last)


# ---------------------------------------------------------------- forward

cdef inline void normalize_group(
    const element **row, element *y, const Group *group, const Job *job,
    const double *pilot, const double *offset,
) noexcept nogil:
    cdef octet[element] centre[1]
    cdef octet[element] scale[1]
    cdef octet[element] scale_rest[1]
    cdef octet[element] shift[1]
    cdef Coefficients out
    cdef Scales scales
    cdef bint fit
    cdef Py_ssize_t i, channel = group.row % job.channels, n = group.length
    out.centre = centre
    out.scale = scale
    out.scale_rest = scale_rest
    out.shift = shift
    fit = set_scales(
        row[0], &out, 0, load_doubles(pilot), load_doubles(offset),
        load_some(job.rstd + group.row, group.count),
        weights_of(job, channel), biases_of(job, channel),
    )
    if not fit or n < 8:
        for i in range(group.count):
            channel = (group.row + i) % job.channels
            scales = scales_of(
                row[0], pilot[i], offset[i], job.rstd[group.row + i],
                weight_of(job, channel), bias_of(job, channel),
            )
            normalize_short(row[i], y + i * n, n, &scales)
        return
    for i in range(group.count):
        normalize_octets(
            row[i], y + i * n, n, splat_number(row[0], centre, <int>i),
            splat_number(row[0], scale, <int>i),
            splat_number(row[0], scale_rest, <int>i), splat_number(row[0], shift, <int>i),
        )


cdef void forward_short(
    const element *x,
    element *y,             # OUT NULL: only the statistics are asked for
    const Job *job, Py_ssize_t first, Py_ssize_t end,
) noexcept nogil:
    cdef const element *row[GROUP]
    cdef element buffer[8 * GROUP]
    cdef double pilot[GROUP]
    cdef double offset[GROUP]
    cdef Group group
    group.row = first
    group.length = job.length
    while group.row < end:
        group.count = min(end - group.row, <Py_ssize_t>GROUP)
        prefetch_group(x + group.row * job.length, &group)
        stage(x + group.row * job.length, row, buffer, &group)
        statistics_of_group(row, &group, job, pilot, offset)
        if y != NULL:
            normalize_group(row, y + group.row * job.length, &group, job, pilot, offset)
        group.row += GROUP


# ---------------------------------------------------------------- backward

cdef inline void add_product(
    octet[element] g, octet[element] d, octet[element] *sum1, octet[element] *sum2
) noexcept nogil:
    sum1[0] = sum1[0] + g
    sum2[0] = fma(g, d, sum2[0])


cdef inline void multiply_four(
    const element **grad, const element **row, Py_ssize_t n,
    const octet[element] *centres,  # IN  of a group
    int first,              # the place of the first of the four there
    octet[element] *sum1,   # OUT of grad, of four rows
    octet[element] *sum2,   # OUT of grad * (x - centre)
) noexcept nogil:
    cdef octet[element] zero = splat_octet(row[0], 0)
    cdef octet[element] a1 = zero, b1 = zero, c1 = zero, d1 = zero
    cdef octet[element] a2 = zero, b2 = zero, c2 = zero, d2 = zero
    cdef octet[element] centre0 = splat_number(row[0], centres, first)
    cdef octet[element] centre1 = splat_number(row[0], centres, first + 1)
    cdef octet[element] centre2 = splat_number(row[0], centres, first + 2)
    cdef octet[element] centre3 = splat_number(row[0], centres, first + 3)
    cdef Py_ssize_t i, whole = n - n % 8, rest = n % 8
    for i in range(0, whole, 8):
        add_product(load_octet(grad[0] + i), load_octet(row[0] + i) - centre0, &a1, &a2)
        add_product(load_octet(grad[1] + i), load_octet(row[1] + i) - centre1, &b1, &b2)
        add_product(load_octet(grad[2] + i), load_octet(row[2] + i) - centre2, &c1, &c2)
        add_product(load_octet(grad[3] + i), load_octet(row[3] + i) - centre3, &d1, &d2)
    if rest:
        i = n - 8
        add_product(tail(load_octet(grad[0] + i), rest), load_octet(row[0] + i) - centre0, &a1, &a2)
        add_product(tail(load_octet(grad[1] + i), rest), load_octet(row[1] + i) - centre1, &b1, &b2)
        add_product(tail(load_octet(grad[2] + i), rest), load_octet(row[2] + i) - centre2, &c1, &c2)
        add_product(tail(load_octet(grad[3] + i), rest), load_octet(row[3] + i) - centre3, &d1, &d2)
    sum1[0] = a1
    sum1[1] = b1
    sum1[2] = c1
    sum1[3] = d1
    sum2[0] = a2
    sum2[1] = b2
    sum2[2] = c2
    sum2[3] = d2


cdef inline void product_sums_of_group(
    const element **grad, const element **row, const Group *group, const Job *job
) noexcept nogil:
    """Writes sum_grad and sum_product."""
    cdef octet[element] centres[1]
    cdef octet[element] part1[GROUP]
    cdef octet[element] part2[GROUP]
    cdef double sum1[GROUP]
    cdef double sum2[GROUP]
    cdef doubles totals1, totals2, mean = load_some(job.mean + group.row, group.count)
    cdef double centre
    cdef Py_ssize_t i, n = group.length
    centres[0] = narrow(row[0], mean)
    for i in range(0, GROUP, 4):
        multiply_four(grad + i, row + i, n, centres, <int>i, part1 + i, part2 + i)
    totals1 = totals_of_octets(<const octet[element] *>part1)
    totals2 = totals_of_octets(<const octet[element] *>part2)
    if element is not double:
        if not (
            all_within(totals2, FLOAT_SUM_LEAST * n, FLOAT_SUM_MOST)
            and all_within(totals1, -1, FLOAT_SUM_MOST)
        ):
            store_doubles(sum1, totals1)
            store_doubles(sum2, totals2)
            for i in range(group.count):
                if not product_sum_fits(sum1[i], sum2[i], n):
                    centre = rounded(row[0], job.mean[group.row + i])
                    product_sums_in_double(grad[i], row[i], n, centre, &sum1[i], &sum2[i])
            totals1 = load_doubles(sum1)
            totals2 = load_doubles(sum2)
    store_some(job.sum_grad + group.row, totals1, group.count)
    store_some(
        job.sum_product + group.row, totals2 - (mean - widen(centres[0])) * totals1, group.count
    )


cdef inline void differentiate_group(
    const element **grad, const element **row, element *grad_input, const Group *group,
    const Job *job,
) noexcept nogil:
    cdef octet[element] centre[1]
    cdef octet[element] grad_mean[1]
    cdef octet[element] grad_scale[1]
    cdef octet[element] x_scale[1]
    cdef octet[element] shift[1]
    cdef Coefficients out
    cdef GradScales scales
    cdef bint fit
    cdef Py_ssize_t i, at, first = group.row, channel = first % job.channels, n = group.length
    cdef element buffer[8]
    out.centre = centre
    out.grad_mean = grad_mean
    out.grad_scale = grad_scale
    out.x_scale = x_scale
    out.shift = shift
    if not job.through_statistics:
        for i in range(group.count):
            scale_gradient(
                grad[i], grad_input + i * n, n, 1,
                weight_of(job, (first + i) % job.channels) * job.rstd[first + i],
            )
        return
    fit = set_grad_scales(
        row[0], &out, 0, load_some(job.sum_grad + first, group.count),
        load_some(job.sum_product + first, group.count), 1 / <double>n,
        load_some(job.mean + first, group.count), load_some(job.rstd + first, group.count),
        weights_of(job, channel),
    )
    for i in range(group.count):
        if not fit:
            at = first + i
            scales = grad_scales_of(
                row[0], job.sum_grad[at], job.sum_product[at], n, job.mean[at], job.rstd[at],
                weight_of(job, at % job.channels),
            )
            if not (fits_float(scales.grad_scale) and fits_float(scales.x_scale)):
                differentiate_in_double(grad[i], row[i], grad_input + i * n, n, 1, &scales)
                continue
        # Rows of fewer than eight elements end where their buffers do.
        differentiate_octets(
            grad[i] + min(n - 8, <Py_ssize_t>0), row[i] + min(n - 8, <Py_ssize_t>0),
            &buffer[0] if n < 8 else grad_input + i * n, max(n, <Py_ssize_t>8),
            splat_number(row[0], grad_mean, <int>i), splat_number(row[0], grad_scale, <int>i),
            splat_number(row[0], centre, <int>i), splat_number(row[0], x_scale, <int>i),
            splat_number(row[0], shift, <int>i),
        )
        if n < 8:
            for at in range(n):
                grad_input[i * n + at] = buffer[8 - n + at]


cdef void backward_short(
    const element *grad_output, const element *x, element *grad_input, const Job *job,
    Py_ssize_t first, Py_ssize_t end,
) noexcept nogil:
    cdef const element *grad[GROUP]
    cdef const element *row[GROUP]
    cdef element grad_buffer[8 * GROUP]
    cdef element buffer[8 * GROUP]
    cdef Group group
    cdef Py_ssize_t at
    group.row = first
    group.length = job.length
    while group.row < end:
        at = group.row * job.length
        group.count = min(end - group.row, <Py_ssize_t>GROUP)
        prefetch_group(grad_output + at, &group)
        prefetch_group(x + at, &group)
        stage(grad_output + at, grad, grad_buffer, &group)
        stage(x + at, row, buffer, &group)
        product_sums_of_group(grad, row, &group, job)
        differentiate_group(grad, row, grad_input + at, &group, job)
        group.row += GROUP
