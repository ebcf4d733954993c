// Convolution of (N, C, spatial...), its adjoint, and the gradient of its weight.
//
// The work is cut into units: some samples, or a part of one sample. A unit copies what it reads
// into a grid, with the zeros of the padding around it, and then sees that grid as one line. An
// element of the window is a shift along the line, so that the sums for many places are a product
// of matrices whose second one need not exist (`tiles.hpp`). Places of the line that are no places
// of the result, between its rows, are computed for nothing and not stored. Rows share their
// zeros: the padding after one is that before the next.
//
// With a stride, the grid keeps elements whose windows' elements meet apart, in phases: places
// that are equal modulo the stride. The adjoint has phases of the result instead: each is a
// convolution with the elements of the window that reach it.
#pragma once

#include <algorithm>
#include <vector>

#include "tiles.hpp"
#include "work.hpp"

namespace instnorm {

constexpr int AXES = 3;

// Bytes of a unit's grid: a part of the second-level cache. More where its places are summed, as
// each sum that is kept in a register has to be folded at the end.
constexpr ptrdiff_t GRID_BYTES = 256 << 10;
constexpr ptrdiff_t SUMMED_GRID_BYTES = 512 << 10;
// Units that a batch is cut into at least, so that every thread gets some. The sums of the
// weight's gradient depend on the cut, which so must not depend on the number of threads.
constexpr ptrdiff_t FEWEST_UNITS = 8;
constexpr ptrdiff_t FEWEST_SUMMED_UNITS = 4;
// Products below which cutting up a sample costs more than it gives.
constexpr double SMALL_WORK = 1 << 18;
// Places that are summed together for the weight's gradient: some rows of them stay in the
// first-level cache.
constexpr ptrdiff_t DOT_LENGTH = 2048;
// Parts of a batch whose sums are kept apart, and bytes that these sums have, about, at most.
constexpr ptrdiff_t PARTIAL_SUMS = 16;
constexpr ptrdiff_t PARTIAL_BYTES = 8 << 20;

// One spatial axis: `large` is the length of the convolution's input, `small` of its output.
struct Axis {
    ptrdiff_t kernel, stride, dilation, padding, large, small;
};

// (N, C, spatial...) in memory; strides in elements.
template <class T> struct Images {
    T *data;
    ptrdiff_t sample, channel, axis[AXES];

    Images<const T> readable() const {
        return {data, sample, channel, {axis[0], axis[1], axis[2]}};
    }
};

struct Convolution {
    Axis axis[AXES];
    ptrdiff_t samples, groups, large_channels, small_channels;  // channels of one group

