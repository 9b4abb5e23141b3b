// One pass over the layers of a vector, in work items that are divided among threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tiles.h"

namespace fedtlu {

struct Span {
    std::int64_t start;
    std::int64_t end;

    std::int64_t size() const { return end - start; }
};

// Layers that lie one after another; `data` holds the elements from number `origin` on. While they are read,
// the memory from `ahead` on is prefetched; by default the memory that follows.
struct FlatLayers {
    const std::byte* data;
    Dtype type;
    const std::int64_t* offsets;
    std::int64_t number;
    std::int64_t origin = 0;
    const std::byte* ahead = nullptr;

    Dtype dtype(std::int64_t) const { return type; }
    std::int64_t count(std::int64_t layer) const { return offsets[layer + 1] - offsets[layer]; }
    const std::byte* tile(std::int64_t layer, std::int64_t index) const { return data + place(layer, index); }
    const std::byte* tile_ahead(std::int64_t layer, std::int64_t index) const {
        return (ahead == nullptr ? data + kAhead : ahead) + place(layer, index);
    }

  private:
    std::int64_t place(std::int64_t layer, std::int64_t index) const {
        return (offsets[layer] + index * kTile - origin) * size_of(type);
    }
};

// Layers anywhere in memory.
struct ListedLayers {
    const LayerView* views;
    std::int64_t number;

    Dtype dtype(std::int64_t layer) const { return views[layer].dtype; }
    std::int64_t count(std::int64_t layer) const { return views[layer].count; }
    const std::byte* tile(std::int64_t layer, std::int64_t index) const {
        return views[layer].data + index * kTile * size_of(views[layer].dtype);
    }
    const std::byte* tile_ahead(std::int64_t layer, std::int64_t index) const {
        return tile(layer, index) + kAhead;
    }
};

// The layers cut into work items: runs of tiles in layer order. An item may start and end inside a layer and
// may hold thousands of layers. Other layers of the same sizes, of any dtype, may take the same pass.
class LayerPass {
  public:
    // Items have up to `item_bytes` each; more only if a single tile has more.
    template <class Layers>
    LayerPass(const Layers& layers, std::int64_t item_bytes) : layers_(layers.number) {
        starts_.push_back({0, 0, 0});
        std::int64_t filled = 0;
        std::int64_t bytes = 0;
        const auto place = [&](std::int64_t cost, std::int64_t layer, std::int64_t tile) {
            if (filled != 0 && filled + cost > item_bytes) {
                starts_.push_back({layer, tile, tiles_});
                filled = 0;
            }
            filled += cost;
            bytes += cost;
        };
        for (std::int64_t layer = 0; layer < layers.number; ++layer) {
            const std::int64_t count = layers.count(layer);
            const std::int64_t size = size_of(layers.dtype(layer));
            if (count <= kTile) {
                place(count * size + kLayerBytes, layer, 0);
                continue;
            }
            longs_.push_back({layer, tiles_});
            for (std::int64_t tile = 0; tile < tiles_of(count); ++tile) {
                place(length_of(count, tile) * size, layer, tile);
                ++tiles_;
            }
        }
        starts_.push_back({layers.number, 0, tiles_});
        bytes_ = bytes;
    }

    std::int64_t items() const { return static_cast<std::int64_t>(starts_.size()) - 1; }
    // The number of tiles of all layers with several tiles; a layer of one tile needs no place for it.
    std::int64_t tiles() const { return tiles_; }
    // The cost of all items, in the time that a byte takes.
    std::int64_t bytes() const { return bytes_; }

    // The elements of an item.
    Span span(const FlatLayers& layers, std::int64_t item) const {
        return {element(layers, starts_[item]), element(layers, starts_[item + 1])};
    }

