#include "distances.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <type_traits>
#include <vector>

#include "aligned.h"
#include "float_env.h"
#include "simd.h"
#include "thread_pool.h"

namespace fedtlu {
namespace {

// Bytes of a row that are compared at a time: the tile of 100 rows, 400 KiB, stays in a second-level cache,
// and kPairRows rows of it in a first-level cache beside the rows they are compared with.
constexpr std::int64_t kTileBytes = 4096;
// The columns are cut into at most this many segments, whose sums are added in order: a number that does not
// depend on the threads.
constexpr std::int64_t kSegments = 64;
// The sums of a segment take K^2 / 2 doubles; this keeps them small beside K * kSegment floats.
constexpr std::int64_t kSegment = 64 * 1024;

// Columns of all rows that are read at a time for the norms: as many bytes as are prefetched.
constexpr std::int64_t kRun = kAhead / static_cast<std::int64_t>(sizeof(float));
// The least number of elements that is worth waking a thread.
constexpr std::int64_t kElementsPerThread = 128 * 1024;

// Compares rows in a tile of their columns, in elements of double or float: the first `chosen` rows with all
// that follow them.
template <class Element>
class Comparison {
  public:
    Comparison(const float* const* rows, std::int64_t number, std::int64_t chosen, std::int64_t n,
               const Kernels& kernels)
        : rows_(rows), number_(number), chosen_(chosen), n_(n), kernels_(kernels) {}

    std::int64_t pairs() const { return first_of(chosen_); }
    std::int64_t room() const { return number_ * kTile; }

    // Adds the squared distances over the columns [start, end) to sums [pairs]: (0, 1), (0, 2), ..., (1, 2),
    // ...
    void add(std::int64_t start, std::int64_t end, Element* tile, double* sums) const {
        for (std::int64_t at = start; at < end; at += kTile) {
            const std::int64_t count = std::min(kTile, end - at);
            // Zeros behind the last column, which add nothing.
            const std::int64_t whole = (count + kPad - 1) / kPad * kPad;
            for (std::int64_t row = 0; row < number_; ++row) {
                Element* to = tile + row * kTile;
                copy(to, rows_[row] + at, count);
                std::fill(to + count, to + whole, Element{0});
            }
            for (std::int64_t row = 0; row < chosen_; row += kPairRows) {
                prefetch(row, at + kTile);
                compare(row, whole, tile, sums);
            }
        }
    }

  private:
    static constexpr bool kDouble = std::is_same_v<Element, double>;
    static constexpr std::int64_t kTile = kTileBytes / static_cast<std::int64_t>(sizeof(Element));
    static constexpr std::int64_t kPad = kDouble ? kPairLanes : kSinglePad;

    std::int64_t first_of(std::int64_t row) const { return row * (2 * number_ - row - 1) / 2; }

    void copy(Element* to, const float* from, std::int64_t count) const {
        if constexpr (kDouble) {
            kernels_.widen_row(to, from, count);
        } else {
            std::copy(from, from + count, to);
        }
    }

    void compare(std::int64_t row, std::int64_t whole, const Element* tile, double* sums) const {
        const Element* left[kPairRows];
        const Element* right[kPairColumns];
        for (int i = 0; i < kPairRows; ++i) left[i] = tile + std::min(row + i, number_ - 1) * kTile;
        double found[kPairRows * kPairColumns];
        for (std::int64_t other = row + 1; other < number_; other += kPairColumns) {
            for (int j = 0; j < kPairColumns; ++j) {
                right[j] = tile + std::min(other + j, number_ - 1) * kTile;
            }
            if constexpr (kDouble) {
                kernels_.pair_squares(found, left, right, whole);
            } else {
                kernels_.single_pair_squares(found, left, right, whole);
            }
            for (std::int64_t i = row; i < std::min(row + kPairRows, chosen_); ++i) {
                for (std::int64_t j = std::max(other, i + 1); j < std::min(other + kPairColumns, number_);
                     ++j) {
                    sums[first_of(i) + j - i - 1] += found[(i - row) * kPairColumns + j - other];
                }
            }
        }
    }

    // The next columns of some rows, while others are compared.
    void prefetch(std::int64_t row, std::int64_t at) const {
        const std::int64_t end = std::min(at + kTile, n_);
        for (std::int64_t i = row; i < std::min(row + kPairRows, number_); ++i) {
            for (std::int64_t column = at; column < end; column += 16) {
                __builtin_prefetch(rows_[i] + column, 0, 2);
            }
        }
    }

