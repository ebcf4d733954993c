# Forward over rows: C-contiguous (N, C, spatial...) is N * C rows, each normalized by itself.

cdef struct Line:
    # y = (x - centre) * scale + shift. `centre` is the mean as the input's type
    # holds it, and `shift` carries the part of the mean that is lost there.
    # For float32, `scale_rest` is what it loses of the scale; it has the scale's sign and is not
    # zero, so that an infinite x - centre stays infinite.
    double centre
    double scale
    double scale_rest
    double shift


cdef inline Line line_of(
    double origin, double offset, double rstd, double weight, double bias, floating like
) noexcept nogil:
    cdef Line line
    cdef floating centre = <floating>(origin + offset)
    line.centre = centre
    line.scale = rstd * weight
    line.scale_rest = 0
    if floating is float:
        line.scale_rest = line.scale - instnorm_toward_zero(line.scale)
        if line.scale != 0 and not fabs(line.scale_rest) > 0:
            line.scale_rest = TINY if line.scale > 0 else -TINY
    line.shift = bias - ((origin - line.centre) + offset) * line.scale
    return line


cdef inline bint fits_float(double scale) noexcept nogil:
    """Whether float32 holds `scale` and the differences that it multiplies, as well as NaN."""
    return scale == 0 or not isfinite(scale) or 1e-28 < fabs(scale) < 1e36


cdef inline floating narrow_scale(double scale, floating like) noexcept nogil:
    """The part of a scale that `scale_rest` is added to."""
    if floating is float:
        return instnorm_toward_zero(scale)
    else:
        return scale


cdef inline floating on_line(
    floating x, floating centre, floating scale, floating scale_rest, floating shift
) noexcept nogil:
    cdef floating d = x - centre
    if floating is float:
        return madd(d, scale, madd(d, scale_rest, shift))
    else:
        return madd(d, scale, shift)


cdef inline void apply_line(
    const floating *x,      # IN  n elements
    floating *y,            # OUT n elements; may be x, but not if `stream`
    Py_ssize_t n,
    Line line,
    bint stream,            # past the cache
) noexcept nogil:
    cdef floating centre = <floating>line.centre
    cdef floating scale = narrow_scale(line.scale, <floating>0)
    cdef floating scale_rest = <floating>line.scale_rest
    cdef floating shift = <floating>line.shift
    cdef floating step[STEP]
    cdef floating last[STEP]
    cdef Py_ssize_t i, j
    if floating is float:
        if not fits_float(line.scale):
            for i in range(n):
                y[i] = <floating>((<double>x[i] - line.centre) * line.scale + line.shift)
            return
    if n < STEP:
        for i in range(n):
            y[i] = on_line(x[i], centre, scale, scale_rest, shift)
        return
    # The last step overlaps the one before it: read before that is written.
    for j in range(STEP):
        last[j] = on_line(x[n - STEP + j], centre, scale, scale_rest, shift)
    i = 0
    if stream:
        for j in range(STEP):
            y[j] = on_line(x[j], centre, scale, scale_rest, shift)
        i = elements_to_line(y, sizeof(floating))
        while i + STEP <= n:
            for j in range(STEP):
                step[j] = on_line(x[i + j], centre, scale, scale_rest, shift)
            put(y + i, step, True)
            i += STEP
        instnorm_stream_end()
    else:
        while i + STEP <= n:
            for j in range(STEP):
                step[j] = on_line(x[i + j], centre, scale, scale_rest, shift)
            put(y + i, step, False)
            i += STEP
    put(y + n - STEP, last, False)


# ------------------------------------------------------------------- affine

cdef struct Affine:
    # Per-channel weight and bias, float or double; NULL stands for ones, zeros.
    const void *weight
    const void *bias
    bint weight_is_double
    bint bias_is_double
    Py_ssize_t channels


cdef inline double number_at(const void *values, bint is_double, Py_ssize_t i) noexcept nogil:
    return (<const double *>values)[i] if is_double else (<const float *>values)[i]


