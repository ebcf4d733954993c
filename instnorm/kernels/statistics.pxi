# Sums and moments: of a short row, of a block, of a row that is made of blocks.

cdef struct Moments:
    # Of `count` elements: mean = origin + offset, m2 = sum of (x - mean)^2.
    double count
    double origin
    double offset
    double m2
    # What rounding took from offset and m2 while blocks were merged (Neumaier 1974).
    double offset_rest
    double m2_rest


cdef inline Moments moments_of(
    Py_ssize_t n, double origin, double sum1, double sum2
) noexcept nogil:
    """From the sums of (x - origin) and of (x - origin)^2."""
    cdef Moments out
    out.count = n
    out.origin = origin
    out.offset = sum1 / n
    # Rounding can leave a tiny negative number. A NaN must stay one.
    out.m2 = sum2 - sum1 * out.offset
    if out.m2 < 0:
        out.m2 = 0
    out.offset_rest = 0
    out.m2_rest = 0
    return out


# ---------------------------------------------------------- totals of lanes

cdef inline double halves_total(const double *lane) noexcept nogil:
    """Sum of HALF numbers."""
    return instnorm_total_of_16(lane)


cdef inline double lanes_total(const double *lane) noexcept nogil:
    """Sum of LANES numbers."""
    cdef double half[HALF]
    cdef Py_ssize_t i
    for i in range(HALF):
        half[i] = lane[i] + lane[i + HALF]
    return halves_total(half)


