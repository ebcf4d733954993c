// What is done to each element: activations and their gradients, sums, optimizer steps, losses.
//
// All arrays of a call lie alike in memory, without gaps, and are walked as one line.
#pragma once

#include <cmath>
#include <cstddef>

namespace instnorm {

// x above 0 and slope * x below; slope 0 gives 0 for -inf, and NaN stays NaN.
template <class T> void rectify(const T *__restrict x, T *__restrict y, T slope, ptrdiff_t n) {
    if (slope == 0) {
        for (ptrdiff_t i = 0; i < n; i++) { y[i] = x[i] <= 0 ? 0 : x[i]; }
    } else {
        for (ptrdiff_t i = 0; i < n; i++) { y[i] = x[i] > 0 ? x[i] : x[i] * slope; }
    }
}

// g where x is above 0, slope * g elsewhere.
template <class T>
void rectify_gradient(
    const T *__restrict g, const T *__restrict x, T *__restrict out, T slope, ptrdiff_t n
) {
    if (slope == 0) {
        for (ptrdiff_t i = 0; i < n; i++) { out[i] = x[i] > 0 ? g[i] : 0; }
    } else {
        for (ptrdiff_t i = 0; i < n; i++) { out[i] = g[i] * (x[i] > 0 ? 1 : slope); }
    }
}

template <class T>
void tanh_gradient(const T *__restrict g, const T *__restrict y, T *__restrict out, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) { out[i] = g[i] * (1 - y[i] * y[i]); }
}

template <class T>
void sigmoid_gradient(const T *__restrict g, const T *__restrict y, T *__restrict out, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) { out[i] = g[i] * (y[i] * (1 - y[i])); }
}

template <class T> void add(const T *a, const T *b, T *out, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) { out[i] = a[i] + b[i]; }
}

// The sum of |a - b| or (a - b)^2, in lanes.
template <class T> double sum_of_errors(const T *a, const T *b, bool squared, ptrdiff_t n) {
    constexpr int L = 16;
    double total = 0;
    ptrdiff_t i = 0;
    while (i + L <= n) {
        T sum[L] = {};
        const ptrdiff_t end = i + 256 * L <= n ? i + 256 * L : n - (n - i) % L;
        for (; i < end; i += L) {
            for (int j = 0; j < L; j++) {
                const T d = a[i + j] - b[i + j];
                sum[j] += squared ? d * d : std::fabs(d);
            }
        }
        for (int j = 0; j < L; j++) { total += sum[j]; }
    }
    for (; i < n; i++) {
        const T d = a[i] - b[i];
        total += squared ? d * d : std::fabs(d);
    }
    return total;
}

// Its gradient, times scale.
template <class T>
void error_gradient(const T *a, const T *b, T *out, T scale, bool squared, ptrdiff_t n) {
    if (squared) {
        for (ptrdiff_t i = 0; i < n; i++) { out[i] = (a[i] - b[i]) * (2 * scale); }
    } else {
        for (ptrdiff_t i = 0; i < n; i++) {
            const T d = a[i] - b[i];
            out[i] = d > 0 ? scale : d < 0 ? -scale : d * 0;
        }
    }
}

// For each row of scores whose label is not `ignored`: minus the log of the softmax at the label,
// added up; the softmax into p, and 0 into the other rows of p.
template <class T>
double cross_entropy(
    const T *scores, const long long *labels, long long ignored, T *p, ptrdiff_t rows,
    ptrdiff_t classes
) {
    double total = 0;
    for (ptrdiff_t r = 0; r < rows; r++, scores += classes, p += classes) {
        if (labels[r] == ignored) {
            for (ptrdiff_t c = 0; c < classes; c++) { p[c] = 0; }
            continue;
        }
        T most = scores[0], sum = 0;
        for (ptrdiff_t c = 1; c < classes; c++) {
            most = scores[c] > most || scores[c] != scores[c] ? scores[c] : most;
        }
        for (ptrdiff_t c = 0; c < classes; c++) { sum += p[c] = std::exp(scores[c] - most); }
        total += std::log(sum) - (scores[labels[r]] - most);
        for (ptrdiff_t c = 0; c < classes; c++) { p[c] /= sum; }
    }
    return total;
}

// The gradient for the scores, times scale.
template <class T>
void cross_entropy_gradient(
    const T *p, const long long *labels, long long ignored, T scale, T *out, ptrdiff_t rows,
    ptrdiff_t classes
) {
    for (ptrdiff_t i = 0; i < rows * classes; i++) { out[i] = p[i] * scale; }
    for (ptrdiff_t r = 0; r < rows; r++) {
        if (labels[r] != ignored) { out[r * classes + labels[r]] -= scale; }
    }
}

// Options of a step of stochastic gradient descent.
struct Descent {
    double lr, momentum, dampening, weight_decay;
    bool nesterov, maximize;
};

// One parameter's step; `first`: the buffer has no value yet. buffer is NULL without momentum.
template <class T>
void descend(
    T *__restrict parameter, const T *__restrict gradient, T *__restrict buffer, bool first,
    const Descent &o, ptrdiff_t n
) {
    const T lr = (T)o.lr, momentum = (T)o.momentum, undamped = (T)(1 - o.dampening);
    const T decay = (T)o.weight_decay, sign = o.maximize ? -1 : 1;
    if (!buffer) {
        for (ptrdiff_t i = 0; i < n; i++) {
            parameter[i] -= lr * (sign * gradient[i] + decay * parameter[i]);
        }
        return;
    }
    const T kept = first ? 0 : momentum, taken = first ? 1 : undamped;
    for (ptrdiff_t i = 0; i < n; i++) {
        const T g = sign * gradient[i] + decay * parameter[i];
        const T b = first ? g : kept * buffer[i] + taken * g;
        buffer[i] = b;
        parameter[i] -= lr * (o.nesterov ? g + momentum * b : b);
    }
}

}  // namespace instnorm
