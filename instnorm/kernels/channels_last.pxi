# Channels-last memory: a sample is `pixels` times C elements, and is read in that order.
#
# The accumulators run over the channels. Where LANES does not divide these, several pixels are
# taken for one wide one. Wide pixels are taken FLUSH at a time: the sums of these are in the
# input's own precision, what is added up of them is in double. A sample is cut into blocks of
# wide pixels, which threads share; their sums are added in order.

cdef struct Grid:
    Py_ssize_t channels
    Py_ssize_t pixels
    Py_ssize_t width        # elements of a wide pixel: C, or a multiple of C; LANES at least
    Py_ssize_t steps        # whole wide pixels of a sample
    Py_ssize_t rest         # elements after those
    Py_ssize_t block        # wide pixels of a block
    Py_ssize_t blocks       # at least one


cdef inline Py_ssize_t pixels_of_wide(Py_ssize_t pixels, Py_ssize_t channels) noexcept nogil:
    """How many pixels to take for a wide one.

    So many that LANES divides it, but no more than FOLDED elements, and few of the pixels that
    there are, once it is as wide as LANES: the lanes that are left over take less then.
    """
    cdef Py_ssize_t fold = 1
    while channels * fold % LANES:
        if channels >= LANES and (2 * channels * fold > FOLDED or SHORT * fold > pixels):
            break
        fold *= 2
    return fold


