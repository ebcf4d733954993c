# Sums and moments of a row, block by block.
#
# E[x^2] - E[x]^2 is never formed. Each block has a pilot close to its mean, and the sums of
# (x - pilot) and of (x - pilot)^2 around it, in as many lanes as a bundle has: in the input's
# own precision for at most FLUSH bundles, then in double. Blocks merge in order, in compensated
# double (Chan, Golub and LeVeque 1983; Neumaier 1974). The mean is kept as `origin + offset`,
# so that a mean 10^5 standard deviations away from zero loses nothing.
#
# A row has more than SHORT elements, so that a bundle that ends where a block ends may begin
# before the block: what was added already is masked out.

cdef struct Moments:
    # Of `count` elements: mean = origin + offset, m2 = sum of (x - mean)^2.
    double count
    double origin
    double offset
    double m2
    # What rounding took from offset and m2 while blocks were merged.
    double offset_rest
    double m2_rest


cdef inline Py_ssize_t lanes_of(const element *like) noexcept nogil:
    """How many elements a bundle has."""
    return 16 if element is double else 32


cdef inline Py_ssize_t elements_ahead(const element *like) noexcept nogil:
    return AHEAD // <Py_ssize_t>sizeof(element)


cdef inline Py_ssize_t ahead_in_row(const element *like, const row_kind *after) noexcept nogil:
    """How many elements ahead to ask for what is read; none where a mask cuts off the rest."""
    return elements_ahead(like) if goes_on(after) else 0


cdef inline double most_missed(const element *like) noexcept nogil:
    return PILOT_MISSED_DOUBLE if element is double else PILOT_MISSED


cdef inline void add_exactly(double *sum_, double *rest, double term) noexcept nogil:
    """Add to sum + rest, keeping in rest what sum cannot hold."""
    cdef double new = sum_[0] + term
    if fabs(sum_[0]) >= fabs(term):
        rest[0] += (sum_[0] - new) + term
    else:
        rest[0] += (term - new) + sum_[0]
    sum_[0] = new


cdef inline Moments moments_of(
    Py_ssize_t count, double pilot, double sum1, double sum2
) noexcept nogil:
    """From the sums of (x - pilot) and of (x - pilot)^2."""
    cdef Moments out
    out.count = count
    out.origin = pilot
    out.offset = sum1 / max(count, <Py_ssize_t>1)
    out.m2 = not_negative(sum2 - sum1 * out.offset)
    out.offset_rest = 0
    out.m2_rest = 0
    return out


cdef inline Moments no_moments() noexcept nogil:
    """Where no element counts."""
    return moments_of(0, 0, 0, 0)


# ------------------------------------------------------- sums all in double

cdef inline void sums_in_double(
    const element *x,       # IN  n elements
    Py_ssize_t n,
    double pilot,
    const row_kind *after,
    double *sum1,           # OUT sum of (x - pilot)
    double *sum2,           # OUT sum of (x - pilot)^2
) noexcept nogil:
    cdef doubles d, lane1 = splat_doubles(0), lane2 = lane1, centre = splat_doubles(pilot)
    cdef double rest1 = 0, rest2 = 0, difference
    cdef Py_ssize_t i, whole = n - n % 8
    for i in range(0, whole, 8):
        d = difference_at(after, x, i, centre)
        lane1 = lane1 + d
        lane2 = fma(d, d, lane2)
    for i in range(whole, n):
        if keeps(after, i):
            difference = load_one(x + i) - pilot
            rest1 += difference
            rest2 += difference * difference
    sum1[0] = total(lane1) + rest1
    sum2[0] = total(lane2) + rest2


cdef inline Moments moments_in_double(
    const element *x, Py_ssize_t n, const row_kind *after
) noexcept nogil:
    """For what leaves the range of float32, for outliers, and for rows of a few elements.

    float32 differences from the first element, and their squares, lose next to nothing
    in double, even where the first is the outlier: then the squares are n times what the
    variance needs. float64 ones would lose that: they are taken from the mean.
    """
    cdef double sum1, sum2, pilot
    cdef Py_ssize_t count = counted(after, n)
    if count == 0:
        return no_moments()
    pilot = load_one(x + first_counted(after, n))
    sums_in_double(x, n, pilot, after, &sum1, &sum2)
    if element is double:
        pilot += sum1 / count
        sums_in_double(x, n, pilot, after, &sum1, &sum2)
    return moments_of(count, pilot, sum1, sum2)


