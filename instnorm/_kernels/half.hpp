// float16 and bfloat16, which are computed in float32: widened exactly where they are read,
// rounded to nearest, ties to even, where they are written.
#pragma once

#include "registers.hpp"

namespace instnorm {

struct float16 {
    uint16_t bits;
};
struct bfloat16 {
    uint16_t bits;
};

// The type in which elements of type E are computed.
template <class E> struct compute_of {
    using type = float;
};
template <> struct compute_of<double> {
    using type = double;
};
template <class E> using compute = typename compute_of<E>::type;

// ---------------------------------------------------------------- formulas
//
// U is uint32_t or a vector of them, and F float or as many: a half's bits are a U's last ones.

template <class E> struct bits_of;

// bfloat16 is the upper half of a float32.
template <> struct bits_of<bfloat16> {
    template <class F, class U> static INSTNORM_INLINE F widened(U bits) {
        return same_bits<F>(bits << 16);
    }
    // What is NaN becomes NaN as long as its last 16 digits are zeros, as those of a bfloat16, of
    // coefficients and of the processor's own NaN are.
    template <class U, class F> static INSTNORM_INLINE U nearest(F value) {
        U bits = same_bits<U>(value);
        return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    }
    template <class U, class F> static INSTNORM_INLINE U rounded(F value) {
        U bits = same_bits<U>(value), quiet_nan = (bits >> 16) | 0x40;
        return (bits & 0x7fffffff) > 0x7f800000 ? quiet_nan : nearest<U>(value);
    }
};

// float16's exponent and fraction, in float32's places: what is missing is a power of 2.
template <> struct bits_of<float16> {
    template <class F, class U> static INSTNORM_INLINE F widened(U bits) {
        U magnitude = (bits & 0x7fff) << 13;
        U scaled = same_bits<U>(same_bits<F>(magnitude) * 0x1p112f);
        // Infinite, or NaN, which the processor's own conversion makes a quiet one.
        U quiet = (((bits & 0x3ff) + 0x3ff) & 0x400) << 12;
        U special = magnitude | 0x7f800000 | quiet;
        U unsigned_bits = (bits & 0x7c00) == 0x7c00 ? special : scaled;
        return same_bits<F>(unsigned_bits | (bits & 0x8000) << 16);
    }
    template <class U, class F> static INSTNORM_INLINE U rounded(F value) {
        U bits = same_bits<U>(value), magnitude = bits & 0x7fffffff;
        // A subnormal's last digit is worth 2^-24, which is also that of 0.5f.
        U subnormal = same_bits<U>(same_bits<F>(magnitude) + 0.5f) - 0x3f000000;
        U normal = (magnitude - (112u << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
        U quiet_nan = ((magnitude >> 13) & 0x3ff) | 0x7e00, infinite = (bits & 0) | 0x7c00;
        U beyond = magnitude > 0x7f800000 ? quiet_nan : infinite;
        U within = magnitude < 0x38800000 ? subnormal : normal;
        return (magnitude >= 0x47800000 ? beyond : within) | (bits >> 16 & 0x8000);
    }
};

// ------------------------------------------------------------- one by one

template <class E> INSTNORM_INLINE float widened(E x) {
    return bits_of<E>::template widened<float>((uint32_t)x.bits);
}
template <class E> INSTNORM_INLINE void round_to(E *y, float value) {
    y->bits = (uint16_t)bits_of<E>::template rounded<uint32_t>(value);
}
INSTNORM_INLINE float widened(float x) { return x; }
INSTNORM_INLINE double widened(double x) { return x; }
INSTNORM_INLINE void round_to(float *y, float value) { *y = value; }
INSTNORM_INLINE void round_to(double *y, double value) { *y = value; }

// ------------------------------------------------------------ in registers

// N elements from memory as the type to compute in, and back.
template <class E, int N> struct elements;

template <class T, int N> struct of_float {
    static INSTNORM_INLINE vec<T, N> load(const T *x) {
        if constexpr (fits_register(N, sizeof(T))) {
            return {*(const typename vec<T, N>::stored *)x};
        } else {
            return {of_float<T, N / 2>::load(x), of_float<T, N / 2>::load(x + N / 2)};
        }
    }
    static INSTNORM_INLINE void store(T *y, vec<T, N> value) {
        if constexpr (fits_register(N, sizeof(T))) {
            *(typename vec<T, N>::stored *)y = value.v;
        } else {
            of_float<T, N / 2>::store(y, value.low);
            of_float<T, N / 2>::store(y + N / 2, value.high);
        }
    }
};
template <int N> struct elements<float, N> : of_float<float, N> {};
template <int N> struct elements<double, N> : of_float<double, N> {};

// By halves, down to what a register holds.
template <class E, int N> struct of_half {
#if INSTNORM_HAS_VECTORS
    template <class T> struct some {
        typedef T in_a_vector __attribute__((vector_size(N * sizeof(T))));
    };
    typedef typename some<uint16_t>::in_a_vector some_halves;
    typedef typename some<uint32_t>::in_a_vector some_bits;
#endif
    static INSTNORM_INLINE vec<float, N> load(const E *x) {
        if constexpr (!fits_register(N, sizeof(float))) {
            return {elements<E, N / 2>::load(x), elements<E, N / 2>::load(x + N / 2)};
        } else if constexpr (N == 1) {
            return {widened(*x)};
#if INSTNORM_HAS_VECTORS
        } else {
            some_halves some;
            memcpy(&some, x, sizeof some);
            return {bits_of<E>::template widened<typename whole<float, N>::raw>(
                __builtin_convertvector(some, some_bits))};
#endif
        }
    }
    static INSTNORM_INLINE void store(E *y, vec<float, N> value) {
        if constexpr (!fits_register(N, sizeof(float))) {
            elements<E, N / 2>::store(y, value.low);
            elements<E, N / 2>::store(y + N / 2, value.high);
        } else if constexpr (N == 1) {
            round_to(y, value.v);
#if INSTNORM_HAS_VECTORS
        } else {
            some_halves some = __builtin_convertvector(
                bits_of<E>::template rounded<some_bits>(value.v), some_halves);
            memcpy(y, &some, sizeof some);
#endif
        }
    }
};
template <int N> struct elements<float16, N> : of_half<float16, N> {};
template <int N> struct elements<bfloat16, N> : of_half<bfloat16, N> {};

#if INSTNORM_HAS_VECTORS && defined(__AVX2__) && defined(__F16C__)
template <> struct elements<float16, 8> {
    static INSTNORM_INLINE vec<float, 8> load(const float16 *x) {
        return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)x))};
    }
    static INSTNORM_INLINE void store(float16 *y, vec<float, 8> value) {
        _mm_storeu_si128((__m128i *)y, _mm256_cvtps_ph(value.v, _MM_FROUND_TO_NEAREST_INT));
    }
};
// In the last places, what bfloat16 makes of a float32.
INSTNORM_INLINE __m256i nearest_bits(vec<float, 8> value) {
    return (__m256i)bits_of<bfloat16>::nearest<of_half<bfloat16, 8>::some_bits>(value.v);
}
template <> struct elements<bfloat16, 8> {
    static INSTNORM_INLINE vec<float, 8> load(const bfloat16 *x) {
        __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)x));
        return {_mm256_castsi256_ps(_mm256_slli_epi32(bits, 16))};
    }
    static INSTNORM_INLINE void store(bfloat16 *y, vec<float, 8> value) {
        __m256i upper = nearest_bits(value);
        __m128i packed = _mm_packus_epi32(
            _mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1));
        _mm_storeu_si128((__m128i *)y, packed);
    }
};
#if !defined(__AVX512F__)
// Of sixteen, both halves are packed by one instruction.
template <> struct elements<bfloat16, 16> {
    static INSTNORM_INLINE vec<float, 16> load(const bfloat16 *x) {
        return {elements<bfloat16, 8>::load(x), elements<bfloat16, 8>::load(x + 8)};
    }
    static INSTNORM_INLINE void store(bfloat16 *y, vec<float, 16> value) {
        __m256i packed = _mm256_packus_epi32(nearest_bits(value.low), nearest_bits(value.high));
        _mm256_storeu_si256((__m256i *)y, _mm256_permute4x64_epi64(packed, 0xd8));
    }
};
#endif
#endif
#if INSTNORM_HAS_VECTORS && defined(__aarch64__)
template <> struct elements<float16, 4> {
    static INSTNORM_INLINE vec<float, 4> load(const float16 *x) {
        return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&x->bits)))};
    }
    static INSTNORM_INLINE void store(float16 *y, vec<float, 4> value) {
        vst1_u16(&y->bits, vreinterpret_u16_f16(vcvt_f16_f32(value.v)));
    }
};
#endif
// gcc warns of undefined values where intrinsics without a mask leave them; so all have one.
#if INSTNORM_HAS_VECTORS && defined(__AVX512F__)
template <> struct elements<float16, 16> {
    static INSTNORM_INLINE vec<float, 16> load(const float16 *x) {
        return {_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256((const __m256i *)x))};
    }
    static INSTNORM_INLINE void store(float16 *y, vec<float, 16> value) {
        _mm256_storeu_si256((__m256i *)y, _mm512_maskz_cvtps_ph(0xffff, value.v, _MM_FROUND_TO_NEAREST_INT));
    }
};
INSTNORM_INLINE __m512i nearest_bits(vec<float, 16> value) {
    return (__m512i)bits_of<bfloat16>::nearest<of_half<bfloat16, 16>::some_bits>(value.v);
}
template <> struct elements<bfloat16, 16> {
    static INSTNORM_INLINE vec<float, 16> load(const bfloat16 *x) {
        __m512i bits = _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256((const __m256i *)x));
        return {_mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xffff, bits, 16))};
    }
    static INSTNORM_INLINE void store(bfloat16 *y, vec<float, 16> value) {
        _mm256_storeu_si256(
            (__m256i *)y, _mm512_maskz_cvtepi32_epi16(0xffff, nearest_bits(value)));
    }
};
template <> struct elements<bfloat16, 32> {
    static INSTNORM_INLINE vec<float, 32> load(const bfloat16 *x) {
        return {elements<bfloat16, 16>::load(x), elements<bfloat16, 16>::load(x + 16)};
    }
    static INSTNORM_INLINE void store(bfloat16 *y, vec<float, 32> value) {
        __m512i packed = _mm512_maskz_packus_epi32(
            ~(__mmask32)0, nearest_bits(value.low), nearest_bits(value.high));
        __m512i in_order = _mm512_set_epi64(7, 5, 3, 1, 6, 4, 2, 0);
        _mm512_storeu_si512(y, _mm512_maskz_permutexvar_epi64(0xff, in_order, packed));
    }
};
#endif

}  // namespace instnorm
