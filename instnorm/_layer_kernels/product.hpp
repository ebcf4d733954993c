// Products of matrices, whose rows and columns may lie anywhere.
#pragma once

#include "convolution.hpp"

namespace instnorm {

template <class T> struct Matrix {
    T *data;
    ptrdiff_t row, column, batch;  // strides
};

// out = a b + bias, for a batch of matrices; bias has a number for each row of out, or is NULL.
template <class T> class Product final : public Work {
    const Matrix<T> a_, b_, out_;
    const T *const bias_;
    const ptrdiff_t rows_, depth_, columns_, batch_;
    const T *panels_;

    static constexpr ptrdiff_t COLUMNS = TILE_COLUMNS<T>;
    ptrdiff_t padded_rows() const { return ceil_div(rows_, TILE_ROWS) * TILE_ROWS; }
    ptrdiff_t tiles() const { return ceil_div(columns_, COLUMNS); }
    // Matrices that are the same for the whole batch are packed once.
    ptrdiff_t packed() const { return a_.batch == 0 ? 1 : batch_; }

  public:
    Product(
        Matrix<T> a, Matrix<T> b, const T *bias, Matrix<T> out, ptrdiff_t rows, ptrdiff_t depth,
        ptrdiff_t columns, ptrdiff_t batch
    )
        : a_(a), b_(b), out_(out), bias_(bias), rows_(rows), depth_(depth), columns_(columns),
          batch_(batch) {
        static thread_local Workspace memory;
        T *panel = (T *)memory.reserve(packed() * padded_rows() * (depth_ + 1) * sizeof(T));
        panels_ = panel;
        for (ptrdiff_t i = 0; panel && i < packed(); i++) { panel = pack(panel, i * a_.batch); }
    }

    ptrdiff_t units() const override { return batch_ * tiles(); }

    // One tile of columns.
    bool run(ptrdiff_t i) override {
        static thread_local Workspace workspace;
        T *panel = (T *)workspace.reserve(
            depth_ * (COLUMNS * sizeof(T) + sizeof(ptrdiff_t)) + TILE_ROWS * COLUMNS * sizeof(T));
        if (!panel || !panels_) { return false; }
        T *out = panel + depth_ * COLUMNS;
        ptrdiff_t *offset = (ptrdiff_t *)(out + TILE_ROWS * COLUMNS);
        const ptrdiff_t batch = i / tiles(), first = i % tiles() * COLUMNS;
        const ptrdiff_t width = std::min(COLUMNS, columns_ - first);
        const int vecs = (int)ceil_div(width, LANES<T>);
        const T *b = b_.data + batch * b_.batch + first * b_.column;
        if (b_.column == 1 && width == vecs * LANES<T>) {
            for (ptrdiff_t k = 0; k < depth_; k++) { offset[k] = k * b_.row; }
        } else {
            for (ptrdiff_t k = 0; k < depth_; k++) {
                offset[k] = k * COLUMNS;
                for (ptrdiff_t j = 0; j < width; j++) {
                    panel[k * COLUMNS + j] = b[k * b_.row + j * b_.column];
                }
                zero_run(panel + k * COLUMNS + width, vecs * LANES<T> - width);
            }
            b = panel;
        }
        const T *a = panels_ + (a_.batch ? batch : 0) * padded_rows() * (depth_ + 1);
        T *result = out_.data + batch * out_.batch + first * out_.column;
        for (ptrdiff_t m = 0; m < rows_;) {
            const int rows = panel_rows(rows_ - m);
            any_tile(rows, vecs, a + rows, b, offset, depth_, a, out, COLUMNS);
            const ptrdiff_t wanted = std::min<ptrdiff_t>(rows, rows_ - m);
            for (ptrdiff_t r = 0; r < wanted; r++) {
                T *to = result + (m + r) * out_.row;
                for (ptrdiff_t j = 0; j < width; j++) {
                    to[j * out_.column] = out[r * COLUMNS + j];
                }
            }
            a += rows * (depth_ + 1);
            m += rows;
        }
        return true;
    }

  private:
    // Panels of rows: what the sums start with, then the rows' factors side by side.
    T *pack(T *panel, ptrdiff_t start) const {
        T *end = panel + padded_rows() * (depth_ + 1);
        for (ptrdiff_t m = 0; m < rows_;) {
            const int rows = panel_rows(rows_ - m);
            const ptrdiff_t wanted = std::min<ptrdiff_t>(rows, rows_ - m);
            for (int r = 0; r < rows; r++) { *panel++ = bias_ && r < wanted ? bias_[m + r] : 0; }
            const T *from = a_.data + start + m * a_.row;
            for (ptrdiff_t k = 0; k < depth_; k++, from += a_.column) {
                for (int r = 0; r < rows; r++) { *panel++ = r < wanted ? from[r * a_.row] : 0; }
            }
            m += rows;
        }
        return end;
    }
};

}  // namespace instnorm
