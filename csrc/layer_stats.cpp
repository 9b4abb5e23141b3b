#include <algorithm>
#include <vector>

#include "float_env.h"
#include "moments.h"
#include "thread_pool.h"
#include "tiles.h"

namespace fedtlu {
namespace {

// Bytes of one work item: long enough to hide the cost of handing it out, short enough to balance.
constexpr std::int64_t kItemBytes = 256 * 1024;
// A thread must have this much to do to be worth waking.
constexpr std::int64_t kBytesPerThread = 512 * 1024;
// What a layer costs on top of its bytes, in bytes' worth of time.
constexpr std::int64_t kLayerBytes = 256;

// Layers that lie one after another; built as they are asked for, which costs less than an array of them.
struct FlatLayers {
    const std::byte* delta;
    Dtype dtype;
    const std::int64_t* offsets;
    std::int64_t number;

    LayerView operator[](std::int64_t layer) const {
        const std::int64_t count = offsets[layer + 1] - offsets[layer];
        // No arithmetic on the null pointer of an empty vector.
        const std::byte* data = count == 0 ? nullptr : delta + offsets[layer] * size_of(dtype);
        return {data, count, dtype};
    }
};

struct ListedLayers {
    const LayerView* views;
    std::int64_t number;

    const LayerView& operator[](std::int64_t layer) const { return views[layer]; }
};

double first_of(const LayerView& layer) {
    return layer.count == 0 ? 0.0 : decode(layer.dtype, bits_at(layer.dtype, layer.data, 0));
}

// Work items of about kItemBytes: runs of tiles in layer order. An item may start and end inside a layer and
// may hold thousands of layers.
struct Plan {
    struct Cursor {
        std::int64_t layer;
        std::int64_t tile;
        std::int64_t slot;  // where the tile's result goes; layers of one tile need none
    };
    struct Long {
        std::int64_t layer;
        std::int64_t slot;
    };

    std::vector<Cursor> starts;  // of the items, and the end
    std::vector<Long> longs;     // layers of several tiles
    std::int64_t slots = 0;
    std::int64_t bytes = 0;

    std::int64_t items() const { return static_cast<std::int64_t>(starts.size()) - 1; }
};

template <class Layers>
Plan make_plan(const Layers& layers) {
    Plan plan;
    plan.starts.push_back({0, 0, 0});
    std::int64_t room = kItemBytes;
    const auto fill = [&plan, &room](std::int64_t bytes, std::int64_t layer, std::int64_t tile) {
        plan.bytes += bytes;
        room -= bytes;
        if (room > 0) return;
        plan.starts.push_back({layer, tile, plan.slots});
        room = kItemBytes;
    };
    for (std::int64_t layer = 0; layer < layers.number; ++layer) {
        const LayerView view = layers[layer];
        const std::int64_t bytes = view.count * size_of(view.dtype);
        if (view.count <= kTile) {
            fill(bytes + kLayerBytes, layer + 1, 0);
            continue;
        }
        plan.longs.push_back({layer, plan.slots});
        const std::int64_t tiles = tiles_of(view.count);
        for (std::int64_t tile = 0; tile < tiles; ++tile) {
            ++plan.slots;
            const bool last = tile + 1 == tiles;
            fill(kTile * size_of(view.dtype), layer + last, last ? 0 : tile + 1);
        }
    }
    plan.starts.push_back({layers.number, 0, plan.slots});
    return plan;
}

template <class Layers>
void run(const Layers& layers, const Moments& out, int threads) {
    const DefaultFloatEnv env;
    const Kernels& kernels = fedtlu::kernels();
    const Plan plan = make_plan(layers);
    std::vector<Tile> tiles(static_cast<std::size_t>(plan.slots));

    const auto work = [&](std::int64_t item) {
        Plan::Cursor at = plan.starts[item];
        const Plan::Cursor end = plan.starts[item + 1];
        while (at.layer != end.layer || at.tile != end.tile) {
            const LayerView layer = layers[at.layer];
            const double pivot = first_of(layer);
            if (layer.count <= kTile) {
                Tile tile{};
                if (layer.count != 0) tile = read_tile(kernels, layer, 0, pivot);
                merge_tiles(layer, &tile, pivot, out, at.layer++);
                continue;
            }
            const std::int64_t stop = at.layer == end.layer ? end.tile : tiles_of(layer.count);
            for (; at.tile < stop; ++at.tile) tiles[at.slot++] = read_tile(kernels, layer, at.tile, pivot);
            if (at.layer != end.layer) ++at.layer, at.tile = 0;
        }
    };
    const std::int64_t worth = std::max<std::int64_t>(1, plan.bytes / kBytesPerThread);
    ThreadPool::instance().run(static_cast<int>(std::min<std::int64_t>(threads, worth)), plan.items(), work);

    for (const Plan::Long& each : plan.longs) {
        const LayerView layer = layers[each.layer];
        merge_tiles(layer, &tiles[each.slot], first_of(layer), out, each.layer);
    }
}

}  // namespace

void layer_stats(const std::byte* delta, Dtype dtype, const std::int64_t* offsets, std::int64_t layers,
                 const Moments& out, int threads) {
    run(FlatLayers{delta, dtype, offsets, layers}, out, threads);
}

void layer_stats_list(const LayerView* views, std::int64_t layers, const Moments& out, int threads) {
    run(ListedLayers{views, layers}, out, threads);
}

}  // namespace fedtlu
