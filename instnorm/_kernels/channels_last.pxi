# Channels-last memory: a sample is `length` pixels of C elements each.
#
# Each channel has sums of its own, in double, which lie side by side in memory of the first-level
# cache: those of eight channels are loaded, TOGETHER pixels are added, and they are stored again.
# So memory is read in order, whatever the number of channels. Double costs next to nothing here,
# as reading takes longer; sums are exact enough without a pilot close to the mean then.
#
# A sample is cut into blocks of some pixels, which threads share; the blocks' sums are added in
# order, so that the result does not depend on the number of threads, bit by bit. Where pixels
# are no multiple of a line, several are taken together, as one wide pixel that is.
#
# Where a mask cuts into a sample, it is spread from pixels to their elements on the way.
#
# A sample is read twice: to sum, and to write the result. Tiles of some of its channels do not
# change what the second-level cache has the second time: the lines of a tile are as far apart as
# pixels are, and so share a part of the cache's sets that is as small as the tile is of a pixel.

cdef struct Grid:
    Py_ssize_t channels
    Py_ssize_t pixels       # that are walked
    Py_ssize_t count        # pixels that count
    Py_ssize_t width        # elements of a wide pixel: C, or a multiple of C
    Py_ssize_t steps        # whole wide pixels of a sample
    Py_ssize_t rest         # elements after those
    Py_ssize_t block        # wide pixels of a block
    Py_ssize_t blocks       # at least one
    Py_ssize_t padded       # elements of an array that has one number for each of a wide pixel


cdef inline Py_ssize_t line_of(const element *like) noexcept nogil:
    """How many elements a line has: a cache line, once widened."""
    return 8 if element is double else 16


cdef inline Py_ssize_t pixels_of_wide(const element *like, const Job *job) noexcept nogil:
    """How many pixels to take for one: until it is some whole lines, if there are enough."""
    cdef Py_ssize_t lanes = line_of(like), fold = 1
    while (
        (job.channels * fold % lanes or job.channels * fold < 4 * lanes)
        and 2 * job.channels * fold <= WIDEST
        and 2 * TOGETHER * fold <= job.length
    ):
        fold *= 2
    return fold