    ptrdiff_t taps() const { return axis[0].kernel * axis[1].kernel * axis[2].kernel; }
};

INSTNORM_INLINE ptrdiff_t floor_div(ptrdiff_t a, ptrdiff_t b) {
    return a >= 0 ? a / b : -((b - 1 - a) / b);
}
INSTNORM_INLINE ptrdiff_t ceil_div(ptrdiff_t a, ptrdiff_t b) { return -floor_div(-a, b); }

// ------------------------------------------------------------------ one axis

// An element of the window: its number, and where its grid has what it sees.
struct Tap {
    ptrdiff_t number, phase, shift;
};

// Places of the result along one axis: first, first + step, ... and the taps that reach them.
struct Places {
    ptrdiff_t count, first, step, phase;
    std::vector<Tap> taps;
};

// The grid along one axis: place q of phase r has element q * phases + r - padding of the source.
struct GridAxis {
    ptrdiff_t phases, padding, length, pitch;
};

// What the places `first` to `end` of the result need along one axis.
struct AxisPlan {
    GridAxis grid;
    std::vector<Places> places;
};

// The pitch of rows that share their zeros, for places up to `reach` and `most` results in a row.
inline void set_pitch(GridAxis &grid, ptrdiff_t reach, ptrdiff_t most) {
    ptrdiff_t leading = floor_div(grid.padding, grid.phases);
    ptrdiff_t behind = reach - floor_div(grid.length - 1 + grid.padding, grid.phases) - 1;
    grid.pitch = std::max(most, reach - std::max<ptrdiff_t>(0, std::min(leading, behind)));
}

inline AxisPlan forward_plan(const Axis &a, ptrdiff_t first, ptrdiff_t end) {
    AxisPlan plan;
    Places places = {end - first, first, 1, 0, {}};
    for (ptrdiff_t k = 0; k < a.kernel; k++) {
        places.taps.push_back({k, k * a.dilation % a.stride, k * a.dilation / a.stride});
    }
    plan.grid = {a.stride, a.padding - first * a.stride, a.large, 0};
    set_pitch(plan.grid, places.count + places.taps.back().shift, places.count);
    plan.places.push_back(places);
    return plan;
}

inline AxisPlan adjoint_plan(const Axis &a, ptrdiff_t first, ptrdiff_t end) {
    AxisPlan plan;
    ptrdiff_t padding = a.padding + first, most = 0, reach = 0;
    ptrdiff_t ahead = -(a.small + a.large + padding);  // of all shifts: none is so far ahead
    for (ptrdiff_t phase = 0; phase < a.stride; phase++) {
        ptrdiff_t low = ceil_div(padding - phase, a.stride);
        ptrdiff_t high = floor_div(end - first - 1 + padding - phase, a.stride);
        if (high < low) { continue; }
        Places places = {
            high - low + 1, first + low * a.stride + phase - padding, a.stride, phase, {}};
        for (ptrdiff_t k = 0; k < a.kernel; k++) {
            if (k * a.dilation % a.stride != phase) { continue; }
            ptrdiff_t shift = low - k * a.dilation / a.stride;
            places.taps.push_back({k, 0, shift});
            ahead = std::max(ahead, -shift);
        }
        plan.places.push_back(places);
    }
    for (Places &places : plan.places) {
        most = std::max(most, places.count);
        for (Tap &tap : places.taps) {
            tap.shift += ahead;
            reach = std::max(reach, places.count + tap.shift);
        }
    }
    plan.grid = {1, ahead, a.small, 0};
    set_pitch(plan.grid, std::max(reach, most), most);
    return plan;
}

// ------------------------------------------------------------------ the grid

// The grid of a unit, all axes: strides between its rows, slices, samples, phases and channels.
struct Grid {
    GridAxis axis[AXES];
    ptrdiff_t row, slice, sample, phase, channel;

    Grid(const AxisPlan *plan, ptrdiff_t samples, ptrdiff_t overhang) {
        for (int d = 0; d < AXES; d++) { axis[d] = plan[d].grid; }
        row = axis[2].pitch;
        slice = axis[1].pitch * row;
        sample = axis[0].pitch * slice;
        phase = samples * sample + overhang;
        channel = axis[0].phases * axis[1].phases * axis[2].phases * phase;
    }
};

template <class T> INSTNORM_INLINE void zero_run(T *to, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) { to[i] = 0; }
}

template <class T>
INSTNORM_INLINE void fill_row(
    T *to, const T *from, ptrdiff_t stride, const GridAxis &axis, ptrdiff_t phase
) {
    ptrdiff_t low = std::max<ptrdiff_t>(0, ceil_div(axis.padding - phase, axis.phases));
    ptrdiff_t high = floor_div(axis.length - 1 + axis.padding - phase, axis.phases) + 1;
    high = std::min(high, axis.pitch);
    if (high <= low) {
        zero_run(to, axis.pitch);
        return;
    }
    zero_run(to, low);
    from += (low * axis.phases + phase - axis.padding) * stride;
    stride *= axis.phases;
    if (stride == 1) {
        copy_run(to + low, from, high - low);
    } else {
        for (ptrdiff_t i = 0; i < high - low; i++) { to[low + i] = from[i * stride]; }
    }
    zero_run(to + high, axis.pitch - high);
}

