# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=False
"""Compiled kernels of instance normalization: forward and backward over (rows, length).

Design
------
An (N, C, spatial...) array in C order is `rows = N * C` rows of `length`
elements; every row is normalized by itself, and row r belongs to channel
`r % C`. So 1d, 2d and 3d share these kernels.

Each file section goes from the small to the large: block, row, all rows,
Python entry. A row is cut into blocks of BLOCK elements, which stay in the
first-level cache while they are read more than once:

* block: a pilot close to the block's mean, then the sums of (x - pilot) and of
  (x - pilot)^2. E[x^2] - E[x]^2 is never formed. Sums run over LANES
  independent accumulators, so that the compiler can vectorize them without
  reassociating anything, in float for at most FLUSH steps, then in double.
  Blocks of up to SHORT elements, and those whose squares float cannot hold well,
  sum in double from the start.
* row: the blocks merge in order, in compensated double (Chan, Golub and LeVeque
  1983; Neumaier 1974). The mean is kept as `origin + offset`, so that a mean 10^5
  standard deviations away from zero loses nothing.
* all rows: threads share the rows, or, where there are fewer rows than threads
  could use, the blocks of each row. Both ways form the same sums in the same
  order: the result does not depend on the number of threads, bit by bit.

Arguments are marked IN, OUT or INOUT. Outputs are allocated by the caller. The
entries check what would be a memory error otherwise and nothing else; the
array functions in `arrays.py` do the rest.
"""

cimport numpy as cnp
from cython cimport floating
from cython.parallel cimport prange
from libc.math cimport fabs, isfinite, sqrt
from libc.stdlib cimport free, malloc