# --------------------------------------------- squares that leave double's range

cdef inline void sums_in_units(
    const double *x, Py_ssize_t n, Py_ssize_t step, double centre, double unit,
    const row_kind *after,
    double *sum1,           # OUT sum of (x - centre) * unit
    double *sum2,           # OUT sum of the squares of that
) noexcept nogil:
    cdef Py_ssize_t i
    cdef double d, rest1 = 0, rest2 = 0
    sum1[0] = sum2[0] = 0
    for i in range(n):
        if keeps(after, i):
            # The difference itself may overflow.
            d = x[i * step] * unit - centre * unit
            add_exactly(sum1, &rest1, d)
            add_exactly(sum2, &rest2, d * d)
    sum1[0] += rest1
    sum2[0] += rest2


cdef void statistics_in_units(
    const double *x, Py_ssize_t n,
    Py_ssize_t step,        # from one element to the next
    const row_kind *after, const Job *job, Py_ssize_t row,
    double *pilot,          # OUT
    double *offset,         # OUT mean = pilot + offset
) noexcept nogil:
    """Mean and rstd of a row once more, from differences times a power of two.

    What is there stays where elements are all the same or not finite, or rstd is beyond double.
    """
    cdef Py_ssize_t i, count = counted(after, n)
    cdef double sum1, sum2, rstd, unit, largest = sqrt(job.eps)
    cdef double centre = x[first_counted(after, n) * step]
    for i in range(n):
        if keeps(after, i):
            largest = max(largest, fabs(x[i * step] * 0.5 - centre * 0.5))
    if largest == 0 or not isfinite(largest):
        return
    unit = 1 / power_near(largest)
    sums_in_units(x, n, step, centre, unit, after, &sum1, &sum2)
    centre += sum1 / count / unit
    sums_in_units(x, n, step, centre, unit, after, &sum1, &sum2)
    rstd = unit * inverse_std(
        variance(sum1, sum2, sum1 / count, 1 / <double>count), job.eps * unit * unit
    )
    if rstd == 0 or not isfinite(rstd):
        return
    pilot[0] = centre
    offset[0] = sum1 / count / unit
    job.mean[row] = pilot[0] + offset[0]
    job.rstd[row] = rstd


cdef struct Products:
    # Sums over the elements that count.
    double grad             # of grad_output, once it passed the activation
    double product          # of that, times (x - centre)
    double distance         # of (x - centre), float64 only
    double slope            # of what the gradient of the activation's slope is made of


cdef inline Products no_products() noexcept nogil:
    cdef Products out
    out.grad = out.product = out.distance = out.slope = 0
    return out


cdef inline void add_products(Products *into, const Products *part) noexcept nogil:
    into.grad += part.grad
    into.product += part.product
    into.distance += part.distance
    into.slope += part.slope


cdef Products products_in_double(
    const element *grad_output, const element *x, Py_ssize_t n,
    Py_ssize_t step,        # from one element to the next
    double centre, const row_kind *after,
) noexcept nogil:
    cdef Products out = no_products(), part = out
    cdef doubles g, d, around = splat_doubles(centre)
    cdef doubles lane1 = splat_doubles(0), lane2 = lane1, lane3 = lane1
    cdef double one_g, one_d, one_slope
    cdef Py_ssize_t i, whole = 0
    if row_kind is no_epilogue:
        whole = n - n % 8 if step == 1 else 0
        for i in range(0, whole, 8):
            factors_at(after, grad_output, x, i, 0, around, &g, &d)
            lane1 = lane1 + g
            lane2 = fma(g, d, lane2)
            lane3 = lane3 + d
    for i in range(whole, n):
        terms_one(after, grad_output, x, i * step, i, centre, &one_g, &one_d, &one_slope)
        part.grad += one_g
        part.product += one_g * one_d
        part.distance += one_d
        part.slope += one_slope
        # One sum of very many would be off by more than the sums of lanes are.
        if i % SHORT == SHORT - 1:
            add_products(&out, &part)
            part = no_products()
    add_products(&out, &part)
    out.grad += total(lane1)
    out.product += total(lane2)
    out.distance += total(lane3)
    return out


