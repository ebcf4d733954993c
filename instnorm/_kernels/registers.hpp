// Registers as a type: vec<T, N> is N numbers of type T that are computed with side by side.
//
// A vec as wide as the processor's registers, or narrower, is one register; a wider one is two
// vecs of half as many numbers, and so on. Members have names, where an array would tempt the
// compiler to keep them on the stack. What is added across a vec is always added by halves,
// first the numbers N / 2 apart, then those N / 4 apart: the order, and so every bit of the
// result, is the same for every width of registers.
//
// Registers are the vector types of gcc and clang. Where these are missing, or are not asked
// for (INSTNORM_PLAIN_C), numbers stay in small arrays and loops.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if !defined(INSTNORM_PLAIN_C) && (defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 12))
#define INSTNORM_HAS_VECTORS 1
#else
#define INSTNORM_HAS_VECTORS 0
#endif
#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif
#if defined(__GNUC__)
#define INSTNORM_INLINE inline __attribute__((always_inline))
#else
#define INSTNORM_INLINE inline
#endif

namespace instnorm {

#if !INSTNORM_HAS_VECTORS
constexpr int REGISTER_BYTES = 4;
#elif defined(__AVX512F__)
constexpr int REGISTER_BYTES = 64;
#elif defined(__AVX__)
constexpr int REGISTER_BYTES = 32;
#else
constexpr int REGISTER_BYTES = 16;
#endif

#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
constexpr bool HAS_FMA = true;
#else
constexpr bool HAS_FMA = false;
#endif

// ------------------------------------------------------------------ numbers

INSTNORM_INLINE float fma_of(float a, float b, float c) {
    return HAS_FMA ? __builtin_fmaf(a, b, c) : a * b + c;
}
INSTNORM_INLINE double fma_of(double a, double b, double c) {
    return HAS_FMA ? __builtin_fma(a, b, c) : a * b + c;
}
// As the processor's own instruction: the second where one of them is NaN.
template <class T> INSTNORM_INLINE T larger(T a, T b) { return a > b ? a : b; }

template <class T> struct integer_of;
template <> struct integer_of<float> { using type = int32_t; };
template <> struct integer_of<double> { using type = int64_t; };
template <class T> using integer = typename integer_of<T>::type;

template <class To, class From> INSTNORM_INLINE To same_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

// ---------------------------------------------------------------------- vec

// float64 takes 256 bits at most: what is done in double is mostly the sums across eight short
// rows, whose shuffles take twice as long in wider registers (measured on a Xeon 6, 0.30 against
// 0.22 ns an element).
constexpr bool fits_register(int n, size_t size) {
    return n == 1 || n * size <= (size_t)(size == 8 && REGISTER_BYTES > 32 ? 32 : REGISTER_BYTES);
}

template <class T, int N, bool FITS = fits_register(N, sizeof(T))> struct vec;

template <class T> struct vec<T, 1, true> {
    typedef T stored;
    T v;
};
#if INSTNORM_HAS_VECTORS
template <class T, int N> struct vec<T, N, true> {
    typedef T raw __attribute__((vector_size(N * sizeof(T))));
    // The same in memory, at any address of a T. (A memcpy would keep some vecs on the stack.)
    typedef T stored __attribute__((vector_size(N * sizeof(T)), aligned(sizeof(T)), may_alias));
    raw v;
};
#endif
template <class T, int N> struct vec<T, N, false> {
    vec<T, N / 2> low, high;
};
template <class T, int N> using whole = vec<T, N, true>;
template <class T, int N> using split = vec<T, N, false>;

// What is done number by number: how it is done to a register, and from that, by halves.
#define INSTNORM_BY_HALVES_1(name)                                        \
    template <class T, int N> INSTNORM_INLINE split<T, N> name(split<T, N> a) { \
        return {name(a.low), name(a.high)};                               \
    }
#define INSTNORM_BY_HALVES_2(name)                                        \
    template <class T, int N>                                             \
    INSTNORM_INLINE split<T, N> name(split<T, N> a, split<T, N> b) {      \
        return {name(a.low, b.low), name(a.high, b.high)};                \
    }
#define INSTNORM_ARITHMETIC(op)                                                             \
    template <class T, int N>                                                               \
    INSTNORM_INLINE whole<T, N> operator op(whole<T, N> a, whole<T, N> b) {                 \
        return {a.v op b.v};                                                                \
    }                                                                                       \
    INSTNORM_BY_HALVES_2(operator op)
INSTNORM_ARITHMETIC(+)
INSTNORM_ARITHMETIC(-)
INSTNORM_ARITHMETIC(*)
INSTNORM_ARITHMETIC(/)

#if defined(__FMA__)
#if defined(__AVX512F__)
INSTNORM_INLINE __m512 fma_register(__m512 a, __m512 b, __m512 c) {
    return _mm512_fmadd_ps(a, b, c);
}
#endif
INSTNORM_INLINE __m256 fma_register(__m256 a, __m256 b, __m256 c) {
    return _mm256_fmadd_ps(a, b, c);
}
INSTNORM_INLINE __m256d fma_register(__m256d a, __m256d b, __m256d c) {
    return _mm256_fmadd_pd(a, b, c);
}
INSTNORM_INLINE __m128 fma_register(__m128 a, __m128 b, __m128 c) { return _mm_fmadd_ps(a, b, c); }
INSTNORM_INLINE __m128d fma_register(__m128d a, __m128d b, __m128d c) {
    return _mm_fmadd_pd(a, b, c);
}
#elif defined(__ARM_NEON) && defined(__aarch64__)
INSTNORM_INLINE float32x4_t fma_register(float32x4_t a, float32x4_t b, float32x4_t c) {
    return vfmaq_f32(c, a, b);
}
INSTNORM_INLINE float64x2_t fma_register(float64x2_t a, float64x2_t b, float64x2_t c) {
    return vfmaq_f64(c, a, b);
}
#else
template <class R> INSTNORM_INLINE R fma_register(R a, R b, R c) { return a * b + c; }
#endif

// a * b + c, rounded once where the processor does that. The compiler is told to contract
// nothing by itself, so that all levels that have FMA round in the same places.
template <class T, int N>
INSTNORM_INLINE whole<T, N> fma_of(whole<T, N> a, whole<T, N> b, whole<T, N> c) {
    if constexpr (N == 1) {
        return {fma_of(a.v, b.v, c.v)};
#if INSTNORM_HAS_VECTORS
    } else if constexpr (N * sizeof(T) < 16) {
        whole<T, N> out;
        for (int i = 0; i < N; i++) { out.v[i] = fma_of(a.v[i], b.v[i], c.v[i]); }
        return out;
    } else {
        return {(typename whole<T, N>::raw)fma_register(a.v, b.v, c.v)};
#endif
    }
}
template <class T, int N>
INSTNORM_INLINE split<T, N> fma_of(split<T, N> a, split<T, N> b, split<T, N> c) {
    return {fma_of(a.low, b.low, c.low), fma_of(a.high, b.high, c.high)};
}

template <class T, int N> INSTNORM_INLINE whole<T, N> maximum_of(whole<T, N> a, whole<T, N> b) {
    if constexpr (N == 1) {
        return {larger(a.v, b.v)};
    } else {
        return {a.v > b.v ? a.v : b.v};
    }
}
INSTNORM_BY_HALVES_2(maximum_of)

template <class T, int N> INSTNORM_INLINE whole<T, N> root_of(whole<T, N> a) {
    if constexpr (N == 1) {
        return {(T)std::sqrt(a.v)};
    } else {
        whole<T, N> out;
        for (int i = 0; i < N; i++) { out.v[i] = std::sqrt(a.v[i]); }
        return out;
    }
}
#if defined(__AVX__) && INSTNORM_HAS_VECTORS
INSTNORM_INLINE whole<double, 4> root_of(whole<double, 4> a) { return {_mm256_sqrt_pd(a.v)}; }
#elif defined(__SSE2__) && INSTNORM_HAS_VECTORS
INSTNORM_INLINE whole<double, 2> root_of(whole<double, 2> a) { return {_mm_sqrt_pd(a.v)}; }
#endif
INSTNORM_BY_HALVES_1(root_of)
INSTNORM_INLINE double root_of(double a) { return std::sqrt(a); }

// value where test is not 0, else 0. A NaN in test is not 0.
template <class T, int N>
INSTNORM_INLINE whole<T, N> where_nonzero(whole<T, N> test, whole<T, N> value) {
    if constexpr (N == 1) {
        return {test.v != 0 ? value.v : 0};
    } else {
        return {test.v != 0 ? value.v : typename whole<T, N>::raw{}};
    }
}
INSTNORM_BY_HALVES_2(where_nonzero)

// a where test is positive, else b: b where test is NaN.
template <class T, int N>
INSTNORM_INLINE whole<T, N> where_positive(whole<T, N> test, whole<T, N> a, whole<T, N> b) {
    return {test.v > 0 ? a.v : b.v};
}
template <class T, int N>
INSTNORM_INLINE split<T, N> where_positive(split<T, N> test, split<T, N> a, split<T, N> b) {
    return {where_positive(test.low, a.low, b.low), where_positive(test.high, a.high, b.high)};
}
// 0 where test is 0 or less, else value: value where test is NaN.
template <class T, int N>
INSTNORM_INLINE whole<T, N> zero_where_not_positive(whole<T, N> test, whole<T, N> value) {
    return {test.v <= 0 ? decltype(value.v){} : value.v};
}
INSTNORM_BY_HALVES_2(zero_where_not_positive)

// The same NaN wherever a is one.
template <class T, int N> INSTNORM_INLINE whole<T, N> plain_nan(whole<T, N> a) {
    constexpr T nan = __builtin_nan("");
    if constexpr (N == 1) {
        return {a.v == a.v ? a.v : nan};
#if INSTNORM_HAS_VECTORS
    } else {
        return {a.v == a.v ? a.v : nan - typename whole<T, N>::raw{}};
#endif
    }
}
INSTNORM_BY_HALVES_1(plain_nan)

// The bits of a and of mask, a vec of bit patterns.
template <class T, int N> INSTNORM_INLINE whole<T, N> operator&(whole<T, N> a, whole<T, N> mask) {
    if constexpr (N == 1) {
        return {same_bits<T>((integer<T>)(same_bits<integer<T>>(a.v) & same_bits<integer<T>>(mask.v)))};
#if INSTNORM_HAS_VECTORS
    } else {
        typedef integer<T> bits __attribute__((vector_size(N * sizeof(T))));
        return {(typename whole<T, N>::raw)((bits)a.v & (bits)mask.v)};
#endif
    }
}
INSTNORM_BY_HALVES_2(operator&)

// All bits where a byte is not 0, of N bytes.
template <class T, int N> struct bits_where {
    static INSTNORM_INLINE vec<T, N> nonzero(const unsigned char *bytes) {
        if constexpr (N == 1) {
            return {same_bits<T>((integer<T>)(*bytes ? -1 : 0))};
#if INSTNORM_HAS_VECTORS
        } else if constexpr (fits_register(N, sizeof(T))) {
            typedef signed char narrow __attribute__((vector_size(N)));
            typedef integer<T> wide __attribute__((vector_size(N * sizeof(T))));
            narrow some;
            memcpy(&some, bytes, N);
            return {(typename whole<T, N>::raw)__builtin_convertvector(some != 0, wide)};
#endif
        } else {
            return {bits_where<T, N / 2>::nonzero(bytes), bits_where<T, N / 2>::nonzero(bytes + N / 2)};
        }
    }
};

// --------------------------------------------- the same number in all places

template <class V> struct splat_to;
template <class T, int N> struct splat_to<whole<T, N>> {
    static INSTNORM_INLINE whole<T, N> of(T value) {
        if constexpr (N == 1) {
            return {value};
#if INSTNORM_HAS_VECTORS
        } else {
            typename whole<T, N>::raw zero = {};
            return {value - zero};  // not zero + value, which makes 0 of -0
#endif
        }
    }
};
template <class T, int N> struct splat_to<split<T, N>> {
    static INSTNORM_INLINE split<T, N> of(T value) {
        auto half = splat_to<vec<T, N / 2>>::of(value);
        return {half, half};
    }
};

// --------------------------------------------------- halves of a register

template <class T, int N> INSTNORM_INLINE vec<T, N / 2> low_half(split<T, N> a) { return a.low; }
template <class T, int N> INSTNORM_INLINE vec<T, N / 2> high_half(split<T, N> a) { return a.high; }
#if INSTNORM_HAS_VECTORS
template <class T, int N> INSTNORM_INLINE whole<T, N / 2> low_half(whole<T, N> a) {
    if constexpr (N == 16) {
        return {__builtin_shufflevector(a.v, a.v, 0, 1, 2, 3, 4, 5, 6, 7)};
    } else if constexpr (N == 8) {
        return {__builtin_shufflevector(a.v, a.v, 0, 1, 2, 3)};
    } else if constexpr (N == 4) {
        return {__builtin_shufflevector(a.v, a.v, 0, 1)};
    } else {
        return {a.v[0]};
    }
}
template <class T, int N> INSTNORM_INLINE whole<T, N / 2> high_half(whole<T, N> a) {
    if constexpr (N == 16) {
        return {__builtin_shufflevector(a.v, a.v, 8, 9, 10, 11, 12, 13, 14, 15)};
    } else if constexpr (N == 8) {
        return {__builtin_shufflevector(a.v, a.v, 4, 5, 6, 7)};
    } else if constexpr (N == 4) {
        return {__builtin_shufflevector(a.v, a.v, 2, 3)};
    } else {
        return {a.v[1]};
    }
}
template <class T, int N> INSTNORM_INLINE whole<T, 2 * N> joined(whole<T, N> a, whole<T, N> b) {
    if constexpr (N == 8) {
        return {__builtin_shufflevector(
            a.v, b.v, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)};
    } else if constexpr (N == 4) {
        return {__builtin_shufflevector(a.v, b.v, 0, 1, 2, 3, 4, 5, 6, 7)};
    } else if constexpr (N == 2) {
        return {__builtin_shufflevector(a.v, b.v, 0, 1, 2, 3)};
    } else {
        typename whole<T, 2>::raw both = {a.v, b.v};
        return {both};
    }
}
#endif

// ----------------------------------------------------------- sums across a vec

// The N numbers of a added, or compared, by halves until M are left.
template <int M, class V> struct folded;
template <int M, class T, int N, bool FITS> struct folded<M, vec<T, N, FITS>> {
    static INSTNORM_INLINE vec<T, M> sum(vec<T, N> a) {
        if constexpr (M == N) {
            return a;
        } else {
            return folded<M, vec<T, N / 2>>::sum(low_half(a) + high_half(a));
        }
    }
    static INSTNORM_INLINE vec<T, M> largest(vec<T, N> a) {
        if constexpr (M == N) {
            return a;
        } else {
            return folded<M, vec<T, N / 2>>::largest(maximum_of(low_half(a), high_half(a)));
        }
    }
};

// N vecs of N numbers: the sums of each, in their order. The sums of two vecs are the halves of
// one, then those of four are its quarters: as many additions as two of the sums would take.
template <class T, int N, bool FITS = fits_register(N, sizeof(T))> struct transposed {
    static INSTNORM_INLINE vec<T, N> sums(const vec<T, N> *rows) {
        vec<T, N / 2> half[N];
        for (int i = 0; i < N; i++) { half[i] = low_half(rows[i]) + high_half(rows[i]); }
        return {
            transposed<T, N / 2>::sums(half), transposed<T, N / 2>::sums(half + N / 2)};
    }
};
template <class T> struct transposed<T, 1, true> {
    static INSTNORM_INLINE vec<T, 1> sums(const vec<T, 1> *rows) { return rows[0]; }
};
#if INSTNORM_HAS_VECTORS
template <class T> struct transposed<T, 2, true> {
    static INSTNORM_INLINE whole<T, 2> sums(const whole<T, 2> *r) {
        return {
            __builtin_shufflevector(r[0].v, r[1].v, 0, 2)
            + __builtin_shufflevector(r[0].v, r[1].v, 1, 3)};
    }
};
template <class T> struct transposed<T, 4, true> {
    typedef typename whole<T, 4>::raw raw;
    static INSTNORM_INLINE raw halves(raw a, raw b) {
        return __builtin_shufflevector(a, b, 0, 1, 4, 5) + __builtin_shufflevector(a, b, 2, 3, 6, 7);
    }
    static INSTNORM_INLINE whole<T, 4> sums(const whole<T, 4> *r) {
        raw a = halves(r[0].v, r[1].v), b = halves(r[2].v, r[3].v);
        return {
            __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7)};
    }
};
template <class T> struct transposed<T, 8, true> {
    typedef typename whole<T, 8>::raw raw;
    // Rows that are four apart first, so that all later steps stay within 128 bits.
    static INSTNORM_INLINE raw halves(raw a, raw b) {
        return __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11)
             + __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
    }
    static INSTNORM_INLINE raw quarters(raw a, raw b) {
        return __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13)
             + __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
    }
    static INSTNORM_INLINE whole<T, 8> sums(const whole<T, 8> *r) {
        raw a = quarters(halves(r[0].v, r[4].v), halves(r[1].v, r[5].v));
        raw b = quarters(halves(r[2].v, r[6].v), halves(r[3].v, r[7].v));
        return {
            __builtin_shufflevector(a, b, 0, 2, 8, 10, 4, 6, 12, 14)
            + __builtin_shufflevector(a, b, 1, 3, 9, 11, 5, 7, 13, 15)};
    }
};
#endif