cnp.import_array()

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    static const int INSTNORM_HAS_OPENMP = 1;
    #else
    static const int INSTNORM_HAS_OPENMP = 0;
    #endif
    #if defined(__clang__)
    static const char *INSTNORM_COMPILER = "clang " __clang_version__;
    #elif defined(__GNUC__)
    static const char *INSTNORM_COMPILER = "gcc " __VERSION__;
    #else
    static const char *INSTNORM_COMPILER = "unknown";
    #endif
    #if defined(__x86_64__) && defined(__GNUC__)
    static int instnorm_has_avx2(void) {
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    }
    static int instnorm_has_avx512(void) {
        return instnorm_has_avx2() && __builtin_cpu_supports("avx512f")
            && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")
            && __builtin_cpu_supports("avx512vl");
    }
    #else
    static int instnorm_has_avx2(void) { return 0; }
    static int instnorm_has_avx512(void) { return 0; }
    #endif

    /* Stores that do not read the line into the cache first. */
    #include <stdint.h>
    #include <string.h>
    #if defined(__SSE2__)
    #include <emmintrin.h>
    static inline void instnorm_stream(void *target, const void *source, size_t size) {
        char *to = target;
        const char *from = source;
        size_t head = (size_t)(-(uintptr_t)to & 15), i;
        if (head > size) { head = size; }
        memcpy(to, from, head);
        for (i = head; i + 16 <= size; i += 16) {
            _mm_stream_si128((__m128i *)(to + i), _mm_loadu_si128((const __m128i *)(from + i)));
        }
        memcpy(to + i, from + i, size - i);
    }
    static inline void instnorm_stream_end(void) { _mm_sfence(); }
    #else
    static inline void instnorm_stream(void *target, const void *source, size_t size) {
        memcpy(target, source, size);
    }
    static inline void instnorm_stream_end(void) {}
    #endif
    """
    const int INSTNORM_HAS_OPENMP
    const char *INSTNORM_COMPILER
    bint instnorm_has_avx2() nogil
    bint instnorm_has_avx512() nogil
    void instnorm_stream(void *target, const void *source, size_t size) noexcept nogil
    void instnorm_stream_end() noexcept nogil

cdef enum:
    LANES = 32            # independent accumulators of a sum
    HALF = 16             # of LANES, for the sums that run in double from the start
    FLUSH = 16            # steps that a lane sums in the input's own precision
    SHORT = 256           # up to here, fewer passes beat narrower numbers
    GROUP = 8             # short rows that go through each step together
    BLOCK = 2048          # elements summed together: 8 KiB of float32
    # Below this many elements a thread team costs more than it gives.
    # A team also waits, for milliseconds, where another library's idle threads spin on the
    # processors, as OpenBLAS's do after each matrix product: so not for what takes less.
    SERIAL_BELOW = 262144
    # Bytes of an output that the caches do not hold, and of a row that is worth streaming.
    STREAM_ABOVE = 67108864
    STREAM_ROW = 4096
    CHUNK = 512           # elements computed in the first-level cache, then streamed

HAS_OPENMP = bool(INSTNORM_HAS_OPENMP)
COMPILER = INSTNORM_COMPILER.decode()
BLOCK_SIZE = BLOCK


# --------------------------------------------------------------------- block

cdef struct Moments:
    # Of `count` elements: mean = origin + offset, m2 = sum of (x - mean)^2.
    double count
    double origin
    double offset
    double m2
    # What rounding took from offset and m2 while blocks were merged (Neumaier 1974).
    double offset_rest
    double m2_rest


cdef inline void add_exactly(double *total, double *rest, double term) noexcept nogil:
    """Add to total + rest, keeping in rest what total cannot hold."""
    cdef double new = total[0] + term
    if fabs(total[0]) >= fabs(term):
        rest[0] += (total[0] - new) + term
    else:
        rest[0] += (term - new) + total[0]
    total[0] = new


cdef inline Py_ssize_t blocks_in(Py_ssize_t length) noexcept nogil:
    return (length + BLOCK - 1) // BLOCK


cdef inline double halves_total(const double *lane) noexcept nogil:
    """Sum of HALF numbers, as a balanced tree, of steps that vectorize."""
    cdef double eight[8]
    cdef double four[4]
    cdef Py_ssize_t i
    for i in range(8):
        eight[i] = lane[i] + lane[i + 8]
    for i in range(4):
        four[i] = eight[i] + eight[i + 4]
    return (four[0] + four[2]) + (four[1] + four[3])


cdef inline double lanes_total(const double *lane) noexcept nogil:
    """Sum of LANES numbers."""
    cdef double half[HALF]
    cdef Py_ssize_t i
    for i in range(HALF):
        half[i] = lane[i] + lane[i + HALF]
    return halves_total(half)


cdef inline floating pilot_of(const floating *x, Py_ssize_t n) noexcept nogil:
    """A value close to the mean of x, and exactly it where x is constant."""
    cdef floating lane[LANES]
    cdef double wide[LANES]
    cdef floating first = x[0]
    cdef Py_ssize_t i, j
    for j in range(LANES):
        lane[j] = 0
    for i in range(n // LANES):
        for j in range(LANES):
            lane[j] = lane[j] + (x[i * LANES + j] - first)
    for j in range(n % LANES):
        lane[j] = lane[j] + (x[n - n % LANES + j] - first)
    for j in range(LANES):
        wide[j] = lane[j]
    return <floating>(first + lanes_total(wide) / n)


cdef inline void centred_sums(
    const floating *x,      # IN  n elements
    Py_ssize_t n,
    floating pilot,
    double *sum1,           # OUT sum of (x - pilot)
    double *sum2,           # OUT sum of (x - pilot)^2
    double *largest,        # OUT the largest part of sum2 that a lane has
) noexcept nogil:
    cdef floating lane1[LANES]
    cdef floating lane2[LANES]
    cdef double wide1[LANES]
    cdef double wide2[LANES]
    cdef floating d
    cdef Py_ssize_t steps, rest, i, j
    for j in range(LANES):
        wide1[j] = 0
        wide2[j] = 0
    while n > 0:
        steps = min(n // LANES, <Py_ssize_t>FLUSH)
        rest = 0 if steps == FLUSH else n % LANES
        for j in range(LANES):
            lane1[j] = 0
            lane2[j] = 0
        for i in range(steps):
            for j in range(LANES):
                d = x[i * LANES + j] - pilot
                lane1[j] = lane1[j] + d
                lane2[j] = lane2[j] + d * d
        for j in range(rest):
            d = x[steps * LANES + j] - pilot
            lane1[j] = lane1[j] + d
            lane2[j] = lane2[j] + d * d
        for j in range(LANES):
            wide1[j] = wide1[j] + lane1[j]
            wide2[j] = wide2[j] + lane2[j]
        x += steps * LANES + rest
        n -= steps * LANES + rest
    sum1[0] = lanes_total(wide1)
    sum2[0] = lanes_total(wide2)
    largest[0] = 0
    for j in range(LANES):
        largest[0] = max(largest[0], wide2[j])


# The elements that do not fill the lanes once more are summed as the last HALF elements
# of the row, times 0 where they were summed already: no lane is reached by a variable
# index, so all stay in registers. (0 * inf does no harm: that row is NaN anyway.)
cdef double[2 * HALF] ZEROS_THEN_ONES
cdef int _i
for _i in range(2 * HALF):
    ZEROS_THEN_ONES[_i] = _i >= HALF


cdef inline const double *tail_mask(Py_ssize_t n) noexcept nogil:
    """HALF numbers: 0 for what whole steps of HALF elements reach, 1 for the n % HALF last."""
    return &ZEROS_THEN_ONES[n % <Py_ssize_t>HALF]


cdef Moments moments_of_few(const floating *x, Py_ssize_t n) noexcept nogil:
    """The moments of fewer than HALF elements."""
    cdef Moments out
    cdef double first = x[0]
    cdef double d, sum1 = 0, sum2 = 0
    cdef Py_ssize_t i
    for i in range(n):
        sum1 += <double>x[i] - first
    out.count = n
    out.offset_rest = 0
    out.m2_rest = 0
    out.origin = first + sum1 / n
    sum1 = 0
    for i in range(n):
        d = <double>x[i] - out.origin
        sum1 += d
        sum2 += d * d
    out.offset = sum1 / n
    out.m2 = sum2 - sum1 * out.offset
    if out.m2 < 0:
        out.m2 = 0
    return out


cdef inline double mean_in_double(const floating *x, Py_ssize_t n) noexcept nogil:
    """The mean of at least HALF elements; exactly the element where all are equal."""
    cdef double lane[HALF]
    cdef Py_ssize_t half = HALF
    cdef Py_ssize_t i, j
    cdef const double *last = tail_mask(n)
    # float32 sums in double without loss. For float64 the first element is taken off.
    cdef double first = 0 if floating is float else x[0]
    for j in range(HALF):
        lane[j] = 0
    for i in range(n // half):
        for j in range(HALF):
            if floating is float:
                lane[j] = lane[j] + <double>x[i * half + j]
            else:
                lane[j] = lane[j] + (x[i * half + j] - first)
    for j in range(HALF):
        lane[j] = lane[j] + last[j] * (<double>x[n - half + j] - first)
    return first + halves_total(lane) / n


cdef inline Moments moments_in_double(const floating *x, Py_ssize_t n) noexcept nogil:
    """All in double: for short rows, and where squares leave the range of float32."""
    cdef Moments out
    cdef double lane1[HALF]
    cdef double lane2[HALF]
    cdef double d
    cdef Py_ssize_t half = HALF
    cdef Py_ssize_t i, j
    cdef const double *last = tail_mask(n)
    if n < HALF:
        return moments_of_few(x, n)
    out.count = n
    out.offset_rest = 0
    out.m2_rest = 0
    out.origin = mean_in_double(x, n)
    for j in range(HALF):
        lane1[j] = 0
        lane2[j] = 0
    for i in range(n // half):
        for j in range(HALF):
            d = <double>x[i * half + j] - out.origin
            if floating is double:
                lane1[j] = lane1[j] + d
            lane2[j] = lane2[j] + d * d
    for j in range(HALF):
        d = last[j] * (<double>x[n - half + j] - out.origin)
        if floating is double:
            lane1[j] = lane1[j] + d
        lane2[j] = lane2[j] + d * d
    # What the mean of float64 elements lost to rounding; nothing for float32.
    out.offset = halves_total(lane1) / n if floating is double else 0
    out.m2 = halves_total(lane2) - n * out.offset * out.offset
    if out.m2 < 0:
        out.m2 = 0
    return out


cdef inline Moments block_moments(const floating *x, Py_ssize_t n) noexcept nogil:
    cdef Moments out
    cdef double sum1, sum2, largest
    cdef floating pilot
    if n <= SHORT:
        return moments_in_double(x, n)
    pilot = pilot_of(x, n)
    centred_sums(x, n, pilot, &sum1, &sum2, &largest)
    # Squares that may have lost digits to underflow, or overflowed, or an outlier, whose
    # rounding no other element averages out: once more.
    if floating is float:
        if not (sum2 > n * 1e-28 and sum2 < 1e37 and largest < 0.125 * sum2):
            return moments_in_double(x, n)
    out.count = n
    out.offset_rest = 0
    out.m2_rest = 0
    out.origin = pilot
    out.offset = sum1 / n
    # Rounding can leave a tiny negative number. A NaN must stay one.
    out.m2 = sum2 - sum1 * out.offset
    if out.m2 < 0:
        out.m2 = 0
    return out


# ----------------------------------------------------------------------- row

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


cdef inline Moments row_moments(const floating *x, Py_ssize_t length) noexcept nogil:
    cdef Moments row = block_moments(x, min(length, <Py_ssize_t>BLOCK))
    cdef Py_ssize_t block, start
    for block in range(1, blocks_in(length)):
        start = block * BLOCK
        merge(&row, block_moments(x + start, min(length - start, <Py_ssize_t>BLOCK)))
    return row


cdef struct Line:
    # y = (x - centre) * scale + shift. `centre` is the mean as the input's type
    # holds it, and `shift` carries the part of the mean that is lost there.
    # For float32, `scale_rest` is what it loses of the scale.
    double centre
    double scale
    double scale_rest
    double shift


cdef inline double inverse_std(double var, double eps) noexcept nogil:
    """1 / sqrt(var + eps), and 0 for a constant row at eps = 0: it stays finite."""
    if var + eps == 0:
        return 0
    return 1 / sqrt(var + eps)


cdef inline Line line_of(
    double origin, double offset, double rstd, double weight, double bias, floating like
) noexcept nogil:
    cdef Line line
    cdef floating centre = <floating>(origin + offset)
    line.centre = centre
    line.scale = rstd * weight
    line.scale_rest = line.scale - <floating>line.scale
    line.shift = bias - ((origin - line.centre) + offset) * line.scale
    return line


cdef inline bint fits_float(double scale) noexcept nogil:
    """Whether float32 holds `scale` and the differences that it multiplies."""
    return scale == 0 or 1e-36 < fabs(scale) < 1e36


cdef inline void apply_line(
    const floating *x,      # IN  n elements
    floating *y,            # OUT n elements; may be x
    Py_ssize_t n,
    Line line,
) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating centre = <floating>line.centre
    cdef floating scale = <floating>line.scale
    cdef floating scale_rest = <floating>line.scale_rest
    cdef floating shift = <floating>line.shift
    cdef floating d
    if floating is float:
        if not fits_float(line.scale):
            for i in range(n):
                y[i] = <floating>((<double>x[i] - line.centre) * line.scale + line.shift)
            return
    for i in range(n):
        d = x[i] - centre
        if floating is float:
            y[i] = d * scale + (d * scale_rest + shift)
        else:
            y[i] = d * scale + shift


cdef inline void write_line(
    const floating *x, floating *y, Py_ssize_t n, Line line, bint stream
) noexcept nogil:
    """As apply_line, past the cache if `stream`."""
    cdef floating chunk[CHUNK]
    cdef Py_ssize_t start = 0, size
    if not stream:
        apply_line(x, y, n, line)
        return
    while start < n:
        size = min(n - start, <Py_ssize_t>CHUNK)
        apply_line(x + start, chunk, size, line)
        instnorm_stream(y + start, chunk, size * sizeof(floating))
        start += size
    instnorm_stream_end()


cdef inline double number_at(const void *values, bint is_double, Py_ssize_t i) noexcept nogil:
    return (<const double *>values)[i] if is_double else (<const float *>values)[i]


cdef struct Affine:
    # Per-channel weight and bias, float or double; NULL stands for ones, zeros.
    const void *weight
    const void *bias
    bint weight_is_double
    bint bias_is_double
    Py_ssize_t channels


cdef inline double weight_of(Affine affine, Py_ssize_t row) noexcept nogil:
    if affine.weight == NULL:
        return 1
    return number_at(affine.weight, affine.weight_is_double, row % affine.channels)


cdef inline double bias_of(Affine affine, Py_ssize_t row) noexcept nogil:
    if affine.bias == NULL:
        return 0
    return number_at(affine.bias, affine.bias_is_double, row % affine.channels)


cdef inline void finish_rows(
    const Moments *moments,  # IN  of `count` rows, the first of which is `row`
    Py_ssize_t row, Py_ssize_t count, double eps,
    double *mean,           # OUT mean[row : row + count]
    double *rstd,           # OUT rstd[row : row + count]
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(count):
        mean[row + i] = moments[i].origin + (moments[i].offset + moments[i].offset_rest)
        rstd[row + i] = inverse_std((moments[i].m2 + moments[i].m2_rest) / moments[i].count, eps)


# ------------------------------------------------------------------ all rows

cdef inline Py_ssize_t group_size(Py_ssize_t length) noexcept nogil:
    """Rows that are taken together: several short ones, whose steps then overlap."""
    return GROUP if length <= SHORT else 1


cdef inline void forward_group(
    const floating *x, floating *y, Py_ssize_t row, Py_ssize_t count, Py_ssize_t length,
    Affine affine, double eps, double *mean, double *rstd, bint stream,
) noexcept nogil:
    cdef Moments moments[GROUP]
    cdef Py_ssize_t i
    for i in range(count):
        moments[i] = row_moments(x + (row + i) * length, length)
    finish_rows(moments, row, count, eps, mean, rstd)
    for i in range(count):
        write_line(
            x + (row + i) * length, y + (row + i) * length, length,
            line_of(
                moments[i].origin, moments[i].offset + moments[i].offset_rest, rstd[row + i],
                weight_of(affine, row + i), bias_of(affine, row + i), <floating>0,
            ),
            stream,
        )


cdef void forward_by_rows(
    const floating *x, floating *y, Py_ssize_t rows, Py_ssize_t length,
    Affine affine, double eps, double *mean, double *rstd, int threads, bint stream,
) noexcept nogil:
    cdef Py_ssize_t size = group_size(length)
    cdef Py_ssize_t group
    for group in prange(
        (rows + size - 1) // size,
        num_threads=threads, schedule="static", use_threads_if=threads > 1,
    ):
        forward_group(
            x, y, group * size, min(size, rows - group * size), length,
            affine, eps, mean, rstd, stream,
        )


cdef bint forward_by_blocks(
    const floating *x, floating *y, Py_ssize_t rows, Py_ssize_t length,
    Affine affine, double eps, double *mean, double *rstd, int threads, bint stream,
) noexcept nogil:
    """The same as forward_by_rows, with threads inside the rows. False: no memory."""
    cdef Py_ssize_t blocks = blocks_in(length)
    cdef Py_ssize_t task, row, start
    cdef Moments *moments = <Moments *>malloc(rows * blocks * sizeof(Moments))
    cdef Line *lines = <Line *>malloc(rows * sizeof(Line))
    if moments == NULL or lines == NULL:
        free(moments)
        free(lines)
        return False
    for task in prange(rows * blocks, num_threads=threads, schedule="static"):
        start = (task % blocks) * BLOCK
        moments[task] = block_moments(
            x + (task // blocks) * length + start, min(length - start, <Py_ssize_t>BLOCK)
        )
    for row in range(rows):
        for task in range(row * blocks + 1, (row + 1) * blocks):
            merge(&moments[row * blocks], moments[task])
        finish_rows(&moments[row * blocks], row, 1, eps, mean, rstd)
        lines[row] = line_of(
            moments[row * blocks].origin,
            moments[row * blocks].offset + moments[row * blocks].offset_rest,
            rstd[row], weight_of(affine, row), bias_of(affine, row), <floating>0,
        )
    for task in prange(rows * blocks, num_threads=threads, schedule="static"):
        start = (task % blocks) * BLOCK
        write_line(
            x + (task // blocks) * length + start,
            y + (task // blocks) * length + start,
            min(length - start, <Py_ssize_t>BLOCK),
            lines[task // blocks],
            stream,
        )
    free(moments)
    free(lines)
    return True


cdef void statistics_by_rows(
    const floating *x, Py_ssize_t rows, Py_ssize_t length, double eps,
    double *mean, double *rstd, int threads,
) noexcept nogil:
    cdef Py_ssize_t row
    cdef Moments moments
    for row in prange(rows, num_threads=threads, schedule="static", use_threads_if=threads > 1):
        moments = row_moments(x + row * length, length)
        finish_rows(&moments, row, 1, eps, mean, rstd)


cdef void apply_by_blocks(
    const floating *x, floating *y, Py_ssize_t rows, Py_ssize_t length,
    Affine affine, const double *mean, const double *rstd, int threads, bint stream,
) noexcept nogil:
    """y from statistics that are given."""
    cdef Py_ssize_t blocks = blocks_in(length)
    cdef Py_ssize_t task, row, start
    for task in prange(
        rows * blocks, num_threads=threads, schedule="static", use_threads_if=threads > 1
    ):
        row = task // blocks
        start = (task % blocks) * BLOCK
        write_line(
            x + row * length + start,
            y + row * length + start,
            min(length - start, <Py_ssize_t>BLOCK),
            line_of(
                mean[row], 0, rstd[row], weight_of(affine, row), bias_of(affine, row), <floating>0
            ),
            stream,
        )


# ------------------------------------------------------------ backward: block

cdef inline void product_sums_in_double(
    const floating *grad_output, const floating *x, Py_ssize_t n, double centre,
    double *sum_grad,               # INOUT adds the sum of grad_output
    double *sum_product,            # INOUT adds the sum of grad_output * (x - centre)
) noexcept nogil:
    """All in double: for short rows, and where products leave the range of float32."""
    cdef double lane1[HALF]
    cdef double lane2[HALF]
    cdef double g
    cdef Py_ssize_t half = HALF
    cdef Py_ssize_t i, j
    cdef const double *last = tail_mask(n)
    if n < HALF:
        for i in range(n):
            g = grad_output[i]
            sum_grad[0] += g
            sum_product[0] += g * (<double>x[i] - centre)
        return
    for j in range(HALF):
        lane1[j] = 0
        lane2[j] = 0
    for i in range(n // half):
        for j in range(HALF):
            g = grad_output[i * half + j]
            lane1[j] = lane1[j] + g
            lane2[j] = lane2[j] + g * (<double>x[i * half + j] - centre)
    for j in range(HALF):
        g = last[j] * <double>grad_output[n - half + j]
        lane1[j] = lane1[j] + g
        lane2[j] = lane2[j] + g * (<double>x[n - half + j] - centre)
    sum_grad[0] += halves_total(lane1)
    sum_product[0] += halves_total(lane2)


cdef inline void product_sums(
    const floating *grad_output,    # IN  n elements
    const floating *x,              # IN  n elements
    Py_ssize_t n,
    floating centre,
    double *sum_grad,               # INOUT adds the sum of grad_output
    double *sum_product,            # INOUT adds the sum of grad_output * (x - centre)
) noexcept nogil:
    cdef floating lane1[LANES]
    cdef floating lane2[LANES]
    cdef double wide1[LANES]
    cdef double wide2[LANES]
    cdef double total1, total2
    cdef floating g
    cdef Py_ssize_t steps, rest, i, j, done = 0
    if n <= SHORT:
        product_sums_in_double(grad_output, x, n, centre, sum_grad, sum_product)
        return
    for j in range(LANES):
        wide1[j] = 0
        wide2[j] = 0
    while done < n:
        steps = min((n - done) // LANES, <Py_ssize_t>FLUSH)
        rest = 0 if steps == FLUSH else (n - done) % LANES
        for j in range(LANES):
            lane1[j] = 0
            lane2[j] = 0
        for i in range(steps):
            for j in range(LANES):
                g = grad_output[done + i * LANES + j]
                lane1[j] = lane1[j] + g
                lane2[j] = lane2[j] + g * (x[done + i * LANES + j] - centre)
        done += steps * LANES
        for j in range(rest):
            g = grad_output[done + j]
            lane1[j] = lane1[j] + g
            lane2[j] = lane2[j] + g * (x[done + j] - centre)
        done += rest
        for j in range(LANES):
            wide1[j] = wide1[j] + lane1[j]
            wide2[j] = wide2[j] + lane2[j]
    total1 = lanes_total(wide1)
    total2 = lanes_total(wide2)
    if floating is float:
        if not (isfinite(total1) and 1e-28 * n < fabs(total2) < 1e37):
            product_sums_in_double(grad_output, x, n, centre, sum_grad, sum_product)
            return
    sum_grad[0] += total1
    sum_product[0] += total2


# -------------------------------------------------------------- backward: row

cdef inline void row_product_sums(
    const floating *grad_output, const floating *x, Py_ssize_t length, floating centre,
    double *sum_grad,       # OUT sum of grad_output
    double *sum_product,    # OUT sum of grad_output * (x - centre)
) noexcept nogil:
    cdef Py_ssize_t block, start
    sum_grad[0] = 0
    sum_product[0] = 0
    for block in range(blocks_in(length)):
        start = block * BLOCK
        product_sums(
            grad_output + start, x + start, min(length - start, <Py_ssize_t>BLOCK),
            centre, sum_grad, sum_product,
        )


cdef struct Plane:
    # grad_input = (grad_output - grad_mean) * grad_scale + (x - centre) * x_scale + shift
    double grad_mean
    double grad_scale
    double centre
    double x_scale
    double shift


cdef inline Plane plane_of(
    double sum_grad,
    double *sum_product,    # INOUT sum of grad_output * (x - centre) in, * (x - mean) out
    Py_ssize_t length, double mean, double rstd, double weight, bint through_statistics,
    floating like,
) noexcept nogil:
    cdef Plane plane
    cdef floating centre = <floating>mean
    cdef floating grad_mean = <floating>(sum_grad / length)
    cdef double centre_rest
    plane.centre = centre
    centre_rest = mean - plane.centre
    sum_product[0] -= centre_rest * sum_grad
    plane.grad_scale = weight * rstd
    if not through_statistics:
        plane.grad_mean = 0
        plane.x_scale = 0
        plane.shift = 0
        return plane
    plane.grad_mean = grad_mean
    plane.x_scale = -plane.grad_scale * rstd * rstd * (sum_product[0] / length)
    plane.shift = (
        (plane.grad_mean - sum_grad / length) * plane.grad_scale - centre_rest * plane.x_scale
    )
    return plane


cdef inline void apply_plane(
    const floating *grad_output,    # IN  n elements
    const floating *x,              # IN  n elements
    floating *grad_input,           # OUT n elements; may be grad_output or x
    Py_ssize_t n,
    Plane plane,
) noexcept nogil:
    cdef floating grad_mean = <floating>plane.grad_mean
    cdef floating grad_scale = <floating>plane.grad_scale
    cdef floating centre = <floating>plane.centre
    cdef floating x_scale = <floating>plane.x_scale
    cdef floating shift = <floating>plane.shift
    cdef Py_ssize_t i
    if plane.x_scale == 0 and plane.grad_mean == 0 and plane.shift == 0:
        # Statistics that were given: x has no part in it, not even a NaN of x.
        if floating is float:
            if not fits_float(plane.grad_scale):
                for i in range(n):
                    grad_input[i] = <floating>(<double>grad_output[i] * plane.grad_scale)
                return
        for i in range(n):
            grad_input[i] = grad_output[i] * grad_scale
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
    for i in range(n):
        grad_input[i] = (
            (grad_output[i] - grad_mean) * grad_scale + (x[i] - centre) * x_scale + shift
        )


cdef inline void write_plane(
    const floating *grad_output, const floating *x, floating *grad_input, Py_ssize_t n,
    Plane plane, bint stream,
) noexcept nogil:
    """As apply_plane, past the cache if `stream`."""
    cdef floating chunk[CHUNK]
    cdef Py_ssize_t start = 0, size
    if not stream:
        apply_plane(grad_output, x, grad_input, n, plane)
        return
    while start < n:
        size = min(n - start, <Py_ssize_t>CHUNK)
        apply_plane(grad_output + start, x + start, chunk, size, plane)
        instnorm_stream(grad_input + start, chunk, size * sizeof(floating))
        start += size
    instnorm_stream_end()


# --------------------------------------------------------- backward: all rows

cdef inline void backward_group(
    const floating *grad_output, const floating *x, floating *grad_input,
    Py_ssize_t row, Py_ssize_t count, Py_ssize_t length, Affine affine,
    const double *mean, const double *rstd, bint through_statistics,
    double *sum_grad, double *sum_product, bint stream,
) noexcept nogil:
    cdef Plane planes[GROUP]
    cdef Py_ssize_t i, offset
    for i in range(count):
        offset = (row + i) * length
        row_product_sums(
            grad_output + offset, x + offset, length, <floating>mean[row + i],
            &sum_grad[row + i], &sum_product[row + i],
        )
    for i in range(count):
        planes[i] = plane_of(
            sum_grad[row + i], &sum_product[row + i], length, mean[row + i], rstd[row + i],
            weight_of(affine, row + i), through_statistics, <floating>0,
        )
    for i in range(count):
        offset = (row + i) * length
        write_plane(
            grad_output + offset, x + offset, grad_input + offset, length, planes[i], stream
        )


cdef void backward_by_rows(
    const floating *grad_output, const floating *x, floating *grad_input,
    Py_ssize_t rows, Py_ssize_t length, Affine affine,
    const double *mean, const double *rstd, bint through_statistics,
    double *sum_grad, double *sum_product, int threads, bint stream,
) noexcept nogil:
    cdef Py_ssize_t size = group_size(length)
    cdef Py_ssize_t group
    for group in prange(
        (rows + size - 1) // size,
        num_threads=threads, schedule="static", use_threads_if=threads > 1,
    ):
        backward_group(
            grad_output, x, grad_input, group * size, min(size, rows - group * size), length,
            affine, mean, rstd, through_statistics, sum_grad, sum_product, stream,
        )


cdef bint backward_by_blocks(
    const floating *grad_output, const floating *x, floating *grad_input,
    Py_ssize_t rows, Py_ssize_t length, Affine affine,
    const double *mean, const double *rstd, bint through_statistics,
    double *sum_grad, double *sum_product, int threads, bint stream,
) noexcept nogil:
    """The same as backward_by_rows, with threads inside the rows. False: no memory."""
    cdef Py_ssize_t blocks = blocks_in(length)
    cdef Py_ssize_t task, row, start, offset
    cdef double *sums = <double *>malloc(2 * rows * blocks * sizeof(double))
    cdef Plane *planes = <Plane *>malloc(rows * sizeof(Plane))
    if sums == NULL or planes == NULL:
        free(sums)
        free(planes)
        return False
    for task in prange(rows * blocks, num_threads=threads, schedule="static"):
        start = (task % blocks) * BLOCK
        offset = (task // blocks) * length + start
        sums[2 * task] = 0
        sums[2 * task + 1] = 0
        product_sums(
            grad_output + offset, x + offset, min(length - start, <Py_ssize_t>BLOCK),
            <floating>mean[task // blocks], &sums[2 * task], &sums[2 * task + 1],
        )
    for row in range(rows):
        sum_grad[row] = 0
        sum_product[row] = 0
        for task in range(row * blocks, (row + 1) * blocks):
            sum_grad[row] += sums[2 * task]
            sum_product[row] += sums[2 * task + 1]
        planes[row] = plane_of(
            sum_grad[row], &sum_product[row], length, mean[row], rstd[row],
            weight_of(affine, row), through_statistics, <floating>0,
        )
    for task in prange(rows * blocks, num_threads=threads, schedule="static"):
        start = (task % blocks) * BLOCK
        offset = (task // blocks) * length + start
        write_plane(
            grad_output + offset, x + offset, grad_input + offset,
            min(length - start, <Py_ssize_t>BLOCK), planes[task // blocks], stream,
        )
    free(sums)
    free(planes)
    return True


cdef void reduce_over_batch(
    const double *sum_grad, const double *sum_product, const double *rstd,
    Py_ssize_t rows, Py_ssize_t channels,
    double *grad_weight,    # OUT channels elements
    double *grad_bias,      # OUT channels elements
) noexcept nogil:
    cdef Py_ssize_t row, c
    for c in range(channels):
        grad_weight[c] = 0
        grad_bias[c] = 0
    for row in range(rows):
        grad_weight[row % channels] += sum_product[row] * rstd[row]
        grad_bias[row % channels] += sum_grad[row]


# ------------------------------------------------------------ Python entries

def cpu_supports(str level):
    """Whether the processor, and the operating system, run code of a SIMD level."""
    if level == "avx512":
        return instnorm_has_avx512()
    if level == "avx2":
        return instnorm_has_avx2()
    return level == "baseline"


cdef int thread_count = 1
cdef bint threads_allowed = INSTNORM_HAS_OPENMP


def set_num_threads(int n):
    """Use at most n threads in the calls that follow."""
    global thread_count
    thread_count = n


def get_num_threads():
    """Threads that a large input is shared among; 1 without OpenMP, or after a fork."""
    return thread_count if threads_allowed else 1


def forbid_threads():
    """Stay on the calling thread from now on: in a forked child, libgomp would hang."""
    global threads_allowed
    threads_allowed = False


cdef inline int threads_for(Py_ssize_t elements) noexcept nogil:
    if elements < SERIAL_BELOW or not threads_allowed:
        return 1
    return thread_count


cdef inline bint split_inside_rows(Py_ssize_t rows, Py_ssize_t length, int threads) noexcept nogil:
    """Whole rows give some thread up to twice another's share: then share out blocks."""
    return threads > 1 and rows < 4 * threads and rows % threads != 0 and length >= 2 * BLOCK


