# Rows of more than SHORT elements: C-contiguous (N, C, spatial...) is N * C of them.
#
# Threads share the rows or, where there are fewer rows than threads could use, the blocks of
# each row. Both ways form the same sums in the same order: the result does not depend on the
# number of threads, bit by bit.

# ------------------------------------------------------------ the last passes

cdef inline Py_ssize_t elements_to_line(const element *y) noexcept nogil:
    """How many elements after y the next cache line begins."""
    return <Py_ssize_t>((64 - (<size_t>y & 63)) & 63) // <Py_ssize_t>sizeof(element)


cdef inline void normalize_in_double(
    const element *x, element *y, Py_ssize_t n, Py_ssize_t step, const Scales *scales
) noexcept nogil:
    """n elements that are `step` apart, where float32 does not hold their scale."""
    cdef Py_ssize_t i
    for i in range(n):
        store_one(
            y + i * step, (load_one(x + i * step) - scales.centre) * scales.scale + scales.shift
        )


cdef inline void normalize(
    const element *x,       # IN  n elements
    element *y,             # OUT n elements; may be x, but not if `stream`
    Py_ssize_t n,           # more than a bundle has
    const Scales *scales,
    bint stream,
) noexcept nogil:
    cdef Py_ssize_t lanes = lanes_of(x), i = 0
    cdef bundle[element] centre = splat_bundle(x, scales.centre)
    cdef bundle[element] scale = splat_bundle(x, head_of_scale(x, scales.scale))
    cdef bundle[element] scale_rest = splat_bundle(x, rest_of_scale(scales.scale))
    cdef bundle[element] shift = splat_bundle(x, scales.shift)
    cdef bundle[element] last
    if element is not double:
        if not fits_float(scales.scale):
            normalize_in_double(x, y, n, 1, scales)
            return
    # The last bundle overlaps the one before it: it is read before that is written.
    last = normalized(load_bundle(x + n - lanes), centre, scale, scale_rest, shift)
    if stream:
        store_bundle(y, normalized(load_bundle(x), centre, scale, scale_rest, shift))
        i = elements_to_line(y)
        while i + lanes <= n:
            stream_bundle(
                y + i, normalized(load_bundle(x + i), centre, scale, scale_rest, shift)
            )
            i += lanes
        stream_end()
    else:
        while i + lanes <= n:
            store_bundle(
                y + i, normalized(load_bundle(x + i), centre, scale, scale_rest, shift)
            )
            i += lanes
    store_bundle(y + n - lanes, last)


cdef inline void differentiate_in_double(
    const element *grad_output, const element *x, element *grad_input, Py_ssize_t n,
    Py_ssize_t step, const GradScales *scales,
) noexcept nogil:
    """n elements that are `step` apart, where float32 does not hold a scale of theirs."""
    cdef Py_ssize_t i
    for i in range(n):
        store_one(
            grad_input + i * step,
            (load_one(grad_output + i * step) - scales.grad_mean) * scales.grad_scale
            + (load_one(x + i * step) - scales.centre) * scales.x_scale
            + scales.shift,
        )


cdef inline void scale_gradient(
    const element *grad_output, element *grad_input, Py_ssize_t n, Py_ssize_t step, double scale
) noexcept nogil:
    """For statistics that were given: x has no part in the gradient, not even a NaN of x."""
    cdef Py_ssize_t i
    for i in range(n):
        store_one(grad_input + i * step, load_one(grad_output + i * step) * scale)