cdef inline double largest_lane(double *lane) noexcept nogil:
    """The largest of LANES numbers, which are overwritten: halves side by side, for SIMD."""
    cdef Py_ssize_t i
    for i in range(HALF):
        lane[i] = max(lane[i], lane[i + HALF])
    for i in range(HALF // 2):
        lane[i] = max(lane[i], lane[i + HALF // 2])
    for i in range(HALF // 4):
        lane[i] = max(lane[i], lane[i + HALF // 4])
    return max(max(lane[0], lane[1]), max(lane[2], lane[3]))


# The elements that do not fill the lanes once more are summed as part of the row's last elements,
# as many as there are lanes, times 0 where they were summed already: no lane is reached by a
# variable index, so all stay in registers. (0 * inf does no harm: that row is NaN anyway.)
cdef double[2 * LANES] ZEROS_THEN_ONES
cdef int _i
for _i in range(2 * LANES):
    ZEROS_THEN_ONES[_i] = _i >= LANES


cdef inline const double *tail_mask(Py_ssize_t n, Py_ssize_t lanes) noexcept nogil:
    """`lanes` numbers: 0 for what whole steps of `lanes` reach, 1 for the n % lanes last."""
    return &ZEROS_THEN_ONES[LANES - lanes + n % lanes]


# ------------------------------------------------------- all in double

cdef inline void sums_of_few(
    const floating *x, Py_ssize_t n, double origin, double *sum1, double *sum2
) noexcept nogil:
    """As sums_in_double, of fewer than HALF elements."""
    cdef double d
    cdef Py_ssize_t i
    sum1[0] = 0
    sum2[0] = 0
    for i in range(n):
        d = <double>x[i] - origin
        sum1[0] += d
        sum2[0] = madd(d, d, sum2[0])


cdef inline void sums_in_double(
    const floating *x,      # IN  n elements
    Py_ssize_t n,
    double origin,
    double *sum1,           # OUT sum of (x - origin)
    double *sum2,           # OUT sum of (x - origin)^2
) noexcept nogil:
    cdef double lane1[HALF]
    cdef double lane2[HALF]
    cdef double d
    cdef Py_ssize_t j, i = 0
    cdef const double *last = tail_mask(n, HALF)
    if n < HALF:
        sums_of_few(x, n, origin, sum1, sum2)
        return
    for j in range(HALF):
        lane1[j] = 0
        lane2[j] = 0
    # There is one whole step at least: said so, the lanes need no memory after the loop.
    while True:
        for j in range(HALF):
            d = <double>x[i + j] - origin
            lane1[j] = lane1[j] + d
            lane2[j] = madd(d, d, lane2[j])
        i += HALF
        if i + HALF > n:
            break
    for j in range(HALF):
        d = last[j] * (<double>x[n - HALF + j] - origin)
        lane1[j] = lane1[j] + d
        lane2[j] = madd(d, d, lane2[j])
    sum1[0] = halves_total(lane1)
    sum2[0] = halves_total(lane2)


cdef inline Moments moments_in_double(const floating *x, Py_ssize_t n) noexcept nogil:
    """For short rows, and where squares leave the range of float32.

    float32 differences from the first element, and their squares, lose next to nothing
    in double, even where the first is the outlier: then the squares are n times what the
    variance needs. float64 ones would lose that: they are taken from the mean.
    """
    cdef double sum1, sum2, origin = x[0]
    sums_in_double(x, n, origin, &sum1, &sum2)
    if floating is double:
        origin += sum1 / n
        sums_in_double(x, n, origin, &sum1, &sum2)
    return moments_of(n, origin, sum1, sum2)


# ------------------------------------------------------------------ a block

cdef inline void take_lanes(const element *x, floating *wide) noexcept nogil:
    """LANES elements as the type to compute in."""
    take(x, wide)
    take(x + STEP, wide + STEP)


cdef inline floating pilot_of(const element *x, floating like) noexcept nogil:
    """The mean of the first SAMPLES steps; x itself if constant.

    Spread over the block they would say more, but memory is fastest read in order.
    """
    cdef floating lane[LANES]
    cdef floating some[LANES]
    cdef double wide[LANES]
    cdef floating first
    cdef Py_ssize_t i, j
    take_lanes(x, some)
    first = some[0]
    for j in range(LANES):
        lane[j] = some[j] - first
    for i in range(1, SAMPLES):
        take_lanes(x + i * LANES, some)
        for j in range(LANES):
            lane[j] = lane[j] + (some[j] - first)
    for j in range(LANES):
        wide[j] = lane[j]
    return <floating>(first + lanes_total(wide) / (SAMPLES * LANES))


cdef inline void centred_sums(
    const element *x,       # IN  n elements
    Py_ssize_t n,
    floating pilot,
    double *sum1,           # OUT sum of (x - pilot)
    double *sum2,           # OUT sum of (x - pilot)^2
    double *largest,        # OUT the largest part of sum2 that a lane has
) noexcept nogil:
    cdef floating lane1[LANES]
    cdef floating lane2[LANES]
    cdef floating some[LANES]
    cdef double wide1[LANES]
    cdef double wide2[LANES]
    cdef floating d
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
            take_lanes(x + step * LANES, some)
            for j in range(LANES):
                d = some[j] - pilot
                lane1[j] = lane1[j] + d
                lane2[j] = madd(d, d, lane2[j])
            step += 1
            if step == end:
                break
        for j in range(LANES):
            wide1[j] = wide1[j] + lane1[j]
            wide2[j] = wide2[j] + lane2[j]
    if n % LANES:
        take_lanes(x + n - LANES, some)
        for j in range(LANES):
            d = <floating>last[j] * (some[j] - pilot)
            wide1[j] = wide1[j] + d
            wide2[j] = madd(<double>d, <double>d, wide2[j])
    sum1[0] = lanes_total(wide1)
    sum2[0] = lanes_total(wide2)
    largest[0] = largest_lane(wide2)


cdef inline Moments block_moments(
    const element *x, Py_ssize_t n, floating like
) noexcept nogil:
    """Of at most BLOCK elements."""
    cdef double sum1, sum2, largest
    cdef floating pilot
    if n <= SHORT:
        return moments_with_care(x, n)
    pilot = pilot_of(x, like)
    centred_sums(x, n, pilot, &sum1, &sum2, &largest)
    # The samples missed what the block is like, and the squares are larger than need be.
    if sum1 * (sum1 / n) > 0.25 * sum2:
        pilot = <floating>(pilot + sum1 / n)
        centred_sums(x, n, pilot, &sum1, &sum2, &largest)
    # Squares that may have lost digits to underflow, or overflowed, or an outlier, whose
    # rounding no other element averages out: once more.
    if floating is float:
        if not (sum2 > n * 1e-28 and sum2 < 1e37 and largest < 0.125 * sum2):
            return moments_with_care(x, n)
    return moments_of(n, pilot, sum1, sum2)


cdef inline Moments moments_with_care(const element *x, Py_ssize_t n) noexcept nogil:
    """As moments_in_double, of at most BLOCK elements."""
    cdef float wide[BLOCK]
    if element is float or element is double:
        return moments_in_double(x, n)
    else:
        widen(x, wide, n)
        return moments_in_double(<const float *>wide, n)


# --------------------------------------------------------- a row of blocks

cdef inline Py_ssize_t blocks_in(Py_ssize_t length) noexcept nogil:
    return (length + BLOCK - 1) // BLOCK


cdef inline Py_ssize_t block_size(Py_ssize_t length, Py_ssize_t block) noexcept nogil:
    return min(length - block * BLOCK, <Py_ssize_t>BLOCK)


cdef inline void add_exactly(double *total, double *rest, double term) noexcept nogil:
    """Add to total + rest, keeping in rest what total cannot hold."""
    cdef double new = total[0] + term
    if fabs(total[0]) >= fabs(term):
        rest[0] += (total[0] - new) + term
    else:
        rest[0] += (term - new) + total[0]
    total[0] = new


cdef inline void merge(
    Moments *into,          # INOUT the blocks so far; takes in `block`
    Moments block,
) noexcept nogil:
    cdef double delta = (block.origin - into.origin) + (block.offset - into.offset)
    cdef double count = into.count + block.count
    delta -= into.offset_rest
    add_exactly(&into.offset, &into.offset_rest, delta * (block.count / count))
    add_exactly(&into.m2, &into.m2_rest, block.m2)
    add_exactly(&into.m2, &into.m2_rest, delta * delta * (into.count * block.count / count))
    into.count = count


cdef inline double inverse_std(double var, double eps) noexcept nogil:
    """1 / sqrt(var + eps), and 0 for a constant row at eps = 0: it stays finite."""
    cdef double total = var + eps
    cdef double rstd = 1 / sqrt(total)
    return 0 if total == 0 else rstd