    // Reads an item: layers of one tile go to `out`, tiles of longer ones to their place among `tiles`.
    template <class Layers>
    void read(const Kernels& kernels, const Layers& layers, std::int64_t item, Tile* tiles,
              const Moments& out) const {
        ShortLayers shorts;  // those before `layer` that have not been read yet
        Dtype dtype{};       // theirs
        each_tile(
            layers, item,
            [&](std::int64_t layer, std::int64_t index, std::int64_t slot, std::int64_t length) {
                const Dtype own = layers.dtype(layer);
                const bool is_short =
                    length != 0 && length <= kShort && slot < 0 && kernels.short_sum(own) != nullptr;
                if (shorts.number == kShortLayers || (shorts.number != 0 && (!is_short || own != dtype))) {
                    read_short(kernels, dtype, shorts, out, layer - shorts.number);
                    shorts.number = 0;
                }
                if (is_short) {
                    dtype = own;
                    shorts.x[shorts.number] = layers.tile(layer, index);
                    shorts.count[shorts.number] = length;
                    shorts.ahead[shorts.number] = layers.tile_ahead(layer, index);
                    ++shorts.number;
                    return;
                }
                Tile tile{};
                if (length != 0) {
                    tile = read_tile(kernels, own, layers.tile(layer, index), length,
                                     layers.tile_ahead(layer, index));
                }
                if (slot < 0) {
                    merge_tiles(own, length, &tile, out, layer);
                } else {
                    tiles[slot] = tile;
                }
            });
        if (shorts.number != 0)
            read_short(kernels, dtype, shorts, out, starts_[item + 1].layer - shorts.number);
    }

    // Calls visit(layer, tile, slot, length) for every tile of an item in order; a layer of one tile, which
    // may be empty, has slot -1.
    template <class Layers, class Visit>
    void each_tile(const Layers& layers, std::int64_t item, const Visit& visit) const {
        Cursor at = starts_[item];
        const Cursor end = starts_[item + 1];
        while (at.layer != end.layer || at.tile != end.tile) {
            const std::int64_t count = layers.count(at.layer);
            if (count <= kTile) {
                visit(at.layer++, std::int64_t{0}, std::int64_t{-1}, count);
                continue;
            }
            const std::int64_t stop = at.layer == end.layer ? end.tile : tiles_of(count);
            for (; at.tile < stop; ++at.tile) visit(at.layer, at.tile, at.slot++, length_of(count, at.tile));
            if (at.layer != end.layer) ++at.layer, at.tile = 0;
        }
    }

    // Calls visit(layer, slot) for every layer of several tiles, with the slot of its first.
    template <class Visit>
    void each_long(const Visit& visit) const {
        for (const Long& each : longs_) visit(each.layer, each.slot);
    }

    // Merges the tiles of the layers that have several, after every item has been read.
    template <class Layers>
    void merge(const Layers& layers, const Tile* tiles, const Moments& out) const {
        each_long([&](std::int64_t layer, std::int64_t slot) {
            merge_tiles(layers.dtype(layer), layers.count(layer), &tiles[slot], out, layer);
        });
    }

  private:
    // The cost of a layer besides its bytes, in the time that a byte takes.
    static constexpr std::int64_t kLayerBytes = 256;

    struct Cursor {
        std::int64_t layer;
        std::int64_t tile;
        std::int64_t slot;  // where the tile's result goes
    };
    struct Long {
        std::int64_t layer;
        std::int64_t slot;
    };

    std::int64_t element(const FlatLayers& layers, const Cursor& at) const {
        if (at.layer == layers_) return layers.offsets[layers_];
        return layers.offsets[at.layer] + at.tile * kTile;
    }

    std::int64_t layers_;
    std::int64_t tiles_ = 0;
    std::int64_t bytes_ = 0;
    std::vector<Cursor> starts_;  // of the items, and the end
    std::vector<Long> longs_;     // layers of several tiles
};

// The elements of every item of a pass, and then, in spans of at most a tile, the elements of [0, n) that lie
// before the first layer or behind the last.
inline std::vector<Span> spans_of(const LayerPass& pass, const FlatLayers& layers, std::int64_t n) {
    std::vector<Span> spans;
    for (std::int64_t item = 0; item < pass.items(); ++item) spans.push_back(pass.span(layers, item));
    const auto add = [&spans](std::int64_t start, std::int64_t end) {
        for (; start < end; start += kTile) spans.push_back({start, std::min(end, start + kTile)});
    };
    add(0, layers.offsets[0]);
    add(layers.offsets[layers.number], n);
    return spans;
}

}  // namespace fedtlu
