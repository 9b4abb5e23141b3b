#include "tiles.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace fedtlu {
namespace {

// The first pivot of a tile is a guess. If the elements lie far from it, sum((x - pivot)^2) is much larger
// than the m2 computed from it, and its rounding error matters: beyond this ratio the tile, still in cache,
// is read again about its own mean. A pivot that is d standard deviations from the mean gives the ratio d^2 +
// 1.
constexpr double kWorstCancellation = 64.0;

std::int64_t count_nonfinite(Dtype dtype, const std::byte* x, std::int64_t n) {
    const std::int64_t infinity = infinity_of(dtype);
    const std::int64_t magnitude = magnitude_of(dtype);
    std::int64_t count = 0;
    for (std::int64_t i = 0; i < n; ++i) count += (bits_at(dtype, x, i) & magnitude) >= infinity;
    return count;
}

// 0 except for float64: the square of any narrower element is exact in double, which spares the kernels half
// their arithmetic. The mean of a change is usually far below its spread; if it is not, the tile is read
// again.
double first_pivot(Dtype dtype, const std::byte* x) {
    return dtype == Dtype::kFloat64 ? decode(dtype, bits_at(dtype, x, 0)) : 0.0;
}

}  // namespace

Tile read_tile(const Kernels& kernels, Dtype dtype, const std::byte* x, std::int64_t n,
               const std::byte* ahead) {
    const Kernels::Sum sum = kernels.sum(dtype);
    const auto length = static_cast<double>(n);

    double pivot = first_pivot(dtype, x);
    Sums sums = sum(x, n, pivot, ahead);
    if (sums.peak >= infinity_of(dtype)) return {0.0, 0.0, 0.0, sums.peak, count_nonfinite(dtype, x, n)};
    double shift = sums.shift / length;
    double m2 = sums.square - sums.shift * shift;
    if (m2 * kWorstCancellation < sums.square) {
        pivot += shift;
        sums = sum(x, n, pivot, x);
        shift = sums.shift / length;
        m2 = std::max(0.0, sums.square - sums.shift * shift);
    }
    return {pivot, shift, m2, sums.peak, 0};
}

namespace {

void put(Dtype dtype, std::int64_t count, double mean, double m2, std::int64_t peak, std::int64_t nonfinite,
         const Moments& out, std::int64_t row) {
    double abs_max = decode(dtype, peak);
    if (std::isnan(m2)) m2 = std::numeric_limits<double>::infinity();  // out of the range of double
    if (nonfinite != 0) mean = m2 = abs_max = std::numeric_limits<double>::quiet_NaN();
    out.count[row] = static_cast<double>(count);
    out.mean[row] = mean;
    out.m2[row] = m2;
    out.abs_max[row] = abs_max;
    out.nonfinite[row] = static_cast<double>(nonfinite);
}

}  // namespace

void merge_tiles(Dtype dtype, std::int64_t count, const Tile* tiles, const Moments& out, std::int64_t row) {
    if (count == 0) return put(dtype, 0, 0.0, 0.0, 0, 0, out, row);
    if (count <= kTile) {
        return put(dtype, count, tiles->pivot + tiles->shift, tiles->m2, tiles->peak, tiles->nonfinite, out,
                   row);
    }
    const std::int64_t number = tiles_of(count);
    const auto length = [count](std::int64_t tile) { return static_cast<double>(length_of(count, tile)); };
    // Relative to the first tile's pivot: tiles of one value then lose nothing.
    const auto shift_of = [tiles](std::int64_t tile) {
        return (tiles[tile].pivot - tiles[0].pivot) + tiles[tile].shift;
    };
    double total = 0.0;
    std::int64_t peak = 0;
    std::int64_t nonfinite = 0;
    for (std::int64_t i = 0; i < number; ++i) {
        total += length(i) * shift_of(i);
        peak = std::max(peak, tiles[i].peak);
        nonfinite += tiles[i].nonfinite;
    }
    const double shift = total / static_cast<double>(count);
    double m2 = 0.0;
    for (std::int64_t i = 0; i < number; ++i) {
        const double between = shift_of(i) - shift;
        m2 += tiles[i].m2 + length(i) * (between * between);
    }
    put(dtype, count, tiles[0].pivot + shift, m2, peak, nonfinite, out, row);
}

void read_short(const Kernels& kernels, Dtype dtype, const ShortLayers& layers, const Moments& out,
                std::int64_t row) {
    ShortSums sums;
    kernels.short_sum(dtype)(layers, sums);
    const std::int64_t infinity = infinity_of(dtype);
    for (int i = 0; i < layers.number; ++i, ++row) {
        const std::int64_t count = layers.count[i];
        const auto length = static_cast<double>(count);
        const double shift = sums.shift[i] / length;
        const double m2 = sums.square[i] - sums.shift[i] * shift;
        if (sums.peak[i] >= infinity || m2 * kWorstCancellation < sums.square[i]) {
            const Tile tile = read_tile(kernels, dtype, layers.x[i], count, layers.x[i]);
            merge_tiles(dtype, count, &tile, out, row);
            continue;
        }
        out.count[row] = length;
        out.mean[row] = 0.0 + shift;  // as of a tile whose pivot is 0
        out.m2[row] = m2;
        out.abs_max[row] = decode(dtype, sums.peak[i]);
        out.nonfinite[row] = 0.0;
    }
}

}  // namespace fedtlu
