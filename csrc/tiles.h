// One tile of a layer: what its elements add up to, relative to a pivot that all tiles of the layer share.
#pragma once

#include <cstdint>

#include "moments.h"
#include "simd.h"

namespace fedtlu {

// Elements of a tile. Tiles start at their layer's start, so that where a layer lies in memory, and what lies
// beside it, changes no bit of its result.
constexpr std::int64_t kTile = 16384;

inline std::int64_t tiles_of(std::int64_t count) { return count / kTile + (count % kTile != 0); }

struct Tile {
    double shift;            // mean(x) - pivot
    double m2;               // sum((x - mean(x))^2)
    std::int64_t peak;       // bits of max |x|
    std::int64_t nonfinite;  // if not 0, shift and m2 mean nothing
};

// Tile `index` of a layer of at least one element, whose first is `pivot`.
Tile read_tile(const Kernels& kernels, const LayerView& layer, std::int64_t index, double pivot);

// The layer's moments, written to row `row` of `out`, from its tiles in order. No tiles: an empty layer.
void merge_tiles(const LayerView& layer, const Tile* tiles, double pivot, const Moments& out,
                 std::int64_t row);

}  // namespace fedtlu
