// Tiles: some rows of a matrix product at some vecs of columns, in registers.
//
// A tile reads each row of the second matrix at an address of its own, `b + offset[k]`. For a
// product of matrices these are the rows of a packed panel. For a convolution they are places of
// the padded input that the window's elements see, so that no matrix of windows is ever made.
#pragma once

#include <cstdlib>
#include <cstring>

#include "../_kernels/registers.hpp"

namespace instnorm {

constexpr int lanes_of(size_t size, int n = 16) {
    return fits_register(n, size) ? n : lanes_of(size, n / 2);
}
template <class T> constexpr int LANES = lanes_of(sizeof(T));
template <class T> using lanes = vec<T, LANES<T>>;

// Rows and vecs of a tile: as many sums as leave registers for what they are made of.
constexpr int TILE_ROWS = REGISTER_BYTES == 64 ? 8 : 4;
constexpr int TILE_VECS = 3;
template <class T> constexpr int TILE_COLUMNS = TILE_VECS * LANES<T>;

template <class T, int N> INSTNORM_INLINE vec<T, N> load_vec(const T *p) {
    if constexpr (N == 1) {
        return {*p};
    } else {
        return {(typename vec<T, N>::raw)*(const typename vec<T, N>::stored *)p};
    }
}
template <class T, int N> INSTNORM_INLINE void store_vec(T *p, whole<T, N> value) {
    if constexpr (N == 1) {
        *p = value.v;
    } else {
        *(typename vec<T, N>::stored *)p = value.v;
    }
}
template <class T> INSTNORM_INLINE lanes<T> load_lanes(const T *p) {
    return load_vec<T, LANES<T>>(p);
}
template <class T> INSTNORM_INLINE lanes<T> splat_lanes(T value) {
    return splat_to<lanes<T>>::of(value);
}

// out[m][...] = start[m] + sum over k of a[k][m] * b[offset[k] + ...], M rows and V vecs of it.
template <class T, int M, int V>
INSTNORM_INLINE void tile(
    const T *a, const T *b, const ptrdiff_t *offset, ptrdiff_t depth, const T *start, T *out,
    ptrdiff_t out_row
) {
    lanes<T> sum[M][V];
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) {
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) { sum[m][v] = splat_lanes(start[m]); }
    }
    for (ptrdiff_t k = 0; k < depth; k++) {
        const T *row = b + offset[k];
        lanes<T> column[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) { column[v] = load_lanes(row + v * LANES<T>); }
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) {
            lanes<T> factor = splat_lanes(a[k * M + m]);
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) { sum[m][v] = fma_of(factor, column[v], sum[m][v]); }
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) {
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) { store_vec(out + m * out_row + v * LANES<T>, sum[m][v]); }
    }
}

template <class T, int M>
INSTNORM_INLINE void tile_of_rows(
    int vecs, const T *a, const T *b, const ptrdiff_t *offset, ptrdiff_t depth, const T *start,
    T *out, ptrdiff_t out_row
) {
    if (vecs == 1) {
        tile<T, M, 1>(a, b, offset, depth, start, out, out_row);
    } else if (vecs == 2) {
        tile<T, M, 2>(a, b, offset, depth, start, out, out_row);
    } else {
        tile<T, M, 3>(a, b, offset, depth, start, out, out_row);
    }
}

// A tile of as many rows as a panel has, see `panel_rows`.
template <class T>
void any_tile(
    int rows, int vecs, const T *a, const T *b, const ptrdiff_t *offset, ptrdiff_t depth,
    const T *start, T *out, ptrdiff_t out_row
) {
    if (rows == 1) {
        tile_of_rows<T, 1>(vecs, a, b, offset, depth, start, out, out_row);
    } else if (rows == 2) {
        tile_of_rows<T, 2>(vecs, a, b, offset, depth, start, out, out_row);
    } else if (rows == 4) {
        tile_of_rows<T, 4>(vecs, a, b, offset, depth, start, out, out_row);
    } else {
        tile_of_rows<T, TILE_ROWS>(vecs, a, b, offset, depth, start, out, out_row);
    }
}

// Rows of the first matrix that the next panel takes, where so many are left. 3 take 4, one of
// them for nothing.
constexpr int panel_rows(ptrdiff_t left) {
    return left >= TILE_ROWS ? TILE_ROWS : left > 4 ? TILE_ROWS : left > 2 ? 4 : left > 1 ? 2 : 1;
}

// Places in rows: `count` runs of `length`, `step` apart.
struct Stretch {
    ptrdiff_t count, step, length;
};

// Sums of products of M rows with N rows, over some places; sums[n * M + m]. One of the rows
// has to be 0 behind each run, up to a whole vec.
template <class T, int M, int N>
INSTNORM_INLINE void dot_tile(
    const T *const *a, const T *b, const ptrdiff_t *offset, const Stretch &stretch, T *sums
) {
    constexpr int PART = LANES<T> < 8 ? LANES<T> : 8;
    constexpr int SUMS = (M * N + PART - 1) / PART * PART;
    lanes<T> sum[M * N];
#pragma GCC unroll 24
    for (int i = 0; i < M * N; i++) { sum[i] = splat_lanes((T)0); }
    for (ptrdiff_t run = 0; run < stretch.count; run++) {
        const ptrdiff_t start = run * stretch.step, end = start + stretch.length;
        for (ptrdiff_t p = start; p < end; p += LANES<T>) {
            lanes<T> factor[M];
#pragma GCC unroll 4
            for (int m = 0; m < M; m++) { factor[m] = load_lanes(a[m] + p); }
#pragma GCC unroll 8
            for (int n = 0; n < N; n++) {
                lanes<T> other = load_lanes(b + offset[n] + p);
#pragma GCC unroll 4
                for (int m = 0; m < M; m++) {
                    sum[n * M + m] = fma_of(factor[m], other, sum[n * M + m]);
                }
            }
        }
    }
    vec<T, PART> part[SUMS];
#pragma GCC unroll 24
    for (int i = 0; i < SUMS; i++) {
        part[i] = i < M * N ? folded<PART, lanes<T>>::sum(sum[i]) : splat_to<vec<T, PART>>::of(0);
    }
#pragma GCC unroll 24
    for (int i = 0; i < SUMS; i += PART) {
        store_vec(sums + i, transposed<T, PART>::sums(part + i));
    }
}

// Memory of a thread, which it keeps from call to call.
struct Workspace {
    void *data = nullptr;
    size_t size = 0;
    ~Workspace() { std::free(data); }

    // At least so many bytes, on a cache line; NULL where there is no memory.
    void *reserve(size_t bytes) {
        if (bytes > size) {
            std::free(data);
            size = 0;
            data = std::aligned_alloc(64, (bytes + 4095) / 4096 * 4096);
            if (data) { size = (bytes + 4095) / 4096 * 4096; }
        }
        return data;
    }
};

template <class T> INSTNORM_INLINE void copy_run(T *to, const T *from, ptrdiff_t n) {
    constexpr int L = LANES<T>;
    if (n >= L) {
        for (ptrdiff_t i = 0; i + L <= n; i += L) { store_vec(to + i, load_lanes(from + i)); }
        store_vec(to + n - L, load_lanes(from + n - L));
        return;
    }
    constexpr int H = L > 1 ? L / 2 : 1;
    if (n >= H) {
        auto last = load_vec<T, H>(from + n - H);
        store_vec(to, load_vec<T, H>(from));
        store_vec(to + n - H, last);
        return;
    }
    for (ptrdiff_t i = 0; i < n; i++) { to[i] = from[i]; }
}

}  // namespace instnorm