// Copy samples from `first` to `end` of some channels into the grid.
template <class T>
void fill_grid(
    T *grid_data, const Grid &grid, Images<const T> source, ptrdiff_t channels, ptrdiff_t first,
    ptrdiff_t end
) {
    const GridAxis *axis = grid.axis;
    for (ptrdiff_t c = 0; c < channels; c++) {
        T *to = grid_data + c * grid.channel;
        for (ptrdiff_t r0 = 0; r0 < axis[0].phases; r0++) {
            for (ptrdiff_t r1 = 0; r1 < axis[1].phases; r1++) {
                for (ptrdiff_t r2 = 0; r2 < axis[2].phases; r2++, to += grid.phase) {
                    T *row = to;
                    for (ptrdiff_t n = first; n < end; n++) {
                        const T *from = source.data + n * source.sample + c * source.channel;
                        for (ptrdiff_t q0 = 0; q0 < axis[0].pitch; q0++) {
                            ptrdiff_t i0 = q0 * axis[0].phases + r0 - axis[0].padding;
                            for (ptrdiff_t q1 = 0; q1 < axis[1].pitch; q1++, row += grid.row) {
                                ptrdiff_t i1 = q1 * axis[1].phases + r1 - axis[1].padding;
                                if (i0 < 0 || i0 >= axis[0].length || i1 < 0
                                    || i1 >= axis[1].length) {
                                    zero_run(row, grid.row);
                                } else {
                                    fill_row(
                                        row, from + i0 * source.axis[0] + i1 * source.axis[1],
                                        source.axis[2], axis[2], r2);
                                }
                            }
                        }
                    }
                    zero_run(row, to + grid.phase - row);
                }
            }
        }
    }
}

// ------------------------------------------------------------------ units

// Some samples, and of the result's places along the cut axis those from `low` to `high`.
struct Unit {
    ptrdiff_t first, end, low, high;
};

// How a convolution's work is cut up. `result` and `source`: the lengths along each axis.
class Cut {
    ptrdiff_t samples_, length_, parts_;  // samples of a unit; of the cut axis; parts of a sample

  public:
    int axis = 0;
    ptrdiff_t count;  // units

    Cut(const Convolution &c, bool to_small, size_t itemsize, ptrdiff_t most_bytes, ptrdiff_t fewest) {
        auto result = [&](int d) { return to_small ? c.axis[d].small : c.axis[d].large; };
        while (axis < AXES - 1 && result(axis) == 1) { axis++; }
        length_ = result(axis);
        double grid = itemsize * (to_small ? c.large_channels : c.small_channels), work = 1;
        for (int d = 0; d < AXES; d++) {
            grid *= (to_small ? c.axis[d].large : c.axis[d].small) + c.axis[d].kernel;
            work *= c.axis[d].small * c.axis[d].kernel;
        }
        work *= c.large_channels * c.small_channels;
        // A part copies what its neighbours copy too: it has to be longer than that.
        ptrdiff_t overlap = (c.axis[axis].kernel - 1) * c.axis[axis].dilation;
        ptrdiff_t most = std::max<ptrdiff_t>(1, length_ / std::max<ptrdiff_t>(4, 2 * overlap));
        ptrdiff_t parts = (ptrdiff_t)(grid / most_bytes) + 1;
        if (work > SMALL_WORK) {
            parts = std::max(parts, fewest / std::max<ptrdiff_t>(1, c.samples));
        }
        parts_ = std::min(parts, most);
        samples_ = 1;
        if (parts_ == 1) {
            samples_ = std::min((ptrdiff_t)(most_bytes / grid), ceil_div(c.samples, fewest));
            samples_ = std::max<ptrdiff_t>(1, samples_);
        }
        count = ceil_div(c.samples, samples_) * parts_;
    }

