# Backward over rows: the sums that the gradients need, then grad_input in one pass.

# -------------------------------------------------------------- sums of a block

cdef inline void product_sums_of_few(
    const floating *grad_output, const floating *x, Py_ssize_t n, double centre,
    double *sum_grad, double *sum_product,
) noexcept nogil:
    """As product_sums_in_double, of fewer than HALF elements."""
    cdef Py_ssize_t i
    sum_grad[0] = 0
    sum_product[0] = 0
    for i in range(n):
        sum_grad[0] += grad_output[i]
        sum_product[0] = madd(<double>grad_output[i], <double>x[i] - centre, sum_product[0])


cdef inline void product_sums_in_double(
    const floating *grad_output, const floating *x, Py_ssize_t n, double centre,
    double *sum_grad,               # OUT sum of grad_output
    double *sum_product,            # OUT sum of grad_output * (x - centre)
) noexcept nogil:
    """All in double: where products leave the range of float32."""
    cdef double lane1[HALF]
    cdef double lane2[HALF]
    cdef double g
    cdef Py_ssize_t j, i = 0
    cdef const double *last = tail_mask(n, HALF)
    if n < HALF:
        product_sums_of_few(grad_output, x, n, centre, sum_grad, sum_product)
        return
    for j in range(HALF):
        lane1[j] = 0
        lane2[j] = 0
    # There is one whole step at least: said so, the lanes need no memory after the loop.
    while True:
        for j in range(HALF):
            g = grad_output[i + j]
            lane1[j] = lane1[j] + g
            lane2[j] = madd(g, <double>x[i + j] - centre, lane2[j])
        i += HALF
        if i + HALF > n:
            break
    for j in range(HALF):
        g = last[j] * <double>grad_output[n - HALF + j]
        lane1[j] = lane1[j] + g
        lane2[j] = madd(g, <double>x[n - HALF + j] - centre, lane2[j])
    sum_grad[0] = halves_total(lane1)
    sum_product[0] = halves_total(lane2)


cdef inline bint sums_well(double sum_grad, double sum_product, Py_ssize_t n) noexcept nogil:
    """Whether float32 products neither overflowed nor lost digits to underflow."""
    return isfinite(sum_grad) and 1e-28 * n < fabs(sum_product) < 1e37


cdef inline void product_sums_of_short(
    const floating *grad_output, const floating *x, Py_ssize_t n, floating centre,
    double *sum_grad, double *sum_product,
) noexcept nogil:
    """As product_sums, of at most SHORT elements."""
    cdef floating lane1[HALF]
    cdef floating lane2[HALF]
    cdef double wide1[HALF]
    cdef double wide2[HALF]
    cdef floating g
    cdef Py_ssize_t j, i = 0
    cdef const double *last = tail_mask(n, HALF)
    if n < HALF:
        product_sums_of_few(grad_output, x, n, centre, sum_grad, sum_product)
        return
    for j in range(HALF):
        lane1[j] = 0
        lane2[j] = 0
    # There is one whole step at least: said so, the lanes need no memory after the loop.
    while True:
        for j in range(HALF):
            g = grad_output[i + j]
            lane1[j] = lane1[j] + g
            lane2[j] = madd(g, x[i + j] - centre, lane2[j])
        i += HALF
        if i + HALF > n:
            break
    for j in range(HALF):
        g = <floating>last[j] * grad_output[n - HALF + j]
        lane1[j] = lane1[j] + g
        lane2[j] = madd(g, x[n - HALF + j] - centre, lane2[j])
    for j in range(HALF):
        wide1[j] = lane1[j]
        wide2[j] = lane2[j]
    sum_grad[0] = halves_total(wide1)
    sum_product[0] = halves_total(wide2)
    if floating is float:
        if not sums_well(sum_grad[0], sum_product[0], n):
            product_sums_in_double(grad_output, x, n, centre, sum_grad, sum_product)


