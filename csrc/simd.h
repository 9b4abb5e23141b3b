// The inner loops, compiled once per SIMD level, and the choice of the level that runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "dtypes.h"

namespace fedtlu {

struct ClientWork;
struct ColumnTile;

// Sums are formed in this many lanes on every level, and the lanes added in one fixed tree: the result does
// not depend on the width of the machine's registers.
constexpr int kLanes = 16;

// A loop over memory prefetches this many bytes ahead of its loads: arithmetic fills the processor's
// instruction window long before the loads in it cover the latency of memory. Without the prefetch float32
// runs at two thirds of the speed. A page and a quarter: on a Zen 4 with pages of 4 KB both 3 and 8 KB were a
// tenth slower, for this library's loops and for one that only reads.
constexpr std::int64_t kAhead = 5120;

// The results of one pass over a run of elements x.
struct Sums {
    double shift;       // sum(x - pivot)
    double square;      // sum((x - pivot)^2)
    std::int64_t peak;  // bits of the largest magnitude
};

// Short layers are summed many at a time: the processor then works on several at once, and no layer pays for
// calls.
constexpr int kShortLayers = 32;

struct ShortLayers {
    int number = 0;
    const std::byte* x[kShortLayers];
    std::int64_t count[kShortLayers];
    const std::byte* ahead[kShortLayers];
};

struct ShortSums {
    double shift[kShortLayers];
    double square[kShortLayers];
    std::int64_t peak[kShortLayers];
};

// How many clients one pass adds: enough that reading the totals costs little beside reading the clients, few
// enough that the hardware prefetcher can follow each client's stream.
constexpr int kAddends = 4;

// The squares of one client's elements are summed in this many lanes on every level: so few that those of
// kAddends clients fit into the registers.
constexpr int kSquareLanes = 8;

// The elements and weights of some clients. `ahead` is memory that is needed next; it is only prefetched.
// `squares`, if not null, has kSquareLanes sums for each client, to which the squares of its changes are
// added.
struct Addends {
    int number = 0;  // of clients, from 1 to kAddends
    const std::byte* clients[kAddends] = {};
    const std::byte* ahead[kAddends] = {};
    double weights[kAddends] = {};
    double* squares = nullptr;
};

// Columns of a tile that is sorted, by rows: fewer for many rows, so that the tile stays in the cache.
constexpr std::size_t kTileWidths = 3;

// Distances are computed for this many rows times that many others at a time, and summed in this many lanes.
constexpr int kPairRows = 4;
constexpr int kPairColumns = 2;
constexpr int kPairLanes = 8;
// In float32, so many rows times so many others, over at most kSingleRun elements, a multiple of kSinglePad;
// the next row begins kSingleRun elements further. A lane sums up to kSingleChain squares, and a tree of
// kSingleTree layers adds the sums of a run.
constexpr int kSingleRows = 4;
constexpr int kSingleColumns = 4;
constexpr int kSingleRun = 512;
constexpr int kSinglePad = 16;
constexpr int kSingleChain = 32;
constexpr int kSingleTree = 5;

// The loops of one level, indexed by Dtype.
struct Kernels {
    const char* level;

    // Sums of x[0:n], n >= 1, in float64. Except for float64, a pivot of 0 is fastest. As many bytes from
    // `ahead` on are prefetched; that address need not be valid.
    using Sum = Sums (*)(const std::byte* x, std::int64_t n, double pivot, const std::byte* ahead);
    Sum sums[kDtypes];

    // The same of each of some layers, about a pivot of 0. Null for float64.
    using SumShort = void (*)(const ShortLayers& layers, ShortSums& out);
    SumShort short_sums[kDtypes];

    // target[i] = W(double(target[i]) + weight * (double(change[i]) - double(base[i]))) for i < n, where W is
    // `widened` of the dtype of `change` and `base`; without the subtraction when `base` is null. `target`
    // may be `change` or `base`, but not overlap them in part.
    using Update = void (*)(std::byte* target, const std::byte* change, const std::byte* base, double weight,
                            std::int64_t n);
    Update updates[kDtypes];

    // total[i] += weight * (double(client[i]) - double(base[i])) for i < n, for one client after another.
    using Add = void (*)(double* total, const Addends& addends, const std::byte* base, std::int64_t n);
    Add adds[kDtypes];

    // out[i] = W(total[i]) for i < n.
    using Round = void (*)(std::byte* out, const double* total, std::int64_t n);
    Round rounds[kDtypes];

    // Trains one client for all its steps (`perceptron_step.h`) and returns its mean loss.
    double (*train_client)(const ClientWork& work);

    // Sorts the columns of a tile and averages some of its rows (`columns_tile.h`), in tiles of kTileColumns
    // columns, half as many and a quarter of them.
    void (*sort_tiles[kTileWidths])(const ColumnTile& tile);

    // The loops of `distances_impl.h`.
    void (*widen_row)(double* to, const float* x, std::int64_t n);
    double (*squares)(const float* x, const double* origin, std::int64_t n, const float* ahead);
    void (*pair_squares)(double* out, const double* const* left, const double* const* right, std::int64_t n);
    void (*single_pair_squares)(float* out, const float* left, const float* right, std::int64_t n);

    Sum sum(Dtype dtype) const { return sums[static_cast<int>(dtype)]; }
    SumShort short_sum(Dtype dtype) const { return short_sums[static_cast<int>(dtype)]; }
    Update update(Dtype dtype) const { return updates[static_cast<int>(dtype)]; }
    Add add(Dtype dtype) const { return adds[static_cast<int>(dtype)]; }
    Round round(Dtype dtype) const { return rounds[static_cast<int>(dtype)]; }
};

// The kernels of the level in use: the widest this machine has, unless FEDTLU_SIMD or `set_simd_level` says
// otherwise. Throws std::invalid_argument when FEDTLU_SIMD names no level that runs here.
const Kernels& kernels();

// Names of the levels that run on this machine, the widest last.
std::vector<std::string> simd_levels();

// Makes `kernels` return this level. Throws std::invalid_argument when it does not run here.
void set_simd_level(const std::string& level);

extern const Kernels kBaselineKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

}  // namespace fedtlu