    Unit unit(ptrdiff_t i, ptrdiff_t samples) const {
        ptrdiff_t first = i / parts_ * samples_, part = i % parts_;
        return {
            first, std::min(samples, first + samples_), part * length_ / parts_,
            (part + 1) * length_ / parts_};
    }
};

// How far from its place in the grid a result's factors are: channel by channel, tap by tap.
inline std::vector<ptrdiff_t> shifts_of(
    const Grid &grid, const Places *const *places, ptrdiff_t channels
) {
    std::vector<ptrdiff_t> shifts;
    const size_t taps =
        places[0]->taps.size() * places[1]->taps.size() * places[2]->taps.size();
    shifts.reserve(channels * taps + TILE_ROWS);
    for (const Tap &a : places[0]->taps) {
        for (const Tap &b : places[1]->taps) {
            for (const Tap &d : places[2]->taps) {
                ptrdiff_t phase = (a.phase * grid.axis[1].phases + b.phase) * grid.axis[2].phases
                                + d.phase;
                shifts.push_back(
                    phase * grid.phase + a.shift * grid.slice + b.shift * grid.row + d.shift);
            }
        }
    }
    for (size_t i = taps; i < channels * taps; i++) {
        shifts.push_back(shifts[i - taps] + grid.channel);
    }
    return shifts;
}

// The zeros behind the last sample that a shift may reach, and the rest of a tile.
template <class T> ptrdiff_t overhang_of(const AxisPlan *plan) {
    ptrdiff_t most[AXES] = {0, 0, 0};
    for (int d = 0; d < AXES; d++) {
        for (const Places &places : plan[d].places) {
            for (const Tap &tap : places.taps) { most[d] = std::max(most[d], tap.shift); }
        }
    }
    return (most[0] * plan[1].grid.pitch + most[1]) * plan[2].grid.pitch + most[2]
         + TILE_COLUMNS<T> + 1;
}

// ------------------------------------------------------------------ convolution and adjoint

// A run of places that lie side by side in a tile and in one row of the result.
struct Run {
    ptrdiff_t in_tile, length, in_result;
};

