// What the kernels call of registers and memory: the vecs by the type of the array's elements,
// loads and stores, stores past the caches, prefetching.
//
// Of element type E, and numbers are those of the type that E is computed in:
//     octet<E>   8 numbers, one for each of 8 rows, or 8 of a short row
//     line<E>    a cache line of numbers, 16 float32 or 8 float64: channels side by side
//     bundle<E>  128 bytes of numbers, 32 float32 or 16 float64, of a long row
#pragma once

#include "half.hpp"

namespace instnorm {

template <class E> constexpr int line_lanes = 64 / sizeof(compute<E>);
template <class E> constexpr int bundle_lanes = 128 / sizeof(compute<E>);
template <class E> using octet = vec<compute<E>, 8>;
template <class E> using line = vec<compute<E>, line_lanes<E>>;
template <class E> using bundle = vec<compute<E>, bundle_lanes<E>>;
using doubles = vec<double, 8>;

template <class E> INSTNORM_INLINE double load_one(const E *x) { return widened(*x); }
template <class E> INSTNORM_INLINE void store_one(E *y, double value) {
    round_to(y, (compute<E>)value);
}
template <class E> INSTNORM_INLINE octet<E> load_octet(const E *x) {
    return elements<E, 8>::load(x);
}
template <class E> INSTNORM_INLINE void store_octet(E *y, octet<E> value) {
    elements<E, 8>::store(y, value);
}
template <class E> INSTNORM_INLINE void store_line(E *y, line<E> value) {
    elements<E, line_lanes<E>>::store(y, value);
}
template <class E> INSTNORM_INLINE bundle<E> load_bundle(const E *x) {
    return elements<E, bundle_lanes<E>>::load(x);
}
template <class E> INSTNORM_INLINE void store_bundle(E *y, bundle<E> value) {
    elements<E, bundle_lanes<E>>::store(y, value);
}
INSTNORM_INLINE doubles load_doubles(const double *x) { return of_float<double, 8>::load(x); }
INSTNORM_INLINE void store_doubles(double *y, doubles v) { of_float<double, 8>::store(y, v); }

// A NaN among the coefficients is the plain one: `nearest` in half.hpp relies on that.
template <class E> INSTNORM_INLINE compute<E> coefficient(const E *, double value) {
    return plain_nan(vec<compute<E>, 1>{(compute<E>)value}).v;
}
template <class E> INSTNORM_INLINE octet<E> splat_octet(const E *like, double value) {
    return splat_to<octet<E>>::of(coefficient(like, value));
}
template <class E> INSTNORM_INLINE bundle<E> splat_bundle(const E *like, double value) {
    return splat_to<bundle<E>>::of(coefficient(like, value));
}
INSTNORM_INLINE doubles splat_doubles(double value) { return splat_to<doubles>::of(value); }
// One of eight numbers in memory, in all places.
template <class E> INSTNORM_INLINE octet<E> splat_number(const E *, const void *numbers, int place) {
    compute<E> value;
    memcpy(&value, (const char *)numbers + place * sizeof value, sizeof value);
    return splat_to<octet<E>>::of(value);
}

// All bits in the last places, after places that have none.
template <class T> struct tail_bits {
    static constexpr int MOST = 128 / sizeof(T);
    integer<T> bits[2 * MOST];
    constexpr tail_bits() : bits() {
        for (int i = 0; i < MOST; i++) { bits[MOST + i] = -1; }
    }
};
template <class T> inline constexpr tail_bits<T> TAIL_BITS;
template <class T, int N> INSTNORM_INLINE vec<T, N> masked(vec<T, N> value, ptrdiff_t start) {
    return value & of_float<T, N>::load((const T *)(TAIL_BITS<T>.bits + start));
}

// ------------------------------------------------------- what Cython calls
//
// Cython names the elements' type E where it calls a template; the vecs have their own.

INSTNORM_INLINE doubles fma(doubles a, doubles b, doubles c) { return fma_of(a, b, c); }
template <class E, class T, int N, bool F>
INSTNORM_INLINE vec<T, N, F> fma(vec<T, N, F> a, vec<T, N, F> b, vec<T, N, F> c) {
    return fma_of(a, b, c);
}
template <class E, class T, int N, bool F>
INSTNORM_INLINE vec<T, N, F> maximum(vec<T, N, F> a, vec<T, N, F> b) {
    return maximum_of(a, b);
}
// The last n of the places of value, and 0 in those before.
template <class E, class T, int N, bool F>
INSTNORM_INLINE vec<T, N, F> tail(vec<T, N, F> value, ptrdiff_t n) {
    return masked(value, tail_bits<T>::MOST - N + n);
}
INSTNORM_INLINE doubles tail(doubles value, ptrdiff_t n) {
    return masked(value, tail_bits<double>::MOST - 8 + n);
}

template <int M, class T, int N, bool F> INSTNORM_INLINE vec<T, M> sum_by_halves(vec<T, N, F> a) {
    return folded<M, vec<T, N, F>>::sum(a);
}
template <int M, class T, int N, bool F>
INSTNORM_INLINE vec<T, M> largest_by_halves(vec<T, N, F> a) {
    return folded<M, vec<T, N, F>>::largest(a);
}
INSTNORM_INLINE double total(doubles value) { return sum_by_halves<1>(value).v; }
template <class E> INSTNORM_INLINE double total(bundle<E> value) {
    return sum_by_halves<1>(value).v;
}
template <class E> INSTNORM_INLINE double largest(octet<E> value) {
    return largest_by_halves<1>(value).v;
}
// What the places that are 8 apart have in sum, in double; and the largest of them.
template <class E> INSTNORM_INLINE doubles fold(bundle<E> value) {
    return widened<8>(sum_by_halves<8>(value));
}
template <class E> INSTNORM_INLINE octet<E> fold_largest(bundle<E> value) {
    return largest_by_halves<8>(value);
}
// The total of each of eight rows; of numbers of any type, added in double.
INSTNORM_INLINE doubles totals(const doubles *rows) { return transposed<double, 8>::sums(rows); }
template <class E> INSTNORM_INLINE doubles totals_of_octets(const octet<E> *rows) {
    doubles wide[8];
    for (int i = 0; i < 8; i++) { wide[i] = widened<8>(rows[i]); }
    return totals(wide);
}
template <class E> INSTNORM_INLINE doubles widen(octet<E> value) { return widened<8>(value); }
template <class E> INSTNORM_INLINE octet<E> narrow(const E *, doubles value) {
    return plain_nan(rounded_to<compute<E>>::template of<8>(value));
}
// N elements in double. float32 is widened from memory, four by four where registers hold four
// doubles: half of a register would have to be moved first.
template <int N, class E> INSTNORM_INLINE vec<double, N> load_wide(const E *x) {
    if constexpr (sizeof(E) == 4 && !fits_register(N, sizeof(double))) {
        return {load_wide<N / 2>(x), load_wide<N / 2>(x + N / 2)};
    } else {
        return widened<N>(elements<E, N>::load(x));
    }
}
template <class E> INSTNORM_INLINE doubles load_as_doubles(const E *x) { return load_wide<8>(x); }
// The double nearest to a number that the type holds in which E is computed.
template <class E> INSTNORM_INLINE double rounded(const E *, double value) { return (compute<E>)value; }

// --------------------------------------------- one double, or eight, by one text

INSTNORM_INLINE doubles operator+(doubles a, double b) { return a + splat_doubles(b); }
INSTNORM_INLINE doubles operator*(doubles a, double b) { return a * splat_doubles(b); }
INSTNORM_INLINE doubles operator/(doubles a, double b) { return a / splat_doubles(b); }
INSTNORM_INLINE double reciprocal_root(double a) { return 1 / std::sqrt(a); }
INSTNORM_INLINE doubles reciprocal_root(doubles a) { return splat_doubles(1) / root_of(a); }
// 0 where test is 0; value elsewhere, and where test is NaN.
INSTNORM_INLINE double zero_where_zero(double test, double value) { return test != 0 ? value : 0; }
INSTNORM_INLINE doubles zero_where_zero(doubles test, doubles value) {
    return where_nonzero(test, value);
}
// 0 instead of what is negative. NaN stays.
INSTNORM_INLINE double not_negative(double value) { return value < 0 ? 0 : value; }
INSTNORM_INLINE doubles not_negative(doubles value) {
    return maximum_of(splat_doubles(0), value);
}
// Whether all of the absolute values lie between two limits; false for NaN.
INSTNORM_INLINE bool all_within(doubles value, double least, double most) {
    doubles size = value & splat_doubles(same_bits<double>((int64_t)0x7fffffffffffffff));
    doubles above = size - splat_doubles(least), below = splat_doubles(most) - size;
    // Negative, or NaN, where a limit is passed: so is the smaller of both, if NaN comes second.
    doubles negative = maximum_of(splat_doubles(0) - above, splat_doubles(0) - below);
    doubles not_a_number = (value - value) * splat_doubles(1);
    return total(not_a_number) == 0 && largest_by_halves<1>(negative).v < 0;
}
// The largest number of 24 significant bits that is no further from zero.
INSTNORM_INLINE double toward_zero(double value) {
    return same_bits<double>((int64_t)(same_bits<int64_t>(value) & ~(int64_t)0x1fffffff));
}
INSTNORM_INLINE doubles toward_zero(doubles value) {
    return value & splat_doubles(same_bits<double>(~(int64_t)0x1fffffff));
}

// ------------------------------------------------------- stores past the caches

// Without reading the line into the caches first; `y` is a multiple of 64.
template <int BYTES> INSTNORM_INLINE void stream_bytes(void *to, const void *from) {
#if defined(__AVX512F__)
    if constexpr (BYTES == 64) {
        _mm512_stream_si512((__m512i *)to, _mm512_loadu_si512(from));
        return;
    }
#endif
#if defined(__AVX__)
    if constexpr (BYTES == 32) {
        _mm256_stream_si256((__m256i *)to, _mm256_loadu_si256((const __m256i *)from));
        return;
    }
#endif
#if defined(__SSE2__)
    if constexpr (BYTES == 16) {
        _mm_stream_si128((__m128i *)to, _mm_loadu_si128((const __m128i *)from));
        return;
    }
#endif
    memcpy(to, from, BYTES);
}
// Register by register: a load of what several stores wrote would have to wait for them.
template <class E, class T, int N, bool F> INSTNORM_INLINE void stream(E *y, vec<T, N, F> value) {
    if constexpr (!F) {
        stream(y, value.low);
        stream(y + N / 2, value.high);
    } else {
        E step[N];
        elements<E, N>::store(step, value);
        stream_bytes<sizeof step>(y, step);
    }
}
template <class E> INSTNORM_INLINE void put_bundle(E *y, bundle<E> value, bool past_caches) {
    past_caches ? stream(y, value) : store_bundle(y, value);
}
template <class E> INSTNORM_INLINE void put_line(E *y, line<E> value, bool past_caches) {
    past_caches ? stream(y, value) : store_line(y, value);
}
INSTNORM_INLINE void stream_end() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

// ----------------------------------------------------------------- prefetching

// Ask for the cache line of an address, which may lie beyond an array. A macro, as gcc drops a
// function that does no more.
#if defined(__GNUC__)
#define instnorm_prefetch(address) __builtin_prefetch((const void *)(address), 0, 3)
#else
#define instnorm_prefetch(address) ((void)(address))
#endif
// The lines of a bundle: its address says of which type.
#define instnorm_prefetch_bundle(address) \
    (instnorm_prefetch(address),          \
     sizeof(*(address)) < 4 ? (void)0 : instnorm_prefetch((const char *)(address) + 64))

}  // namespace instnorm
