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
    Py_ssize_t stride       # elements from a row to the next


cdef inline void stage(
    const element *x, const element **row, element *buffer, const Group *group
) noexcept nogil:
    """Where the rows of a group are; in `buffer`, of GROUP * 8 elements, if they are too short."""
    cdef Py_ssize_t i, j, n = group.length
    if group.count == GROUP:
        for i in range(GROUP):
            row[i] = x + i * group.stride
    else:
        for i in range(GROUP):
            row[i] = x + min(i, group.count - 1) * group.stride
    if n < 8:
        for i in range(GROUP):
            for j in range(8):
                buffer[8 * i + j] = row[i][max(j - (8 - n), <Py_ssize_t>0)]
            row[i] = buffer + 8 * i + 8 - n


cdef inline void prefetch_group(const element *x, const Group *group) noexcept nogil:
    """Ask for the rows of the next group, should it be as large."""
    cdef Py_ssize_t i, n = GROUP * group.stride * <Py_ssize_t>sizeof(element)
    cdef const char *next_rows = <const char *>x + n
    for i in range(0, n, 64):
        instnorm_prefetch(next_rows + i)


# ---------------------------------------------------------------- statistics

cdef inline void add_square(doubles d, doubles *sum1, doubles *sum2) noexcept nogil:
    sum1[0] = sum1[0] + d
    sum2[0] = fma(d, d, sum2[0])


cdef inline bint fits(const element *like, double scale) noexcept nogil:
    return element is double or fits_float(scale)


