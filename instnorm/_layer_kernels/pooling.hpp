// Pooling, and resizing and padding, which take elements from other places of an image.
//
// Images are planes of (N, C): spatial axes that lie densely, `step` elements apart, so that one
// number says where in a plane an element is, whether channels come first or last in memory.
#pragma once

#include <limits>

#include "convolution.hpp"

namespace instnorm {

template <class T> struct Planes {
    T *data;
    ptrdiff_t sample, channel, step;

    T *plane(ptrdiff_t n, ptrdiff_t c) const { return data + n * sample + c * channel; }
};

struct Pooling {
    Axis axis[AXES];
    ptrdiff_t samples, channels;

    ptrdiff_t large() const { return axis[0].large * axis[1].large * axis[2].large; }
    ptrdiff_t small() const { return axis[0].small * axis[1].small * axis[2].small; }
};

// ------------------------------------------------------------------ largest

// The first place of a window that lies in the image.
INSTNORM_INLINE ptrdiff_t first_inside(const Axis &a, ptrdiff_t place) {
    ptrdiff_t at = place * a.stride - a.padding;
    return at >= 0 ? at : at + ceil_div(-at, a.dilation) * a.dilation;
}

// One element of each window of a row, at `from + i * stride`, against the largest so far.
template <class T, bool WINNERS, int STRIDE>
INSTNORM_INLINE void take_larger(
    T *__restrict best, int *__restrict winner, ptrdiff_t step, const T *__restrict from,
    ptrdiff_t any_stride, ptrdiff_t in_step, int number, int number_step, ptrdiff_t count
) {
    const ptrdiff_t stride = STRIDE ? STRIDE : any_stride * in_step;
    const ptrdiff_t to = STRIDE ? 1 : step;
    for (ptrdiff_t i = 0; i < count; i++) {
        const T value = from[i * stride], before = best[i * to];
        const bool wins = (value > before) | (value != value);
        best[i * to] = wins ? value : before;
        if (WINNERS) {
            winner[i * to] = wins ? number + (int)i * number_step : winner[i * to];
        }
    }
}

template <class T, bool WINNERS>
void largest_of_plane(const Pooling &p, const T *x, ptrdiff_t x_step, T *y, int *winner, ptrdiff_t step) {
    const Axis &a0 = p.axis[0], &a1 = p.axis[1], &a2 = p.axis[2];
    const ptrdiff_t row = a2.small;
    for (ptrdiff_t o0 = 0; o0 < a0.small; o0++) {
        for (ptrdiff_t o1 = 0; o1 < a1.small; o1++, y += row * step) {
            const ptrdiff_t f0 = first_inside(a0, o0), f1 = first_inside(a1, o1);
            for (ptrdiff_t o2 = 0; o2 < row; o2++) {
                y[o2 * step] = -std::numeric_limits<T>::infinity();
                if (WINNERS) {
                    winner[o2 * step] =
                        (int)((f0 * a1.large + f1) * a2.large + first_inside(a2, o2));
                }
            }
            const ptrdiff_t end0 =
                std::min(a0.large, o0 * a0.stride - a0.padding + a0.kernel * a0.dilation);
            const ptrdiff_t end1 =
                std::min(a1.large, o1 * a1.stride - a1.padding + a1.kernel * a1.dilation);
            for (ptrdiff_t i0 = f0; i0 < end0; i0 += a0.dilation) {
                for (ptrdiff_t i1 = f1; i1 < end1; i1 += a1.dilation) {
                    const ptrdiff_t base = (i0 * a1.large + i1) * a2.large;
                    for (ptrdiff_t k = 0; k < a2.kernel; k++) {
                        const ptrdiff_t off = k * a2.dilation - a2.padding;
                        const ptrdiff_t low = std::max<ptrdiff_t>(0, ceil_div(-off, a2.stride));
                        const ptrdiff_t high =
                            std::min(row, floor_div(a2.large - 1 - off, a2.stride) + 1);
                        const ptrdiff_t at = base + low * a2.stride + off;
                        auto take = take_larger<T, WINNERS, 0>;
                        if (step == 1 && x_step == 1 && a2.stride == 2) {
                            take = take_larger<T, WINNERS, 2>;
                        }
                        take(
                            y + low * step, winner + low * step, step, x + at * x_step, a2.stride,
                            x_step, (int)at, (int)a2.stride, high - low);
                    }
                }
            }
            if (WINNERS) { winner += row * step; }
        }
    }
}

// The same where all windows lie inside of the image and its elements side by side, as they do
// where a pool halves it: window by window, which suits short rows.
template <class T, bool WINNERS, int WIDTH>
void largest_of_plain_plane(const Pooling &p, const T *x, T *y, int *winner) {
    const Axis &a0 = p.axis[0], &a1 = p.axis[1], &a2 = p.axis[2];
    for (ptrdiff_t o0 = 0; o0 < a0.small; o0++) {
        for (ptrdiff_t o1 = 0; o1 < a1.small; o1++) {
            const ptrdiff_t corner =
                (o0 * a0.stride * a1.large + o1 * a1.stride) * a2.large;
            for (ptrdiff_t o2 = 0; o2 < a2.small; o2++) {
                ptrdiff_t at = corner + o2 * a2.stride, best_at = at;
                T best = x[at];
                for (ptrdiff_t k0 = 0; k0 < a0.kernel; k0++, at += a1.large * a2.large) {
                    for (ptrdiff_t k1 = 0; k1 < a1.kernel; k1++) {
                        const ptrdiff_t row = at + k1 * a2.large;
                        for (int k2 = 0; k2 < WIDTH; k2++) {
                            const T value = x[row + k2];
                            const bool wins = (value > best) | (value != value);
                            best = wins ? value : best;
                            best_at = wins ? row + k2 : best_at;
                        }
                    }
                }
                *y++ = best;
                if (WINNERS) { *winner++ = (int)best_at; }
            }
        }
    }
}

inline bool lies_inside(const Axis &a) {
    return a.padding == 0 && a.dilation == 1 && (a.small - 1) * a.stride + a.kernel <= a.large;
}

// winners: as y, or no data.
template <class T>
void largest(const Pooling &p, Planes<T> x, Planes<T> y, Planes<int> winners, ptrdiff_t plane) {
    const ptrdiff_t n = plane / p.channels, c = plane % p.channels;
    const bool plain = x.step == 1 && y.step == 1 && p.axis[2].kernel == 2
                    && lies_inside(p.axis[0]) && lies_inside(p.axis[1]) && lies_inside(p.axis[2]);
    if (plain && winners.data) {
        largest_of_plain_plane<T, true, 2>(
            p, x.plane(n, c), y.plane(n, c), winners.plane(n, c));
    } else if (plain) {
        largest_of_plain_plane<T, false, 2>(p, x.plane(n, c), y.plane(n, c), nullptr);
    } else if (winners.data) {
        largest_of_plane<T, true>(
            p, x.plane(n, c), x.step, y.plane(n, c), winners.plane(n, c), y.step);
    } else {
        largest_of_plane<T, false>(p, x.plane(n, c), x.step, y.plane(n, c), nullptr, y.step);
    }
}

// The elements of x that won.
template <class T>
void pick(const Pooling &p, Planes<T> x, Planes<int> winners, Planes<T> y, ptrdiff_t plane) {
    const ptrdiff_t n = plane / p.channels, c = plane % p.channels, size = p.small();
    const T *from = x.plane(n, c);
    const int *winner = winners.plane(n, c);
    T *to = y.plane(n, c);
    for (ptrdiff_t i = 0; i < size; i++) {
        to[i * y.step] = from[winner[i * winners.step] * x.step];
    }
}

template <class T> INSTNORM_INLINE void clear_plane(T *x, ptrdiff_t step, ptrdiff_t size) {
    for (ptrdiff_t i = 0; i < size; i++) { x[i * step] = 0; }
}

// The adjoint of `pick`.
template <class T>
void put(const Pooling &p, Planes<T> y, Planes<int> winners, Planes<T> x, ptrdiff_t plane) {
    const ptrdiff_t n = plane / p.channels, c = plane % p.channels, size = p.small();
    T *to = x.plane(n, c);
    const int *winner = winners.plane(n, c);
    const T *from = y.plane(n, c);
    clear_plane(to, x.step, p.large());
    for (ptrdiff_t i = 0; i < size; i++) {
        to[winner[i * winners.step] * x.step] += from[i * y.step];
    }
}

// ------------------------------------------------------------------ mean

// The window of each place along one axis: elements from `low` to `high`, divided by `count`.
struct Range {
    ptrdiff_t low, high, count;
};

template <class T> T sum_of_run(const T *x, ptrdiff_t step, ptrdiff_t n) {
    T sum = 0;
    ptrdiff_t i = 0;
    if (step == 1 && n >= LANES<T>) {
        lanes<T> sums = load_lanes(x);
        for (i = LANES<T>; i + LANES<T> <= n; i += LANES<T>) { sums = sums + load_lanes(x + i); }
        sum = folded<1, lanes<T>>::sum(sums).v;
    }
    for (; i < n; i++) { sum += x[i * step]; }
    return sum;
}

// ranges: those of the first axis, of the second, and of the third.
template <class T>
void mean(const Pooling &p, const Range *ranges, Planes<T> x, Planes<T> y, ptrdiff_t plane) {
    const ptrdiff_t n = plane / p.channels, c = plane % p.channels;
    const T *from = x.plane(n, c);
    T *to = y.plane(n, c);
    const Range *first = ranges, *second = first + p.axis[0].small;
    const Range *third = second + p.axis[1].small;
    for (const Range *a = first; a < second; a++) {
        for (const Range *b = second; b < third; b++) {
            for (const Range *d = third; d < third + p.axis[2].small; d++, to += y.step) {
                T sum = 0;
                for (ptrdiff_t i = a->low; i < a->high; i++) {
                    for (ptrdiff_t j = b->low; j < b->high; j++) {
                        const ptrdiff_t at = (i * p.axis[1].large + j) * p.axis[2].large + d->low;
                        sum += sum_of_run(from + at * x.step, x.step, d->high - d->low);
                    }
                }
                *to = sum / (T)(a->count * b->count * d->count);
            }
        }
    }
}

// The adjoint of `mean`.
template <class T>
void spread(const Pooling &p, const Range *ranges, Planes<T> y, Planes<T> x, ptrdiff_t plane) {
    const ptrdiff_t n = plane / p.channels, c = plane % p.channels;
    T *to = x.plane(n, c);
    const T *from = y.plane(n, c);
    const Range *first = ranges, *second = first + p.axis[0].small;
    const Range *third = second + p.axis[1].small;
    clear_plane(to, x.step, p.large());
    for (const Range *a = first; a < second; a++) {
        for (const Range *b = second; b < third; b++) {
            for (const Range *d = third; d < third + p.axis[2].small; d++, from += y.step) {
                const T share = *from / (T)(a->count * b->count * d->count);
                for (ptrdiff_t i = a->low; i < a->high; i++) {
                    for (ptrdiff_t j = b->low; j < b->high; j++) {
                        T *row = to + (i * p.axis[1].large + j) * p.axis[2].large * x.step;
                        for (ptrdiff_t k = d->low; k < d->high; k++) { row[k * x.step] += share; }
                    }
                }
            }
        }
    }
}

// ------------------------------------------------------------------ other places

// The longest run of a row's places that follow each other: from `first` to `end`.
struct Following {
    ptrdiff_t first = 0, end = 0;

