# Rows of more than SHORT elements: C-contiguous (N, C, spatial...) is N * C of them.
#
# Threads share the rows or, where there are fewer rows than threads could use, the blocks of
# each row. Both ways form the same sums in the same order: the result does not depend on the
# number of threads, bit by bit.

# ------------------------------------------------------------ the last passes

cdef inline Py_ssize_t elements_to_line(const element *y) noexcept nogil:
    """How many elements after y the next cache line begins."""
    return <Py_ssize_t>((64 - (<size_t>y & 63)) & 63) // <Py_ssize_t>sizeof(element)


cdef inline Py_ssize_t next_to_read(
    const element *like, const Job *job, const row_kind *after
) noexcept nogil:
    """How many elements ahead the last pass asks for what is read next: in short rows, the next."""
    cdef bint small = job.stride * <Py_ssize_t>sizeof(element) <= NEXT_ROW
    return job.stride if small else ahead_in_row(like, after)


cdef void normalize_in_double(
    const element *x, element *y, Py_ssize_t n, Py_ssize_t step, const Scales *scales,
    const row_kind *after,
) noexcept nogil:
    """n elements that are `step` apart, where float32 does not hold their scale."""
    cdef Py_ssize_t i
    cdef double value
    for i in range(n):
        value = (load_one(x + i * step) - scales.centre) * scales.scale + scales.shift
        store_one(y + i * step, ended_one(after, x, i * step, i, value))


cdef void normalize(
    const element *x,       # IN  n elements
    element *y,             # OUT n elements
    Py_ssize_t n,           # more than a bundle has
    const Scales *scales, const row_kind *after, const Job *job,
) noexcept nogil:
    cdef bint stream = job.stream
    cdef Py_ssize_t lanes = lanes_of(x), i = 0, ahead = next_to_read(x, job, after)
    cdef bundle_scales[element] k = splat_scales(
        x, scales.centre, head_of_scale(x, scales.scale), rest_of_scale(scales.scale),
        scales.shift,
    )
    cdef bundle[element] last
    if element is not double:
        if not fits_float(scales.scale):
            normalize_in_double(x, y, n, 1, scales, after)
            return
    # The last bundle overlaps the one before it: it is read before that is written.
    last = normalized_at(after, x, n - lanes, 0, k)
    if not job.in_place:
        # Stores that cross lines take twice as long, and NumPy's arrays begin where they like.
        i = elements_to_line(y)
        if i:
            store_bundle(y, normalized_at(after, x, 0, 0, k))
    while i + lanes <= n:
        instnorm_prefetch_bundle(x + i + ahead)
        if not stream:
            instnorm_prefetch_bundle(y + i + ahead)
        put_bundle(y + i, normalized_at(after, x, i, 0, k), stream)
        i += lanes
    if stream:
        stream_end()
    store_bundle(y + n - lanes, last)


cdef void differentiate_in_double(
    const element *grad_output, const element *x, element *grad_input, Py_ssize_t n,
    Py_ssize_t step, const GradScales *scales, const row_kind *after,
) noexcept nogil:
    """n elements that are `step` apart, where a scale of theirs leaves the range of its type."""
    cdef Py_ssize_t i
    cdef double g, d, slope, value
    for i in range(n):
        terms_one(after, grad_output, x, i * step, i, scales.centre, &g, &d, &slope)
        value = (g - scales.grad_mean) * scales.grad_scale + scales.shift
        # Statistics that were given: x has no part in it, not even a NaN of x.
        if scales.x_scale != 0:
            value += (d * scales.unit) * scales.x_scale
        store_one(grad_input + i * step, value if keeps(after, i) else 0)
        store_grad_residual_one(after, x, i * step, g)