cdef inline Grid grid_of(const element *like, const Job *job) noexcept nogil:
    cdef Grid grid
    cdef Py_ssize_t fold = pixels_of_wide(like, job)
    grid.channels = job.channels
    grid.pixels = job.length
    grid.count = job.count
    grid.width = grid.channels * fold
    grid.steps = grid.pixels // fold
    grid.rest = (grid.pixels - grid.steps * fold) * grid.channels
    grid.block = max(PIXEL_BLOCK // (grid.width * TOGETHER), <Py_ssize_t>1) * TOGETHER
    grid.blocks = max((grid.steps + grid.block - 1) // grid.block, <Py_ssize_t>1)
    # A line beyond the end may be loaded, and stored as it was.
    grid.padded = (grid.width + 63) // 32 * 32
    return grid


cdef inline Py_ssize_t steps_of(const Grid *grid, Py_ssize_t block) noexcept nogil:
    return max(min(grid.steps - block * grid.block, grid.block), <Py_ssize_t>0)


cdef inline Py_ssize_t rest_of(const Grid *grid, Py_ssize_t block) noexcept nogil:
    """Elements after the whole wide pixels of a block."""
    return grid.rest if block == grid.blocks - 1 else 0


# --------------------------------------------------------------- workspace

cdef struct Sums:
    # Of a block: one number for each element of a wide pixel.
    double *sum1
    double *sum2
    double *sum3            # backward: what the slope's gradient is made of
    double *distance        # backward: of (x - centre), float64 elements only
    double *rest            # what rounding took from sum2 (of blocks, float64 elements only)


cdef struct Workspace:
    # What a sample needs besides its arrays.
    char *memory
    char *sums
    Py_ssize_t array_bytes  # of one number for each element of a wide pixel
    double *pilot           # float32 elements: of the first pixel; the mean is pilot + offset
    double *offset          # C
    coefficients numbers
    unsigned char *masks    # for each thread, a byte for each element of a block
    Py_ssize_t mask_bytes   # of one of them


cdef inline bint allocate(
    Workspace *space, const Grid *grid, const Job *job, int threads
) noexcept nogil:
    """False: no memory. All parts begin with a cache line."""
    cdef Py_ssize_t array = grid.padded * <Py_ssize_t>sizeof(double)
    cdef Py_ssize_t size = 64 + (5 * grid.blocks + 2 + COEFFICIENTS) * array
    cdef char *at
    space.array_bytes = array
    # A block, the elements after the last one, and a vec more.
    space.mask_bytes = 0 if job.mask == NULL else (grid.block + 1) * grid.width + 64
    space.memory = <char *>malloc(size + threads * space.mask_bytes)
    if space.memory == NULL:
        return False
    space.masks = <unsigned char *>space.memory + size
    at = space.memory + (64 - (<size_t>space.memory & 63))
    space.sums = at
    at += 5 * grid.blocks * array
    space.pilot = <double *>at
    space.offset = <double *>(at + array)
    space.numbers = coefficients_in(at + 2 * array, array)
    return True


cdef inline Sums sums_of(const Workspace *space, Py_ssize_t block) noexcept nogil:
    cdef Sums out
    cdef Py_ssize_t array = space.array_bytes
    cdef char *at = space.sums + 5 * block * array
    out.sum1 = <double *>at
    out.sum2 = <double *>(at + array)
    out.sum3 = <double *>(at + 2 * array)
    out.rest = <double *>(at + 3 * array)
    out.distance = <double *>(at + 4 * array)
    return out


cdef inline void repeat_doubles(double *values, const Grid *grid) noexcept nogil:
    """Fill a wide pixel's numbers with those of its first pixel."""
    cdef Py_ssize_t i
    for i in range(grid.channels, grid.width):
        values[i] = values[i - grid.channels]


cdef inline void repeat(const element *like, void *numbers, const Grid *grid) noexcept nogil:
    """As repeat_doubles, of numbers of the computing type."""
    cdef Py_ssize_t i
    if element is double:
        repeat_doubles(<double *>numbers, grid)
    else:
        for i in range(grid.channels, grid.width):
            (<float *>numbers)[i] = (<float *>numbers)[i - grid.channels]


cdef inline void set_number(
    const element *like, void *numbers, Py_ssize_t i, double value
) noexcept nogil:
    if element is double:
        (<double *>numbers)[i] = value
    else:
        (<float *>numbers)[i] = coefficient(<const float *>numbers, value)


# ------------------------------------------------------------ sums of a block

cdef inline doubles rounded_off(doubles sum_, doubles a, doubles b) noexcept nogil:
    """What rounding took from sum = a + b, whichever of them is larger (Knuth 1969)."""
    cdef doubles b_there = sum_ - a
    return (a - (sum_ - b_there)) + (b - b_there)


cdef inline void add_pixels(
    const element *x,       # IN  `pixels` of n elements
    Py_ssize_t stride,      # elements from a pixel to the next
    Py_ssize_t pixels, Py_ssize_t n,
    const double *pilot,    # IN  n
    const pixel_kind *after,
    const Sums *sums,       # INOUT adds (x - pilot) to sum1, (x - pilot)^2 to sum2
) noexcept nogil:
    cdef Py_ssize_t c, p, whole = n - n % 8, ahead = elements_ahead(x)
    cdef doubles d, sum1, sum2, old, centre
    cdef double one
    for c in range(0, whole, 8):
        sum1 = load_doubles(sums.sum1 + c)
        old = load_doubles(sums.sum2 + c)
        # float64: an outlier makes nearly all of a sum, and what is small beside it would be
        # lost in rounding.
        sum2 = splat_doubles(0) if element is double else old
        centre = load_doubles(pilot + c)
        for p in range(pixels):
            d = difference_at(after, x, p * stride + c, centre)
            instnorm_prefetch(x + p * stride + c + ahead)
            sum1 = sum1 + d
            sum2 = fma(d, d, sum2)
        store_doubles(sums.sum1 + c, sum1)
        if element is double:
            d = old + sum2
            store_doubles(
                sums.rest + c, load_doubles(sums.rest + c) + rounded_off(d, old, sum2)
            )
            sum2 = d
        store_doubles(sums.sum2 + c, sum2)
    for c in range(whole, n):
        for p in range(pixels):
            if keeps(after, p * stride + c):
                one = load_one(x + p * stride + c) - pilot[c]
                sums.sum1[c] += one
                sums.sum2[c] += one * one


cdef inline void add_product_pixels(
    const element *grad_output, const element *x, Py_ssize_t stride,
    Py_ssize_t pixels, Py_ssize_t n, const double *centres, const pixel_kind *after,
    const Sums *sums,       # INOUT adds grad_output to sum1, grad_output * (x - centre) to sum2
) noexcept nogil:
    """As add_pixels."""
    cdef Py_ssize_t c, p, at, whole = n - n % 8, ahead = elements_ahead(x)
    cdef doubles g, d, sum1, sum2, distance, centre
    cdef double one_g, one_d
    for c in range(0, whole, 8):
        sum1 = load_doubles(sums.sum1 + c)
        sum2 = load_doubles(sums.sum2 + c)
        if element is double:
            distance = load_doubles(sums.distance + c)
        centre = load_doubles(centres + c)
        for p in range(pixels):
            at = p * stride + c
            factors_at(after, grad_output, x, at, c, centre, &g, &d)
            instnorm_prefetch(grad_output + at + ahead)
            instnorm_prefetch(x + at + ahead)
            sum1 = sum1 + g
            sum2 = fma(g, d, sum2)
            if element is double:
                distance = distance + d
        store_doubles(sums.sum1 + c, sum1)
        store_doubles(sums.sum2 + c, sum2)
        if element is double:
            store_doubles(sums.distance + c, distance)
    for c in range(whole, n):
        for p in range(pixels):
            factors_at(
                after, grad_output, x, p * stride + c, c, centres[c], &one_g, &one_d
            )
            sums.sum1[c] += one_g
            sums.sum2[c] += one_g * one_d
            if element is double:
                sums.distance[c] += one_d
    if pixel_kind is not no_epilogue:
        if after.slope_asked:
            for p in range(pixels):
                add_slope_pixel(grad_output, x, p * stride, n, after, sums.sum3)


cdef inline void add_slope_pixel(
    const element *grad_output, const element *x, Py_ssize_t at, Py_ssize_t n,
    const pixel_epilogue *after, double *sums,
) noexcept nogil:
    """What the slope's gradient is made of: a pass of its own, in the first-level cache."""
    cdef Py_ssize_t c, whole = n - n % 8
    for c in range(0, whole, 8):
        store_doubles(
            sums + c, load_doubles(sums + c) + slopes_at(after, grad_output, x, at + c, c)
        )
    for c in range(whole, n):
        sums[c] += slope_at(after, grad_output, x, at + c, c)


cdef inline pixel_kind epilogue_of_block(
    const element *x, const pixel_kind *sample, const Grid *grid, Py_ssize_t block,
    const Workspace *space, int thread,
) noexcept nogil:
    """Places are counted from the block's first element."""
    cdef Py_ssize_t at = block * grid.block * grid.width
    cdef Py_ssize_t n = steps_of(grid, block) * grid.width + rest_of(grid, block)
    cdef pixel_kind out = advanced(sample, at, sizeof(element))
    if pixel_kind is not no_epilogue:
        if sample.mask != NULL:
            out.mask = space.masks + thread * space.mask_bytes
            spread_mask(
                sample.mask + at // grid.channels, n // grid.channels, grid.channels,
                <unsigned char *>out.mask,
            )
    return out


cdef inline void sum_pixels(
    const element *grad_output,     # IN  the block; NULL: squares are asked for
    const element *x, Py_ssize_t at, Py_ssize_t pixels, Py_ssize_t n,
    const double *pilot, const pixel_kind *block, const Sums *sums,
) noexcept nogil:
    """Of `pixels` of n elements, which begin at `at`."""
    cdef pixel_kind after = advanced(block, at, sizeof(element))
    if grad_output == NULL:
        add_pixels(x + at, n, pixels, n, pilot, &after, sums)
    else:
        add_product_pixels(grad_output + at, x + at, n, pixels, n, pilot, &after, sums)


cdef void sum_block(
    const element *grad_output,     # IN  the block; NULL: squares are asked for
    const element *x,               # IN  the block
    const Grid *grid, Py_ssize_t block, const double *pilot, const pixel_kind *after,
    const Sums *sums,               # OUT
) noexcept nogil:
    cdef Py_ssize_t width = grid.width, rest = rest_of(grid, block)
    cdef Py_ssize_t at = 0, left = steps_of(grid, block), size, i
    for i in range(grid.padded):
        sums.sum1[i] = 0
        sums.sum2[i] = 0
    # The others where something is added to them.
    if element is double:
        for i in range(grid.padded):
            sums.rest[i] = 0
            sums.distance[i] = 0
    if pixel_kind is not no_epilogue:
        for i in range(grid.padded):
            sums.sum3[i] = 0
    while left > 0:
        size = min(left, <Py_ssize_t>TOGETHER)
        sum_pixels(grad_output, x, at, size, width, pilot, after, sums)
        at += size * width
        left -= size
    if rest:
        sum_pixels(grad_output, x, at, 1, rest, pilot, after, sums)


# ---------------------------------------------------------- sums of a sample

cdef inline void add_blocks(
    const element *like, const Workspace *space, const Grid *grid, const pixel_kind *kind
) noexcept nogil:
    """Add the sums of all blocks, in order, to those of the first."""
    cdef Sums into = sums_of(space, 0), other
    cdef doubles sum1, sum2, sum3, distance, term, rest, old
    cdef Py_ssize_t block, c
    for c in range(0, grid.width, 8):
        sum1 = load_doubles(into.sum1 + c)
        sum2 = load_doubles(into.sum2 + c)
        rest = splat_doubles(0)
        if element is double:
            rest = load_doubles(into.rest + c)
            distance = load_doubles(into.distance + c)
        if pixel_kind is not no_epilogue:
            sum3 = load_doubles(into.sum3 + c)
        for block in range(1, grid.blocks):
            other = sums_of(space, block)
            sum1 = sum1 + load_doubles(other.sum1 + c)
            term = load_doubles(other.sum2 + c)
            old = sum2
            sum2 = old + term
            if element is double:
                rest = rest + (load_doubles(other.rest + c) + rounded_off(sum2, old, term))
                distance = distance + load_doubles(other.distance + c)
            else:
                rest = rest + rounded_off(sum2, old, term)
            if pixel_kind is not no_epilogue:
                sum3 = sum3 + load_doubles(other.sum3 + c)
        store_doubles(into.sum1 + c, sum1)
        store_doubles(into.sum2 + c, sum2)
        store_doubles(into.rest + c, rest)
        if element is double:
            store_doubles(into.distance + c, distance)
        if pixel_kind is not no_epilogue:
            store_doubles(into.sum3 + c, sum3)


cdef inline void add_pixels_of_wide(
    const element *like, const Workspace *space, const Grid *grid, const pixel_kind *kind
) noexcept nogil:
    """Add the sums of the pixels that were taken for a wide one to those of its first."""
    cdef Sums sums = sums_of(space, 0)
    cdef Py_ssize_t i, c = 0
    for i in range(grid.channels, grid.width):
        sums.sum1[c] += sums.sum1[i]
        add_exactly(&sums.sum2[c], &sums.rest[c], sums.sum2[i])
        sums.rest[c] += sums.rest[i]
        if element is double:
            sums.distance[c] += sums.distance[i]
        if pixel_kind is not no_epilogue:
            sums.sum3[c] += sums.sum3[i]
        c += 1
        if c == grid.channels:
            c = 0
    for c in range(grid.channels):
        if isfinite(sums.rest[c]):
            sums.sum2[c] += sums.rest[c]


cdef void sum_blocks(
    const element *grad_output, const element *x, const Grid *grid, Py_ssize_t first,
    Py_ssize_t end, const double *pilot, const pixel_kind *sample, const Workspace *space,
    int thread,
) noexcept nogil:
    cdef Py_ssize_t block, at
    cdef Sums sums
    cdef pixel_kind after
    for block in range(first, end):
        at = block * grid.block * grid.width
        sums = sums_of(space, block)
        after = epilogue_of_block(x, sample, grid, block, space, thread)
        sum_block(
            grad_output if grad_output == NULL else grad_output + at, x + at, grid, block,
            pilot, &after, &sums,
        )


cdef void sum_sample(
    const element *grad_output,     # IN  NULL: squares are asked for
    const element *x, const Grid *grid, const double *pilot, const pixel_kind *after,
    const Workspace *space,         # the first C sums of the first block are what is asked for
    int threads,
) noexcept nogil:
    cdef int thread
    if threads == 1:
        sum_blocks(grad_output, x, grid, 0, grid.blocks, pilot, after, space, 0)
    else:
        for thread in prange(threads, num_threads=threads, schedule="static"):
            sum_blocks(
                grad_output, x, grid, share(grid.blocks, threads, thread),
                share(grid.blocks, threads, thread + 1), pilot, after, space, thread,
            )
    add_blocks(x, space, grid, after)
    add_pixels_of_wide(x, space, grid, after)


cdef void square_sums(
    const element *x, const Grid *grid, const pixel_kind *after, const Workspace *space,
    int threads,
) noexcept nogil:
    """The pilots, and the sums around them; see moments_in_double."""
    cdef Sums sums = sums_of(space, 0)
    cdef Py_ssize_t c, first = 0
    while not keeps(after, first):
        first += 1
    for c in range(grid.channels):
        space.pilot[c] = load_one(x + first * grid.channels + c)
    repeat_doubles(space.pilot, grid)
    sum_sample(<const element *>NULL, x, grid, space.pilot, after, space, threads)
    if element is double:
        for c in range(grid.channels):
            space.pilot[c] += sums.sum1[c] / grid.count
        repeat_doubles(space.pilot, grid)
        sum_sample(<const element *>NULL, x, grid, space.pilot, after, space, threads)


# ------------------------------------------------------------ the last passes

cdef inline bint streamable(const element *y, const Grid *grid) noexcept nogil:
    """Whether all that is written past the caches are whole parts of cache lines."""
    return (<size_t>y & 63) == 0 and grid.width % line_of(y) == 0


cdef inline void normalize_pixel(
    const element *x, element *y, Py_ssize_t n, const coefficients *numbers,
    const pixel_kind *after, bint stream,
) noexcept nogil:
    """n elements: a wide pixel's, or fewer."""
    cdef Py_ssize_t lanes = line_of(x), c = 0, ahead = elements_ahead(x)
    cdef line_scales[element] k
    cdef pixel_kind rest
    while c + lanes <= n:
        k = line_scales_of(x, numbers, c)
        instnorm_prefetch(x + c + ahead)
        if not stream:
            instnorm_prefetch(y + c + ahead)
        put_line(y + c, normalized_at(after, x, c, c, k), stream)
        c += lanes
    if c < n:
        k = line_scales_of(x, numbers, c)
        rest = advanced(after, c, sizeof(element))
        normalize_part(&rest, x + c, y + c, n - c, c, k)


cdef inline void differentiate_pixel(
    const element *grad_output, const element *x, element *grad_input, Py_ssize_t n,
    const coefficients *numbers, const pixel_kind *after, bint stream,
) noexcept nogil:
    """n elements: a wide pixel's, or fewer."""
    cdef Py_ssize_t lanes = line_of(x), c = 0, ahead = elements_ahead(x)
    cdef line_grad_scales[element] k
    cdef pixel_kind rest
    while c + lanes <= n:
        k = line_grad_scales_of(x, numbers, c)
        instnorm_prefetch(grad_output + c + ahead)
        instnorm_prefetch(x + c + ahead)
        if not stream:
            instnorm_prefetch(grad_input + c + ahead)
        put_line(grad_input + c, gradient_at(after, grad_output, x, c, c, k), stream)
        c += lanes
    if c < n:
        k = line_grad_scales_of(x, numbers, c)
        rest = advanced(after, c, sizeof(element))
        differentiate_part(&rest, grad_output + c, x + c, grad_input + c, n - c, c, k)


cdef inline void write_pixel(
    const element *grad_output,     # IN  the block; NULL: forward
    const element *x, element *out, Py_ssize_t at, Py_ssize_t n,
    const coefficients *numbers, const pixel_kind *block, bint stream,
) noexcept nogil:
    """n elements of a block, from `at` on."""
    cdef pixel_kind after = advanced(block, at, sizeof(element))
    if grad_output == NULL:
        normalize_pixel(x + at, out + at, n, numbers, &after, stream)
    else:
        differentiate_pixel(grad_output + at, x + at, out + at, n, numbers, &after, stream)


cdef void write_block(
    const element *grad_output,     # IN  the block; NULL: forward
    const element *x, element *out, const Grid *grid, Py_ssize_t block,
    const coefficients *numbers, const pixel_kind *after, bint stream,
) noexcept nogil:
    """In the order of memory."""
    cdef Py_ssize_t width = grid.width, rest = rest_of(grid, block), at = 0
    cdef Py_ssize_t end = steps_of(grid, block) * width
    while at < end:
        write_pixel(grad_output, x, out, at, width, numbers, after, stream)
        at += width
    if rest:
        write_pixel(grad_output, x, out, at, rest, numbers, after, False)
    if stream:
        stream_end()


cdef void write_blocks(
    const element *grad_output,     # IN  NULL: forward
    const element *x, element *out, const Grid *grid, Py_ssize_t first, Py_ssize_t end,
    const pixel_kind *sample, const Workspace *space, bint stream, int thread,
) noexcept nogil:
    """The last first: it is still in the cache."""
    cdef Py_ssize_t block, at
    cdef pixel_kind after
    for block in range(end - 1, first - 1, -1):
        at = block * grid.block * grid.width
        after = epilogue_of_block(x, sample, grid, block, space, thread)
        write_block(
            grad_output if grad_output == NULL else grad_output + at, x + at, out + at, grid,
            block, &space.numbers, &after, stream,
        )


cdef void write_sample(
    const element *grad_output,     # IN  NULL: forward
    const element *x, element *out, const Grid *grid, const pixel_kind *after,
    const Workspace *space, bint stream, int threads,
) noexcept nogil:
    cdef int thread
    for thread in prange(
        threads, num_threads=threads, schedule="static", use_threads_if=threads > 1
    ):
        write_blocks(
            grad_output, x, out, grid, share(grid.blocks, threads, thread),
            share(grid.blocks, threads, thread + 1), after, space, stream, thread,
        )


# ------------------------------------------------------------------ a sample

cdef void channel_in_units(
    const double *x, Workspace *space, const Job *job, Py_ssize_t row, const pixel_kind *kind
) noexcept nogil:
    """As statistics_in_units, of a channel of the sample at x."""
    cdef Py_ssize_t c = row % job.channels
    cdef row_epilogue after
    cdef no_epilogue nothing
    if pixel_kind is not no_epilogue:
        set_channel_epilogue(x, &after, job, row)
        statistics_in_units(
            x + c, job.length, job.channels, &after, job, row, space.pilot + c, space.offset + c
        )
    else:
        statistics_in_units(
            x + c, job.length, job.channels, &nothing, job, row, space.pilot + c, space.offset + c
        )


cdef inline void finish_sample(
    const element *x, const Grid *grid, Workspace *space, const Job *job, Py_ssize_t row,
    const pixel_kind *kind,
) noexcept nogil:
    """Mean and rstd of the channels of a sample, whose first row this is, from the sums."""
    cdef Sums sums = sums_of(space, 0)
    cdef double n = grid.count
    cdef doubles pilot, offset, sum1
    cdef Py_ssize_t c, k
    for k in range((grid.channels + GROUP - 1) // GROUP):
        c = k * GROUP
        pilot = load_doubles(space.pilot + c)
        sum1 = load_doubles(sums.sum1 + c)
        offset = sum1 / n
        store_doubles(space.offset + c, offset)
        store_some(job.mean + row + c, pilot + offset, grid.channels - c)
        store_some(
            job.rstd + row + c,
            inverse_std(variance(sum1, load_doubles(sums.sum2 + c), offset, 1 / n), job.eps),
            grid.channels - c,
        )
    if element is double:
        for c in range(grid.channels):
            if leaves_range(x, job.rstd[row + c]):
                channel_in_units(x, space, job, row + c, kind)


cdef inline bint scales_of_sample(
    const element *like, const Grid *grid, Workspace *space, const Job *job, Py_ssize_t row,
    bint given,             # the mean is given, and no pilot and offset
) noexcept nogil:
    """False: float32 does not hold the scale of some channel."""
    cdef doubles pilot, offset
    cdef Py_ssize_t c, k, misfits = 0
    for k in range((grid.channels + GROUP - 1) // GROUP):
        c = k * GROUP
        if given:
            pilot = load_some(job.mean + row + c, grid.channels - c)
            offset = splat_doubles(0)
        else:
            pilot = load_doubles(space.pilot + c)
            offset = load_doubles(space.offset + c)
        misfits += not set_scales(
            like, &space.numbers, c, &pilot, &offset, job, row + c, grid.channels - c
        )
    repeat(like, space.numbers.centre, grid)
    repeat(like, space.numbers.scale, grid)
    repeat(like, space.numbers.scale_rest, grid)
    repeat(like, space.numbers.shift, grid)
    return misfits == 0


cdef inline void signs_of_sample(
    const element *like, const Grid *grid, Workspace *space, const Job *job, Py_ssize_t row
) noexcept nogil:
    cdef Py_ssize_t c, k
    for k in range((grid.channels + GROUP - 1) // GROUP):
        c = k * GROUP
        set_signs(like, &space.numbers, c, job, row + c, grid.channels - c)
    repeat(like, space.numbers.sign_scale, grid)
    repeat(like, space.numbers.sign_shift, grid)


cdef inline void set_pixel_epilogue(
    const element *x, pixel_epilogue *out, const Grid *grid, Workspace *space, const Job *job,
    Py_ssize_t row,         # of the sample's first channel
) noexcept nogil:
    cdef Py_ssize_t at = row * job.stride, c
    cdef double slope
    out.residual = place(x, job.residual, at)
    out.grad_residual = place(x, job.grad_residual, at)
    out.mask = NULL
    if job.mask != NULL:
        out.mask = job.mask + row // job.channels * job.stride
    out.activation = job.activation
    out.slope_asked = job.sum_slope != NULL
    out.from_output = job.from_output
    for c in range(grid.channels):
        slope = slope_of(job, c)
        set_number(x, space.numbers.slope, c, slope)
        set_number(x, space.numbers.inverse_slope, c, inverse_of(slope))
    repeat(x, space.numbers.slope, grid)
    repeat(x, space.numbers.inverse_slope, grid)
    out.slope = space.numbers.slope
    out.inverse_slope = space.numbers.inverse_slope
    out.centre = space.numbers.centre
    out.scale = space.numbers.scale
    out.scale_rest = space.numbers.scale_rest
    out.shift = space.numbers.shift
    out.sign_scale = space.numbers.sign_scale
    out.sign_shift = space.numbers.sign_shift


cdef void normalize_channel(
    const element *x, element *y,       # the sample
    const Scales *scales, const Job *job, Py_ssize_t row, const pixel_kind *kind,
) noexcept nogil:
    """In double: float32 does not hold the scale of some channel."""
    cdef Py_ssize_t c = row % job.channels
    cdef row_epilogue after
    cdef no_epilogue nothing
    if pixel_kind is not no_epilogue:
        set_channel_epilogue(x, &after, job, row)
        normalize_in_double(x + c, y + c, job.length, job.channels, scales, &after)
    else:
        normalize_in_double(x + c, y + c, job.length, job.channels, scales, &nothing)


cdef bint forward_sample(
    const element *x,
    element *y,             # OUT NULL: only the statistics are asked for
    const Grid *grid, const Job *job,
    Py_ssize_t row,         # of the sample's first channel
    bint given,             # mean and rstd are there already
    int threads, const pixel_kind *kind,
) noexcept nogil:
    """False: no memory."""
    cdef Workspace space
    cdef Scales scales
    cdef pixel_kind after
    cdef Py_ssize_t c
    cdef double pilot, offset
    if not allocate(&space, grid, job, threads):
        return False
    if pixel_kind is not no_epilogue:
        set_pixel_epilogue(x, &after, grid, &space, job, row)
    if not given:
        square_sums(x, grid, &after, &space, threads)
        finish_sample(x, grid, &space, job, row, kind)
    if y != NULL:
        if scales_of_sample(x, grid, &space, job, row, given):
            write_sample(
                <const element *>NULL, x, y, grid, &after, &space,
                job.stream and streamable(y, grid), threads,
            )
        else:
            for c in range(grid.channels):
                pilot = job.mean[row + c] if given else space.pilot[c]
                offset = 0 if given else space.offset[c]
                scales = scales_of(
                    x, pilot, offset, job.rstd[row + c], weight_of(job, row + c),
                    bias_of(job, row + c),
                )
                normalize_channel(x, y, &scales, job, row + c, kind)
    free(space.memory)
    return True


cdef inline bint grad_scales_of_sample(
    const element *like, const Grid *grid, Workspace *space, const Job *job, Py_ssize_t row
) noexcept nogil:
    """False: float32 does not hold a scale of some channel."""
    cdef Py_ssize_t c, k, misfits = 0
    for k in range((grid.channels + GROUP - 1) // GROUP):
        c = k * GROUP
        misfits += not set_grad_scales(
            like, &space.numbers, c, job, row + c, grid.channels - c
        )
    repeat(like, space.numbers.centre, grid)
    repeat(like, space.numbers.grad_mean, grid)
    repeat(like, space.numbers.grad_scale, grid)
    repeat(like, space.numbers.x_scale, grid)
    repeat(like, space.numbers.grad_shift, grid)
    return misfits == 0


cdef void differentiate_channels(
    const element *grad_output, const element *x, element *grad_input,  # the sample
    const Job *job, Py_ssize_t first, const pixel_kind *kind,
) noexcept nogil:
    """The channels of a sample one by one, in double, with their sums."""
    cdef Py_ssize_t c
    cdef row_epilogue after
    cdef no_epilogue nothing
    cdef Scales scales
    for c in range(job.channels):
        if pixel_kind is not no_epilogue:
            set_channel_epilogue(x, &after, job, first + c)
            scales = scales_given(x, job, first + c)
            set_affine_map(x, &after, &scales, job, first + c)
            backward_in_double(
                grad_output + c, x + c, grad_input + c, job.channels, job, first + c, &after
            )
        else:
            backward_in_double(
                grad_output + c, x + c, grad_input + c, job.channels, job, first + c, &nothing
            )


cdef bint backward_sample(
    const element *grad_output, const element *x, element *grad_input, const Grid *grid,
    const Job *job, Py_ssize_t row, int threads, const pixel_kind *kind,
) noexcept nogil:
    """False: no memory."""
    cdef Workspace space
    cdef Sums sums
    cdef pixel_kind after
    cdef bint fit = True
    cdef Py_ssize_t c
    if not allocate(&space, grid, job, threads):
        return False
    if pixel_kind is not no_epilogue:
        set_pixel_epilogue(x, &after, grid, &space, job, row)
        fit = scales_of_sample(x, grid, &space, job, row, True) or job.from_output
        signs_of_sample(x, grid, &space, job, row)
    if fit:
        sums = sums_of(&space, 0)
        for c in range(grid.channels):
            space.pilot[c] = job.mean[row + c]
        repeat_doubles(space.pilot, grid)
        sum_sample(grad_output, x, grid, space.pilot, &after, &space, threads)
        for c in range(grid.channels):
            job.sum_grad[row + c] = sums.sum1[c]
            job.sum_product[row + c] = sums.sum2[c]
            if element is double:
                job.offset[row + c] = offset_of(x, job, row + c, sums.distance[c])
                job.sum_product[row + c] -= job.offset[row + c] * sums.sum1[c]
            else:
                job.offset[row + c] = offset_of(x, job, row + c, 0)
            if job.sum_slope != NULL:
                job.sum_slope[row + c] = sums.sum3[c]
        fit = grad_scales_of_sample(x, grid, &space, job, row)
    if fit:
        write_sample(
            grad_output, x, grad_input, grid, &after, &space,
            job.stream and streamable(grad_input, grid), threads,
        )
    else:
        differentiate_channels(grad_output, x, grad_input, job, row, kind)
    free(space.memory)
    return True


# --------------------------------------------------------------- all samples

cdef bint run_samples(
    const element *grad_output,     # IN  NULL: forward
    const element *x,
    element *out,                   # OUT NULL: only the statistics are asked for
    const Job *job, bint given, Py_ssize_t first, Py_ssize_t end, int threads,
    const pixel_kind *kind,
) noexcept nogil:
    """Samples from `first` up to `end`, one after the other. False: no memory."""
    cdef Job of_sample = job[0]
    cdef Grid grid
    cdef Py_ssize_t sample, row, at
    for sample in range(first, end):
        row = sample * job.channels
        at = row * job.stride
        if pixel_kind is not no_epilogue:
            take_mask(&of_sample, job, sample)
        grid = grid_of(x, &of_sample)
        if grad_output != NULL:
            if not backward_sample(
                grad_output + at, x + at, out + at, &grid, &of_sample, row, threads, kind
            ):
                return False
        elif not forward_sample(
            x + at, out if out == NULL else out + at, &grid, &of_sample, row, given, threads, kind
        ):
            return False
        if pixel_kind is not no_epilogue:
            if out != NULL:
                clear_after(out + at, &of_sample, of_sample.channels)
            if of_sample.grad_residual != NULL:
                clear_after(<element *>of_sample.grad_residual + at, &of_sample, of_sample.channels)
    return True


cdef bint channels_last(
    const element *grad_output, const element *x, element *out, const Job *job, bint given,
    const pixel_kind *kind,
) noexcept nogil:
    """As run_samples, of all samples."""
    cdef Py_ssize_t nbytes = job.stride * job.channels * <Py_ssize_t>sizeof(element)
    cdef int thread, failed = 0
    # Threads share each sample where they would not have as many, or where half of it would
    # stay in a processor's own cache, together with the result, and all of it would not.
    if job.threads == 1 or 2 * nbytes > job.l2_bytes or (
        job.samples < ROWS_PER_THREAD * job.threads and job.samples % job.threads != 0
    ):
        return run_samples(grad_output, x, out, job, given, 0, job.samples, job.threads, kind)
    for thread in prange(job.threads, num_threads=job.threads, schedule="static"):
        failed += not run_samples(
            grad_output, x, out, job, given, share(job.samples, job.threads, thread),
            share(job.samples, job.threads, thread + 1), 1, kind,
        )
    return failed == 0