cdef inline void product_sums_in_lanes(
    const element *grad_output, const element *x, Py_ssize_t n, floating centre,
    double *sum_grad,               # OUT sum of grad_output
    double *sum_product,            # OUT sum of grad_output * (x - centre)
) noexcept nogil:
    """In the type of `centre`."""
    cdef floating lane1[LANES]
    cdef floating lane2[LANES]
    cdef floating grad[LANES]
    cdef floating some[LANES]
    cdef double wide1[LANES]
    cdef double wide2[LANES]
    cdef floating g
    cdef const double *last = tail_mask(n, LANES)
    cdef Py_ssize_t j, end, step = 0, steps = n // LANES
    for j in range(LANES):
        wide1[j] = 0
        wide2[j] = 0
    while step < steps:
        end = min(step + FLUSH, steps)
        for j in range(LANES):
            lane1[j] = 0
            lane2[j] = 0
        while True:  # one step at least: see sums_in_double
            take_lanes(grad_output + step * LANES, grad)
            take_lanes(x + step * LANES, some)
            for j in range(LANES):
                lane1[j] = lane1[j] + grad[j]
                lane2[j] = madd(grad[j], some[j] - centre, lane2[j])
            step += 1
            if step == end:
                break
        for j in range(LANES):
            wide1[j] = wide1[j] + lane1[j]
            wide2[j] = wide2[j] + lane2[j]
    if n % LANES:
        take_lanes(grad_output + n - LANES, grad)
        take_lanes(x + n - LANES, some)
        for j in range(LANES):
            g = <floating>last[j] * grad[j]
            wide1[j] = wide1[j] + g
            wide2[j] = madd(<double>g, <double>(some[j] - centre), wide2[j])
    sum_grad[0] = lanes_total(wide1)
    sum_product[0] = lanes_total(wide2)


cdef inline void product_sums(
    const floating *grad_output, const floating *x, Py_ssize_t n, floating centre,
    double *sum_grad, double *sum_product,
) noexcept nogil:
    """Of any number of elements, as exact as it takes."""
    if n <= SHORT:
        product_sums_of_short(grad_output, x, n, centre, sum_grad, sum_product)
        return
    product_sums_in_lanes(grad_output, x, n, centre, sum_grad, sum_product)
    if floating is float:
        if not sums_well(sum_grad[0], sum_product[0], n):
            product_sums_in_double(grad_output, x, n, centre, sum_grad, sum_product)


# --------------------------------------------------------------------- plane

cdef struct Plane:
    # grad_input = (grad_output - grad_mean) * grad_scale + (x - centre) * x_scale + shift
    double grad_mean
    double grad_scale
    double centre
    double x_scale
    double shift
    bint through_statistics     # else grad_input = grad_output * grad_scale


cdef inline Plane plane_of(
    double sum_grad,
    double *sum_product,    # INOUT sum of grad_output * (x - centre) in, * (x - mean) out
    Py_ssize_t length, double mean, double rstd, double weight, bint through_statistics,
    floating like,
) noexcept nogil:
    cdef Plane plane
    cdef double exact_grad_mean = sum_grad / length
    cdef double centre_rest
    plane.centre = <floating>mean
    centre_rest = mean - plane.centre
    sum_product[0] -= centre_rest * sum_grad
    plane.grad_scale = weight * rstd
    plane.through_statistics = through_statistics
    plane.grad_mean = <floating>exact_grad_mean
    plane.x_scale = -plane.grad_scale * rstd * rstd * (sum_product[0] / length)
    plane.shift = (
        (plane.grad_mean - exact_grad_mean) * plane.grad_scale - centre_rest * plane.x_scale
    )
    return plane


cdef inline floating on_plane(
    floating g, floating x, floating grad_mean, floating grad_scale,
    floating centre, floating x_scale, floating shift,
) noexcept nogil:
    return madd(g - grad_mean, grad_scale, madd(x - centre, x_scale, shift))


cdef inline void apply_scale(
    const floating *grad_output,    # IN  n elements
    floating *grad_input,           # OUT n elements; may be grad_output
    Py_ssize_t n,
    double scale,
) noexcept nogil:
    """Statistics that were given: x has no part in the gradient, not even a NaN of x."""
    cdef floating narrow_scale = <floating>scale
    cdef Py_ssize_t i
    if floating is float:
        if not fits_float(scale):
            for i in range(n):
                grad_input[i] = <floating>(<double>grad_output[i] * scale)
            return
    for i in range(n):
        grad_input[i] = grad_output[i] * narrow_scale