cdef inline bint worth_streaming(
    const void *x, const void *y, Py_ssize_t rows, Py_ssize_t length, Py_ssize_t itemsize
) noexcept nogil:
    """Whether to write past the cache: the result would not stay there anyway."""
    return (
        x != y and length * itemsize >= STREAM_ROW
        and rows * length * itemsize >= STREAM_ABOVE
    )


cdef void *checked(object array, str name, int typenum, Py_ssize_t size, bint written) except NULL:
    """The address of an array's data, once it is safe to walk it as C memory."""
    if not isinstance(array, cnp.ndarray):
        raise TypeError(f"{name} must be an ndarray, got {type(array).__name__}")
    if cnp.PyArray_TYPE(array) != typenum:
        raise TypeError(f"{name} has dtype {array.dtype}, which does not fit the other arrays")
    if not cnp.PyArray_ISCARRAY_RO(array):
        raise ValueError(f"{name} must be C-contiguous and aligned")
    if written and not cnp.PyArray_ISWRITEABLE(array):
        raise ValueError(f"{name} must be writeable")
    if cnp.PyArray_SIZE(array) != size:
        raise ValueError(f"{name} has {array.size} elements, expected {size}")
    return cnp.PyArray_DATA(array)


cdef Affine affine_from(object weight, object bias, Py_ssize_t channels) except *:
    cdef Affine affine
    affine.weight = NULL
    affine.bias = NULL
    affine.weight_is_double = False
    affine.bias_is_double = False
    affine.channels = channels
    if weight is not None:
        affine.weight_is_double = cnp.PyArray_TYPE(weight) == cnp.NPY_DOUBLE
        affine.weight = checked(
            weight, "weight", cnp.NPY_DOUBLE if affine.weight_is_double else cnp.NPY_FLOAT,
            channels, False,
        )
    if bias is not None:
        affine.bias_is_double = cnp.PyArray_TYPE(bias) == cnp.NPY_DOUBLE
        affine.bias = checked(
            bias, "bias", cnp.NPY_DOUBLE if affine.bias_is_double else cnp.NPY_FLOAT,
            channels, False,
        )
    return affine