    Following(const int *places, ptrdiff_t n) {
        for (ptrdiff_t i = 0, start = 0; i <= n; i++) {
            if (i == n || (i > start && places[i] != places[i - 1] + 1)) {
                if (places[start] >= 0 && i - start > end - first) {
                    first = start;
                    end = i;
                }
                start = i;
            }
        }
    }
};

template <class T>
INSTNORM_INLINE void take_some(
    const int *places, const T *line, ptrdiff_t line_step, T *to, ptrdiff_t step, ptrdiff_t first,
    ptrdiff_t end
) {
    for (ptrdiff_t k = first; k < end; k++) {
        to[k * step] = places[k] < 0 ? 0 : line[places[k] * line_step];
    }
}

// places: for each axis, which element of x (large) an element of y (small) is; -1 is 0. Both
// may be the longer one.
template <class T>
void take(const Pooling &p, const int *places, Planes<T> x, Planes<T> y, ptrdiff_t plane) {
    const ptrdiff_t n = plane / p.channels, c = plane % p.channels, row = p.axis[2].small;
    const int *second = places + p.axis[0].small, *third = second + p.axis[1].small;
    const T *from = x.plane(n, c);
    T *to = y.plane(n, c);
    const bool side_by_side = x.step == 1 && y.step == 1;
    const Following run(third, side_by_side ? row : 0);
    for (ptrdiff_t i = 0; i < p.axis[0].small; i++) {
        for (ptrdiff_t j = 0; j < p.axis[1].small; j++, to += row * y.step) {
            if (places[i] < 0 || second[j] < 0) {
                clear_plane(to, y.step, row);
                continue;
            }
            if (side_by_side && j > 0 && second[j] == second[j - 1]) {
                copy_run(to, to - row, row);
                continue;
            }
            const T *line = from + (places[i] * p.axis[1].large + second[j]) * p.axis[2].large
                                 * x.step;
            take_some(third, line, x.step, to, y.step, 0, run.first);
            if (run.end > run.first) {
                copy_run(to + run.first, line + third[run.first], run.end - run.first);
            }
            take_some(third, line, x.step, to, y.step, run.end, row);
        }
    }
}

// What one element of x is for several elements side by side is added up first.
template <class T>
INSTNORM_INLINE void give_some(
    const int *places, const T *from, ptrdiff_t step, T *line, ptrdiff_t line_step,
    ptrdiff_t first, ptrdiff_t end
) {
    for (ptrdiff_t k = first; k < end;) {
        const int place = places[k];
        T sum = from[k * step];
        for (k++; k < end && places[k] == place; k++) { sum += from[k * step]; }
        if (place >= 0) { line[place * line_step] += sum; }
    }
}

// The adjoint of `take`.
template <class T>
void give_back(const Pooling &p, const int *places, Planes<T> y, Planes<T> x, ptrdiff_t plane) {
    const ptrdiff_t n = plane / p.channels, c = plane % p.channels, row = p.axis[2].small;
    const int *second = places + p.axis[0].small, *third = second + p.axis[1].small;
    T *to = x.plane(n, c);
    const T *from = y.plane(n, c);
    const Following run(third, x.step == 1 && y.step == 1 ? row : 0);
    clear_plane(to, x.step, p.large());
    for (ptrdiff_t i = 0; i < p.axis[0].small; i++) {
        for (ptrdiff_t j = 0; j < p.axis[1].small; j++, from += row * y.step) {
            if (places[i] < 0 || second[j] < 0) { continue; }
            T *line = to + (places[i] * p.axis[1].large + second[j]) * p.axis[2].large * x.step;
            give_some(third, from, y.step, line, x.step, 0, run.first);
            T *__restrict inside = line + (run.end > run.first ? third[run.first] : 0);
            const T *__restrict same = from + run.first;
            for (ptrdiff_t k = 0; k < run.end - run.first; k++) { inside[k] += same[k]; }
            give_some(third, from, y.step, line, x.step, run.end, row);
        }
    }
}

}  // namespace instnorm