// ------------------------------------------------------ float32 and float64

template <int N> INSTNORM_INLINE vec<double, N> widened(vec<double, N> a) { return a; }
template <int N> INSTNORM_INLINE vec<double, N> widened(vec<float, N> a) {
    if constexpr (N == 1) {
        return {(double)a.v};
#if INSTNORM_HAS_VECTORS && defined(__AVX__)
    } else if constexpr (N == 4) {
        return {_mm256_cvtps_pd(a.v)};
#endif
    } else if constexpr (fits_register(N, sizeof(double))) {
#if INSTNORM_HAS_VECTORS
        return {__builtin_convertvector(a.v, typename whole<double, N>::raw)};
#endif
    } else {
        return {widened<N / 2>(low_half(a)), widened<N / 2>(high_half(a))};
    }
}

template <class T> struct rounded_to;
template <> struct rounded_to<double> {
    template <int N> static INSTNORM_INLINE vec<double, N> of(vec<double, N> a) { return a; }
};
template <> struct rounded_to<float> {
    template <int N> static INSTNORM_INLINE vec<float, N> of(vec<double, N> a) {
        if constexpr (N == 1) {
            return {(float)a.v};
#if INSTNORM_HAS_VECTORS && defined(__AVX__)
        } else if constexpr (N == 4) {
            return {_mm256_cvtpd_ps(a.v)};
#endif
        } else if constexpr (fits_register(N, sizeof(double))) {
#if INSTNORM_HAS_VECTORS
            return {__builtin_convertvector(a.v, typename whole<float, N>::raw)};
#endif
        } else if constexpr (fits_register(N, sizeof(float))) {
#if INSTNORM_HAS_VECTORS
            return joined(of<N / 2>(a.low), of<N / 2>(a.high));
#endif
        } else {
            return {of<N / 2>(a.low), of<N / 2>(a.high)};
        }
    }
};

}  // namespace instnorm
