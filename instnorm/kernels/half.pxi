# float16 and bfloat16, which are computed in float32: their conversions, in both directions.

cdef extern from *:
    """
    #include <stdint.h>
    typedef struct { uint16_t bits; } instnorm_float16;
    typedef struct { uint16_t bits; } instnorm_bfloat16;

    static inline float instnorm_as_float(uint32_t bits) {
        float value;
        memcpy(&value, &bits, sizeof value);
        return value;
    }
    static inline uint32_t instnorm_as_bits(float value) {
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        return bits;
    }

    /* bfloat16 is the upper half of a float32; rounding to nearest, ties to even. */
    static inline float instnorm_widen_bfloat16(uint16_t bits) {
        return instnorm_as_float((uint32_t)bits << 16);
    }
    static inline uint16_t instnorm_narrow_bfloat16(float value) {
        uint32_t bits = instnorm_as_bits(value);
        uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        uint32_t quiet_nan = (bits >> 16) | 0x40;
        return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? quiet_nan : rounded);
    }

    /* Sixteen at a time, by the processor's own conversions where it has them. */
    #if defined(__AVX512F__)
    static inline void instnorm_widen_bfloat16s(const instnorm_bfloat16 *from, float *to) {
        __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from));
        _mm512_storeu_ps(to, _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16)));
    }
    static inline void instnorm_narrow_bfloat16s(const float *from, instnorm_bfloat16 *to) {
        __m512 value = _mm512_loadu_ps(from);
        __m512i bits = _mm512_castps_si512(value);
        __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
        __m512i half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
        __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
        __m512i rounded = _mm512_mask_or_epi32(
            _mm512_add_epi32(bits, half), nan, bits, _mm512_set1_epi32(0x400000));
        __m256i upper = _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
        _mm256_storeu_si256((__m256i *)to, upper);
    }
    #else
    static inline void instnorm_widen_bfloat16s(const instnorm_bfloat16 *from, float *to) {
        for (int i = 0; i < 16; i++) { to[i] = instnorm_widen_bfloat16(from[i].bits); }
    }
    static inline void instnorm_narrow_bfloat16s(const float *from, instnorm_bfloat16 *to) {
        for (int i = 0; i < 16; i++) { to[i].bits = instnorm_narrow_bfloat16(from[i]); }
    }
    #endif
    #if defined(__AVX512F__)
    static inline void instnorm_widen_float16(const instnorm_float16 *from, float *to) {
        _mm512_storeu_ps(to, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from)));
    }
    static inline void instnorm_narrow_float16(const float *from, instnorm_float16 *to) {
        __m256i half = _mm512_cvtps_ph(_mm512_loadu_ps(from), _MM_FROUND_TO_NEAREST_INT);
        _mm256_storeu_si256((__m256i *)to, half);
    }
    #elif defined(__F16C__)
    static inline void instnorm_widen_float16(const instnorm_float16 *from, float *to) {
        for (int i = 0; i < 16; i += 8) {
            __m128i half = _mm_loadu_si128((const __m128i *)(from + i));
            _mm256_storeu_ps(to + i, _mm256_cvtph_ps(half));
        }
    }
    static inline void instnorm_narrow_float16(const float *from, instnorm_float16 *to) {
        for (int i = 0; i < 16; i += 8) {
            __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT);
            _mm_storeu_si128((__m128i *)(to + i), half);
        }
    }
    #else
    static inline void instnorm_widen_float16(const instnorm_float16 *from, float *to) {
        for (int i = 0; i < 16; i++) {
            /* Exponent and fraction in float32's places: what is missing is a power of 2. */
            uint32_t bits = from[i].bits, magnitude = (bits & 0x7fff) << 13;
            uint32_t scaled = instnorm_as_bits(instnorm_as_float(magnitude) * 0x1p112f);
            if ((bits & 0x7c00) == 0x7c00) { scaled = magnitude | 0x7f800000; }
            to[i] = instnorm_as_float(scaled | (bits & 0x8000) << 16);
        }
    }
    static inline void instnorm_narrow_float16(const float *from, instnorm_float16 *to) {
        for (int i = 0; i < 16; i++) {
            uint32_t bits = instnorm_as_bits(from[i]), magnitude = bits & 0x7fffffff;
            /* A subnormal's last digit is worth 2^-24, which is also that of 0.5f. */
            uint32_t tiny = instnorm_as_bits(instnorm_as_float(magnitude) + 0.5f) - 0x3f000000;
            uint32_t normal = magnitude - (112u << 23) + 0xfff + ((magnitude >> 13) & 1);
            uint32_t half = magnitude < 0x38800000 ? tiny : normal >> 13;
            if (magnitude >= 0x47800000) { half = magnitude > 0x7f800000 ? 0x7e00 : 0x7c00; }
            to[i].bits = (uint16_t)(half | (bits >> 16 & 0x8000));
        }
    }
    #endif
    """
    ctypedef struct float16 "instnorm_float16":
        unsigned short bits
    ctypedef struct bfloat16 "instnorm_bfloat16":
        unsigned short bits
    float instnorm_widen_bfloat16(unsigned short bits) noexcept nogil
    unsigned short instnorm_narrow_bfloat16(float value) noexcept nogil
    void instnorm_widen_bfloat16s(const bfloat16 *source, float *to) noexcept nogil
    void instnorm_narrow_bfloat16s(const float *source, bfloat16 *to) noexcept nogil
    void instnorm_widen_float16(const float16 *source, float *to) noexcept nogil
    void instnorm_narrow_float16(const float *source, float16 *to) noexcept nogil