cdef inline Grid grid_of(Py_ssize_t pixels, Py_ssize_t channels) noexcept nogil:
    cdef Grid grid
    cdef Py_ssize_t fold = pixels_of_wide(pixels, channels)
    grid.channels = channels
    grid.pixels = pixels
    grid.width = channels * fold
    grid.steps = pixels // fold
    grid.rest = (pixels - grid.steps * fold) * channels
    grid.block = max(BLOCK_LAST // (grid.width * FLUSH), <Py_ssize_t>1) * FLUSH
    grid.blocks = max((grid.steps + grid.block - 1) // grid.block, <Py_ssize_t>1)
    return grid


cdef inline Py_ssize_t steps_of(Grid grid, Py_ssize_t block) noexcept nogil:
    return max(min(grid.steps - block * grid.block, grid.block), <Py_ssize_t>0)


cdef inline bint has_rest(Grid grid, Py_ssize_t block) noexcept nogil:
    return grid.rest > 0 and block == grid.blocks - 1


# --------------------------------------------------------------- one element

cdef inline floating one(const element *x, const floating *like) noexcept nogil:
    """One element as the type to compute in."""
    cdef float16 some[STEP]
    cdef float wide[STEP]
    cdef Py_ssize_t j
    if element is bfloat16:
        return instnorm_widen_bfloat16(x[0].bits)
    elif element is float16:
        for j in range(STEP):
            some[j].bits = x[0].bits
        instnorm_widen_float16(some, wide)
        return wide[0]
    else:
        return <floating>x[0]


cdef inline void set_one(element *y, floating value) noexcept nogil:
    cdef float16 some[STEP]
    cdef float wide[STEP]
    cdef Py_ssize_t j
    if element is bfloat16:
        y[0].bits = instnorm_narrow_bfloat16(<float>value)
    elif element is float16:
        for j in range(STEP):
            wide[j] = <float>value
        instnorm_narrow_float16(wide, some)
        y[0].bits = some[0].bits
    else:
        y[0] = <element>value


# ------------------------------------------------------------ sums of a block

cdef inline double lost_to(double total, double a, double b) noexcept nogil:
    """What rounding took from total = a + b; neither is negative (Neumaier 1974)."""
    return (a - total) + b if a >= b else (b - total) + a


cdef inline Py_ssize_t ahead_of(
    Py_ssize_t width, Py_ssize_t pixels, Py_ssize_t channels
) noexcept nogil:
    """How far ahead to fetch: so many pixels, or so many channels where pixels are wide.

    Wide pixels would drive each other out of the first cache before their turn: the second
    takes them.
    """
    return channels if width > WIDE else pixels * width


cdef inline void add_tile(
    const element *x,       # IN  LANES channels of `steps` wide pixels
    Py_ssize_t width, Py_ssize_t steps,
    const floating *pilot,  # IN  LANES
    Py_ssize_t skip,        # channels at the front that were added before
    double *sum1,           # INOUT adds the sums of (x - pilot), LANES
    double *sum2,           # INOUT adds the sums of (x - pilot)^2
    double *largest,        # INOUT float32: the largest of what was added to sum2;
                            #       float64: what rounding took from sum2
) noexcept nogil:
    cdef Py_ssize_t ahead = ahead_of(width, FLUSH, LANES)
    cdef Py_ssize_t far = FLUSH * width if width > WIDE else 0
    cdef floating lane1[LANES]
    cdef floating lane2[LANES]
    cdef floating centre[LANES]
    cdef floating wide[LANES]
    cdef floating d
    cdef double total
    cdef Py_ssize_t j
    for j in range(LANES):
        lane1[j] = 0
        lane2[j] = 0
        centre[j] = pilot[j]
    while True:
        take(x, wide)
        take(x + STEP, wide + STEP)
        instnorm_fetch(x + ahead, LANES * sizeof(element))
        if far:
            instnorm_fetch_far(x + far, LANES * sizeof(element))
        for j in range(LANES):
            d = wide[j] - centre[j]
            lane1[j] = lane1[j] + d
            lane2[j] = madd(d, d, lane2[j])
        x += width
        steps -= 1
        if steps == 0:
            break
    for j in range(skip):
        lane1[j] = 0
        lane2[j] = 0
    for j in range(LANES):
        sum1[j] += lane1[j]
        total = sum2[j] + lane2[j]
        if floating is float:
            largest[j] = max(largest[j], <double>lane2[j])
        else:
            largest[j] += lost_to(total, sum2[j], lane2[j])
        sum2[j] = total


cdef inline void add_tile_in_double(
    const element *x, Py_ssize_t width, Py_ssize_t steps, const floating *pilot,
    Py_ssize_t skip, double *sum1, double *sum2,
) noexcept nogil:
    """As add_tile, of HALF channels, all in double."""
    cdef double lane1[HALF]
    cdef double lane2[HALF]
    cdef double centre[HALF]
    cdef floating wide[HALF]
    cdef double d
    cdef Py_ssize_t j
    for j in range(HALF):
        lane1[j] = 0
        lane2[j] = 0
        centre[j] = pilot[j]
    while True:
        take(x, wide)
        for j in range(HALF):
            d = <double>wide[j] - centre[j]
            lane1[j] = lane1[j] + d
            lane2[j] = madd(d, d, lane2[j])
        x += width
        steps -= 1
        if steps == 0:
            break
    for j in range(HALF):
        if j >= skip:
            sum1[j] += lane1[j]
            sum2[j] += lane2[j]


cdef struct Sums:
    # Of a block; each has `width` elements.
    double *sum1
    double *sum2
    double *largest


cdef inline Sums sums_at(double *sums, Grid grid, Py_ssize_t block) noexcept nogil:
    cdef Sums out
    out.sum1 = sums + 3 * block * grid.width
    out.sum2 = out.sum1 + grid.width
    out.largest = out.sum2 + grid.width
    return out


cdef void sum_block(
    const element *x,       # IN  the sample
    Grid grid, Py_ssize_t block,
    const floating *pilot,  # IN  `width`
    bint in_double,
    Sums sums,              # OUT
) noexcept nogil:
    cdef Py_ssize_t lanes = HALF if in_double else LANES
    cdef Py_ssize_t count = steps_of(grid, block)
    cdef Py_ssize_t together = max(count, <Py_ssize_t>1) if in_double else FLUSH
    cdef Py_ssize_t step, size, channel, first, i
    cdef double d, total
    for i in range(3 * grid.width):
        sums.sum1[i] = 0
    x += block * grid.block * grid.width
    for step in range((count + together - 1) // together):
        size = min(count - step * together, together)
        for channel in range((grid.width + lanes - 1) // lanes):
            # The last lanes reach back over channels that were added before.
            first = min(channel * lanes, grid.width - lanes)
            if in_double:
                add_tile_in_double(
                    x + first, grid.width, size, pilot + first, channel * lanes - first,
                    sums.sum1 + first, sums.sum2 + first,
                )
            else:
                add_tile(
                    x + first, grid.width, size, pilot + first, channel * lanes - first,
                    sums.sum1 + first, sums.sum2 + first, sums.largest + first,
                )
        x += size * grid.width
    if has_rest(grid, block):
        for i in range(grid.rest):
            d = <double>one(x + i, pilot) - pilot[i]
            sums.sum1[i] += d
            total = sums.sum2[i] + d * d
            if floating is float:
                sums.largest[i] = max(sums.largest[i], d * d)
            else:
                sums.largest[i] += lost_to(total, sums.sum2[i], d * d)
            sums.sum2[i] = total


cdef inline void add_product_tile(
    const element *grad_output, const element *x, Py_ssize_t width, Py_ssize_t steps,
    const floating *centres, Py_ssize_t skip, double *sum1, double *sum2,
) noexcept nogil:
    """As add_tile, of the sums of grad_output and of grad_output * (x - centre)."""
    cdef Py_ssize_t ahead = ahead_of(width, FLUSH, LANES)
    cdef Py_ssize_t far = FLUSH * width if width > WIDE else 0
    cdef floating lane1[LANES]
    cdef floating lane2[LANES]
    cdef floating centre[LANES]
    cdef floating wide[LANES]
    cdef floating grad[LANES]
    cdef Py_ssize_t j
    for j in range(LANES):
        lane1[j] = 0
        lane2[j] = 0
        centre[j] = centres[j]
    while True:
        take(x, wide)
        take(x + STEP, wide + STEP)
        take(grad_output, grad)
        take(grad_output + STEP, grad + STEP)
        instnorm_fetch(x + ahead, LANES * sizeof(element))
        instnorm_fetch(grad_output + ahead, LANES * sizeof(element))
        if far:
            instnorm_fetch_far(x + far, LANES * sizeof(element))
            instnorm_fetch_far(grad_output + far, LANES * sizeof(element))
        for j in range(LANES):
            lane1[j] = lane1[j] + grad[j]
            lane2[j] = madd(grad[j], wide[j] - centre[j], lane2[j])
        x += width
        grad_output += width
        steps -= 1
        if steps == 0:
            break
    for j in range(skip):
        lane1[j] = 0
        lane2[j] = 0
    for j in range(LANES):
        sum1[j] += lane1[j]
        sum2[j] += lane2[j]


cdef inline void add_product_tile_in_double(
    const element *grad_output, const element *x, Py_ssize_t width, Py_ssize_t steps,
    const floating *centres, Py_ssize_t skip, double *sum1, double *sum2,
) noexcept nogil:
    """As add_product_tile, of HALF channels, all in double."""
    cdef double lane1[HALF]
    cdef double lane2[HALF]
    cdef double centre[HALF]
    cdef floating wide[HALF]
    cdef floating grad[HALF]
    cdef Py_ssize_t j
    for j in range(HALF):
        lane1[j] = 0
        lane2[j] = 0
        centre[j] = centres[j]
    while True:
        take(x, wide)
        take(grad_output, grad)
        for j in range(HALF):
            lane1[j] = lane1[j] + grad[j]
            lane2[j] = madd(<double>grad[j], <double>wide[j] - centre[j], lane2[j])
        x += width
        grad_output += width
        steps -= 1
        if steps == 0:
            break
    for j in range(HALF):
        if j >= skip:
            sum1[j] += lane1[j]
            sum2[j] += lane2[j]


cdef void sum_products(
    const element *grad_output, const element *x,   # IN  the sample
    Grid grid, Py_ssize_t block,
    const floating *centre,                         # IN  `width`
    bint in_double,
    Sums sums,                                      # OUT
) noexcept nogil:
    cdef Py_ssize_t lanes = HALF if in_double else LANES
    cdef Py_ssize_t count = steps_of(grid, block)
    cdef Py_ssize_t together = max(count, <Py_ssize_t>1) if in_double else FLUSH
    cdef Py_ssize_t start = block * grid.block * grid.width
    cdef Py_ssize_t step, size, channel, first, i
    cdef double g
    for i in range(2 * grid.width):
        sums.sum1[i] = 0
    for step in range((count + together - 1) // together):
        size = min(count - step * together, together)
        for channel in range((grid.width + lanes - 1) // lanes):
            first = min(channel * lanes, grid.width - lanes)
            if in_double:
                add_product_tile_in_double(
                    grad_output + start + first, x + start + first, grid.width, size,
                    centre + first, channel * lanes - first, sums.sum1 + first, sums.sum2 + first,
                )
            else:
                add_product_tile(
                    grad_output + start + first, x + start + first, grid.width, size,
                    centre + first, channel * lanes - first, sums.sum1 + first, sums.sum2 + first,
                )
        start += size * grid.width
    if has_rest(grid, block):
        for i in range(grid.rest):
            g = one(grad_output + start + i, centre)
            sums.sum1[i] += g
            sums.sum2[i] += g * (<double>one(x + start + i, centre) - centre[i])


# ---------------------------------------------------------- sums of a sample

cdef inline void add_to(
    Sums into, Py_ssize_t i, Sums other, Py_ssize_t k, bint squares, floating like
) noexcept nogil:
    """Add one element of some sums to one of others."""
    cdef double total = into.sum2[i] + other.sum2[k]
    into.sum1[i] += other.sum1[k]
    if squares:
        if floating is float:
            into.largest[i] = max(into.largest[i], other.largest[k])
        else:
            into.largest[i] += other.largest[k] + lost_to(total, into.sum2[i], other.sum2[k])
    into.sum2[i] = total


cdef inline void add_up(double *sums, Grid grid, bint squares, floating like) noexcept nogil:
    """Add the sums of all blocks, in order, and of the pixels of a wide one, to the first."""
    cdef Py_ssize_t block, i
    cdef Sums first = sums_at(sums, grid, 0), other
    for block in range(1, grid.blocks):
        other = sums_at(sums, grid, block)
        for i in range(grid.width):
            add_to(first, i, other, i, squares, like)
    for i in range(grid.channels, grid.width):
        add_to(first, i % grid.channels, first, i, squares, like)
    if floating is double:
        if squares:
            for i in range(grid.channels):
                first.sum2[i] += first.largest[i]


cdef void sum_sample(
    const element *x, Grid grid, const floating *pilot, bint in_double,
    double *sums,           # OUT 3 * blocks * width; the first C of each third of the first
                            #     block are what is asked for
    int threads,
) noexcept nogil:
    cdef Py_ssize_t block
    for block in prange(
        grid.blocks, num_threads=threads, schedule="static", use_threads_if=threads > 1
    ):
        sum_block(x, grid, block, pilot, in_double, sums_at(sums, grid, block))
    add_up(sums, grid, True, pilot[0])


cdef void sum_products_of_sample(
    const element *grad_output, const element *x, Grid grid, const floating *centre,
    bint in_double, double *sums, int threads,
) noexcept nogil:
    cdef Py_ssize_t block
    for block in prange(
        grid.blocks, num_threads=threads, schedule="static", use_threads_if=threads > 1
    ):
        sum_products(
            grad_output, x, grid, block, centre, in_double, sums_at(sums, grid, block)
        )
    add_up(sums, grid, False, centre[0])


cdef inline void repeat(floating *values, Grid grid) noexcept nogil:
    """Fill a wide pixel with what stands in its first C elements."""
    cdef Py_ssize_t i
    for i in range(grid.channels, grid.width):
        values[i] = values[i - grid.channels]


cdef inline void sample_pilots(
    const element *x, Grid grid,
    floating *pilot,        # OUT `width`
    double *room,           # `width`
) noexcept nogil:
    """Means of pixels spread over the sample; exactly its value where a channel is constant."""
    cdef Py_ssize_t count = min(grid.pixels, <Py_ssize_t>LANES)
    cdef Py_ssize_t i, c
    cdef const element *pixel
    for c in range(grid.channels):
        pilot[c] = one(x + c, pilot)
        room[c] = 0
    for i in range(1, count):
        pixel = x + (i * grid.pixels // count) * grid.channels
        for c in range(grid.channels):
            room[c] += <double>one(pixel + c, pilot) - pilot[c]
    for c in range(grid.channels):
        pilot[c] = <floating>(pilot[c] + room[c] / count)
    repeat(pilot, grid)


cdef inline bint move_pilots(
    floating *pilot, const double *sums, Grid grid, bint always
) noexcept nogil:
    """Move the pilots to the means, if `always` or where they missed them by too much."""
    cdef Py_ssize_t c
    cdef bint moved = False
    cdef double sum1
    for c in range(grid.channels):
        sum1 = sums[c]
        if always or sum1 * (sum1 / grid.pixels) > 0.25 * sums[grid.width + c]:
            pilot[c] = <floating>(pilot[c] + sum1 / grid.pixels)
            moved = True
    repeat(pilot, grid)
    return moved


cdef inline bint square_fits(const double *sums, Grid grid, Py_ssize_t c) noexcept nogil:
    """Whether float32 held a channel's squares well; see block_moments."""
    cdef double sum2 = sums[grid.width + c]
    return (
        sum2 > grid.pixels * 1e-28 and sum2 < 1e37
        and sums[2 * grid.width + c] < 0.125 * sum2
    )


cdef inline bint product_fits(const double *sums, Grid grid, Py_ssize_t c) noexcept nogil:
    """Whether float32 held a channel's products well."""
    return sums_well(sums[c], sums[grid.width + c], grid.pixels)


cdef inline Py_ssize_t set_aside(
    double *sums,           # INOUT of the sample, `width` apart
    Grid grid, bint products,
    double *kept,           # OUT 2 * C: the sums that are good, NaN for the others
) noexcept nogil:
    """Put away the sums of the channels that float32 held well; how many it did not."""
    cdef Py_ssize_t c, bad = 0
    cdef bint fits
    for c in range(grid.channels):
        fits = product_fits(sums, grid, c) if products else square_fits(sums, grid, c)
        bad += not fits
        kept[c] = sums[c] if fits else NAN
        kept[grid.channels + c] = sums[grid.width + c]
    return bad


cdef inline void put_back(double *sums, Grid grid, const double *kept) noexcept nogil:
    """Another channel's extremes change nothing here, not even how the sums are rounded."""
    cdef Py_ssize_t c
    for c in range(grid.channels):
        if not isnan(kept[c]):
            sums[c] = kept[c]
            sums[grid.width + c] = kept[grid.channels + c]


cdef void sample_sums(
    const element *x, Grid grid,
    floating *pilot,        # OUT `width`
    double *sums,           # OUT as sum_sample, around the pilots
    double *kept,           # 2 * C, for its own use
    int threads,
) noexcept nogil:
    """The sums of a sample, as exact as moments_in_double and block_moments make them."""
    cdef Py_ssize_t c
    if grid.pixels <= SHORT:
        for c in range(grid.channels):
            pilot[c] = one(x + c, pilot)
        repeat(pilot, grid)
        if floating is float:
            sum_sample(x, grid, pilot, True, sums, threads)
        else:
            sum_sample(x, grid, pilot, False, sums, threads)
            move_pilots(pilot, sums, grid, True)
            sum_sample(x, grid, pilot, False, sums, threads)
        return
    sample_pilots(x, grid, pilot, sums)
    sum_sample(x, grid, pilot, False, sums, threads)
    if move_pilots(pilot, sums, grid, False):
        sum_sample(x, grid, pilot, False, sums, threads)
    if floating is float:
        if set_aside(sums, grid, False, kept):
            sum_sample(x, grid, pilot, True, sums, threads)
            put_back(sums, grid, kept)


cdef inline void finish_channels(
    const floating *pilot,
    double *sums,           # INOUT of the sample; the first C become mean - pilot
    Grid grid, double eps,
    double *mean, double *rstd,     # OUT C
) noexcept nogil:
    """As moments_of and finish_row, of all channels at once."""
    cdef double offset, m2
    cdef Py_ssize_t c
    for c in range(grid.channels):
        offset = sums[c] / grid.pixels
        m2 = sums[grid.width + c] - sums[c] * offset
        mean[c] = pilot[c] + offset
        rstd[c] = inverse_std((0 if m2 < 0 else m2) / grid.pixels, eps)
        sums[c] = offset


# ------------------------------------------------------------- the last pass

cdef struct Lines:
    # y = (x - centre) * scale + shift for each channel; see Line. `width` elements each, as
    # float or double, and as double for the channels whose scale float32 does not hold.
    void *centre
    void *scale
    void *scale_rest
    void *shift
    Line *exact             # C
    bint fit                # whether all scales fit


cdef inline void set_line(
    Lines *lines, Py_ssize_t c, Line line, floating like
) noexcept nogil:
    (<floating *>lines.centre)[c] = <floating>line.centre
    (<floating *>lines.scale)[c] = narrow_scale(line.scale, like)
    (<floating *>lines.scale_rest)[c] = <floating>line.scale_rest
    (<floating *>lines.shift)[c] = <floating>line.shift
    lines.exact[c] = line
    if floating is float:
        if not fits_float(line.scale):
            lines.fit = False


ctypedef fused origin_type:
    float
    double


cdef inline void set_lines(
    Lines *lines, Grid grid,
    const origin_type *origin,              # IN  C
    const double *offset, const double *rstd,   # IN  C
    Affine affine,
    double *room,                           # 2 * C
    floating like,
) noexcept nogil:
    cdef Py_ssize_t c
    cdef double *weight = room
    cdef double *bias = room + grid.channels
    weights_of(affine, 0, grid.channels, weight)
    biases_of(affine, 0, grid.channels, bias)
    for c in range(grid.channels):
        set_line(
            lines, c, line_of(origin[c], offset[c], rstd[c], weight[c], bias[c], like), like
        )


cdef inline void repeat_lines(Lines lines, Grid grid, floating like) noexcept nogil:
    repeat(<floating *>lines.centre, grid)
    repeat(<floating *>lines.scale, grid)
    repeat(<floating *>lines.scale_rest, grid)
    repeat(<floating *>lines.shift, grid)


cdef inline Py_ssize_t tile_width(floating like) noexcept nogil:
    """Channels that the last pass computes together: as many as fill a register.

    gcc keeps an array of more than one on the stack.
    """
    return STEP // 2 if floating is double else STEP


cdef inline void take_tile(const element *x, floating *wide) noexcept nogil:
    """As take, `tile_width` elements."""
    cdef Py_ssize_t j
    if floating is double:
        if element is double:
            for j in range(STEP // 2):
                wide[j] = x[j]
    else:
        take(x, wide)


cdef inline void give_tile(const floating *wide, element *y, bint stream) noexcept nogil:
    """As give, `tile_width` elements."""
    cdef Py_ssize_t j
    if floating is double:
        if element is double:
            if stream:
                instnorm_stream_line(y, wide)
            else:
                for j in range(STEP // 2):
                    y[j] = wide[j]
    else:
        give(wide, y, stream)


cdef inline void line_tile(
    const element *x, element *y, Py_ssize_t width, Py_ssize_t steps,
    const floating *centres, const floating *scales, const floating *scale_rests,
    const floating *shifts, bint stream,
) noexcept nogil:
    """`tile_width` channels of some wide pixels."""
    cdef floating centre[STEP]
    cdef floating scale[STEP]
    cdef floating scale_rest[STEP]
    cdef floating shift[STEP]
    cdef floating wide[STEP]
    cdef Py_ssize_t j, lanes = tile_width(<floating>0), ahead = ahead_of(width, TILE, LANES)
    for j in range(lanes):
        centre[j] = centres[j]
        scale[j] = scales[j]
        scale_rest[j] = scale_rests[j]
        shift[j] = shifts[j]
    while True:
        take_tile(x, wide)
        if not stream:  # memory that the caches do not hold is fetched well by itself
            instnorm_fetch(x + ahead, lanes * sizeof(element))
            instnorm_fetch_to_write(y + TILE * width, lanes * sizeof(element))
        for j in range(lanes):
            wide[j] = on_line(wide[j], centre[j], scale[j], scale_rest[j], shift[j])
        give_tile(<const floating *>wide, y, stream)
        x += width
        y += width
        steps -= 1
        if steps == 0:
            break


cdef inline bint whole_lines(const element *y, Grid grid) noexcept nogil:
    """Whether what is written past the caches can be whole cache lines."""
    if (<size_t>y & 63) != 0:
        return False
    if element is float or element is double:
        return grid.width % STEP == 0
    else:
        return grid.width % (2 * STEP) == 0 and grid.width <= BUFFERED


cdef inline void stream_pixels(
    const element *pixels,  # IN  n elements
    element *y,             # OUT the same; it begins a cache line, and ends one
    Py_ssize_t n,
) noexcept nogil:
    cdef Py_ssize_t i, line = 64 // sizeof(element)
    for i in range(n // line):
        instnorm_stream_line(y + i * line, pixels + i * line)


cdef void write_lines(
    const element *x, element *y,   # the sample
    Grid grid, Py_ssize_t block, Lines lines, bint stream, floating like,
) noexcept nogil:
    cdef Py_ssize_t count = steps_of(grid, block)
    cdef Py_ssize_t start = block * grid.block * grid.width
    cdef Py_ssize_t lanes = tile_width(like), rest = grid.width % lanes
    cdef Py_ssize_t step, size, channel, i, j
    # STEP elements of half precision are less than a line: they are put together first.
    cdef bint buffered = stream and not (element is float or element is double)
    cdef element buffer[TILE * BUFFERED]
    cdef element *target
    cdef const floating *centre = <const floating *>lines.centre
    cdef const floating *scale = <const floating *>lines.scale
    cdef const floating *scale_rest = <const floating *>lines.scale_rest
    cdef const floating *shift = <const floating *>lines.shift
    if not lines.fit:
        write_lines_in_double(x, y, grid, block, lines, like)
        return
    for step in range((count + TILE - 1) // TILE):
        size = min(count - step * TILE, <Py_ssize_t>TILE)
        target = &buffer[0] if buffered else y + start
        for channel in range(grid.width // lanes):
            i = channel * lanes
            line_tile(
                x + start + i, target + i, grid.width, size,
                centre + i, scale + i, scale_rest + i, shift + i, stream,
            )
        for i in range(size):
            for j in range(grid.width - rest, grid.width):
                set_one(
                    y + start + i * grid.width + j,
                    on_line(
                        one(x + start + i * grid.width + j, centre),
                        centre[j], scale[j], scale_rest[j], shift[j],
                    ),
                )
        if buffered:
            stream_pixels(<const element *>buffer, y + start, size * grid.width)
        start += size * grid.width
    if has_rest(grid, block):
        for i in range(grid.rest):
            set_one(
                y + start + i,
                on_line(
                    one(x + start + i, centre),
                    centre[i], scale[i], scale_rest[i], shift[i],
                ),
            )
    if stream:
        instnorm_stream_end()


cdef void write_lines_in_double(
    const element *x, element *y, Grid grid, Py_ssize_t block, Lines lines, floating like
) noexcept nogil:
    """As write_lines, where float32 does not hold a channel's scale."""
    cdef Py_ssize_t start = block * grid.block * grid.width
    cdef Py_ssize_t i, end = start + steps_of(grid, block) * grid.width
    cdef const floating *kind = NULL
    cdef Line line
    if has_rest(grid, block):
        end += grid.rest
    for i in range(start, end):
        line = lines.exact[i % grid.channels]
        set_one(
            y + i,
            <floating>(
                (<double>one(x + i, kind) - line.centre) * line.scale + line.shift
            ),
        )


cdef struct Planes:
    # As Lines, for each channel's Plane.
    void *grad_mean
    void *grad_scale
    void *centre
    void *x_scale
    void *shift
    Plane *exact            # C
    bint fit
    bint through_statistics


cdef inline void set_plane(
    Planes *planes, Py_ssize_t c, Plane plane, floating like
) noexcept nogil:
    (<floating *>planes.grad_mean)[c] = <floating>plane.grad_mean
    (<floating *>planes.grad_scale)[c] = <floating>plane.grad_scale
    (<floating *>planes.centre)[c] = <floating>plane.centre
    (<floating *>planes.x_scale)[c] = <floating>plane.x_scale
    (<floating *>planes.shift)[c] = <floating>plane.shift
    planes.exact[c] = plane
    if floating is float:
        if not fits_float(plane.grad_scale):
            planes.fit = False
        if plane.through_statistics and not fits_float(plane.x_scale):
            planes.fit = False


cdef inline void repeat_planes(Planes planes, Grid grid, floating like) noexcept nogil:
    repeat(<floating *>planes.grad_mean, grid)
    repeat(<floating *>planes.grad_scale, grid)
    repeat(<floating *>planes.centre, grid)
    repeat(<floating *>planes.x_scale, grid)
    repeat(<floating *>planes.shift, grid)


cdef inline void plane_tile(
    const element *grad_output, const element *x, element *grad_input,
    Py_ssize_t width, Py_ssize_t steps, const floating *grad_means,
    const floating *grad_scales, const floating *centres, const floating *x_scales,
    const floating *shifts, bint stream,
) noexcept nogil:
    """`tile_width` channels of some wide pixels."""
    cdef floating grad_mean[STEP]
    cdef floating grad_scale[STEP]
    cdef floating centre[STEP]
    cdef floating x_scale[STEP]
    cdef floating shift[STEP]
    cdef floating wide[STEP]
    cdef floating grad[STEP]
    cdef Py_ssize_t j, lanes = tile_width(<floating>0), ahead = ahead_of(width, TILE, LANES)
    for j in range(lanes):
        grad_mean[j] = grad_means[j]
        grad_scale[j] = grad_scales[j]
        centre[j] = centres[j]
        x_scale[j] = x_scales[j]
        shift[j] = shifts[j]
    while True:
        take_tile(x, wide)
        take_tile(grad_output, grad)
        if not stream:  # memory that the caches do not hold is fetched well by itself
            instnorm_fetch(x + ahead, lanes * sizeof(element))
            instnorm_fetch(grad_output + ahead, lanes * sizeof(element))
            instnorm_fetch_to_write(grad_input + TILE * width, lanes * sizeof(element))
        for j in range(lanes):
            wide[j] = on_plane(
                grad[j], wide[j], grad_mean[j], grad_scale[j], centre[j], x_scale[j], shift[j]
            )
        give_tile(<const floating *>wide, grad_input, stream)
        x += width
        grad_output += width
        grad_input += width
        steps -= 1
        if steps == 0:
            break


cdef void write_scaled(
    const element *grad_output, element *grad_input, Grid grid, Py_ssize_t block,
    const floating *scale,  # IN  `width`
) noexcept nogil:
    """grad_input = grad_output * scale: x has no part in it, not even a NaN of x."""
    cdef Py_ssize_t step, i, start = block * grid.block * grid.width
    cdef floating wide[STEP]
    cdef Py_ssize_t j, whole = grid.width - grid.width % STEP
    for step in range(steps_of(grid, block)):
        for i in range(whole // STEP):
            take(grad_output + start + i * STEP, wide)
            for j in range(STEP):
                wide[j] = wide[j] * scale[i * STEP + j]
            give(<const floating *>wide, grad_input + start + i * STEP, False)
        for i in range(whole, grid.width):
            set_one(grad_input + start + i, one(grad_output + start + i, scale) * scale[i])
        start += grid.width
    if has_rest(grid, block):
        for i in range(grid.rest):
            set_one(grad_input + start + i, one(grad_output + start + i, scale) * scale[i])


cdef void write_planes(
    const element *grad_output, const element *x, element *grad_input,  # the sample
    Grid grid, Py_ssize_t block, Planes planes, bint stream, floating like,
) noexcept nogil:
    cdef Py_ssize_t count = steps_of(grid, block)
    cdef Py_ssize_t start = block * grid.block * grid.width
    cdef Py_ssize_t lanes = tile_width(like), rest = grid.width % lanes
    cdef Py_ssize_t step, size, channel, i, j, at
    cdef bint buffered = stream and not (element is float or element is double)
    cdef element buffer[TILE * BUFFERED]
    cdef element *target
    cdef const floating *grad_mean = <const floating *>planes.grad_mean
    cdef const floating *grad_scale = <const floating *>planes.grad_scale
    cdef const floating *centre = <const floating *>planes.centre
    cdef const floating *x_scale = <const floating *>planes.x_scale
    cdef const floating *shift = <const floating *>planes.shift
    if not planes.fit:
        write_planes_in_double(grad_output, x, grad_input, grid, block, planes, like)
        return
    if not planes.through_statistics:
        write_scaled(grad_output, grad_input, grid, block, grad_scale)
        return
    for step in range((count + TILE - 1) // TILE):
        size = min(count - step * TILE, <Py_ssize_t>TILE)
        target = &buffer[0] if buffered else grad_input + start
        for channel in range(grid.width // lanes):
            i = channel * lanes
            plane_tile(
                grad_output + start + i, x + start + i, target + i,
                grid.width, size, grad_mean + i, grad_scale + i, centre + i, x_scale + i,
                shift + i, stream,
            )
        for i in range(size):
            for j in range(grid.width - rest, grid.width):
                at = start + i * grid.width + j
                set_one(
                    grad_input + at,
                    on_plane(
                        one(grad_output + at, centre), one(x + at, centre),
                        grad_mean[j], grad_scale[j], centre[j], x_scale[j], shift[j],
                    ),
                )
        if buffered:
            stream_pixels(<const element *>buffer, grad_input + start, size * grid.width)
        start += size * grid.width
    if has_rest(grid, block):
        for i in range(grid.rest):
            set_one(
                grad_input + start + i,
                on_plane(
                    one(grad_output + start + i, centre),
                    one(x + start + i, centre),
                    grad_mean[i], grad_scale[i], centre[i], x_scale[i], shift[i],
                ),
            )
    if stream:
        instnorm_stream_end()


cdef void write_planes_in_double(
    const element *grad_output, const element *x, element *grad_input,
    Grid grid, Py_ssize_t block, Planes planes, floating like,
) noexcept nogil:
    """As write_planes, where float32 does not hold a scale, or the statistics were given."""
    cdef Py_ssize_t start = block * grid.block * grid.width
    cdef Py_ssize_t i, end = start + steps_of(grid, block) * grid.width
    cdef const floating *kind = NULL
    cdef double value
    cdef Plane plane
    if has_rest(grid, block):
        end += grid.rest
    for i in range(start, end):
        plane = planes.exact[i % grid.channels]
        value = one(grad_output + i, kind)
        if plane.through_statistics:
            value = (
                (value - plane.grad_mean) * plane.grad_scale
                + (<double>one(x + i, kind) - plane.centre) * plane.x_scale
                + plane.shift
            )
        else:
            value = value * plane.grad_scale
        set_one(grad_input + i, <floating>value)


# ------------------------------------------------------------------ a sample

cdef struct Room:
    # What a sample needs besides its arrays: the memory, and its parts.
    char *memory
    double *sums            # 3 * blocks * width
    double *kept            # 2 * C
    void *numbers           # NUMBERS times `width` floats or doubles
    Line *lines             # C
    Plane *planes           # C


cdef inline bint find_room(Room *room, Grid grid) noexcept nogil:
    """False: no memory."""
    cdef size_t sums = 3 * grid.blocks * grid.width * sizeof(double)
    cdef size_t kept = 2 * grid.channels * sizeof(double)
    cdef size_t numbers = NUMBERS * grid.width * sizeof(double)
    cdef size_t lines = grid.channels * sizeof(Line)
    room.memory = <char *>malloc(sums + kept + numbers + lines + grid.channels * sizeof(Plane))
    if room.memory == NULL:
        return False
    room.sums = <double *>room.memory
    room.kept = <double *>(room.memory + sums)
    room.numbers = room.memory + sums + kept
    room.lines = <Line *>(room.memory + sums + kept + numbers)
    room.planes = <Plane *>(room.memory + sums + kept + numbers + lines)
    return True


cdef inline floating *number_array(Room room, Grid grid, int i, floating like) noexcept nogil:
    return <floating *>room.numbers + i * grid.width


cdef inline Lines lines_in(Room room, Grid grid, floating like) noexcept nogil:
    cdef Lines lines
    lines.centre = number_array(room, grid, 0, like)
    lines.scale = number_array(room, grid, 1, like)
    lines.scale_rest = number_array(room, grid, 2, like)
    lines.shift = number_array(room, grid, 3, like)
    lines.exact = room.lines
    lines.fit = True
    return lines


cdef inline Planes planes_in(
    Room room, Grid grid, bint through_statistics, floating like
) noexcept nogil:
    cdef Planes planes
    planes.grad_mean = number_array(room, grid, 0, like)
    planes.grad_scale = number_array(room, grid, 1, like)
    planes.centre = number_array(room, grid, 2, like)
    planes.x_scale = number_array(room, grid, 3, like)
    planes.shift = number_array(room, grid, 4, like)
    planes.exact = room.planes
    planes.fit = True
    planes.through_statistics = through_statistics
    return planes


cdef void write_sample(
    const element *x, element *y, Grid grid, Lines lines, bint stream, int threads, floating like
) noexcept nogil:
    """All blocks, a thread's last first: it is still in the cache."""
    cdef Py_ssize_t block
    cdef int thread
    for thread in prange(
        threads, num_threads=threads, schedule="static", use_threads_if=threads > 1
    ):
        for block in range(
            share(grid.blocks, threads, thread + 1) - 1, share(grid.blocks, threads, thread) - 1, -1
        ):
            write_lines(x, y, grid, block, lines, stream, like)


cdef bint forward_sample(
    const element *x,
    element *y,             # OUT NULL: only the statistics are asked for
    Grid grid, Affine affine, double eps, double *mean, double *rstd, bint stream, int threads,
    floating like,
) noexcept nogil:
    """False: no memory."""
    cdef Room room
    cdef Lines lines
    cdef floating *pilot
    if not find_room(&room, grid):
        return False
    pilot = number_array(room, grid, 4, like)
    sample_sums(x, grid, pilot, room.sums, room.kept, threads)
    finish_channels(pilot, room.sums, grid, eps, mean, rstd)
    lines = lines_in(room, grid, like)
    set_lines(&lines, grid, pilot, room.sums, rstd, affine, room.kept, like)
    if y != NULL:
        repeat_lines(lines, grid, like)
        write_sample(x, y, grid, lines, stream and whole_lines(y, grid), threads, like)
    free(room.memory)
    return True


cdef bint apply_sample(
    const element *x, element *y, Grid grid, Affine affine,
    const double *mean, const double *rstd, bint stream, int threads, floating like,
) noexcept nogil:
    """y from statistics that are given. False: no memory."""
    cdef Room room
    cdef Lines lines
    cdef Py_ssize_t c
    if not find_room(&room, grid):
        return False
    lines = lines_in(room, grid, like)
    for c in range(grid.channels):
        room.sums[c] = 0
    set_lines(&lines, grid, mean, room.sums, rstd, affine, room.kept, like)
    repeat_lines(lines, grid, like)
    write_sample(x, y, grid, lines, stream and whole_lines(y, grid), threads, like)
    free(room.memory)
    return True


cdef bint backward_sample(
    const element *grad_output, const element *x, element *grad_input,
    Grid grid, Affine affine, const double *mean, const double *rstd, bint through_statistics,
    double *sum_grad, double *sum_product, bint stream, int threads, floating like,
) noexcept nogil:
    """False: no memory."""
    cdef Room room
    cdef Planes planes
    cdef floating *centre
    cdef Py_ssize_t c, block
    cdef int thread
    if not find_room(&room, grid):
        return False
    centre = number_array(room, grid, 2, like)
    for c in range(grid.channels):
        centre[c] = <floating>mean[c]
    repeat(centre, grid)
    sum_products_of_sample(grad_output, x, grid, centre, False, room.sums, threads)
    if floating is float:
        if set_aside(room.sums, grid, True, room.kept):
            sum_products_of_sample(grad_output, x, grid, centre, True, room.sums, threads)
            put_back(room.sums, grid, room.kept)
    planes = planes_in(room, grid, through_statistics, like)
    for c in range(grid.channels):
        sum_grad[c] = room.sums[c]
        sum_product[c] = room.sums[grid.width + c]
        set_plane(
            &planes, c,
            plane_of(
                sum_grad[c], &sum_product[c], grid.pixels, mean[c], rstd[c],
                weight_of(affine, c), through_statistics, like,
            ),
            like,
        )
    repeat_planes(planes, grid, like)
    stream = stream and whole_lines(grad_input, grid)
    for thread in prange(
        threads, num_threads=threads, schedule="static", use_threads_if=threads > 1
    ):
        for block in range(
            share(grid.blocks, threads, thread + 1) - 1, share(grid.blocks, threads, thread) - 1, -1
        ):
            write_planes(grad_output, x, grad_input, grid, block, planes, stream, like)
    free(room.memory)
    return True


# --------------------------------------------------------------- all samples

cdef inline int threads_for_samples(
    Py_ssize_t samples, size_t sample_bytes, int threads
) noexcept nogil:
    """How many threads take samples of their own; 1: all of them share each sample."""
    if sample_bytes >= SHARE_ABOVE or (samples < 4 * threads and samples % threads != 0):
        return 1
    return threads


cdef bint forward_channels_last(
    const element *x, element *y, Py_ssize_t samples, Grid grid,
    Affine affine, double eps, double *mean, double *rstd, int threads, bint stream,
    floating like,
) noexcept nogil:
    """False: no memory."""
    cdef Py_ssize_t n, size = grid.pixels * grid.channels, failed = 0
    cdef int outside = threads_for_samples(samples, size * sizeof(element), threads)
    if outside == 1:  # in a loop of their own: threads inside threads are started each time
        for n in range(samples):
            failed += not forward_sample(
                x + n * size, NULL if y == NULL else y + n * size, grid, affine, eps,
                mean + n * grid.channels, rstd + n * grid.channels, stream, threads, like,
            )
        return failed == 0
    for n in prange(samples, num_threads=outside, schedule="static"):
        failed += not forward_sample(
            x + n * size, NULL if y == NULL else y + n * size, grid, affine, eps,
            mean + n * grid.channels, rstd + n * grid.channels, stream, 1, like,
        )
    return failed == 0


cdef bint apply_channels_last(
    const element *x, element *y, Py_ssize_t samples, Grid grid, Affine affine,
    const double *mean, const double *rstd, int threads, bint stream, floating like,
) noexcept nogil:
    """y from statistics that are given. False: no memory."""
    cdef Py_ssize_t n, size = grid.pixels * grid.channels, failed = 0
    cdef int outside = threads_for_samples(samples, size * sizeof(element), threads)
    if outside == 1:
        for n in range(samples):
            failed += not apply_sample(
                x + n * size, y + n * size, grid, affine,
                mean + n * grid.channels, rstd + n * grid.channels, stream, threads, like,
            )
        return failed == 0
    for n in prange(samples, num_threads=outside, schedule="static"):
        failed += not apply_sample(
            x + n * size, y + n * size, grid, affine,
            mean + n * grid.channels, rstd + n * grid.channels, stream, 1, like,
        )
    return failed == 0


cdef bint backward_channels_last(
    const element *grad_output, const element *x, element *grad_input,
    Py_ssize_t samples, Grid grid, Affine affine, const double *mean, const double *rstd,
    bint through_statistics, double *sum_grad, double *sum_product, int threads, bint stream,
    floating like,
) noexcept nogil:
    """False: no memory."""
    cdef Py_ssize_t n, at, size = grid.pixels * grid.channels, failed = 0
    cdef int outside = threads_for_samples(samples, size * sizeof(element), threads)
    if outside == 1:
        for n in range(samples):
            at = n * grid.channels
            failed += not backward_sample(
                grad_output + n * size, x + n * size, grad_input + n * size, grid, affine,
                mean + at, rstd + at, through_statistics, sum_grad + at, sum_product + at,
                stream, threads, like,
            )
        return failed == 0
    for n in prange(samples, num_threads=outside, schedule="static"):
        at = n * grid.channels
        failed += not backward_sample(
            grad_output + n * size, x + n * size, grad_input + n * size, grid, affine,
            mean + at, rstd + at, through_statistics, sum_grad + at, sum_product + at,
            stream, 1, like,
        )
    return failed == 0