# ------------------------------------------------------------------ a block

cdef inline double pilot_of(
    const element *x, Py_ssize_t n, const row_kind *after
) noexcept nogil:
    """The mean of some bundles that are spread over a block; x itself where it is constant."""
    cdef Py_ssize_t lanes = lanes_of(x), step = lanes, start = 0, count = 0, i
    cdef double first = load_one(x + first_counted(after, n))
    cdef bundle[element] around = splat_bundle(x, first), lane = splat_bundle(x, 0)
    cdef row_kind part
    if n < PILOT_BUNDLES * lanes:
        start = n - PILOT_BUNDLES * lanes
    else:
        step = (n // lanes - 1) // (PILOT_BUNDLES - 1) * lanes
    for i in range(PILOT_BUNDLES):
        lane = lane + difference_at(after, x, start + i * step, around)
        part = advanced(after, start + i * step, sizeof(element))
        count += counted(&part, lanes)
    return rounded(x, first + total(lane) / count) if count else first


cdef inline void prefetch_pilots(const element *x) noexcept nogil:
    """Ask for what the pilot of the block at `x` will read, should there be one of full size."""
    cdef Py_ssize_t lanes = lanes_of(x), i
    cdef Py_ssize_t step = (BLOCK // lanes - 1) // (PILOT_BUNDLES - 1) * lanes
    for i in range(1, PILOT_BUNDLES):
        instnorm_prefetch(x + i * step)
        instnorm_prefetch(x + i * step + 64 // sizeof(element))


cdef inline void centred_sums(
    const element *x,       # IN  n elements
    Py_ssize_t n,
    double pilot,
    const row_kind *after,
    double *sum1,           # OUT sum of (x - pilot)
    double *sum2,           # OUT sum of (x - pilot)^2
    double *most,           # OUT the largest part of sum2 that a lane has between two flushes
) noexcept nogil:
    cdef Py_ssize_t lanes = lanes_of(x), i = 0, end, whole = n - n % lanes
    cdef Py_ssize_t ahead = ahead_in_row(x, after)
    cdef bundle[element] d, lane1, lane2
    cdef bundle[element] zero = splat_bundle(x, 0), centre = splat_bundle(x, pilot)
    cdef doubles wide1 = splat_doubles(0), wide2 = wide1
    cdef octet[element] peak = splat_octet(x, 0)
    while i < whole:
        end = min(i + FLUSH * lanes, whole)
        lane1 = zero
        lane2 = zero
        while i < end:
            instnorm_prefetch_bundle(x + i + ahead)
            d = difference_at(after, x, i, centre)
            lane1 = lane1 + d
            lane2 = fma(d, d, lane2)
            i += lanes
        wide1 = wide1 + fold(lane1)
        wide2 = wide2 + fold(lane2)
        peak = maximum(peak, fold_largest(lane2))
    if whole < n:
        d = tail(difference_at(after, x, n - lanes, centre), n - whole)
        lane2 = d * d
        wide1 = wide1 + fold(d)
        wide2 = wide2 + fold(lane2)
        peak = maximum(peak, fold_largest(lane2))
    sum1[0] = total(wide1)
    sum2[0] = total(wide2)
    most[0] = largest(peak)


cdef Moments block_moments(
    const element *x, Py_ssize_t n,     # IN  at most BLOCK elements
    const row_kind *after,              # IN  of the block
) noexcept nogil:
    cdef double sum1, sum2, most, pilot
    cdef Py_ssize_t count = counted(after, n)
    if count == 0:
        return no_moments()
    pilot = pilot_of(x, n, after)
    prefetch_pilots(x + n)
    centred_sums(x, n, pilot, after, &sum1, &sum2, &most)
    if sum1 * sum1 > most_missed(x) * count * sum2:
        pilot = rounded(x, pilot + sum1 / count)
        centred_sums(x, n, pilot, after, &sum1, &sum2, &most)
    if element is not double:
        if not (square_sum_fits(sum2, count) and most < OUTLIER * sum2):
            return moments_in_double(x, n, after)
    return moments_of(count, pilot, sum1, sum2)


cdef double slope_sum(
    const element *grad_output, const element *x, Py_ssize_t n, const row_epilogue *after
) noexcept nogil:
    """What the slope's gradient is made of: a pass of its own, in the first-level cache."""
    cdef doubles lanes = splat_doubles(0)
    cdef double rest = 0
    cdef Py_ssize_t i, whole = n - n % 8
    for i in range(0, whole, 8):
        lanes = lanes + slopes_at(after, grad_output, x, i, 0)
    for i in range(whole, n):
        rest += slope_at(after, grad_output, x, i, 0)
    return total(lanes) + rest


cdef Products block_products(
    const element *grad_output, const element *x,   # IN  at most BLOCK, which begin at `at`
    Py_ssize_t n,
    double centre,          # a number that the computing type holds
    const row_kind *row, Py_ssize_t at,
) noexcept nogil:
    cdef row_kind after = advanced(row, at, sizeof(element))
    cdef Products out
    cdef Py_ssize_t lanes = lanes_of(x), i = 0, end, whole = n - n % lanes
    cdef Py_ssize_t ahead = ahead_in_row(x, row)
    cdef bundle[element] g, d, lane1, lane2
    cdef bundle[element] zero = splat_bundle(x, 0), around = splat_bundle(x, centre)
    cdef doubles wide1 = splat_doubles(0), wide2 = wide1, wide3 = wide1
    while i < whole:
        end = min(i + FLUSH * lanes, whole)
        lane1 = zero
        lane2 = zero
        while i < end:
            instnorm_prefetch_bundle(grad_output + i + ahead)
            instnorm_prefetch_bundle(x + i + ahead)
            factors_at(&after, grad_output, x, i, 0, around, &g, &d)
            lane1 = lane1 + g
            lane2 = fma(g, d, lane2)
            if element is double:
                # Folded at once: there are no registers for as many lanes again.
                wide3 = wide3 + fold(d)
            i += lanes
        wide1 = wide1 + fold(lane1)
        wide2 = wide2 + fold(lane2)
    if whole < n:
        factors_at(&after, grad_output, x, n - lanes, 0, around, &g, &d)
        g = tail(g, n - whole)
        wide1 = wide1 + fold(g)
        wide2 = wide2 + fold(g * d)
        if element is double:
            wide3 = wide3 + fold(tail(d, n - whole))
    out.grad = total(wide1)
    out.product = total(wide2)
    out.distance = total(wide3)
    out.slope = 0
    if row_kind is not no_epilogue:
        if after.slope_asked:
            out.slope = slope_sum(grad_output, x, n, &after)
        # Nothing passed the activation.
        if out.grad == 0 and out.product == 0:
            return out
    if element is not double:
        if not (product_sum_fits(out.grad, out.product, n) and isfinite(out.slope)):
            return products_in_double(grad_output, x, n, 1, centre, &after)
    return out


# --------------------------------------------------------- a row of blocks

cdef inline Py_ssize_t blocks_in(Py_ssize_t length) noexcept nogil:
    return (length + BLOCK - 1) // BLOCK


cdef inline Py_ssize_t block_size(Py_ssize_t length, Py_ssize_t block) noexcept nogil:
    return min(length - block * BLOCK, <Py_ssize_t>BLOCK)


cdef inline void merge(
    Moments *into,          # INOUT the blocks so far; takes in `block`
    const Moments *block,
) noexcept nogil:
    cdef double count = into.count + block.count
    cdef double part
    if block.count == 0:
        return
    if into.count == 0:
        into[0] = block[0]
        return
    part = block.count / count
    cdef double delta = (block.origin - into.origin) + (block.offset - into.offset)
    delta -= into.offset_rest
    add_exactly(&into.offset, &into.offset_rest, delta * part)
    add_exactly(&into.m2, &into.m2_rest, block.m2)
    add_exactly(&into.m2, &into.m2_rest, delta * delta * (into.count * part))
    into.count = count