cdef void differentiate(
    const element *grad_output, const element *x,   # IN  n elements
    element *grad_input,    # OUT n elements
    Py_ssize_t n,           # more than a bundle has
    const GradScales *scales, const row_kind *after, const Job *job,
) noexcept nogil:
    cdef bint stream = job.stream
    cdef Py_ssize_t lanes = lanes_of(x), i = 0, end = n - lanes, ahead = next_to_read(x, job, after)
    cdef bundle_grad_scales[element] k = splat_grad_scales(
        x, scales.grad_mean, scales.grad_scale, scales.centre, scales.x_scale, scales.shift,
        job.through_statistics,
    )
    cdef bundle[element] last
    if not grad_scales_fit(x, scales):
        differentiate_in_double(grad_output, x, grad_input, n, 1, scales, after)
        return
    # The last bundle overlaps the one before it: it is read before that is written.
    last = gradient_at(after, grad_output, x, end, 0, k)
    if not job.in_place:
        i = elements_to_line(grad_input)
        if i:
            store_bundle(grad_input, gradient_at(after, grad_output, x, 0, 0, k))
    while i <= end:
        instnorm_prefetch_bundle(grad_output + i + ahead)
        instnorm_prefetch_bundle(x + i + ahead)
        if not stream:
            instnorm_prefetch_bundle(grad_input + i + ahead)
        put_bundle(grad_input + i, gradient_at(after, grad_output, x, i, 0, k), stream)
        i += lanes
    if stream:
        stream_end()
    store_bundle(grad_input + end, last)


# -------------------------------------------------------------- whole rows

cdef inline void finish_row(
    const element *x, Moments *moments, const row_kind *after, const Job *job, Py_ssize_t row
) noexcept nogil:
    job.mean[row] = moments.origin + (moments.offset + moments.offset_rest)
    job.rstd[row] = inverse_std((moments.m2 + moments.m2_rest) / moments.count, job.eps)
    if element is double:
        if leaves_range(x, job.rstd[row]):
            moments.offset += moments.offset_rest
            moments.offset_rest = 0
            statistics_in_units(
                x, job.length, 1, after, job, row, &moments.origin, &moments.offset
            )


cdef inline Scales scales_of_row(
    const element *like, const Moments *moments, const Job *job, Py_ssize_t row
) noexcept nogil:
    return scales_of(
        like, moments.origin, moments.offset + moments.offset_rest, job.rstd[row],
        weight_of(job, row), bias_of(job, row),
    )


cdef inline Scales scales_given(
    const element *like, const Job *job, Py_ssize_t row
) noexcept nogil:
    """By the mean and rstd that are there."""
    return scales_of(
        like, job.mean[row], 0, job.rstd[row], weight_of(job, row), bias_of(job, row)
    )


cdef inline Moments moments_of_block(
    const element *x, Py_ssize_t length, Py_ssize_t block, const row_kind *row, bint exact
) noexcept nogil:
    """Of a block of a row; `exact`: to the last digits of double, as parts are merged by."""
    cdef Py_ssize_t at = block * BLOCK, n = block_size(length, block)
    cdef row_kind after = advanced(row, at, sizeof(element))
    if exact and element is not double:
        return moments_in_double(x + at, n, &after)
    return block_moments(x + at, n, &after)


cdef inline Moments row_moments(
    const element *x, Py_ssize_t length, const row_kind *after, bint exact
) noexcept nogil:
    cdef Moments row = moments_of_block(x, length, 0, after, exact), moments
    cdef Py_ssize_t block
    for block in range(1, blocks_in(length)):
        moments = moments_of_block(x, length, block, after, exact)
        merge(&row, &moments)
    return row


cdef inline Py_ssize_t last_chunk(Py_ssize_t start, Py_ssize_t end) noexcept nogil:
    """Where the part of a row begins that is written first: its end is still in the cache."""
    return start if end - start < 2 * CHUNK else end - CHUNK


cdef inline void normalize_span(
    const element *x, element *y, Py_ssize_t start, Py_ssize_t end, const Scales *scales,
    const row_kind *row, const Job *job,
) noexcept nogil:
    """A part of a row whose statistics are known."""
    cdef row_kind after
    cdef Py_ssize_t at
    while start < end:
        at = last_chunk(start, end)
        after = advanced(row, at, sizeof(element))
        normalize(x + at, y + at, end - at, scales, &after, job)
        end = at


cdef void forward_rows(
    const element *x,
    element *y,             # OUT NULL: only the statistics are asked for
    const Job *job, Py_ssize_t first, Py_ssize_t end, const row_kind *kind,
) noexcept nogil:
    cdef Py_ssize_t row, at
    cdef Moments moments
    cdef Scales scales
    cdef row_kind after
    for row in range(first, end):
        at = row * job.stride
        if row_kind is not no_epilogue:
            set_row_epilogue(x, &after, job, row)
        moments = row_moments(x + at, job.length, &after, job.exact)
        finish_row(x + at, &moments, &after, job, row)
        if y != NULL:
            scales = scales_of_row(x, &moments, job, row)
            normalize_span(x + at, y + at, 0, job.length, &scales, &after, job)


