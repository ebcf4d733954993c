// The last passes, and their epilogue: what follows the affine map while the result is in
// registers. A residual is added, then the activation is applied, then a mask sets elements to 0.
//
// Kernels are made of one text for each of the classes below. With `no_epilogue` the compiler
// drops all of it. With the others, what there is to do is asked at each vec: a branch that goes
// the same way all the time costs next to nothing beside reading memory.
//
// Backward, the sign of what the activation was applied to is computed once more. Without a
// residual that is a question of which side of a threshold x lies on, and one operation. Where the
// output is all that was kept, it has that sign.
#pragma once

#include <type_traits>

#include "memory.hpp"

namespace instnorm {

enum activation { NO_ACTIVATION, RELU, LEAKY_RELU };

// A number in both of the types that are computed in.
struct number {
    float single;
    double exact;
};
INSTNORM_INLINE number number_of(double value) {
    return {coefficient((const float *)nullptr, value), value};
}

struct no_epilogue {};
// Of a row: numbers that stand for all of its elements. Places are counted from its first.
struct row_epilogue {
    const void *residual;   // as x; NULL: none
    void *grad_residual;    // OUT as x; NULL: not asked for
    const unsigned char *mask;  // a byte for each element, 0 where it does not count; NULL: all do
    int activation;
    bool slope_asked;       // whether the gradient of the slope is asked for
    bool from_output;       // what stands in x's place is the output
    bool cut_off;           // the row goes on after its last element
    number slope, inverse_slope = {};
    // Backward: the affine map of the forward pass, and sign_scale * x + sign_shift, which has
    // the sign of what the activation was applied to.
    number centre = {}, scale = {}, scale_rest = {}, shift = {}, sign_scale = {}, sign_shift = {};
};
// Nothing but an activation, forward or backward: what most nets have is made without a question.
struct row_activation : row_epilogue {};
// Of a pixel: arrays with a number for each of its elements, of the type that is computed in.
struct pixel_epilogue {
    const void *residual;
    void *grad_residual;
    const unsigned char *mask;
    int activation;
    bool slope_asked;
    bool from_output;
    const void *slope, *inverse_slope;
    const void *centre, *scale, *scale_rest, *shift, *sign_scale, *sign_shift;
};

struct pixel_activation : pixel_epilogue {};
template <class P>
constexpr bool just_activates =
    std::is_same_v<P, row_activation> || std::is_same_v<P, pixel_activation>;

template <class V> struct numbers_in;
template <class T, int N, bool F> struct numbers_in<vec<T, N, F>> {
    using type = T;
    static constexpr int count = N;
};
template <class V> using number_type = typename numbers_in<V>::type;
// Elements in memory as many as V has numbers.
template <class E, class V> using memory_of = elements<E, numbers_in<V>::count>;

// ------------------------------------------------- coefficients in registers

// coefficients.pxi says what each coefficient is.
template <class V> struct scales_in {
    V centre, scale, scale_rest, shift;
};
template <class V> struct grad_scales_in {
    V grad_mean, grad_scale, centre, x_scale, shift;
    bool through_statistics;
};
template <class E> using bundle_scales = scales_in<bundle<E>>;
template <class E> using octet_scales = scales_in<octet<E>>;
template <class E> using line_scales = scales_in<line<E>>;
template <class E> using bundle_grad_scales = grad_scales_in<bundle<E>>;
template <class E> using octet_grad_scales = grad_scales_in<octet<E>>;
template <class E> using line_grad_scales = grad_scales_in<line<E>>;

template <class V> struct lanes_from;
template <class T, int N, bool F> struct lanes_from<vec<T, N, F>> {
    using V = vec<T, N, F>;
    // Of a row's number, in all places; of a pixel's numbers, those from `c` on.
    static INSTNORM_INLINE V at(const number &n, ptrdiff_t) {
        if constexpr (sizeof(T) == sizeof(float)) {
            return splat_to<V>::of(n.single);
        } else {
            return splat_to<V>::of(n.exact);
        }
    }
    static INSTNORM_INLINE V at(const void *numbers, ptrdiff_t c) {
        return of_float<T, N>::load((const T *)numbers + c);
    }
};

// --------------------------------------------------------------- formulas

template <class V> INSTNORM_INLINE V normalized(V x, const scales_in<V> &k) {
    V d = x - k.centre, shift = k.shift;
    if constexpr (sizeof(number_type<V>) == sizeof(float)) { shift = fma_of(d, k.scale_rest, shift); }
    return fma_of(d, k.scale, shift);
}
template <class V> INSTNORM_INLINE V gradient(V g, V x, const grad_scales_in<V> &k) {
    V shift = k.shift;
    // Statistics that were given: x has no part in it, not even a NaN of x.
    if (k.through_statistics) { shift = fma_of(x - k.centre, k.x_scale, shift); }
    return fma_of(g - k.grad_mean, k.grad_scale, shift);
}

template <class P, class V> INSTNORM_INLINE V kept(const P *p, ptrdiff_t i, V value) {
    using in = numbers_in<V>;
    if (just_activates<P> || !p->mask) { return value; }
    return value & bits_where<typename in::type, in::count>::nonzero(p->mask + i);
}
template <class V> INSTNORM_INLINE V kept(const no_epilogue *, ptrdiff_t, V value) { return value; }

template <class P, class V> INSTNORM_INLINE V activated(const P *p, ptrdiff_t c, V v) {
    if (p->activation == RELU) { return zero_where_not_positive(v, v); }
    if (just_activates<P> || p->activation == LEAKY_RELU) {
        return where_positive(v, v, v * lanes_from<V>::at(p->slope, c));
    }
    return v;
}
template <class P, class E, class V>
INSTNORM_INLINE V with_residual(const P *p, const E *, ptrdiff_t i, V v) {
    if (just_activates<P> || !p->residual) { return v; }
    return v + memory_of<E, V>::load((const E *)p->residual + i);
}

// What follows the affine map, from `i` elements and `c` channels on.
template <class P, class E, class V>
INSTNORM_INLINE V ended(const P *p, const E *like, ptrdiff_t i, ptrdiff_t c, V v) {
    return kept(p, i, activated(p, c, with_residual(p, like, i, v)));
}
template <class E, class V>
INSTNORM_INLINE V ended(const no_epilogue *, const E *, ptrdiff_t, ptrdiff_t, V v) {
    return v;
}

// What the activation was applied to, of x.
template <class P, class E, class V>
INSTNORM_INLINE V preactivation(const P *p, const E *like, ptrdiff_t i, ptrdiff_t c, V x) {
    using lanes = lanes_from<V>;
    scales_in<V> k = {
        lanes::at(p->centre, c), lanes::at(p->scale, c), lanes::at(p->scale_rest, c),
        lanes::at(p->shift, c)};
    return with_residual(p, like, i, normalized(x, k));
}
// A number of the same sign.
template <class P, class E, class V>
INSTNORM_INLINE V signed_as_preactivation(const P *p, const E *like, ptrdiff_t i, ptrdiff_t c, V x) {
    using lanes = lanes_from<V>;
    if constexpr (!just_activates<P>) {
        if (p->from_output) { return x; }
        if (p->residual) { return preactivation(p, like, i, c, x); }
    }
    return fma_of(x, lanes::at(p->sign_scale, c), lanes::at(p->sign_shift, c));
}
// The gradient before the activation, of the gradient `g` after it.
template <class P, class E, class V>
INSTNORM_INLINE V passed(const P *p, const E *like, ptrdiff_t i, ptrdiff_t c, V g, V x) {
    if (just_activates<P> || p->activation != NO_ACTIVATION) {
        V sign = signed_as_preactivation(p, like, i, c, x);
        g = p->activation == RELU
            ? zero_where_not_positive(sign, g)
            : where_positive(sign, g, g * lanes_from<V>::at(p->slope, c));
    }
    return kept(p, i, g);
}
template <class E, class V>
INSTNORM_INLINE V passed(const no_epilogue *, const E *, ptrdiff_t, ptrdiff_t, V g, V) {
    return g;
}
// What each element adds to the gradient of the slope.
template <class P, class E, class V>
INSTNORM_INLINE V slope_term(const P *p, const E *like, ptrdiff_t i, ptrdiff_t c, V g, V x) {
    V zero = splat_to<V>::of(0);
    V v = preactivation(p, like, i, c, x);
    return kept(p, i, where_positive(v, zero, g * v));
}
// x; or the result of the affine map, where the output stands in its place.
template <class P, class E, class V>
INSTNORM_INLINE V input_of(const P *p, const E *, ptrdiff_t i, ptrdiff_t c, V x) {
    if (just_activates<P> || !p->from_output) { return x; }
    if (p->activation != NO_ACTIVATION) {
        x = where_positive(x, x, x * lanes_from<V>::at(p->inverse_slope, c));
    }
    return p->residual ? x - memory_of<E, V>::load((const E *)p->residual + i) : x;
}
template <class E, class V>
INSTNORM_INLINE V input_of(const no_epilogue *, const E *, ptrdiff_t, ptrdiff_t, V x) {
    return x;
}

template <class P, class E, class V>
INSTNORM_INLINE void store_grad_residual(const P *p, const E *, ptrdiff_t i, V g) {
    if (!just_activates<P> && p->grad_residual) {
        memory_of<E, V>::store((E *)p->grad_residual + i, g);
    }
}
template <class E, class V>
INSTNORM_INLINE void store_grad_residual(const no_epilogue *, const E *, ptrdiff_t, V) {}

// ------------------------------------------------------- what Cython calls

// The result of the elements from `i` on, whose channels are those from `c` on.
template <class P, class E, class V>
INSTNORM_INLINE V normalized_at(
    const P *p, const E *x, ptrdiff_t i, ptrdiff_t c, const scales_in<V> &k
) {
    return ended(p, x, i, c, normalized(memory_of<E, V>::load(x + i), k));
}
template <class P, class E, class V>
INSTNORM_INLINE V gradient_at(
    const P *p, const E *grad_output, const E *x, ptrdiff_t i, ptrdiff_t c,
    const grad_scales_in<V> &k
) {
    V at = memory_of<E, V>::load(x + i);
    V g = passed(p, x, i, c, memory_of<E, V>::load(grad_output + i), at);
    store_grad_residual(p, x, i, g);
    return kept(p, i, gradient(g, input_of(p, x, i, c, at), k));
}

// As normalized_at, of n elements, fewer than a line; no other memory is touched.
template <class E> struct part {
    E x[line_lanes<E>] = {}, grad_output[line_lanes<E>] = {}, residual[line_lanes<E>] = {};
    E grad_residual[line_lanes<E>] = {};
    unsigned char mask[line_lanes<E>] = {};
};
template <class E> INSTNORM_INLINE no_epilogue staged(const no_epilogue *, part<E> *, ptrdiff_t) {
    return {};
}
template <class P, class E> INSTNORM_INLINE P staged(const P *p, part<E> *step, ptrdiff_t n) {
    P out = *p;
    if (p->residual) {
        memcpy(step->residual, p->residual, n * sizeof(E));
        out.residual = step->residual;
    }
    if (p->mask) {
        memcpy(step->mask, p->mask, n);
        out.mask = step->mask;
    }
    if (p->grad_residual) { out.grad_residual = step->grad_residual; }
    return out;
}
template <class E> INSTNORM_INLINE void deliver(const no_epilogue *, part<E> *, ptrdiff_t) {}
template <class P, class E> INSTNORM_INLINE void deliver(const P *p, part<E> *step, ptrdiff_t n) {
    if (p->grad_residual) { memcpy(p->grad_residual, step->grad_residual, n * sizeof(E)); }
}
template <class P, class E, class V>
INSTNORM_INLINE void normalize_part(
    const P *p, const E *x, E *y, ptrdiff_t n, ptrdiff_t c, const scales_in<V> &k
) {
    part<E> step;
    memcpy(step.x, x, n * sizeof(E));
    P q = staged(p, &step, n);
    memory_of<E, V>::store(step.x, normalized_at(&q, (const E *)step.x, 0, c, k));
    memcpy(y, step.x, n * sizeof(E));
}
template <class P, class E, class V>
INSTNORM_INLINE void differentiate_part(
    const P *p, const E *grad_output, const E *x, E *grad_input, ptrdiff_t n, ptrdiff_t c,
    const grad_scales_in<V> &k
) {
    part<E> step;
    memcpy(step.x, x, n * sizeof(E));
    memcpy(step.grad_output, grad_output, n * sizeof(E));
    P q = staged(p, &step, n);
    V out = gradient_at(&q, (const E *)step.grad_output, (const E *)step.x, 0, c, k);
    memory_of<E, V>::store(step.x, out);
    memcpy(grad_input, step.x, n * sizeof(E));
    deliver(p, &step, n);
}

// The factors whose product is summed: grad_output before the activation, and (x - centre).
template <class P, class E, class V>
INSTNORM_INLINE void factors_at(
    const P *p, const E *grad_output, const E *x, ptrdiff_t i, ptrdiff_t c, V centre, V *g, V *d
) {
    V at = memory_of<E, V>::load(x + i);
    *g = passed(p, x, i, c, memory_of<E, V>::load(grad_output + i), at);
    *d = kept(p, i, input_of(p, x, i, c, at) - centre);
}
// The same of a row of n elements, fewer than eight.
template <class P, class E, class V>
INSTNORM_INLINE void factors_of_part(
    const P *p, const E *grad_output, const E *x, ptrdiff_t n, V centre, V *g, V *d
) {
    part<E> step;
    memcpy(step.x, x, n * sizeof(E));
    memcpy(step.grad_output, grad_output, n * sizeof(E));
    P q = staged(p, &step, n);
    factors_at(&q, (const E *)step.grad_output, (const E *)step.x, 0, 0, centre, g, d);
}
// The same of a pixel's elements, eight or one, in double.
template <int N, class P, class E>
INSTNORM_INLINE void wide_factors(
    const P *p, const E *grad_output, const E *x, ptrdiff_t i, ptrdiff_t c, vec<double, N> centre,
    vec<double, N> *g, vec<double, N> *d
) {
    auto at = elements<E, N>::load(x + i);
    *g = widened<N>(passed(p, x, i, c, elements<E, N>::load(grad_output + i), at));
    *d = kept(p, i, widened<N>(input_of(p, x, i, c, at)) - centre);
}
template <int N, class E>
INSTNORM_INLINE void wide_factors(
    const no_epilogue *, const E *grad_output, const E *x, ptrdiff_t i, ptrdiff_t,
    vec<double, N> centre, vec<double, N> *g, vec<double, N> *d
) {
    *g = load_wide<N>(grad_output + i);
    *d = load_wide<N>(x + i) - centre;
}
template <class P, class E>
INSTNORM_INLINE void factors_at(
    const P *p, const E *grad_output, const E *x, ptrdiff_t i, ptrdiff_t c, doubles centre,
    doubles *g, doubles *d
) {
    wide_factors<8>(p, grad_output, x, i, c, centre, g, d);
}
template <class P, class E>
INSTNORM_INLINE void factors_at(
    const P *p, const E *grad_output, const E *x, ptrdiff_t i, ptrdiff_t c, double centre,
    double *g, double *d
) {
    vec<double, 1> wide_g, wide_d;
    wide_factors<1>(p, grad_output, x, i, c, vec<double, 1>{centre}, &wide_g, &wide_d);
    *g = wide_g.v;
    *d = wide_d.v;
}
// What eight elements, or one, add to the gradient of the slope, in double.
template <int N, class P, class E>
INSTNORM_INLINE vec<double, N> wide_slope(
    const P *p, const E *grad_output, const E *x, ptrdiff_t i, ptrdiff_t c
) {
    auto g = elements<E, N>::load(grad_output + i), at = elements<E, N>::load(x + i);
    return widened<N>(slope_term(p, x, i, c, g, at));
}
template <class P, class E>
INSTNORM_INLINE doubles slopes_at(
    const P *p, const E *grad_output, const E *x, ptrdiff_t i, ptrdiff_t c
) {
    return wide_slope<8>(p, grad_output, x, i, c);
}
template <class P, class E>
INSTNORM_INLINE double slope_at(
    const P *p, const E *grad_output, const E *x, ptrdiff_t i, ptrdiff_t c
) {
    return wide_slope<1>(p, grad_output, x, i, c).v;
}

// Differences from a number, 0 where elements do not count.
template <class P, class E, class V>
INSTNORM_INLINE V difference_at(const P *p, const E *x, ptrdiff_t i, V centre) {
    return kept(p, i, memory_of<E, V>::load(x + i) - centre);
}
template <class P, class E>
INSTNORM_INLINE doubles difference_at(const P *p, const E *x, ptrdiff_t i, doubles centre) {
    return kept(p, i, load_as_doubles(x + i) - centre);
}

// ------------------------------------------------------------------ one by one

INSTNORM_INLINE bool keeps(const no_epilogue *, ptrdiff_t) { return true; }
template <class P> INSTNORM_INLINE bool keeps(const P *p, ptrdiff_t i) {
    return !p->mask || p->mask[i];
}
// In double, where float32 does not hold the coefficients. The element is the one at `i`, and
// the `place`th that the mask is for.
template <class E>
INSTNORM_INLINE double preactivation_one(const row_epilogue *p, const E *x, ptrdiff_t i) {
    double value = widened(x[i]);
    if (p->from_output) { return value; }
    value = (value - p->centre.exact) * p->scale.exact + p->shift.exact;
    return p->residual ? value + widened(((const E *)p->residual)[i]) : value;
}
template <class E>
INSTNORM_INLINE double ended_one(
    const row_epilogue *p, const E *, ptrdiff_t i, ptrdiff_t place, double v
) {
    if (p->residual) { v += widened(((const E *)p->residual)[i]); }
    if (p->activation == RELU) { v = v <= 0 ? 0 : v; }
    if (p->activation == LEAKY_RELU) { v = v > 0 ? v : v * p->slope.exact; }
    return keeps(p, place) ? v : 0;
}
template <class E>
INSTNORM_INLINE double ended_one(const no_epilogue *, const E *, ptrdiff_t, ptrdiff_t, double v) {
    return v;
}
// As factors_at, and what the element adds to the gradient of the slope.
template <class E>
INSTNORM_INLINE void terms_one(
    const row_epilogue *p, const E *grad_output, const E *x, ptrdiff_t i, ptrdiff_t place,
    double centre, double *g, double *d, double *slope
) {
    double v = preactivation_one(p, x, i), value = widened(x[i]);
    *g = widened(grad_output[i]);
    *slope = keeps(p, place) && !(v > 0) ? *g * v : 0;
    if (p->activation == RELU) { *g = v <= 0 ? 0 : *g; }
    if (p->activation == LEAKY_RELU) { *g = v > 0 ? *g : *g * p->slope.exact; }
    if (p->from_output) {
        if (p->activation != NO_ACTIVATION && !(value > 0)) { value *= p->inverse_slope.exact; }
        if (p->residual) { value -= widened(((const E *)p->residual)[i]); }
    }
    *d = value - centre;
    if (!keeps(p, place)) { *g = *d = 0; }
}
template <class E>
INSTNORM_INLINE void terms_one(
    const no_epilogue *, const E *grad_output, const E *x, ptrdiff_t i, ptrdiff_t, double centre,
    double *g, double *d, double *slope
) {
    *g = widened(grad_output[i]);
    *d = widened(x[i]) - centre;
    *slope = 0;
}
template <class E>
INSTNORM_INLINE void store_grad_residual_one(const row_epilogue *p, const E *, ptrdiff_t i, double g) {
    if (p->grad_residual) { round_to((E *)p->grad_residual + i, (compute<E>)g); }
}
template <class E>
INSTNORM_INLINE void store_grad_residual_one(const no_epilogue *, const E *, ptrdiff_t, double) {}

// How many of n bytes are not 0.
INSTNORM_INLINE ptrdiff_t count_nonzero(const unsigned char *bytes, ptrdiff_t n) {
    ptrdiff_t count = 0;
    for (ptrdiff_t start = 0; start < n; start += 128) {
        unsigned char some = 0;  // as narrow as the bytes, for registers to hold many
        for (ptrdiff_t i = start; i < (start + 128 < n ? start + 128 : n); i++) {
            some += bytes[i] != 0;
        }
        count += some;
    }
    return count;
}
// Whether what lies behind a row's elements in memory will be read next.
INSTNORM_INLINE bool goes_on(const no_epilogue *) { return true; }
INSTNORM_INLINE bool goes_on(const row_epilogue *p) { return !p->cut_off; }
// How many of n elements count, and which is the first; n where none does.
INSTNORM_INLINE ptrdiff_t counted(const no_epilogue *, ptrdiff_t n) { return n; }
INSTNORM_INLINE ptrdiff_t counted(const row_epilogue *p, ptrdiff_t n) {
    return p->mask ? count_nonzero(p->mask, n) : n;
}
INSTNORM_INLINE ptrdiff_t first_counted(const no_epilogue *, ptrdiff_t) { return 0; }
INSTNORM_INLINE ptrdiff_t first_counted(const row_epilogue *p, ptrdiff_t n) {
    ptrdiff_t i = 0;
    while (i < n && !keeps(p, i)) { i++; }
    return i;
}

// A byte for each element of some pixels, of one for each pixel. There is room for 8 more.
INSTNORM_INLINE void spread_mask(
    const unsigned char *mask, ptrdiff_t pixels, ptrdiff_t channels, unsigned char *out
) {
    for (ptrdiff_t p = 0; p < pixels; p++) {
        if (channels <= 8) {
            uint64_t some = mask[p] * (uint64_t)0x0101010101010101;
            memcpy(out + p * channels, &some, sizeof some);
        } else {
            memset(out + p * channels, mask[p], channels);
        }
    }
}

// The epilogue of the elements from the nth on. Of a strided channel, n is its first element.
INSTNORM_INLINE no_epilogue advanced(const no_epilogue *, ptrdiff_t, ptrdiff_t) { return {}; }
template <class P> INSTNORM_INLINE P advanced(const P *p, ptrdiff_t n, ptrdiff_t itemsize) {
    P out = *p;
    if (just_activates<P>) { return out; }
    if (p->residual) { out.residual = (const char *)p->residual + n * itemsize; }
    if (p->grad_residual) { out.grad_residual = (char *)p->grad_residual + n * itemsize; }
    if (p->mask) { out.mask = p->mask + n; }
    return out;
}

// ------------------------------------------------- coefficients from numbers

template <class E>
INSTNORM_INLINE bundle_scales<E> splat_scales(
    const E *like, double centre, double scale, double scale_rest, double shift
) {
    return {
        splat_bundle(like, centre), splat_bundle(like, scale), splat_bundle(like, scale_rest),
        splat_bundle(like, shift)};
}
template <class E>
INSTNORM_INLINE octet_scales<E> octet_splat_scales(
    const E *like, double centre, double scale, double scale_rest, double shift
) {
    return {
        splat_octet(like, centre), splat_octet(like, scale), splat_octet(like, scale_rest),
        splat_octet(like, shift)};
}
template <class E>
INSTNORM_INLINE bundle_grad_scales<E> splat_grad_scales(
    const E *like, double grad_mean, double grad_scale, double centre, double x_scale,
    double shift, bool through_statistics
) {
    return {
        splat_bundle(like, grad_mean), splat_bundle(like, grad_scale), splat_bundle(like, centre),
        splat_bundle(like, x_scale), splat_bundle(like, shift), through_statistics};
}

// Of 24 significant bits, the largest number that is not above the value.
INSTNORM_INLINE doubles rounded_down(doubles value) {
    doubles near = toward_zero(value);
    return where_positive(near - value, toward_zero(near * (1 + 0x1p-23)), near);
}
// The sign of (x - mean) * scale + bias is that of sign * x - threshold, with a sign of 1, -1, or 0
// where scale is 0. Each x is on the side of the threshold where it is in exact arithmetic.
template <class E>
INSTNORM_INLINE doubles sign_of_scale(const E *, doubles scale) {
    doubles one = splat_doubles(1), zero = splat_doubles(0);
    return where_positive(scale, one, where_positive(zero - scale, zero - one, zero));
}
template <class E>
INSTNORM_INLINE doubles sign_shift(
    const E *, doubles mean, doubles scale, doubles bias, doubles sign
) {
    doubles one = splat_doubles(1), zero = splat_doubles(0);
    doubles threshold = (mean - bias / scale) * sign;
    if (sizeof(compute<E>) == sizeof(float)) { threshold = rounded_down(threshold); }
    return where_positive(sign * sign, zero - threshold, where_positive(bias, one, zero - one));
}

// Of the last pass, in the type that it computes in. The arrays are as long as the pixel, or the
// group of rows, that they are for.
struct coefficients {
    void *centre;
    void *scale;            // forward
    void *scale_rest;
    void *shift;
    void *grad_mean;        // backward
    void *grad_scale;
    void *x_scale;
    void *grad_shift;
    void *slope;            // of the activation
    void *inverse_slope;
    void *sign_scale;
    void *sign_shift;
    bool through_statistics;
};
enum { COEFFICIENTS = 12 };  // arrays of them
// In memory that has room for all arrays, each of so many bytes.
INSTNORM_INLINE coefficients coefficients_in(void *memory, ptrdiff_t nbytes) {
    char *at = (char *)memory;
    return {at, at + nbytes, at + 2 * nbytes, at + 3 * nbytes, at + 4 * nbytes, at + 5 * nbytes,
            at + 6 * nbytes, at + 7 * nbytes, at + 8 * nbytes, at + 9 * nbytes,
            at + 10 * nbytes, at + 11 * nbytes, true};
}
template <class E>
INSTNORM_INLINE void take_affine_map(const E *, row_epilogue *out, const coefficients *k, int row) {
    auto take = [row](const void *numbers) {
        auto value = ((const compute<E> *)numbers)[row];
        return number{(float)value, value};
    };
    out->centre = take(k->centre);
    out->scale = take(k->scale);
    out->scale_rest = take(k->scale_rest);
    out->shift = take(k->shift);
    out->sign_scale = take(k->sign_scale);
    out->sign_shift = take(k->sign_shift);
}
// The numbers of one row of a group, in all places.
template <class E>
INSTNORM_INLINE octet_scales<E> octet_scales_of(const E *like, const coefficients *k, int row) {
    return {
        splat_number(like, k->centre, row), splat_number(like, k->scale, row),
        splat_number(like, k->scale_rest, row), splat_number(like, k->shift, row)};
}
template <class E>
INSTNORM_INLINE octet_grad_scales<E> octet_grad_scales_of(
    const E *like, const coefficients *k, int row
) {
    return {
        splat_number(like, k->grad_mean, row), splat_number(like, k->grad_scale, row),
        splat_number(like, k->centre, row), splat_number(like, k->x_scale, row),
        splat_number(like, k->grad_shift, row), k->through_statistics};
}
// The numbers of a pixel's channels from `c` on.
template <class E>
INSTNORM_INLINE line_scales<E> line_scales_of(const E *, const coefficients *k, ptrdiff_t c) {
    using lanes = lanes_from<line<E>>;
    return {
        lanes::at(k->centre, c), lanes::at(k->scale, c), lanes::at(k->scale_rest, c),
        lanes::at(k->shift, c)};
}
template <class E>
INSTNORM_INLINE line_grad_scales<E> line_grad_scales_of(
    const E *, const coefficients *k, ptrdiff_t c
) {
    using lanes = lanes_from<line<E>>;
    return {
        lanes::at(k->grad_mean, c), lanes::at(k->grad_scale, c), lanes::at(k->centre, c),
        lanes::at(k->x_scale, c), lanes::at(k->grad_shift, c), k->through_statistics};
}

}  // namespace instnorm
