// One tile of a layer: the sums of its elements relative to the tile's own pivot.
#pragma once

#include <cstdint>

#include "moments.h"
#include "simd.h"

namespace fedtlu {

// Elements of a tile. Tiles start at their layer's start, so that where a layer lies in memory, and what lies
// beside it, changes no bit of its result.
constexpr std::int64_t kTile = 16384;

inline std::int64_t tiles_of(std::int64_t count) { return count / kTile + (count % kTile != 0); }

// Elements of tile `index` of a layer of `count`.
inline std::int64_t length_of(std::int64_t count, std::int64_t index) {
    return index < count / kTile ? kTile : count % kTile;
}

struct Tile {
    double pivot;            // any number near the elements; that of a constant tile is their value
    double shift;            // mean(x) - pivot
    double m2;               // sum((x - mean(x))^2)
    std::int64_t peak;       // bits of max |x|
    std::int64_t nonfinite;  // if not 0, the other fields mean nothing
};

// The tile of n >= 1 elements x, which need not be aligned; memory at `ahead` is prefetched meanwhile.
Tile read_tile(const Kernels& kernels, Dtype dtype, const std::byte* x, std::int64_t n,
               const std::byte* ahead);

// Elements of the longest layer that is read together with others.
constexpr std::int64_t kShort = 1024;

// The moments of short layers of a dtype with a `short_sum`, written to the rows of `out` from `row` on.
void read_short(const Kernels& kernels, Dtype dtype, const ShortLayers& layers, const Moments& out,
                std::int64_t row);

// The moments of a layer of `count` elements, written to row `row` of `out`, from its tiles in order.
void merge_tiles(Dtype dtype, std::int64_t count, const Tile* tiles, const Moments& out, std::int64_t row);

}  // namespace fedtlu