cdef void apply_rows(
    const element *x, element *y, const Job *job, Py_ssize_t first, Py_ssize_t end,
    const row_kind *kind,
) noexcept nogil:
    """y from statistics that are given."""
    cdef Py_ssize_t row, at
    cdef Scales scales
    cdef row_kind after
    for row in range(first, end):
        at = row * job.stride
        if row_kind is not no_epilogue:
            set_row_epilogue(x, &after, job, row)
        scales = scales_given(x, job, row)
        if job.length <= SHORT:
            normalize_short(x + at, y + at, job.length, &scales, &after)
        else:
            normalize(x + at, y + at, job.length, &scales, &after, job)


cdef inline void finish_products(
    const element *like, const Job *job, Py_ssize_t row, const Products *sums
) noexcept nogil:
    """What the gradients need, from sums around the mean as the computing type holds it."""
    job.offset[row] = offset_of(like, job, row, sums.distance)
    job.sum_grad[row] = sums.grad
    job.sum_product[row] = sums.product - job.offset[row] * sums.grad
    if job.sum_slope != NULL:
        job.sum_slope[row] = sums.slope


cdef inline bint affine_map_fits(
    const element *like, const Job *job, const Scales *scales
) noexcept nogil:
    """Whether float32 can compute what the activation was applied to."""
    return element is double or job.from_output or fits_float(scales.scale)


cdef void backward_in_double(
    const element *grad_output, const element *x, element *grad_input, Py_ssize_t step,
    const Job *job, Py_ssize_t row, const row_kind *after,
) noexcept nogil:
    """Of a row, whose elements are `step` apart."""
    cdef Products sums = products_in_double(
        grad_output, x, job.length, step, rounded(x, job.mean[row]), after
    )
    cdef GradScales scales
    finish_products(x, job, row, &sums)
    scales = grad_scales_of(x, job, row)
    differentiate_in_double(grad_output, x, grad_input, job.length, step, &scales, after)


cdef inline void differentiate_span(
    const element *grad_output, const element *x, element *grad_input, Py_ssize_t start,
    Py_ssize_t end, const Job *job, Py_ssize_t row, const row_kind *whole,
) noexcept nogil:
    """A part of a row whose sums are known."""
    cdef GradScales scales = grad_scales_of(x, job, row)
    cdef row_kind after
    cdef Py_ssize_t at
    while start < end:
        at = last_chunk(start, end)
        after = advanced(whole, at, sizeof(element))
        differentiate(
            grad_output + at, x + at, grad_input + at, end - at, &scales, &after, job
        )
        end = at


cdef void backward_rows(
    const element *grad_output, const element *x, element *grad_input, const Job *job,
    Py_ssize_t first, Py_ssize_t end, const row_kind *kind,
) noexcept nogil:
    cdef Py_ssize_t row, block, at, start
    cdef double centre
    cdef Products sums, part
    cdef Scales scales
    cdef row_kind after
    for row in range(first, end):
        at = row * job.stride
        centre = rounded(x, job.mean[row])
        if row_kind is not no_epilogue:
            set_row_epilogue(x, &after, job, row)
            scales = scales_given(x, job, row)
            set_affine_map(x, &after, &scales, job, row)
            if not affine_map_fits(x, job, &scales):
                backward_in_double(
                    grad_output + at, x + at, grad_input + at, 1, job, row, &after
                )
                continue
        sums = no_products()
        for block in range(blocks_in(job.length)):
            start = block * BLOCK
            part = block_products(
                grad_output + at + start, x + at + start, block_size(job.length, block), centre,
                &after, start,
            )
            add_products(&sums, &part)
        finish_products(x, job, row, &sums)
        differentiate_span(
            grad_output + at, x + at, grad_input + at, 0, job.length, job, row, &after
        )


# ------------------------------------------------- threads that share each row

cdef inline Py_ssize_t part_start(Py_ssize_t length, int threads, int thread) noexcept nogil:
    """Where the part of a row begins that a thread writes: with a block, but for the end."""
    return min(share(blocks_in(length), threads, thread) * BLOCK, length)