    const float* const* rows_;
    std::int64_t number_;
    std::int64_t chosen_;
    std::int64_t n_;
    const Kernels& kernels_;
};

// The squared distances of the first `chosen` rows and all that follow them, in the order of Comparison::add.
template <class Element>
std::vector<double> compared(const float* const* rows, std::int64_t number, std::int64_t chosen,
                             std::int64_t n, int threads) {
    const DefaultFloatEnv env;
    const Comparison<Element> comparison(rows, number, chosen, n, kernels());
    const std::int64_t pairs = comparison.pairs();
    const std::int64_t segments = std::clamp<std::int64_t>(n / kSegment, 1, kSegments);
    const std::int64_t workers = std::min<std::int64_t>(threads, segments);
    std::vector<double> sums(static_cast<std::size_t>(segments * pairs));
    AlignedMemory<Element> tiles(workers * comparison.room());

    std::atomic<std::int64_t> next{0};
    ThreadPool::instance().run(static_cast<int>(workers), workers, [&](std::int64_t worker) {
        for (std::int64_t at; (at = next.fetch_add(1, std::memory_order_relaxed)) < segments;) {
            comparison.add(n * at / segments, n * (at + 1) / segments,
                           tiles.data() + worker * comparison.room(), sums.data() + at * pairs);
        }
    });

    for (std::int64_t at = 1; at < segments; ++at) {
        for (std::int64_t pair = 0; pair < pairs; ++pair) sums[pair] += sums[at * pairs + pair];
    }
    sums.resize(static_cast<std::size_t>(pairs));
    return sums;
}

// Writes out[i][j] = out[j][i] = found[...] for i < chosen, where out has `chosen` rows.
void spread(double* out, const double* found, std::int64_t number, std::int64_t chosen) {
    for (std::int64_t i = 0; i < chosen; ++i) {
        out[i * number + i] = 0.0;
        for (std::int64_t j = i + 1; j < number; ++j, ++found) {
            out[i * number + j] = *found;
            if (j < chosen) out[j * number + i] = *found;
        }
    }
}

}  // namespace

void squared_distances(double* out, const float* const* rows, std::int64_t number, std::int64_t chosen,
                       std::int64_t n, int threads) {
    spread(out, compared<double>(rows, number, chosen, n, threads).data(), number, chosen);
}

// With u = 2^-24 and all terms at least 0, the rounding of a difference changes its square by a factor within
// (1 +- u)^2, that of the square by 1 +- u where it is not fused, and kSingleChain additions by 1 +- u each:
// kSingleChain + 3 roundings, and one more pays for their products. Additions in double, here and in
// `squared_distances`, are at most n + 64 roundings of 2^-53 each. A square or sum below float32's normal
// numbers is off by at most 2^-149 instead. Where a sum overflows, one of float32's partial sums is above
// 2^127, or an element is infinite.
void squared_distance_bounds(double* lower, double* upper, const float* const* rows, std::int64_t number,
                             std::int64_t n, int threads) {
    const DefaultFloatEnv env;
    std::vector<double> low = compared<float>(rows, number, number, n, threads);
    std::vector<double> high = low;
    const double elements = static_cast<double>(n);
    const double error = (kSingleChain + 4) * 0x1p-24 + (elements + 64) * 0x1p-52;
    const double least = elements * 0x1p-149;
    for (double& each : low) {
        each = std::isinf(each) ? 0x1p127 : std::max(each / (1 + error) - least, 0.0);  // NaN stays
    }
    for (double& each : high) each = each / (1 - error) + least;
    spread(lower, low.data(), number, number);
    spread(upper, high.data(), number, number);
}

void squared_distances_from(double* out, const float* const* rows, std::int64_t number, const float* base,
                            const float* centre, std::int64_t n, int threads) {
    const DefaultFloatEnv env;
    const Kernels& kernels = fedtlu::kernels();
    const std::int64_t runs = (n + kRun - 1) / kRun;
    std::vector<double> sums(static_cast<std::size_t>(runs * number));
    const std::int64_t worth = std::max<std::int64_t>(1, n * number / kElementsPerThread);
    ThreadPool::instance().run(
        static_cast<int>(std::min<std::int64_t>(threads, worth)), runs,
        [&](std::int64_t run) {
            const std::int64_t start = run * kRun;
            const std::int64_t count = std::min(kRun, n - start);
            alignas(64) double origin[kRun];
            kernels.widen_row(origin, base + start, count);
            if (centre != nullptr) {
                for (std::int64_t i = 0; i < count; ++i) origin[i] += static_cast<double>(centre[start + i]);
            }
            for (std::int64_t row = 0; row < number; ++row) {
                // These columns of the next row; after the last one the next columns of the first.
                const float* ahead = row + 1 < number ? rows[row + 1] + start : rows[0] + start + count;
                sums[run * number + row] = kernels.squares(rows[row] + start, origin, count, ahead);
            }
        },
        /*grain=*/8);
    std::fill(out, out + number, 0.0);
    for (std::int64_t run = 0; run < runs; ++run) {
        for (std::int64_t row = 0; row < number; ++row) out[row] += sums[run * number + row];
    }
}

}  // namespace fedtlu