cdef inline void apply_plane(
    const floating *grad_output,    # IN  n elements
    const floating *x,              # IN  n elements
    floating *grad_input,           # OUT n elements; may be grad_output or x, if not `stream`
    Py_ssize_t n,
    Plane plane,
    bint stream,                    # past the cache
) noexcept nogil:
    cdef floating grad_mean = <floating>plane.grad_mean
    cdef floating grad_scale = <floating>plane.grad_scale
    cdef floating centre = <floating>plane.centre
    cdef floating x_scale = <floating>plane.x_scale
    cdef floating shift = <floating>plane.shift
    cdef floating step[STEP]
    cdef floating last[STEP]
    cdef Py_ssize_t i, j
    if not plane.through_statistics:
        apply_scale(grad_output, grad_input, n, plane.grad_scale)
        return
    if floating is float:
        if not (fits_float(plane.grad_scale) and fits_float(plane.x_scale)):
            for i in range(n):
                grad_input[i] = <floating>(
                    (<double>grad_output[i] - plane.grad_mean) * plane.grad_scale
                    + (<double>x[i] - plane.centre) * plane.x_scale
                    + plane.shift
                )
            return
    if n < STEP:
        for i in range(n):
            grad_input[i] = on_plane(
                grad_output[i], x[i], grad_mean, grad_scale, centre, x_scale, shift
            )
        return
    # The last step overlaps the one before it: read before that is written.
    i = n - STEP
    for j in range(STEP):
        last[j] = on_plane(
            grad_output[i + j], x[i + j], grad_mean, grad_scale, centre, x_scale, shift
        )
    i = 0
    if stream:
        for j in range(STEP):
            grad_input[j] = on_plane(
                grad_output[j], x[j], grad_mean, grad_scale, centre, x_scale, shift
            )
        i = elements_to_line(grad_input, sizeof(floating))
        while i + STEP <= n:
            for j in range(STEP):
                step[j] = on_plane(
                    grad_output[i + j], x[i + j], grad_mean, grad_scale, centre, x_scale, shift
                )
            put(grad_input + i, step, True)
            i += STEP
        instnorm_stream_end()
    else:
        while i + STEP <= n:
            for j in range(STEP):
                step[j] = on_plane(
                    grad_output[i + j], x[i + j], grad_mean, grad_scale, centre, x_scale, shift
                )
            put(grad_input + i, step, False)
            i += STEP
    put(grad_input + n - STEP, last, False)


# -------------------------------------------------------- blocks of any dtype

cdef inline void product_sums_at(
    const element *grad_output, const element *x, Py_ssize_t n, double mean,
    double *sum_grad, double *sum_product,
) noexcept nogil:
    """As product_sums, of at most BLOCK elements, around `mean` as the type holds it."""
    cdef float wide_grad[BLOCK]
    cdef float wide_x[BLOCK]
    if element is float or element is double:
        product_sums(grad_output, x, n, <element>mean, sum_grad, sum_product)
    else:
        if n > SHORT:
            product_sums_in_lanes(grad_output, x, n, <float>mean, sum_grad, sum_product)
            if sums_well(sum_grad[0], sum_product[0], n):
                return
        widen(grad_output, wide_grad, n)
        widen(x, wide_x, n)
        product_sums(
            <const float *>wide_grad, <const float *>wide_x, n, <float>mean,
            sum_grad, sum_product,
        )


cdef inline Plane plane_for(
    const element *like, double sum_grad, double *sum_product, Py_ssize_t length,
    double mean, double rstd, double weight, bint through_statistics,
) noexcept nogil:
    """As plane_of, for the type in which elements of the dtype of `like` are computed."""
    if element is double:
        return plane_of(
            sum_grad, sum_product, length, mean, rstd, weight, through_statistics, <double>0
        )
    else:
        return plane_of(
            sum_grad, sum_product, length, mean, rstd, weight, through_statistics, <float>0
        )


cdef inline void write_some_plane(
    const narrow_type *grad_output, const narrow_type *x, narrow_type *grad_input,
    Py_ssize_t n, Plane plane,
) noexcept nogil:
    """As apply_plane, of at most CHUNK elements."""
    cdef float wide_grad[CHUNK]
    cdef float wide_x[CHUNK]
    widen(grad_output, wide_grad, n)
    widen(x, wide_x, n)
    apply_plane(<const float *>wide_grad, <const float *>wide_x, wide_grad, n, plane, False)
    narrow(wide_grad, grad_input, n)