cdef bint forward_split_rows(
    const element *x,
    element *y,             # OUT NULL: only the statistics are asked for
    const Job *job, Py_ssize_t first_row, Py_ssize_t end_row, const row_kind *kind,
) noexcept nogil:
    """As forward_rows. False: no memory."""
    cdef Py_ssize_t blocks = blocks_in(job.length)
    cdef Py_ssize_t row, block, at, start, end
    cdef int thread
    cdef Scales scales
    cdef row_kind after
    cdef Moments *moments = <Moments *>malloc(blocks * sizeof(Moments))
    if moments == NULL:
        return False
    for row in range(first_row, end_row):
        at = row * job.stride
        if row_kind is not no_epilogue:
            set_row_epilogue(x, &after, job, row)
        for block in prange(blocks, num_threads=job.threads, schedule="static"):
            moments[block] = moments_of_block(x + at, job.length, block, &after, job.exact)
        for block in range(1, blocks):
            merge(moments, moments + block)
        finish_row(x + at, moments, &after, job, row)
        if y == NULL:
            continue
        scales = scales_of_row(x, moments, job, row)
        for thread in prange(job.threads, num_threads=job.threads, schedule="static"):
            start = part_start(job.length, job.threads, thread)
            end = part_start(job.length, job.threads, thread + 1)
            normalize_span(x + at, y + at, start, end, &scales, &after, job)
    free(moments)
    return True


cdef bint backward_split_rows(
    const element *grad_output, const element *x, element *grad_input, const Job *job,
    Py_ssize_t first_row, Py_ssize_t end_row, const row_kind *kind,
) noexcept nogil:
    """As backward_rows. False: no memory."""
    cdef Py_ssize_t blocks = blocks_in(job.length)
    cdef Py_ssize_t row, block, at, start, end
    cdef int thread
    cdef Scales scales
    cdef row_kind after
    cdef Products *sums = <Products *>malloc(blocks * sizeof(Products))
    if sums == NULL:
        return False
    for row in range(first_row, end_row):
        at = row * job.stride
        if row_kind is not no_epilogue:
            set_row_epilogue(x, &after, job, row)
            scales = scales_given(x, job, row)
            set_affine_map(x, &after, &scales, job, row)
            if not affine_map_fits(x, job, &scales):
                backward_in_double(
                    grad_output + at, x + at, grad_input + at, 1, job, row, &after
                )
                continue
        for block in prange(blocks, num_threads=job.threads, schedule="static"):
            sums[block] = block_products(
                grad_output + at + block * BLOCK, x + at + block * BLOCK,
                block_size(job.length, block), rounded(x, job.mean[row]), &after, block * BLOCK,
            )
        for block in range(1, blocks):
            add_products(sums, sums + block)
        finish_products(x, job, row, sums)
        for thread in prange(job.threads, num_threads=job.threads, schedule="static"):
            start = part_start(job.length, job.threads, thread)
            end = part_start(job.length, job.threads, thread + 1)
            differentiate_span(
                grad_output + at, x + at, grad_input + at, start, end, job, row, &after
            )
    free(sums)
    return True


# --------------------------------------------------- rows that are computed in double

cdef void exact_forward(
    const element *x,
    element *y,             # OUT NULL: only the statistics are asked for
    const Job *job, Py_ssize_t first, Py_ssize_t end, const row_kind *kind,
) noexcept nogil:
    """As forward_rows, for a few elements."""
    cdef Py_ssize_t row, at
    cdef Moments moments
    cdef Scales scales
    cdef row_kind after
    for row in range(first, end):
        at = row * job.stride
        if row_kind is not no_epilogue:
            set_row_epilogue(x, &after, job, row)
        moments = moments_in_double(x + at, job.length, &after)
        finish_row(x + at, &moments, &after, job, row)
        if y != NULL:
            scales = scales_of_row(x, &moments, job, row)
            normalize_in_double(x + at, y + at, job.length, 1, &scales, &after)


cdef void exact_backward(
    const element *grad_output, const element *x, element *grad_input, const Job *job,
    Py_ssize_t first, Py_ssize_t end, const row_kind *kind,
) noexcept nogil:
    """As backward_rows."""
    cdef Py_ssize_t row, at
    cdef Scales scales
    cdef row_kind after
    for row in range(first, end):
        at = row * job.stride
        if row_kind is not no_epilogue:
            set_row_epilogue(x, &after, job, row)
            scales = scales_given(x, job, row)
            set_affine_map(x, &after, &scales, job, row)
        backward_in_double(grad_output + at, x + at, grad_input + at, 1, job, row, &after)
