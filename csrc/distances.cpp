#include "distances.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "aligned.h"
#include "comparison.h"
#include "float_env.h"
#include "simd.h"
#include "thread_pool.h"

namespace fedtlu {
namespace {

// The columns are cut into at most this many segments, whose sums are added in order: a number that does not
// depend on the threads.
constexpr std::int64_t kSegments = 64;
// The sums of a segment take K^2 / 2 doubles; this keeps them small beside K * kSegment floats.
constexpr std::int64_t kSegment = 64 * 1024;

// Columns of all rows that are read at a time for the norms: as many bytes as are prefetched.
constexpr std::int64_t kRun = kAhead / static_cast<std::int64_t>(sizeof(float));
// The least number of elements that is worth waking a thread.
constexpr std::int64_t kElementsPerThread = 128 * 1024;

// Writes compute(d) for the squared distance d of the first `chosen` rows and all others to out [chosen,
// number], and 0 for that of a row and itself.
template <class Element, class Write>
void compare(const float* const* rows, std::int64_t number, std::int64_t chosen, std::int64_t n, int threads,
             const Write& write) {
    const DefaultFloatEnv env;
    const Comparison<Element> comparison(rows, number, chosen, kernels());
    const std::int64_t size = comparison.sums();
    const std::int64_t segments = std::clamp<std::int64_t>(n / kSegment, 1, kSegments);
    const std::int64_t workers = std::min<std::int64_t>(threads, segments);
    std::vector<double> sums(static_cast<std::size_t>(segments * size));
    AlignedMemory<Element> tiles(workers * comparison.room());

    std::atomic<std::int64_t> next{0};
    ThreadPool::instance().run(static_cast<int>(workers), workers, [&](std::int64_t worker) {
        for (std::int64_t at; (at = next.fetch_add(1, std::memory_order_relaxed)) < segments;) {
            comparison.add(n * at / segments, n * (at + 1) / segments,
                           tiles.data() + worker * comparison.room(), sums.data() + at * size);
        }
    });

    for (std::int64_t at = 1; at < segments; ++at) {
        for (std::int64_t pair = 0; pair < size; ++pair) sums[pair] += sums[at * size + pair];
    }
    for (std::int64_t i = 0; i < chosen; ++i) {
        for (std::int64_t j = i + 1; j < number; ++j) write(i, j, sums[i * comparison.stride() + j]);
    }
}

// Fills a matrix with `chosen` rows: its diagonal, and what was written above the diagonal also below it.
void mirror(double* out, std::int64_t number, std::int64_t chosen) {
    for (std::int64_t i = 0; i < chosen; ++i) {
        out[i * number + i] = 0.0;
        for (std::int64_t j = 0; j < i; ++j) out[i * number + j] = out[j * number + i];
    }
}

}  // namespace

void squared_distances(double* out, const float* const* rows, std::int64_t number, std::int64_t chosen,
                       std::int64_t n, int threads) {
    compare<double>(rows, number, chosen, n, threads,
                    [=](std::int64_t i, std::int64_t j, double found) { out[i * number + j] = found; });
    mirror(out, number, chosen);
}

// With u = 2^-24 and all terms at least 0, the rounding of a difference changes its square by a factor within
// (1 +- u)^2, that of the square by 1 +- u where it is not fused, and kSingleChain additions and a tree of
// kSingleTree more by 1 +- u each: kSingleChain + kSingleTree + 3 roundings, and one more pays for their
// products. Additions in double, here and in `squared_distances`, are at most n + 64 roundings of 2^-53 each.
// A square or sum below float32's normal numbers is off by at most 2^-149 instead. Where a sum overflows, one
// of float32's partial sums is above 2^127, or an element is infinite.
void squared_distance_bounds(double* lower, double* upper, const float* const* rows, std::int64_t number,
                             std::int64_t n, int threads) {
    const double elements = static_cast<double>(n);
    const double error = (kSingleChain + kSingleTree + 4) * 0x1p-24 + (elements + 64) * 0x1p-52;
    const double least = elements * 0x1p-149;
    compare<float>(rows, number, number, n, threads, [=](std::int64_t i, std::int64_t j, double found) {
        const double low = std::max(found / (1 + error) - least, 0.0);  // NaN stays
        lower[i * number + j] = std::isinf(found) ? 0x1p127 : low;
        upper[i * number + j] = found / (1 - error) + least;
    });
    mirror(lower, number, number);
    mirror(upper, number, number);
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