cdef inline void square_two(
    const element **row,    # IN  two rows of n elements
    Py_ssize_t n,
    const double *pilot,    # IN  of two rows
    const row_kind *after,  # IN  of the first
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
        add_square(difference_at(after, a, i, pilot_a), &a1, &a2)
        add_square(difference_at(after, b, i, pilot_b), &b1, &b2)
    if whole < n:
        add_square(tail(difference_at(after, a, n - 8, pilot_a), n - whole), &a1, &a2)
        add_square(tail(difference_at(after, b, n - 8, pilot_b), n - whole), &b1, &b2)
    sum1[0] = a1
    sum1[1] = b1
    sum2[0] = a2
    sum2[1] = b2


cdef inline void statistics_of_group(
    const element **row, const Group *group, const Job *job,
    const row_kind *after,  # IN  of the first row: its mask is that of all
    double *pilot,          # OUT GROUP
    double *offset,         # OUT GROUP: mean = pilot + offset
) noexcept nogil:
    """As moments_in_double, of each row. Writes mean and rstd as well."""
    cdef doubles part1[GROUP]
    cdef doubles part2[GROUP]
    cdef doubles sum1, sum2, offsets, rstd
    cdef double count = job.count
    cdef Py_ssize_t i, n = group.length, first = first_counted(after, n)
    for i in range(GROUP):
        pilot[i] = load_one(row[i] + first)
    for i in range(0, GROUP, 2):
        square_two(row + i, n, pilot + i, after, part1 + i, part2 + i)
    if element is double:
        store_doubles(pilot, load_doubles(pilot) + totals(<const doubles *>part1) / count)
        for i in range(0, GROUP, 2):
            square_two(row + i, n, pilot + i, after, part1 + i, part2 + i)
    sum1 = totals(<const doubles *>part1)
    sum2 = totals(<const doubles *>part2)
    offsets = sum1 / count
    rstd = inverse_std(variance(sum1, sum2, offsets, 1 / count), job.eps)
    store_doubles(offset, offsets)
    store_some(job.mean + group.row, load_doubles(pilot) + offsets, group.count)
    store_some(job.rstd + group.row, rstd, group.count)
    if element is double:
        if not all_within(rstd, RSTD_LEAST, RSTD_MOST):
            for i in range(group.count):
                if leaves_range(row[0], job.rstd[group.row + i]):
                    statistics_in_units(
                        row[i], n, 1, after, job, group.row + i, pilot + i, offset + i
                    )


# ------------------------------------------------------------ the last passes

cdef inline void normalize_octets(
    const element *x, element *y, Py_ssize_t n, const octet_scales[element] *k,
    const row_kind *after,
) noexcept nogil:
    """Of a row of eight elements at least; y may be x."""
    cdef Py_ssize_t i
    cdef octet[element] last = normalized_at(after, x, n - 8, 0, k[0])
    for i in range(0, n - 7, 8):
        store_octet(y + i, normalized_at(after, x, i, 0, k[0]))
    store_octet(y + n - 8, last)


cdef inline void normalize_short(
    const element *x, element *y, Py_ssize_t n, const Scales *scales, const row_kind *after
) noexcept nogil:
    """As normalize, of at most SHORT elements."""
    cdef octet_scales[element] k = octet_splat_scales(
        x, scales.centre, head_of_scale(x, scales.scale), rest_of_scale(scales.scale),
        scales.shift,
    )
    if not fits(x, scales.scale):
        normalize_in_double(x, y, n, 1, scales, after)
    elif n < 8:
        normalize_part(after, x, y, n, 0, k)
    else:
        normalize_octets(x, y, n, &k, after)


cdef inline void differentiate_octets(
    const element *grad_output, const element *x, element *grad_input, Py_ssize_t n,
    const octet_grad_scales[element] *k, const row_kind *after,
) noexcept nogil:
    """Of a row of eight elements at least; grad_input may be grad_output or x."""
    cdef Py_ssize_t i
    cdef octet[element] last = gradient_at(after, grad_output, x, n - 8, 0, k[0])
    for i in range(0, n - 7, 8):
        store_octet(grad_input + i, gradient_at(after, grad_output, x, i, 0, k[0]))
    store_octet(grad_input + n - 8, last)


# ---------------------------------------------------------------- forward

cdef inline void normalize_group(
    const element **row, element *y, const Group *group, const Job *job,
    const double *pilot, const double *offset, const row_kind *kind,
) noexcept nogil:
    cdef doubles pilots = load_doubles(pilot), offsets = load_doubles(offset)
    cdef octet[element] numbers[COEFFICIENTS]
    cdef coefficients k = coefficients_in(numbers, sizeof(octet[element]))
    cdef octet_scales[element] of_row
    cdef Scales scales
    cdef Py_ssize_t i, at, n = group.length
    cdef row_kind after
    cdef bint fit = set_scales(
        row[0], &k, 0, &pilots, &offsets, job, group.row, group.count
    )
    for i in range(group.count):
        at = group.row + i
        if row_kind is not no_epilogue:
            set_row_epilogue(row[0], &after, job, at)
        if fit and n >= 8:
            of_row = octet_scales_of(row[0], &k, <int>i)
            normalize_octets(row[i], y + i * group.stride, n, &of_row, &after)
        else:
            scales = scales_of(
                row[0], pilot[i], offset[i], job.rstd[at], weight_of(job, at), bias_of(job, at)
            )
            normalize_short(row[i], y + i * group.stride, n, &scales, &after)


cdef void forward_short(
    const element *x,
    element *y,             # OUT NULL: only the statistics are asked for
    const Job *job, Py_ssize_t first, Py_ssize_t end, const row_kind *kind,
) noexcept nogil:
    cdef const element *row[GROUP]
    cdef element buffer[8 * GROUP]
    cdef double pilot[GROUP]
    cdef double offset[GROUP]
    cdef Group group
    cdef Py_ssize_t at
    cdef row_kind after
    group.row = first
    group.length = job.length
    group.stride = job.stride
    while group.row < end:
        at = group.row * job.stride
        group.count = min(end - group.row, <Py_ssize_t>GROUP)
        prefetch_group(x + at, &group)
        stage(x + at, row, buffer, &group)
        if row_kind is not no_epilogue:
            set_row_epilogue(x, &after, job, group.row)
        statistics_of_group(row, &group, job, &after, pilot, offset)
        if y != NULL:
            normalize_group(row, y + at, &group, job, pilot, offset, kind)
        group.row += GROUP


# ---------------------------------------------------------------- backward

cdef inline void sum_row(
    const element *grad_output, const element *x, Py_ssize_t n,
    octet[element] centre, const row_kind *after,
    octet[element] *sum1,   # OUT of grad_output, once it passed the activation
    octet[element] *sum2,   # OUT of that, times (x - centre)
    octet[element] *sum3,   # OUT of (x - centre), float64 only
) noexcept nogil:
    cdef octet[element] g, d, lane1 = splat_octet(x, 0), lane2 = lane1, lane3 = lane1
    cdef Py_ssize_t i, whole = n - n % 8
    if row_kind is not no_epilogue and n < 8:
        factors_of_part(after, grad_output, x, n, centre, sum1, &d)
        sum2[0] = sum1[0] * d
        # After the row's elements are zeros, whose distance does not count.
        sum3[0] = d - tail(d, 8 - n)
        return
    for i in range(0, whole, 8):
        factors_at(after, grad_output, x, i, 0, centre, &g, &d)
        lane1 = lane1 + g
        lane2 = fma(g, d, lane2)
        if element is double:
            lane3 = lane3 + d
    if whole < n:
        factors_at(after, grad_output, x, n - 8, 0, centre, &g, &d)
        g = tail(g, n - whole)
        lane1 = lane1 + g
        lane2 = fma(g, d, lane2)
        if element is double:
            lane3 = lane3 + tail(d, n - whole)
    sum1[0] = lane1
    sum2[0] = lane2
    sum3[0] = lane3


cdef inline void products_of_group(
    const element **grad, const element **row, const Group *group, const Job *job,
    row_kind *after,        # IN  GROUP
) noexcept nogil:
    """Writes the sums of each row."""
    cdef octet[element] centres[1]
    cdef octet[element] part1[GROUP]
    cdef octet[element] part2[GROUP]
    cdef octet[element] part3[GROUP]
    cdef double sum1[GROUP]
    cdef double sum2[GROUP]
    cdef doubles totals1, totals2, offset, mean = load_some(job.mean + group.row, group.count)
    cdef Products redone
    cdef Py_ssize_t i, n = group.length
    centres[0] = narrow(row[0], mean)
    for i in range(GROUP):
        sum_row(
            grad[i], row[i], n, splat_number(row[0], centres, <int>i), after + i,
            part1 + i, part2 + i, part3 + i,
        )
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
                    redone = products_in_double(
                        grad[i], row[i], n, 1, rounded(row[0], job.mean[group.row + i]), after + i
                    )
                    sum1[i] = redone.grad
                    sum2[i] = redone.product
            totals1 = load_doubles(sum1)
            totals2 = load_doubles(sum2)
    if element is not double:
        offset = mean - widen(centres[0])
    elif job.through_statistics:
        offset = totals_of_octets(<const octet[element] *>part3) / <double>job.count
    else:
        offset = splat_doubles(0)
    store_some(job.offset + group.row, offset, group.count)
    store_some(job.sum_grad + group.row, totals1, group.count)
    store_some(job.sum_product + group.row, totals2 - offset * totals1, group.count)
    if row_kind is not no_epilogue:
        if job.sum_slope != NULL:
            for i in range(group.count):
                job.sum_slope[group.row + i] = slope_sum(grad[i], row[i], n, after + i)


cdef inline void differentiate_group(
    const element **grad, const element **row, element *grad_input, const Group *group,
    const Job *job, const row_kind *after,
) noexcept nogil:
    cdef octet[element] numbers[COEFFICIENTS]
    cdef coefficients k = coefficients_in(numbers, sizeof(octet[element]))
    cdef octet_grad_scales[element] of_row
    cdef GradScales scales
    cdef element *out
    cdef Py_ssize_t i, n = group.length
    cdef bint fit = set_grad_scales(row[0], &k, 0, job, group.row, group.count)
    for i in range(group.count):
        out = grad_input + i * group.stride
        if not fit:
            scales = grad_scales_of(row[0], job, group.row + i)
            if not grad_scales_fit(row[0], &scales):
                differentiate_in_double(grad[i], row[i], out, n, 1, &scales, after + i)
                continue
        of_row = octet_grad_scales_of(row[0], &k, <int>i)
        if n < 8:
            differentiate_part(after + i, grad[i], row[i], out, n, 0, of_row)
        else:
            differentiate_octets(grad[i], row[i], out, n, &of_row, after + i)


cdef inline bint set_group_epilogue(
    const element *x, row_kind *after, const Group *group, const Job *job
) noexcept nogil:
    """False: float32 cannot compute what the activation of some row was applied to."""
    cdef octet[element] numbers[COEFFICIENTS]
    cdef coefficients k
    cdef doubles means, zeros = splat_doubles(0)
    cdef Py_ssize_t i
    cdef bint fit = True
    if row_kind is not no_epilogue:
        k = coefficients_in(numbers, sizeof(octet[element]))
        means = load_some(job.mean + group.row, group.count)
        fit = (
            set_scales(x, &k, 0, &means, &zeros, job, group.row, group.count) or job.from_output
        )
        set_signs(x, &k, 0, job, group.row, group.count)
        for i in range(GROUP):
            set_row_epilogue(x, after + i, job, group.row + min(i, group.count - 1))
            take_affine_map(x, <row_epilogue *>(after + i), &k, <int>i)
    return fit


cdef void backward_short(
    const element *grad_output, const element *x, element *grad_input, const Job *job,
    Py_ssize_t first, Py_ssize_t end, const row_kind *kind,
) noexcept nogil:
    cdef const element *grad[GROUP]
    cdef const element *row[GROUP]
    cdef element grad_buffer[8 * GROUP]
    cdef element buffer[8 * GROUP]
    cdef row_kind after[GROUP]
    cdef Group group
    cdef Py_ssize_t at
    group.row = first
    group.length = job.length
    group.stride = job.stride
    while group.row < end:
        at = group.row * job.stride
        group.count = min(end - group.row, <Py_ssize_t>GROUP)
        prefetch_group(grad_output + at, &group)
        prefetch_group(x + at, &group)
        if set_group_epilogue(x, after, &group, job):
            stage(grad_output + at, grad, grad_buffer, &group)
            stage(x + at, row, buffer, &group)
            products_of_group(grad, row, &group, job, after)
            differentiate_group(grad, row, grad_input + at, &group, job, after)
        else:
            exact_backward(
                grad_output, x, grad_input, job, group.row, group.row + group.count, kind
            )
        group.row += GROUP