cdef inline double weight_of(Affine affine, Py_ssize_t row) noexcept nogil:
    if affine.weight == NULL:
        return 1
    return number_at(affine.weight, affine.weight_is_double, row % affine.channels)


cdef inline double bias_of(Affine affine, Py_ssize_t row) noexcept nogil:
    if affine.bias == NULL:
        return 0
    return number_at(affine.bias, affine.bias_is_double, row % affine.channels)


cdef inline void numbers_of(
    const void *values, bint is_double, double default, Py_ssize_t channels,
    Py_ssize_t row, Py_ssize_t count,
    double *out,            # OUT weights, or biases, of `count` rows from `row` on
) noexcept nogil:
    cdef Py_ssize_t i, channel = row % channels
    for i in range(count):
        out[i] = default if values == NULL else number_at(values, is_double, channel)
        channel += 1
        if channel == channels:
            channel = 0


cdef inline void weights_of(
    Affine affine, Py_ssize_t row, Py_ssize_t count, double *out
) noexcept nogil:
    numbers_of(affine.weight, affine.weight_is_double, 1, affine.channels, row, count, out)


cdef inline void biases_of(
    Affine affine, Py_ssize_t row, Py_ssize_t count, double *out
) noexcept nogil:
    numbers_of(affine.bias, affine.bias_is_double, 0, affine.channels, row, count, out)


# ------------------------------------------------------- blocks of any dtype

cdef inline Moments moments_at(const element *x, Py_ssize_t n) noexcept nogil:
    """As block_moments, in the type in which elements of the dtype are computed."""
    if element is double:
        return block_moments(x, n, <double>0)
    else:
        return block_moments(x, n, <float>0)


cdef inline Line line_for(
    const element *like, double origin, double offset, double rstd, double weight, double bias
) noexcept nogil:
    """As line_of, for the type in which elements of the dtype of `like` are computed."""
    if element is double:
        return line_of(origin, offset, rstd, weight, bias, <double>0)
    else:
        return line_of(origin, offset, rstd, weight, bias, <float>0)


cdef inline void write_some(
    const narrow_type *x, narrow_type *y, Py_ssize_t n, Line line
) noexcept nogil:
    """As apply_line, of at most CHUNK elements."""
    cdef float wide[CHUNK]
    widen(x, wide, n)
    apply_line(<const float *>wide, wide, n, line, False)
    narrow(wide, y, n)


cdef inline void write_narrow(
    const narrow_type *x, narrow_type *y, Py_ssize_t n, Line line, bint stream
) noexcept nogil:
    """As apply_line, of at most BLOCK elements: cache line by cache line, in registers."""
    cdef float centre = <float>line.centre
    cdef float scale = instnorm_toward_zero(line.scale)
    cdef float scale_rest = <float>line.scale_rest
    cdef float shift = <float>line.shift
    cdef float wide[2 * STEP]
    cdef Py_ssize_t j, i = 0, size
    if fits_float(line.scale):
        if stream:
            i = min(n, elements_to_line(y, sizeof(narrow_type)))
            write_some(x, y, i, line)
        while i + 2 * STEP <= n:
            take(x + i, wide)
            take(x + i + STEP, wide + STEP)
            for j in range(2 * STEP):
                wide[j] = on_line(wide[j], centre, scale, scale_rest, shift)
            give_line(wide, y + i, stream)
            i += 2 * STEP
        if stream:
            instnorm_stream_end()
    while i < n:
        size = min(n - i, <Py_ssize_t>CHUNK)
        write_some(x + i, y + i, size, line)
        i += size


cdef inline void write_line(
    const element *x, element *y, Py_ssize_t n, Line line, bint stream
) noexcept nogil:
    """As apply_line."""
    if element is float or element is double:
        apply_line(x, y, n, line, stream)
    else:
        write_narrow(x, y, n, line, stream)


# --------------------------------------------------------------- short rows