cdef inline void differentiate(
    const element *grad_output, const element *x,   # IN  n elements
    element *grad_input,    # OUT n elements; may be grad_output or x, but not if `stream`
    Py_ssize_t n,           # more than a bundle has
    const GradScales *scales,
    bint stream,
) noexcept nogil:
    cdef Py_ssize_t lanes = lanes_of(x), i = 0, end = n - lanes
    cdef bundle[element] grad_mean = splat_bundle(x, scales.grad_mean)
    cdef bundle[element] grad_scale = splat_bundle(x, scales.grad_scale)
    cdef bundle[element] centre = splat_bundle(x, scales.centre)
    cdef bundle[element] x_scale = splat_bundle(x, scales.x_scale)
    cdef bundle[element] shift = splat_bundle(x, scales.shift)
    cdef bundle[element] last
    if element is not double:
        if not (fits_float(scales.grad_scale) and fits_float(scales.x_scale)):
            differentiate_in_double(grad_output, x, grad_input, n, 1, scales)
            return
    # The last bundle overlaps the one before it: it is read before that is written.
    last = gradient(
        load_bundle(grad_output + end), load_bundle(x + end),
        grad_mean, grad_scale, centre, x_scale, shift,
    )
    if stream:
        store_bundle(
            grad_input,
            gradient(
                load_bundle(grad_output), load_bundle(x),
                grad_mean, grad_scale, centre, x_scale, shift,
            ),
        )
        i = elements_to_line(grad_input)
        while i <= end:
            stream_bundle(
                grad_input + i,
                gradient(
                    load_bundle(grad_output + i), load_bundle(x + i),
                    grad_mean, grad_scale, centre, x_scale, shift,
                ),
            )
            i += lanes
        stream_end()
    else:
        while i <= end:
            store_bundle(
                grad_input + i,
                gradient(
                    load_bundle(grad_output + i), load_bundle(x + i),
                    grad_mean, grad_scale, centre, x_scale, shift,
                ),
            )
            i += lanes
    store_bundle(grad_input + end, last)


# -------------------------------------------------------------- whole rows

cdef inline void finish_row(const Moments *moments, const Job *job, Py_ssize_t row) noexcept nogil:
    job.mean[row] = moments.origin + (moments.offset + moments.offset_rest)
    job.rstd[row] = inverse_std((moments.m2 + moments.m2_rest) / moments.count, job.eps)


cdef inline Scales scales_of_row(
    const element *like, const Moments *moments, const Job *job, Py_ssize_t row
) noexcept nogil:
    cdef Py_ssize_t channel = row % job.channels
    return scales_of(
        like, moments.origin, moments.offset + moments.offset_rest, job.rstd[row],
        weight_of(job, channel), bias_of(job, channel),
    )


cdef inline Moments row_moments(const element *x, Py_ssize_t length) noexcept nogil:
    cdef Moments row = block_moments(x, block_size(length, 0)), moments
    cdef Py_ssize_t block
    for block in range(1, blocks_in(length)):
        moments = block_moments(x + block * BLOCK, block_size(length, block))
        merge(&row, &moments)
    return row


cdef void statistics_of_rows(
    const element *x, const Job *job, Py_ssize_t first, Py_ssize_t end
) noexcept nogil:
    cdef Py_ssize_t row
    cdef Moments moments
    for row in range(first, end):
        moments = row_moments(x + row * job.length, job.length)
        finish_row(&moments, job, row)


cdef void forward_rows(
    const element *x, element *y, const Job *job, Py_ssize_t first, Py_ssize_t end
) noexcept nogil:
    cdef Py_ssize_t row, at
    cdef Moments moments
    cdef Scales scales
    for row in range(first, end):
        at = row * job.length
        moments = row_moments(x + at, job.length)
        finish_row(&moments, job, row)
        scales = scales_of_row(x, &moments, job, row)
        normalize(x + at, y + at, job.length, &scales, job.stream)


cdef void apply_rows(
    const element *x, element *y, const Job *job, Py_ssize_t first, Py_ssize_t end
) noexcept nogil:
    """y from statistics that are given."""
    cdef Py_ssize_t row, channel, at
    cdef Scales scales
    for row in range(first, end):
        channel = row % job.channels
        at = row * job.length
        scales = scales_of(
            x, job.mean[row], 0, job.rstd[row], weight_of(job, channel), bias_of(job, channel)
        )
        if job.length <= SHORT:
            normalize_short(x + at, y + at, job.length, &scales)
        else:
            normalize(x + at, y + at, job.length, &scales, job.stream)


cdef inline void finish_products(
    const element *like, const Job *job, Py_ssize_t row, double sum_grad, double sum_product
) noexcept nogil:
    """What the gradients need, from sums around the mean as the computing type holds it."""
    job.sum_grad[row] = sum_grad
    job.sum_product[row] = sum_product - (
        job.mean[row] - rounded(like, job.mean[row])
    ) * sum_grad