template <class T> class Convolver final : public Work {
    const Convolution c_;
    const bool to_small_;  // the convolution; else its adjoint
    const Images<const T> source_;
    const Images<T> result_;
    const T *const bias_;
    const Cut cut_;
    const T *panels_ = nullptr;  // the weight as tiles want it: group by group, phase by phase
    std::vector<ptrdiff_t> panel_of_phase_;

    ptrdiff_t source_channels() const { return to_small_ ? c_.large_channels : c_.small_channels; }
    ptrdiff_t result_channels() const { return to_small_ ? c_.small_channels : c_.large_channels; }
    ptrdiff_t rows() const { return ceil_div(result_channels(), TILE_ROWS) * TILE_ROWS; }
    ptrdiff_t phases(int d) const { return to_small_ ? 1 : c_.axis[d].stride; }

  public:
    // weight: (small channels, large channels, taps).
    Convolver(
        const Convolution &c, bool to_small, Images<T> source, const T *weight, const T *bias,
        Images<T> result
    )
        : c_(c), to_small_(to_small), source_(source.readable()), result_(result), bias_(bias),
          cut_(c, to_small, sizeof(T), GRID_BYTES, FEWEST_UNITS) {
        static thread_local Workspace memory;
        T *panel = (T *)memory.reserve(
            c_.groups * rows() * source_channels() * c_.taps() * sizeof(T));
        panels_ = panel;
        if (!panel) { return; }
        for (ptrdiff_t group = 0; group < c_.groups; group++) {
            for (ptrdiff_t r0 = 0; r0 < phases(0); r0++) {
                for (ptrdiff_t r1 = 0; r1 < phases(1); r1++) {
                    for (ptrdiff_t r2 = 0; r2 < phases(2); r2++) {
                        panel_of_phase_.push_back(panel - panels_);
                        panel = pack(panel, weight, group, taps_of(r0, r1, r2));
                    }
                }
            }
        }
    }

    ptrdiff_t units() const override { return cut_.count * c_.groups; }

    bool run(ptrdiff_t i) override {
        static thread_local Workspace workspace;
        const ptrdiff_t group = i % c_.groups;
        const Unit unit = cut_.unit(i / c_.groups, c_.samples);
        AxisPlan plan[AXES];
        for (int d = 0; d < AXES; d++) {
            ptrdiff_t end = to_small_ ? c_.axis[d].small : c_.axis[d].large;
            ptrdiff_t low = d == cut_.axis ? unit.low : 0, high = d == cut_.axis ? unit.high : end;
            plan[d] = to_small_ ? forward_plan(c_.axis[d], low, high)
                                : adjoint_plan(c_.axis[d], low, high);
        }
        const Grid grid(plan, unit.end - unit.first, overhang_of<T>(plan));
        T *memory = (T *)workspace.reserve(
            (source_channels() * grid.channel + rows() + TILE_ROWS * TILE_COLUMNS<T>) * sizeof(T));
        if (!memory || !panels_) { return false; }
        T *start = memory, *out = start + rows(), *grid_data = out + TILE_ROWS * TILE_COLUMNS<T>;

        Images<const T> source = source_;
        source.data += group * source_channels() * source.channel;
        fill_grid(grid_data, grid, source, source_channels(), unit.first, unit.end);
        for (ptrdiff_t m = 0; m < rows(); m++) {
            bool exists = bias_ && m < result_channels();
            start[m] = exists ? bias_[group * result_channels() + m] : 0;
        }
        for (const Places &a : plan[0].places) {
            for (const Places &b : plan[1].places) {
                for (const Places &d : plan[2].places) {
                    const Places *places[AXES] = {&a, &b, &d};
                    ptrdiff_t phase = (group * phases(0) + a.phase) * phases(1) + b.phase;
                    phase = phase * phases(2) + d.phase;
                    compute(
                        grid_data, grid, unit, places, panels_ + panel_of_phase_[phase], start, out,
                        group);
                }
            }
        }
        return true;
    }

  private:
    // The numbers of the window's elements that reach a phase of the result.
    std::vector<ptrdiff_t> taps_of(ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t r2) const {
        const ptrdiff_t phase[AXES] = {r0, r1, r2};
        std::vector<ptrdiff_t> reached(1, 0);
        for (int d = 0; d < AXES; d++) {
            std::vector<ptrdiff_t> longer;
            for (ptrdiff_t number : reached) {
                for (ptrdiff_t k = 0; k < c_.axis[d].kernel; k++) {
                    if (to_small_ || k * c_.axis[d].dilation % c_.axis[d].stride == phase[d]) {
                        longer.push_back(number * c_.axis[d].kernel + k);
                    }
                }
            }
            reached = longer;
        }
        return reached;
    }

    // The weight in panels of rows: for each shift, the rows' factors side by side. The end of it.
    T *pack(
        T *panel, const T *weight, ptrdiff_t group, const std::vector<ptrdiff_t> &taps
    ) const {
        const ptrdiff_t small = c_.large_channels * c_.taps(), large = c_.taps();
        const ptrdiff_t row = to_small_ ? small : large, channel = to_small_ ? large : small;
        weight += group * c_.small_channels * small;
        for (ptrdiff_t m = 0; m < result_channels();) {
            const int rows = panel_rows(result_channels() - m);
            const ptrdiff_t wanted = std::min<ptrdiff_t>(rows, result_channels() - m);
            for (ptrdiff_t c = 0; c < source_channels(); c++) {
                for (ptrdiff_t tap : taps) {
                    const T *from = weight + m * row + c * channel + tap;
                    for (int i = 0; i < rows; i++) { *panel++ = i < wanted ? from[i * row] : 0; }
                }
            }
            m += rows;
        }
        return panel;
    }

    void compute(
        const T *grid_data, const Grid &grid, const Unit &unit, const Places *const *places,
        const T *weights, const T *start, T *out, ptrdiff_t group
    ) const {
        const std::vector<ptrdiff_t> shifts = shifts_of(grid, places, source_channels());
        const ptrdiff_t depth = shifts.size(), row = places[2]->count;
        const ptrdiff_t stride = places[2]->step * result_.axis[2];
        T *result = result_.data + unit.first * result_.sample
                  + group * result_channels() * result_.channel;
        for (int d = 0; d < AXES; d++) { result += places[d]->first * result_.axis[d]; }
        const ptrdiff_t end = (unit.end - unit.first - 1) * grid.sample
                            + (places[0]->count - 1) * grid.slice
                            + (places[1]->count - 1) * grid.row + row;
        // The next row of the result: its places (sample, slice, row) in the grid, and where it is.
        ptrdiff_t n = 0, q0 = 0, q1 = 0, row_start = 0;
        Run runs[TILE_COLUMNS<T>];
        for (ptrdiff_t p = 0; p < end;) {
            p = std::max(p, row_start);
            ptrdiff_t width = std::min<ptrdiff_t>(TILE_COLUMNS<T>, end - p);
            int count = 0;
            while (row_start < p + width) {
                const ptrdiff_t row_end = row_start + row;
                const ptrdiff_t from = std::max(p, row_start), to = std::min(p + width, row_end);
                if (from < to) {
                    const ptrdiff_t place = n * result_.sample
                                          + q0 * places[0]->step * result_.axis[0]
                                          + q1 * places[1]->step * result_.axis[1];
                    runs[count++] = {from - p, to - from, place + (from - row_start) * stride};
                }
                if (row_end > p + width) { break; }
                if (++q1 == places[1]->count) {
                    q1 = 0;
                    if (++q0 == places[0]->count) {
                        q0 = 0;
                        n++;
                    }
                }
                row_start = n * grid.sample + q0 * grid.slice + q1 * grid.row;
                // A gap of a vec and more between two rows ends the tile.
                if (row_start - row_end >= LANES<T>) { width = std::min(width, row_end - p); }
                if (n == unit.end - unit.first) { break; }
            }
            const int vecs = (int)ceil_div(width, LANES<T>);
            const bool direct = count == 1 && stride == 1 && runs[0].length == vecs * LANES<T>;
            const T *a = weights;
            for (ptrdiff_t m = 0; m < result_channels();) {
                const int rows = panel_rows(result_channels() - m);
                T *to = result + m * result_.channel;
                const int wanted = (int)std::min<ptrdiff_t>(rows, result_channels() - m);
                if (direct && wanted == rows) {
                    any_tile(
                        rows, vecs, a, grid_data + p, shifts.data(), depth, start + m,
                        to + runs[0].in_result, result_.channel);
                } else {
                    any_tile(
                        rows, vecs, a, grid_data + p, shifts.data(), depth, start + m, out,
                        TILE_COLUMNS<T>);
                    store(out, to, wanted, runs, count, stride);
                }
                a += rows * depth;
                m += rows;
            }
            p += width;
        }
    }

    void store(
        const T *out, T *to, int rows, const Run *runs, int count, ptrdiff_t stride
    ) const {
        for (int m = 0; m < rows; m++, to += result_.channel, out += TILE_COLUMNS<T>) {
            for (int i = 0; i < count; i++) {
                const Run run = runs[i];
                T *place = to + run.in_result;
                if (stride == 1) {
                    copy_run(place, out + run.in_tile, run.length);
                } else {
                    for (ptrdiff_t j = 0; j < run.length; j++) {
                        place[j * stride] = out[run.in_tile + j];
                    }
                }
            }
        }
    }
};