cdef inline void short_rows(
    const floating *x, floating *y, Py_ssize_t row, Py_ssize_t count, Py_ssize_t length,
    Affine affine, double eps, double *mean, double *rstd,
) noexcept nogil:
    """Up to GROUP rows together, so that the steps of one overlap with those of another."""
    cdef double origin[GROUP]
    cdef double sum1[GROUP]
    cdef double sum2[GROUP]
    cdef double offset[GROUP]
    cdef double weight[GROUP]
    cdef double bias[GROUP]
    cdef Line lines[GROUP]
    cdef double m2
    cdef Py_ssize_t i
    for i in range(count):
        origin[i] = x[i * length]
        sums_in_double(x + i * length, length, origin[i], &sum1[i], &sum2[i])
        if floating is double:
            origin[i] += sum1[i] / length
            sums_in_double(x + i * length, length, origin[i], &sum1[i], &sum2[i])
    weights_of(affine, row, count, weight)
    biases_of(affine, row, count, bias)
    # As moments_in_double and finish_row, but of all rows at once.
    for i in range(count):
        offset[i] = sum1[i] / length
        m2 = sum2[i] - sum1[i] * offset[i]
        mean[i] = origin[i] + offset[i]
        rstd[i] = inverse_std((0 if m2 < 0 else m2) / length, eps)
    for i in range(count):
        lines[i] = line_of(origin[i], offset[i], rstd[i], weight[i], bias[i], <floating>0)
    for i in range(count):
        apply_line(x + i * length, y + i * length, length, lines[i], False)


cdef void forward_short(
    const element *x, element *y, Py_ssize_t rows, Py_ssize_t length,
    Affine affine, double eps, double *mean, double *rstd, int threads,
) noexcept nogil:
    """Rows of up to SHORT elements."""
    cdef Py_ssize_t group, row
    for group in prange(
        (rows + GROUP - 1) // GROUP,
        num_threads=threads, schedule="static", use_threads_if=threads > 1,
    ):
        row = group * GROUP
        forward_group(
            x + row * length, y + row * length, row, min(rows - row, <Py_ssize_t>GROUP), length,
            affine, eps, mean + row, rstd + row,
        )


cdef inline void forward_group(
    const element *x, element *y, Py_ssize_t row, Py_ssize_t count, Py_ssize_t length,
    Affine affine, double eps, double *mean, double *rstd,
) noexcept nogil:
    """As short_rows."""
    cdef float wide[GROUP * SHORT]
    if element is float or element is double:
        short_rows(x, y, row, count, length, affine, eps, mean, rstd)
    else:
        widen(x, wide, count * length)
        short_rows(<const float *>wide, wide, row, count, length, affine, eps, mean, rstd)
        narrow(wide, y, count * length)


# ---------------------------------------------------------------- long rows

cdef inline void finish_row(
    Moments moments,
    double eps,
    double *mean,           # OUT
    double *rstd,           # OUT
) noexcept nogil:
    mean[0] = moments.origin + (moments.offset + moments.offset_rest)
    rstd[0] = inverse_std((moments.m2 + moments.m2_rest) / moments.count, eps)


cdef inline Line line_of_row(
    const element *like, Moments moments, double rstd, Affine affine, Py_ssize_t row
) noexcept nogil:
    return line_for(
        like, moments.origin, moments.offset + moments.offset_rest, rstd,
        weight_of(affine, row), bias_of(affine, row),
    )


cdef inline Moments moments_of_row(const element *x, Py_ssize_t length) noexcept nogil:
    cdef Moments row, moments
    cdef Py_ssize_t block
    for block in range(blocks_in(length)):
        moments = moments_at(x + block * BLOCK, block_size(length, block))
        if block == 0:
            row = moments
        else:
            merge(&row, moments)
    return row


cdef inline void write_blocks(
    const element *x, element *y, Py_ssize_t length, Py_ssize_t first, Py_ssize_t end,
    Line line, bint stream,
) noexcept nogil:
    """Blocks from `first` up to `end` of a row."""
    cdef Py_ssize_t block
    for block in range(first, end):
        write_line(
            x + block * BLOCK, y + block * BLOCK, block_size(length, block), line, stream
        )


