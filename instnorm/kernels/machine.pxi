# What C knows of the machine, and Cython has no words for: OpenMP, the processor's SIMD levels,
# fused multiply-add, stores past the cache.

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

    /* a * b + c, rounded once where the processor does that. The compiler is told to fuse
       nothing by itself, so that every level which has FMA rounds in the same places. */
    #if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    static inline float instnorm_madd_float(float a, float b, float c) {
        return __builtin_fmaf(a, b, c);
    }
    static inline double instnorm_madd_double(double a, double b, double c) {
        return __builtin_fma(a, b, c);
    }
    static const int INSTNORM_HAS_FMA = 1;
    #else
    static inline float instnorm_madd_float(float a, float b, float c) { return a * b + c; }
    static inline double instnorm_madd_double(double a, double b, double c) { return a * b + c; }
    static const int INSTNORM_HAS_FMA = 0;
    #endif

    /* Sum of 16 numbers, as a balanced tree: each step adds halves of a register. */
    #include <stdint.h>
    #include <string.h>
    #if defined(__GNUC__) && defined(__has_builtin)
    #if __has_builtin(__builtin_shufflevector)
    #define INSTNORM_VECTORS
    #endif
    #endif
    #if defined(INSTNORM_VECTORS)
    typedef double instnorm_8 __attribute__((vector_size(64)));
    typedef double instnorm_4 __attribute__((vector_size(32)));
    typedef double instnorm_2 __attribute__((vector_size(16)));
    static inline double instnorm_total_of_16(const double *lane) {
        instnorm_8 low, high;
        memcpy(&low, lane, sizeof low);
        memcpy(&high, lane + 8, sizeof high);
        instnorm_8 eight = low + high;
        instnorm_4 four = __builtin_shufflevector(eight, eight, 0, 1, 2, 3)
            + __builtin_shufflevector(eight, eight, 4, 5, 6, 7);
        instnorm_2 two = __builtin_shufflevector(four, four, 0, 1)
            + __builtin_shufflevector(four, four, 2, 3);
        return two[0] + two[1];
    }
    #else
    static inline double instnorm_total_of_16(const double *lane) {
        double eight[8], four[4];
        for (int i = 0; i < 8; i++) { eight[i] = lane[i] + lane[i + 8]; }
        for (int i = 0; i < 4; i++) { four[i] = eight[i] + eight[i + 4]; }
        return (four[0] + four[2]) + (four[1] + four[3]);
    }
    #endif

    /* The float nearest to a double that is no further from zero. */
    static inline float instnorm_toward_zero(double value) {
        float nearest = (float)value;
        uint32_t bits;
        memcpy(&bits, &nearest, sizeof bits);
        bits -= __builtin_fabs((double)nearest) > __builtin_fabs(value);
        memcpy(&nearest, &bits, sizeof bits);
        return nearest;
    }

    /* Ask for the lines of some bytes, which may lie beyond an array: in the first cache or, if
       their turn is far, in the second; or in the first to be written, as stores that skip from
       line to line would wait for each. Macros: gcc drops a function that does no more. */
    #if defined(__GNUC__)
    #define INSTNORM_FETCH(address, bytes, write, locality) \
        do { \
            for (size_t at = 0; at < (size_t)(bytes); at += 64) { \
                __builtin_prefetch((const char *)(address) + at, write, locality); \
            } \
        } while (0)
    #else
    #define INSTNORM_FETCH(address, bytes, write, locality) ((void)(address))
    #endif
    #define instnorm_fetch(address, bytes) INSTNORM_FETCH(address, bytes, 0, 3)
    #define instnorm_fetch_far(address, bytes) INSTNORM_FETCH(address, bytes, 0, 2)
    #define instnorm_fetch_to_write(address, bytes) INSTNORM_FETCH(address, bytes, 1, 3)

    /* Write 64 bytes to an address that is a multiple of 64, without reading the line into
       the cache first. */
    #if defined(__AVX512F__)
    #include <immintrin.h>
    static inline void instnorm_stream_line(void *to, const void *from) {
        _mm512_stream_si512((__m512i *)to, _mm512_loadu_si512(from));
    }
    #elif defined(__AVX__)
    #include <immintrin.h>
    static inline void instnorm_stream_line(void *to, const void *from) {
        __m256i *target = (__m256i *)to;
        const __m256i *source = (const __m256i *)from;
        for (int i = 0; i < 2; i++) {
            _mm256_stream_si256(target + i, _mm256_loadu_si256(source + i));
        }
    }
    #elif defined(__SSE2__)
    #include <emmintrin.h>
    static inline void instnorm_stream_line(void *to, const void *from) {
        __m128i *target = (__m128i *)to;
        const __m128i *source = (const __m128i *)from;
        for (int i = 0; i < 4; i++) {
            _mm_stream_si128(target + i, _mm_loadu_si128(source + i));
        }
    }
    #else
    static inline void instnorm_stream_line(void *to, const void *from) { memcpy(to, from, 64); }
    #endif
    #if defined(__SSE2__)
    static inline void instnorm_stream_end(void) { _mm_sfence(); }
    #else
    static inline void instnorm_stream_end(void) {}
    #endif
    """
    const int INSTNORM_HAS_OPENMP
    const int INSTNORM_HAS_FMA
    const char *INSTNORM_COMPILER
    bint instnorm_has_avx2() nogil
    bint instnorm_has_avx512() nogil
    float instnorm_madd_float(float a, float b, float c) noexcept nogil
    double instnorm_madd_double(double a, double b, double c) noexcept nogil
    float instnorm_toward_zero(double value) noexcept nogil
    void instnorm_fetch(const void *address, size_t nbytes) noexcept nogil
    void instnorm_fetch_to_write(const void *address, size_t nbytes) noexcept nogil
    void instnorm_fetch_far(const void *address, size_t nbytes) noexcept nogil
    double instnorm_total_of_16(const double *lane) noexcept nogil
    void instnorm_stream_line(void *to, const void *source) noexcept nogil
    void instnorm_stream_end() noexcept nogil


cdef inline floating madd(floating a, floating b, floating c) noexcept nogil:
    """a * b + c, rounded once where the processor does that."""
    if floating is float:
        return instnorm_madd_float(a, b, c)
    else:
        return instnorm_madd_double(a, b, c)


cdef inline Py_ssize_t elements_to_line(const void *y, Py_ssize_t itemsize) noexcept nogil:
    """How many elements after y the next cache line begins."""
    return <Py_ssize_t>((64 - (<size_t>y & 63)) & 63) // itemsize


cdef inline void put(floating *y, const floating *step, bint stream) noexcept nogil:
    """Write STEP elements, past the cache if `stream`: then y begins a cache line."""
    cdef Py_ssize_t j
    if stream:
        instnorm_stream_line(y, step)
        if floating is double:
            instnorm_stream_line(y + 8, step + 8)
    else:
        for j in range(STEP):
            y[j] = step[j]