cdef inline void write_narrow_plane(
    const narrow_type *grad_output, const narrow_type *x, narrow_type *grad_input,
    Py_ssize_t n, Plane plane, bint stream,
) noexcept nogil:
    """As apply_plane, of at most BLOCK elements: cache line by cache line, in registers."""
    cdef float grad_mean = <float>plane.grad_mean
    cdef float grad_scale = <float>plane.grad_scale
    cdef float centre = <float>plane.centre
    cdef float x_scale = <float>plane.x_scale
    cdef float shift = <float>plane.shift
    cdef float wide[2 * STEP]
    cdef float grad[2 * STEP]
    cdef Py_ssize_t j, i = 0, size
    if plane.through_statistics and fits_float(plane.grad_scale) and fits_float(plane.x_scale):
        if stream:
            i = min(n, elements_to_line(grad_input, sizeof(narrow_type)))
            write_some_plane(grad_output, x, grad_input, i, plane)
        while i + 2 * STEP <= n:
            take(x + i, wide)
            take(x + i + STEP, wide + STEP)
            take(grad_output + i, grad)
            take(grad_output + i + STEP, grad + STEP)
            for j in range(2 * STEP):
                wide[j] = on_plane(
                    grad[j], wide[j], grad_mean, grad_scale, centre, x_scale, shift
                )
            give_line(wide, grad_input + i, stream)
            i += 2 * STEP
        if stream:
            instnorm_stream_end()
    while i < n:
        size = min(n - i, <Py_ssize_t>CHUNK)
        write_some_plane(grad_output + i, x + i, grad_input + i, size, plane)
        i += size


cdef inline void write_plane(
    const element *grad_output, const element *x, element *grad_input, Py_ssize_t n,
    Plane plane, bint stream,
) noexcept nogil:
    """As apply_plane."""
    if element is float or element is double:
        apply_plane(grad_output, x, grad_input, n, plane, stream)
    else:
        write_narrow_plane(grad_output, x, grad_input, n, plane, stream)


# --------------------------------------------------------------- short rows

cdef inline void short_rows_backward(
    const floating *grad_output, const floating *x, floating *grad_input,
    Py_ssize_t row, Py_ssize_t count, Py_ssize_t length, Affine affine,
    const double *mean, const double *rstd, bint through_statistics,
    double *sum_grad, double *sum_product,
) noexcept nogil:
    """Up to GROUP rows together, so that the steps of one overlap with those of another."""
    cdef Plane planes[GROUP]
    cdef double weight[GROUP]
    cdef double grads[GROUP]
    cdef double products[GROUP]
    cdef Py_ssize_t i, offset
    for i in range(count):
        product_sums_of_short(
            grad_output + i * length, x + i * length, length, <floating>mean[i],
            &grads[i], &products[i],
        )
    weights_of(affine, row, count, weight)
    for i in range(count):
        planes[i] = plane_of(
            grads[i], &products[i], length, mean[i], rstd[i], weight[i],
            through_statistics, <floating>0,
        )
    for i in range(count):
        sum_grad[i] = grads[i]
        sum_product[i] = products[i]
    for i in range(count):
        offset = i * length
        apply_plane(
            grad_output + offset, x + offset, grad_input + offset, length, planes[i], False
        )


cdef inline void backward_group(
    const element *grad_output, const element *x, element *grad_input,
    Py_ssize_t row, Py_ssize_t count, Py_ssize_t length, Affine affine,
    const double *mean, const double *rstd, bint through_statistics,
    double *sum_grad, double *sum_product,
) noexcept nogil:
    """As short_rows_backward."""
    cdef float wide_grad[GROUP * SHORT]
    cdef float wide_x[GROUP * SHORT]
    if element is float or element is double:
        short_rows_backward(
            grad_output, x, grad_input, row, count, length, affine, mean, rstd,
            through_statistics, sum_grad, sum_product,
        )
    else:
        widen(grad_output, wide_grad, count * length)
        widen(x, wide_x, count * length)
        short_rows_backward(
            <const float *>wide_grad, <const float *>wide_x, wide_grad, row, count, length,
            affine, mean, rstd, through_statistics, sum_grad, sum_product,
        )
        narrow(wide_grad, grad_input, count * length)


cdef void backward_short(
    const element *grad_output, const element *x, element *grad_input,
    Py_ssize_t rows, Py_ssize_t length, Affine affine,
    const double *mean, const double *rstd, bint through_statistics,
    double *sum_grad, double *sum_product, int threads,
) noexcept nogil:
    """Rows of up to SHORT elements."""
    cdef Py_ssize_t group, row, offset
    for group in prange(
        (rows + GROUP - 1) // GROUP,
        num_threads=threads, schedule="static", use_threads_if=threads > 1,
    ):
        row = group * GROUP
        offset = row * length
        backward_group(
            grad_output + offset, x + offset, grad_input + offset,
            row, min(rows - row, <Py_ssize_t>GROUP), length, affine, mean + row, rstd + row,
            through_statistics, sum_grad + row, sum_product + row,
        )