// ------------------------------------------------------------------ gradient of the weight

// Sums over the places of the result, of its gradient times what the window's elements see there.
template <class T> class WeightGradient final : public Work {
    static constexpr int ROWS = 4, SHIFTS = REGISTER_BYTES == 64 ? 6 : 3, FEW = 3;

    const Convolution c_;
    const Images<const T> large_, small_;
    T *const grad_weight_, *const grad_bias_;  // grad_bias may be NULL
    const Cut cut_;
    T *sums_;  // of each part: (small channels, large channels, taps), (small channels)

    ptrdiff_t depth() const { return c_.large_channels * c_.taps(); }
    ptrdiff_t channels() const { return c_.groups * c_.small_channels; }
    ptrdiff_t part_size() const { return channels() * (depth() + 1); }

  public:
    WeightGradient(
        const Convolution &c, Images<T> large, Images<T> small, T *grad_weight, T *grad_bias
    )
        : c_(c), large_(large.readable()), small_(small.readable()), grad_weight_(grad_weight), grad_bias_(grad_bias),
          cut_(c, true, sizeof(T), SUMMED_GRID_BYTES, FEWEST_SUMMED_UNITS) {
        static thread_local Workspace memory;
        sums_ = (T *)memory.reserve(units() * part_size() * sizeof(T));
    }

    // Parts of the sums, each of which has numbers of its own.
    ptrdiff_t units() const override {
        const ptrdiff_t affordable = PARTIAL_BYTES / (part_size() * (ptrdiff_t)sizeof(T));
        const ptrdiff_t most = std::max<ptrdiff_t>(2, std::min(affordable, PARTIAL_SUMS));
        return std::max<ptrdiff_t>(1, std::min(cut_.count, most));
    }

    bool run(ptrdiff_t part) override {
        if (!sums_) { return false; }
        T *sums = sums_ + part * part_size();
        std::fill(sums, sums + part_size(), (T)0);
        const ptrdiff_t first = part * cut_.count / units();
        const ptrdiff_t end = (part + 1) * cut_.count / units();
        for (ptrdiff_t i = first; i < end; i++) {
            for (ptrdiff_t group = 0; group < c_.groups; group++) {
                const ptrdiff_t channel = group * c_.small_channels;
                if (!add_unit(
                        cut_.unit(i, c_.samples), group, sums + channel * depth(),
                        sums + channels() * depth() + channel)) {
                    return false;
                }
            }
        }
        return true;
    }

    // Add up the parts, in their order.
    void finish() {
        const ptrdiff_t size = channels() * depth();
        add_parts(grad_weight_, 0, size);
        if (grad_bias_) { add_parts(grad_bias_, size, channels()); }
    }

  private:
    void add_parts(T *to, ptrdiff_t start, ptrdiff_t size) const {
        const T *from = sums_ + start;
        std::copy(from, from + size, to);
        for (ptrdiff_t part = 1; part < units(); part++) {
            from += part_size();
            for (ptrdiff_t i = 0; i < size; i++) { to[i] += from[i]; }
        }
    }

    bool add_unit(const Unit &unit, ptrdiff_t group, T *sums, T *bias_sums) const {
        AxisPlan plan[AXES], small_plan[AXES];
        for (int d = 0; d < AXES; d++) {
            ptrdiff_t low = d == cut_.axis ? unit.low : 0;
            ptrdiff_t high = d == cut_.axis ? unit.high : c_.axis[d].small;
            plan[d] = forward_plan(c_.axis[d], low, high);
            small_plan[d].grid = {1, 0, high - low, plan[d].grid.pitch};
        }
        const ptrdiff_t samples = unit.end - unit.first;
        const Grid large_grid(plan, samples, overhang_of<T>(plan));
        const Grid small_grid(small_plan, samples, TILE_COLUMNS<T>);
        static thread_local Workspace workspace;
        T *memory = (T *)workspace.reserve(
            (c_.large_channels * large_grid.channel + c_.small_channels * small_grid.channel)
            * sizeof(T));
        if (!memory) { return false; }
        T *small_data = memory + c_.large_channels * large_grid.channel;
        Images<const T> large = large_, small = small_;
        large.data += group * c_.large_channels * large.channel;
        small.data +=
            group * c_.small_channels * small.channel + unit.low * small.axis[cut_.axis];
        fill_grid(memory, large_grid, large, c_.large_channels, unit.first, unit.end);
        fill_grid(small_data, small_grid, small, c_.small_channels, unit.first, unit.end);

        const Places *places[AXES];
        for (int d = 0; d < AXES; d++) { places[d] = &plan[d].places[0]; }
        std::vector<ptrdiff_t> shifts = shifts_of(large_grid, places, c_.large_channels);
        while (shifts.size() % SHIFTS) { shifts.push_back(shifts.back()); }
        // The places of a sample, from its first row to its last; of all samples as one, where
        // the last vec would reach into the next.
        const ptrdiff_t all = samples * small_grid.sample;
        ptrdiff_t runs = samples;
        ptrdiff_t length = (places[0]->count - 1) * small_grid.slice
                         + (places[1]->count - 1) * small_grid.row + places[2]->count;
        if (ceil_div(length, LANES<T>) * LANES<T> > small_grid.sample) {
            runs = 1;
            length = all;
        }
        const ptrdiff_t together = std::max<ptrdiff_t>(1, DOT_LENGTH / length);
        for (ptrdiff_t n = 0; n < runs; n += together) {
            for (ptrdiff_t p = 0; p < length; p += DOT_LENGTH) {
                const ptrdiff_t start = n * small_grid.sample + p;
                const Stretch stretch = {
                    std::min(together, runs - n), small_grid.sample,
                    std::min(DOT_LENGTH, length - p)};
                add_products(
                    memory + start, small_data + start, small_grid.channel, shifts, stretch, sums);
            }
        }
        for (ptrdiff_t m = 0; m < c_.small_channels; m++) {
            bias_sums[m] += sum_of(small_data + m * small_grid.channel, all);
        }
        return true;
    }

    void add_products(
        const T *large, const T *small, ptrdiff_t channel, const std::vector<ptrdiff_t> &shifts,
        const Stretch &stretch, T *sums
    ) const {
        for (ptrdiff_t m = 0; m < c_.small_channels; m += ROWS) {
            const ptrdiff_t rows = std::min<ptrdiff_t>(ROWS, c_.small_channels - m);
            const T *row[ROWS];
            for (int i = 0; i < ROWS; i++) {
                row[i] = small + (m + std::min<ptrdiff_t>(i, rows - 1)) * channel;
            }
            for (ptrdiff_t k = 0; k < depth();) {
                T out[2 * ROWS * SHIFTS];
                const ptrdiff_t count = std::min<ptrdiff_t>(SHIFTS, depth() - k);
                if (count > FEW) {
                    dot_tile<T, ROWS, SHIFTS>(row, large, shifts.data() + k, stretch, out);
                } else {
                    dot_tile<T, ROWS, FEW>(row, large, shifts.data() + k, stretch, out);
                }
                for (ptrdiff_t i = 0; i < rows; i++) {
                    for (ptrdiff_t j = 0; j < count; j++) {
                        sums[(m + i) * depth() + k + j] += out[j * ROWS + i];
                    }
                }
                k += count;
            }
        }
    }

    static T sum_of(const T *x, ptrdiff_t length) {
        lanes<T> sum = splat_lanes((T)0);
        for (ptrdiff_t p = 0; p < length; p += LANES<T>) { sum = sum + load_lanes(x + p); }
        return folded<1, lanes<T>>::sum(sum).v;
    }
};

}  // namespace instnorm