ctypedef fused narrow_type:
    float16
    bfloat16

# What arrays hold.
ctypedef fused element:
    float
    double
    float16
    bfloat16


# ------------------------------------------------------------------- one step

cdef inline void take(const element *x, floating *wide) noexcept nogil:
    """STEP elements as the type to compute in."""
    cdef Py_ssize_t j
    if element is bfloat16:
        if floating is float:
            instnorm_widen_bfloat16s(x, wide)
    elif element is float16:
        if floating is float:
            instnorm_widen_float16(x, wide)
    else:
        for j in range(STEP):
            wide[j] = <floating>x[j]


cdef inline void give(const floating *wide, element *y, bint stream) noexcept nogil:
    """STEP elements, rounded; past the cache if `stream`: then y begins a cache line."""
    cdef Py_ssize_t j
    if element is bfloat16:
        if floating is float:
            instnorm_narrow_bfloat16s(wide, y)
    elif element is float16:
        if floating is float:
            instnorm_narrow_float16(wide, y)
    elif element is float:
        if floating is float:
            put(y, wide, stream)
    else:
        if floating is double:
            put(y, wide, stream)


cdef inline void widen(const narrow_type *x, float *wide, Py_ssize_t n) noexcept nogil:
    """n elements to float32, exactly."""
    cdef narrow_type some[STEP]
    cdef float some_wide[STEP]
    cdef Py_ssize_t i, j, whole = n - n % STEP
    for i in range(n // STEP):
        take(x + i * STEP, wide + i * STEP)
    if whole < n:
        for j in range(STEP):
            some[j].bits = x[whole + j].bits if whole + j < n else 0
        take(<const narrow_type *>some, some_wide)
        for j in range(n - whole):
            wide[whole + j] = some_wide[j]


cdef inline void narrow(const float *wide, narrow_type *y, Py_ssize_t n) noexcept nogil:
    """n elements rounded to nearest, ties to even."""
    cdef narrow_type some[STEP]
    cdef float some_wide[STEP]
    cdef Py_ssize_t i, j, whole = n - n % STEP
    for i in range(n // STEP):
        give(wide + i * STEP, y + i * STEP, False)
    if whole < n:
        for j in range(STEP):
            some_wide[j] = wide[whole + j] if whole + j < n else 0
        give(<const float *>some_wide, some, False)
        for j in range(n - whole):
            y[whole + j].bits = some[j].bits


cdef inline void give_line(
    const float *wide,      # IN  2 * STEP
    narrow_type *y,         # OUT 2 * STEP
    bint stream,            # past the cache: then y begins a cache line
) noexcept nogil:
    cdef narrow_type line[2 * STEP]
    if stream:
        give(wide, line, False)
        give(wide + STEP, line + STEP, False)
        instnorm_stream_line(y, line)
    else:
        give(wide, y, False)
        give(wide + STEP, y + STEP, False)