# ---------------------------------------------------------------- long rows

cdef inline void write_plane_blocks(
    const element *grad_output, const element *x, element *grad_input, Py_ssize_t length,
    Py_ssize_t first, Py_ssize_t end, Plane plane, bint stream,
) noexcept nogil:
    """Blocks from `first` up to `end` of a row."""
    cdef Py_ssize_t block, start
    for block in range(first, end):
        start = block * BLOCK
        write_plane(
            grad_output + start, x + start, grad_input + start, block_size(length, block),
            plane, stream,
        )


cdef inline void backward_row(
    const element *grad_output, const element *x, element *grad_input,
    Py_ssize_t length, double weight, double mean, double rstd, bint through_statistics,
    double *sum_grad,       # OUT sum of grad_output
    double *sum_product,    # OUT sum of grad_output * (x - mean)
    bint stream,
) noexcept nogil:
    cdef Py_ssize_t block, start
    cdef Plane plane
    cdef double block_grad, block_product
    sum_grad[0] = 0
    sum_product[0] = 0
    for block in range(blocks_in(length)):
        start = block * BLOCK
        product_sums_at(
            grad_output + start, x + start, block_size(length, block), mean,
            &block_grad, &block_product,
        )
        sum_grad[0] += block_grad
        sum_product[0] += block_product
    plane = plane_for(x, sum_grad[0], sum_product, length, mean, rstd, weight, through_statistics)
    write_plane_blocks(
        grad_output, x, grad_input, length, 0, blocks_in(length), plane, stream
    )


cdef void backward_by_rows(
    const element *grad_output, const element *x, element *grad_input,
    Py_ssize_t rows, Py_ssize_t length, Affine affine,
    const double *mean, const double *rstd, bint through_statistics,
    double *sum_grad, double *sum_product, int threads, bint stream,
) noexcept nogil:
    cdef Py_ssize_t row, offset
    for row in prange(rows, num_threads=threads, schedule="static", use_threads_if=threads > 1):
        offset = row * length
        backward_row(
            grad_output + offset, x + offset, grad_input + offset, length,
            weight_of(affine, row), mean[row], rstd[row], through_statistics,
            &sum_grad[row], &sum_product[row], stream,
        )


cdef bint backward_by_blocks(
    const element *grad_output, const element *x, element *grad_input,
    Py_ssize_t rows, Py_ssize_t length, Affine affine,
    const double *mean, const double *rstd, bint through_statistics,
    double *sum_grad, double *sum_product, int threads, bint stream,
) noexcept nogil:
    """The same as backward_by_rows, with threads inside the rows. False: no memory."""
    cdef Py_ssize_t blocks = blocks_in(length)
    cdef Py_ssize_t row, block, offset
    cdef int thread
    cdef Plane plane
    cdef double *sums = <double *>malloc(2 * blocks * sizeof(double))
    if sums == NULL:
        return False
    for row in range(rows):
        offset = row * length
        for block in prange(blocks, num_threads=threads, schedule="static"):
            product_sums_at(
                grad_output + offset + block * BLOCK, x + offset + block * BLOCK,
                block_size(length, block), mean[row], &sums[2 * block], &sums[2 * block + 1],
            )
        sum_grad[row] = 0
        sum_product[row] = 0
        for block in range(blocks):
            sum_grad[row] += sums[2 * block]
            sum_product[row] += sums[2 * block + 1]
        plane = plane_for(
            x, sum_grad[row], &sum_product[row], length, mean[row], rstd[row],
            weight_of(affine, row), through_statistics,
        )
        for thread in prange(threads, num_threads=threads, schedule="static"):
            write_plane_blocks(
                grad_output + offset, x + offset, grad_input + offset, length,
                share(blocks, threads, thread), share(blocks, threads, thread + 1), plane, stream,
            )
    free(sums)
    return True


cdef void reduce_over_batch(
    const double *sum_grad, const double *sum_product, const double *rstd,
    Py_ssize_t rows, Py_ssize_t channels,
    double *grad_weight,    # OUT channels elements
    double *grad_bias,      # OUT channels elements
) noexcept nogil:
    cdef Py_ssize_t n, c, row
    for c in range(channels):
        grad_weight[c] = 0
        grad_bias[c] = 0
    for n in range(rows // channels):
        for c in range(channels):
            row = n * channels + c
            grad_weight[c] += sum_product[row] * rstd[row]
            grad_bias[c] += sum_grad[row]