cdef inline void forward_row(
    const element *x, element *y, Py_ssize_t row, Py_ssize_t length,
    Affine affine, double eps, double *mean, double *rstd, bint stream,
) noexcept nogil:
    cdef Moments moments = moments_of_row(x, length)
    finish_row(moments, eps, mean, rstd)
    write_blocks(
        x, y, length, 0, blocks_in(length), line_of_row(x, moments, rstd[0], affine, row), stream
    )


cdef void forward_by_rows(
    const element *x, element *y, Py_ssize_t rows, Py_ssize_t length,
    Affine affine, double eps, double *mean, double *rstd, int threads, bint stream,
) noexcept nogil:
    cdef Py_ssize_t row
    for row in prange(rows, num_threads=threads, schedule="static", use_threads_if=threads > 1):
        forward_row(
            x + row * length, y + row * length, row, length,
            affine, eps, mean + row, rstd + row, stream,
        )


cdef inline Py_ssize_t share(Py_ssize_t count, int threads, int thread) noexcept nogil:
    """Where the part of a thread begins, of `count` things that threads share."""
    return count * thread // threads


cdef bint forward_by_blocks(
    const element *x, element *y, Py_ssize_t rows, Py_ssize_t length,
    Affine affine, double eps, double *mean, double *rstd, int threads, bint stream,
) noexcept nogil:
    """The same as forward_by_rows, with threads inside the rows. False: no memory."""
    cdef Py_ssize_t blocks = blocks_in(length)
    cdef Py_ssize_t row, block
    cdef int thread
    cdef const element *x_row
    cdef Line line
    cdef Moments *moments = <Moments *>malloc(blocks * sizeof(Moments))
    if moments == NULL:
        return False
    for row in range(rows):
        x_row = x + row * length
        moments_by_blocks(x_row, length, moments, threads)
        finish_row(moments[0], eps, &mean[row], &rstd[row])
        line = line_of_row(x, moments[0], rstd[row], affine, row)
        for thread in prange(threads, num_threads=threads, schedule="static"):
            write_blocks(
                x_row, y + row * length, length,
                share(blocks, threads, thread), share(blocks, threads, thread + 1), line, stream,
            )
    free(moments)
    return True


cdef void moments_by_blocks(
    const element *x, Py_ssize_t length,
    Moments *moments,       # OUT one for each block; the first becomes the row's
    int threads,
) noexcept nogil:
    cdef Py_ssize_t block
    cdef int thread
    for thread in prange(threads, num_threads=threads, schedule="static"):
        for block in range(
            share(blocks_in(length), threads, thread), share(blocks_in(length), threads, thread + 1)
        ):
            moments[block] = moments_at(x + block * BLOCK, block_size(length, block))
    for block in range(1, blocks_in(length)):
        merge(&moments[0], moments[block])


# ---------------------------------------------------------- given statistics

cdef void statistics_by_rows(
    const element *x, Py_ssize_t rows, Py_ssize_t length, double eps,
    double *mean, double *rstd, int threads,
) noexcept nogil:
    cdef Py_ssize_t row
    for row in prange(rows, num_threads=threads, schedule="static", use_threads_if=threads > 1):
        finish_row(moments_of_row(x + row * length, length), eps, &mean[row], &rstd[row])


cdef void apply_by_blocks(
    const element *x, element *y, Py_ssize_t rows, Py_ssize_t length,
    Affine affine, const double *mean, const double *rstd, int threads, bint stream,
) noexcept nogil:
    """y from statistics that are given."""
    cdef Py_ssize_t blocks = blocks_in(length)
    cdef Py_ssize_t task, row, start
    for task in prange(
        rows * blocks, num_threads=threads, schedule="static", use_threads_if=threads > 1
    ):
        row = task // blocks
        start = row * length + (task % blocks) * BLOCK
        write_line(
            x + start, y + start, block_size(length, task % blocks),
            line_for(
                x, mean[row], 0, rstd[row], weight_of(affine, row), bias_of(affine, row)
            ),
            stream,
        )
