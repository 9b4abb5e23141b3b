#include "update.h"

#include <algorithm>
#include <vector>

#include "float_env.h"
#include "layer_pass.h"
#include "simd.h"
#include "thread_pool.h"

namespace fedtlu {
namespace {

// Elements of one work item, consecutive items for one thread, and the least work that is worth waking a
// thread.
constexpr std::int64_t kItem = 32768;
constexpr std::int64_t kGrain = 16;
constexpr std::int64_t kPerThread = 65536;

struct Vectors {
    std::byte* target;
    const std::byte* change;
    const std::byte* base;  // may be null
    Dtype dtype;            // of change and base
    double weight;
};

int worth(int threads, std::int64_t elements) {
    return static_cast<int>(
        std::min<std::int64_t>(threads, std::max<std::int64_t>(1, elements / kPerThread)));
}

void update(const Kernels& kernels, const Vectors& vectors, const Span& span) {
    const std::int64_t at = span.start * size_of(vectors.dtype);
    kernels.update(vectors.dtype)(vectors.target + span.start * size_of(widened(vectors.dtype)),
                                  vectors.change + at, vectors.base == nullptr ? nullptr : vectors.base + at,
                                  vectors.weight, span.size());
}

}  // namespace

void accumulate_(std::byte* aggregate, const std::byte* client, const std::byte* base, Dtype dtype,
                 std::int64_t n, double weight, int threads) {
    const DefaultFloatEnv env;
    const Kernels& kernels = fedtlu::kernels();
    const Vectors vectors{aggregate, client, base, dtype, weight};
    ThreadPool::instance().run(
        worth(threads, n), n / kItem + (n % kItem != 0),
        [&](std::int64_t item) {
            const std::int64_t start = item * kItem;
            update(kernels, vectors, {start, std::min(n, start + kItem)});
        },
        kGrain);
}

void accumulate_layer_stats_(std::byte* aggregate, const std::byte* client, const std::byte* base,
                             Dtype dtype, std::int64_t n, double weight, const std::int64_t* offsets,
                             std::int64_t number, const Moments& out, int threads) {
    const DefaultFloatEnv env;
    const Kernels& kernels = fedtlu::kernels();
    const Vectors vectors{aggregate, client, base, dtype, weight};
    const FlatLayers layers{aggregate, widened(dtype), offsets, number};
    const LayerPass pass(layers, kItem * size_of(layers.type));
    const std::vector<Span> spans = spans_of(pass, layers, n);
    std::vector<Tile> tiles(static_cast<std::size_t>(pass.tiles()));

    const auto items = static_cast<std::int64_t>(spans.size());
    ThreadPool::instance().run(
        worth(threads, n), items,
        [&](std::int64_t item) {
            const Span& span = spans[item];
            update(kernels, vectors, span);
            if (item >= pass.items()) return;
            // Reads the cache and prefetches the client's next elements, so that memory is never idle.
            const FlatLayers here{aggregate + span.start * size_of(layers.type),
                                  layers.type,
                                  offsets,
                                  number,
                                  span.start,
                                  client + span.end * size_of(dtype)};
            pass.read(kernels, here, item, tiles.data(), out);
        },
        kGrain);
    pass.merge(layers, tiles.data(), out);
}

void masked_apply_(std::byte* params, const std::byte* delta, Dtype dtype, const std::int64_t* offsets,
                   const std::uint8_t* mask, std::int64_t layers, double lr, int threads) {
    const DefaultFloatEnv env;
    const Kernels& kernels = fedtlu::kernels();
    const Vectors vectors{params, delta, nullptr, dtype, lr};

    // The chosen stretches, none longer than an item; an item is a run of them.
    std::vector<Span> spans;
    std::vector<std::int64_t> starts{0};
    std::int64_t elements = 0;
    std::int64_t room = kItem;
    const auto add = [&](Span span) {
        while (span.start < span.end) {
            const std::int64_t end = std::min(span.end, span.start + room);
            spans.push_back({span.start, end});
            elements += end - span.start;
            room -= end - span.start;
            span.start = end;
            if (room > 0) continue;
            starts.push_back(static_cast<std::int64_t>(spans.size()));
            room = kItem;
        }
    };
    for (std::int64_t layer = 0; layer < layers;) {
        if (mask[layer] == 0) {
            ++layer;
            continue;
        }
        Span span{offsets[layer], offsets[layer]};
        while (layer < layers && mask[layer] != 0) span.end = offsets[++layer];
        add(span);
    }
    starts.push_back(static_cast<std::int64_t>(spans.size()));

    const auto items = static_cast<std::int64_t>(starts.size()) - 1;
    ThreadPool::instance().run(
        worth(threads, elements), items,
        [&](std::int64_t item) {
            for (std::int64_t i = starts[item]; i < starts[item + 1]; ++i) update(kernels, vectors, spans[i]);
        },
        kGrain);
}

}  // namespace fedtlu