cdef inline void differentiate_part(
    const element *grad_output, const element *x, element *grad_input, Py_ssize_t n,
    const Job *job, Py_ssize_t row,
) noexcept nogil:
    """n elements of a row whose sums are known."""
    cdef double weight = weight_of(job, row % job.channels)
    cdef GradScales scales
    if not job.through_statistics:
        scale_gradient(grad_output, grad_input, n, 1, weight * job.rstd[row])
        return
    scales = grad_scales_of(
        x, job.sum_grad[row], job.sum_product[row], job.length, job.mean[row], job.rstd[row],
        weight,
    )
    differentiate(grad_output, x, grad_input, n, &scales, job.stream)


cdef void backward_rows(
    const element *grad_output, const element *x, element *grad_input, const Job *job,
    Py_ssize_t first, Py_ssize_t end,
) noexcept nogil:
    cdef Py_ssize_t row, block, at, start
    cdef double sum_grad, sum_product, block_grad, block_product, centre
    for row in range(first, end):
        at = row * job.length
        centre = rounded(x, job.mean[row])
        sum_grad = 0
        sum_product = 0
        for block in range(blocks_in(job.length)):
            start = at + block * BLOCK
            product_sums(
                grad_output + start, x + start, block_size(job.length, block), centre,
                &block_grad, &block_product,
            )
            sum_grad += block_grad
            sum_product += block_product
        finish_products(x, job, row, sum_grad, sum_product)
        differentiate_part(grad_output + at, x + at, grad_input + at, job.length, job, row)


# ------------------------------------------------- threads that share each row

cdef inline Py_ssize_t part_start(Py_ssize_t length, int threads, int thread) noexcept nogil:
    """Where the part of a row begins that a thread writes: with a block, but for the end."""
    return min(share(blocks_in(length), threads, thread) * BLOCK, length)


cdef bint forward_split_rows(const element *x, element *y, const Job *job) noexcept nogil:
    """As forward_rows of all rows. False: no memory."""
    cdef Py_ssize_t blocks = blocks_in(job.length)
    cdef Py_ssize_t row, block, at, start, end
    cdef int thread
    cdef Scales scales
    cdef Moments *moments = <Moments *>malloc(blocks * sizeof(Moments))
    if moments == NULL:
        return False
    for row in range(job.rows):
        at = row * job.length
        for block in prange(blocks, num_threads=job.threads, schedule="static"):
            moments[block] = block_moments(
                x + at + block * BLOCK, block_size(job.length, block)
            )
        for block in range(1, blocks):
            merge(moments, moments + block)
        finish_row(moments, job, row)
        if y == NULL:
            continue
        scales = scales_of_row(x, moments, job, row)
        for thread in prange(job.threads, num_threads=job.threads, schedule="static"):
            start = part_start(job.length, job.threads, thread)
            end = part_start(job.length, job.threads, thread + 1)
            normalize(x + at + start, y + at + start, end - start, &scales, job.stream)
    free(moments)
    return True


cdef bint backward_split_rows(
    const element *grad_output, const element *x, element *grad_input, const Job *job
) noexcept nogil:
    """As backward_rows of all rows. False: no memory."""
    cdef Py_ssize_t blocks = blocks_in(job.length)
    cdef Py_ssize_t row, block, at, start, end
    cdef int thread
    cdef double sum_grad, sum_product
    cdef double *sums = <double *>malloc(2 * blocks * sizeof(double))
    if sums == NULL:
        return False
    for row in range(job.rows):
        at = row * job.length
        for block in prange(blocks, num_threads=job.threads, schedule="static"):
            product_sums(
                grad_output + at + block * BLOCK, x + at + block * BLOCK,
                block_size(job.length, block), rounded(x, job.mean[row]),
                &sums[2 * block], &sums[2 * block + 1],
            )
        sum_grad = 0
        sum_product = 0
        for block in range(blocks):
            sum_grad += sums[2 * block]
            sum_product += sums[2 * block + 1]
        finish_products(x, job, row, sum_grad, sum_product)
        for thread in prange(job.threads, num_threads=job.threads, schedule="static"):
            start = part_start(job.length, job.threads, thread)
            end = part_start(job.length, job.threads, thread + 1)
            differentiate_part(
                grad_output + at + start, x + at + start, grad_input + at + start,
                end - start, job, row,
            )
    free(sums)
    return True