cdef Py_ssize_t channels_of(cnp.ndarray x) except -1:
    if cnp.PyArray_NDIM(x) < 2:
        raise ValueError(f"x has {cnp.PyArray_NDIM(x)} axes, expected (N, C, spatial...)")
    return cnp.PyArray_DIM(x, 1)


cdef tuple rows_and_length(cnp.ndarray x):
    """(N * C, product of the spatial sizes) of an array of shape (N, C, spatial...)."""
    cdef Py_ssize_t rows = cnp.PyArray_DIM(x, 0) * channels_of(x)
    return rows, (cnp.PyArray_SIZE(x) // rows if rows else 0)


def forward(
    cnp.ndarray x,          # IN  (N, C, spatial...), float32 or float64
    cnp.ndarray y,          # OUT as x; may be x
    weight,                 # IN  (C,) float32 or float64, or None
    bias,                   # IN  (C,) float32 or float64, or None
    cnp.ndarray mean,       # OUT (N, C) float64
    cnp.ndarray rstd,       # OUT (N, C) float64
    double eps,
):
    """Instance normalization of x into y by x's own statistics."""
    cdef int typenum = cnp.PyArray_TYPE(x)
    cdef Py_ssize_t rows, length
    rows, length = rows_and_length(x)
    cdef int threads = threads_for(rows * length)
    cdef Affine affine = affine_from(weight, bias, channels_of(x))
    cdef void *x_data = checked(x, "x", typenum, rows * length, False)
    cdef void *y_data = checked(y, "y", typenum, rows * length, True)
    cdef double *mean_data = <double *>checked(mean, "mean", cnp.NPY_DOUBLE, rows, True)
    cdef double *rstd_data = <double *>checked(rstd, "rstd", cnp.NPY_DOUBLE, rows, True)
    cdef bint inside = split_inside_rows(rows, length, threads)
    cdef bint stream = worth_streaming(x_data, y_data, rows, length, x.itemsize)
    cdef bint done = True
    if rows * length == 0:
        return
    if typenum == cnp.NPY_FLOAT:
        with nogil:
            if inside:
                done = forward_by_blocks[float](
                    <float *>x_data, <float *>y_data, rows, length,
                    affine, eps, mean_data, rstd_data, threads, stream)
            else:
                forward_by_rows[float](
                    <float *>x_data, <float *>y_data, rows, length,
                    affine, eps, mean_data, rstd_data, threads, stream)
    elif typenum == cnp.NPY_DOUBLE:
        with nogil:
            if inside:
                done = forward_by_blocks[double](
                    <double *>x_data, <double *>y_data, rows, length,
                    affine, eps, mean_data, rstd_data, threads, stream)
            else:
                forward_by_rows[double](
                    <double *>x_data, <double *>y_data, rows, length,
                    affine, eps, mean_data, rstd_data, threads, stream)
    else:
        raise TypeError(f"x has dtype {x.dtype}, expected float32 or float64")
    if not done:
        raise MemoryError("no memory for the partial sums")


def statistics(
    cnp.ndarray x,          # IN  (N, C, spatial...), float32 or float64
    cnp.ndarray mean,       # OUT (N, C) float64
    cnp.ndarray rstd,       # OUT (N, C) float64
    double eps,
):
    """The mean and 1 / sqrt(var + eps) of each row of x."""
    cdef int typenum = cnp.PyArray_TYPE(x)
    cdef Py_ssize_t rows, length
    rows, length = rows_and_length(x)
    cdef int threads = threads_for(rows * length)
    cdef void *x_data = checked(x, "x", typenum, rows * length, False)
    cdef double *mean_data = <double *>checked(mean, "mean", cnp.NPY_DOUBLE, rows, True)
    cdef double *rstd_data = <double *>checked(rstd, "rstd", cnp.NPY_DOUBLE, rows, True)
    if rows * length == 0:
        return
    if typenum == cnp.NPY_FLOAT:
        with nogil:
            statistics_by_rows[float](
                <float *>x_data, rows, length, eps, mean_data, rstd_data, threads)
    elif typenum == cnp.NPY_DOUBLE:
        with nogil:
            statistics_by_rows[double](
                <double *>x_data, rows, length, eps, mean_data, rstd_data, threads)
    else:
        raise TypeError(f"x has dtype {x.dtype}, expected float32 or float64")


def forward_given(
    cnp.ndarray x,          # IN  (N, C, spatial...), float32 or float64
    cnp.ndarray y,          # OUT as x; may be x
    weight,                 # IN  (C,) float32 or float64, or None
    bias,                   # IN  (C,) float32 or float64, or None
    cnp.ndarray mean,       # IN  (N, C) float64
    cnp.ndarray rstd,       # IN  (N, C) float64
):
    """Instance normalization of x into y by statistics that are given."""
    cdef int typenum = cnp.PyArray_TYPE(x)
    cdef Py_ssize_t rows, length
    rows, length = rows_and_length(x)
    cdef int threads = threads_for(rows * length)
    cdef Affine affine = affine_from(weight, bias, channels_of(x))
    cdef void *x_data = checked(x, "x", typenum, rows * length, False)
    cdef void *y_data = checked(y, "y", typenum, rows * length, True)
    cdef double *mean_data = <double *>checked(mean, "mean", cnp.NPY_DOUBLE, rows, False)
    cdef double *rstd_data = <double *>checked(rstd, "rstd", cnp.NPY_DOUBLE, rows, False)
    cdef bint stream = worth_streaming(x_data, y_data, rows, length, x.itemsize)
    if rows * length == 0:
        return
    if typenum == cnp.NPY_FLOAT:
        with nogil:
            apply_by_blocks[float](
                <float *>x_data, <float *>y_data, rows, length,
                affine, mean_data, rstd_data, threads, stream)
    elif typenum == cnp.NPY_DOUBLE:
        with nogil:
            apply_by_blocks[double](
                <double *>x_data, <double *>y_data, rows, length,
                affine, mean_data, rstd_data, threads, stream)
    else:
        raise TypeError(f"x has dtype {x.dtype}, expected float32 or float64")


def backward(
    cnp.ndarray grad_output,    # IN  (N, C, spatial...), float32 or float64
    cnp.ndarray x,              # IN  as grad_output
    cnp.ndarray grad_input,     # OUT as grad_output; may be grad_output or x
    weight,                     # IN  (C,) float32 or float64, or None
    cnp.ndarray mean,           # IN  (N, C) float64
    cnp.ndarray rstd,           # IN  (N, C) float64
    cnp.ndarray grad_weight,    # OUT (C,) float64
    cnp.ndarray grad_bias,      # OUT (C,) float64
    bint through_statistics,    # whether mean and rstd are x's own
):
    """Gradients of instance normalization for the input, the weight and the bias."""
    cdef int typenum = cnp.PyArray_TYPE(x)
    cdef Py_ssize_t rows, length, channels = channels_of(x)
    rows, length = rows_and_length(x)
    cdef int threads = threads_for(rows * length)
    cdef Affine affine = affine_from(weight, None, channels)
    cdef void *x_data = checked(x, "x", typenum, rows * length, False)
    cdef void *g_data = checked(grad_output, "grad_output", typenum, rows * length, False)
    cdef void *d_data = checked(grad_input, "grad_input", typenum, rows * length, True)
    cdef double *mean_data = <double *>checked(mean, "mean", cnp.NPY_DOUBLE, rows, False)
    cdef double *rstd_data = <double *>checked(rstd, "rstd", cnp.NPY_DOUBLE, rows, False)
    cdef double *gw_data = <double *>checked(
        grad_weight, "grad_weight", cnp.NPY_DOUBLE, channels, True)
    cdef double *gb_data = <double *>checked(
        grad_bias, "grad_bias", cnp.NPY_DOUBLE, channels, True)
    cdef bint inside = split_inside_rows(rows, length, threads)
    cdef bint stream = g_data != d_data and worth_streaming(
        x_data, d_data, rows, length, x.itemsize)
    cdef bint done = True
    cdef double *sums
    if typenum != cnp.NPY_FLOAT and typenum != cnp.NPY_DOUBLE:
        raise TypeError(f"x has dtype {x.dtype}, expected float32 or float64")
    if rows * length == 0:
        grad_weight.fill(0)
        grad_bias.fill(0)
        return
    sums = <double *>malloc(2 * rows * sizeof(double))
    if sums == NULL:
        raise MemoryError("no memory for the sums of the rows")
    with nogil:
        if typenum == cnp.NPY_FLOAT:
            if inside:
                done = backward_by_blocks[float](
                    <float *>g_data, <float *>x_data, <float *>d_data, rows, length, affine,
                    mean_data, rstd_data, through_statistics, sums, sums + rows, threads,
                    stream)
            else:
                backward_by_rows[float](
                    <float *>g_data, <float *>x_data, <float *>d_data, rows, length, affine,
                    mean_data, rstd_data, through_statistics, sums, sums + rows, threads,
                    stream)
        else:
            if inside:
                done = backward_by_blocks[double](
                    <double *>g_data, <double *>x_data, <double *>d_data, rows, length, affine,
                    mean_data, rstd_data, through_statistics, sums, sums + rows, threads,
                    stream)
            else:
                backward_by_rows[double](
                    <double *>g_data, <double *>x_data, <double *>d_data, rows, length, affine,
                    mean_data, rstd_data, through_statistics, sums, sums + rows, threads,
                    stream)
        if done:
            reduce_over_batch(sums, sums + rows, rstd_data, rows, channels, gw_data, gb_data)
        free(sums)
    if not done:
        raise MemoryError("no memory for the partial sums")
