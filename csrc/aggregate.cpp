#include "aggregate.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "float_env.h"
#include "layer_pass.h"
#include "simd.h"
#include "thread_pool.h"

namespace fedtlu {
namespace {

// Elements that all clients are added up over before the next ones: their totals stay in the first-level
// cache.
constexpr std::int64_t kRun = 4096;
// A thread must have this many bytes to read to be worth waking.
constexpr std::int64_t kBytesPerThread = 512 * 1024;

class Aggregation {
  public:
    Aggregation(std::byte* out, const Clients& clients, const Kernels& kernels)
        : out_(out), clients_(clients), kernels_(kernels) {}

    // Elements of a span of at most kTile.
    void add(const Span& span) const {
        alignas(64) double total[kRun];
        for (Span run{span.start, 0}; run.start < span.end; run.start = run.end) {
            run.end = std::min(span.end, run.start + kRun);
            std::memset(total, 0, static_cast<std::size_t>(run.size()) * sizeof(double));
            for (std::int64_t first = 0; first < clients_.number; first += kAddends) add(first, run, total);
            finish(run, total);
        }
    }

    // The same in an item of `pass`, with the moments of each client: a group of clients is added while its
    // elements are still in the cache. `places` has the tiles of one client after those of another.
    void add_and_read(const LayerPass& pass, const FlatLayers& layers, std::int64_t item, const Span& span,
                      Tile* places, const Moments* moments) const {
        alignas(64) double total[kTile];
        std::memset(total, 0, static_cast<std::size_t>(span.size()) * sizeof(double));
        for (std::int64_t first = 0; first < clients_.number; first += kAddends) {
            const std::int64_t end = std::min(clients_.number, first + kAddends);
            for (std::int64_t client = first; client < end; ++client) {
                read(pass, layers, item, span, client, places + client * pass.tiles(), moments[client]);
            }
            add(first, span, total);
        }
        finish(span, total);
    }

    FlatLayers of_client(const FlatLayers& layers, std::int64_t client) const {
        return {clients_.data[client], clients_.dtype, layers.offsets, layers.number};
    }

  private:
    const std::byte* at(const std::byte* vector, std::int64_t element) const {
        return vector + element * size_of(clients_.dtype);
    }

    // The group of clients that starts at `first`.
    void add(std::int64_t first, const Span& run, double* total) const {
        Addends addends;
        addends.number = static_cast<int>(std::min<std::int64_t>(kAddends, clients_.number - first));
        // What is read next: these elements of the next group, or the next elements of the first group.
        const bool last = first + kAddends >= clients_.number;
        for (int i = 0; i < addends.number; ++i) {
            addends.clients[i] = at(clients_.data[first + i], run.start);
            const std::int64_t next = last ? i : std::min(first + kAddends + i, clients_.number - 1);
            addends.ahead[i] = at(clients_.data[next], last ? run.end : run.start);
            addends.weights[i] = clients_.weights[first + i];
        }
        const std::byte* base = clients_.base == nullptr ? nullptr : at(clients_.base, run.start);
        kernels_.add(clients_.dtype)(total, addends, base, run.size());
    }

    void finish(const Span& run, const double* total) const {
        std::byte* to = out_ + run.start * size_of(widened(clients_.dtype));
        kernels_.round(clients_.dtype)(to, total, run.size());
    }

    void read(const LayerPass& pass, const FlatLayers& layers, std::int64_t item, const Span& span,
              std::int64_t client, Tile* tiles, const Moments& moments) const {
        if (clients_.base == nullptr) {
            pass.read(kernels_, of_client(layers, client), item, tiles, moments);
            return;
        }
        alignas(64) std::byte change[kTile * sizeof(double)];
        std::memset(change, 0, static_cast<std::size_t>(span.size() * size_of(layers.type)));
        kernels_.update(clients_.dtype)(change, at(clients_.data[client], span.start),
                                        at(clients_.base, span.start), 1.0, span.size());
        const FlatLayers changes{change, layers.type, layers.offsets, layers.number, span.start};
        pass.read(kernels_, changes, item, tiles, moments);
    }

    std::byte* out_;
    const Clients& clients_;
    const Kernels& kernels_;
};

}  // namespace

void aggregate(std::byte* out, const Clients& clients, std::int64_t n, const std::int64_t* offsets,
               std::int64_t number, const Moments& moments, const Moments* client_moments, int threads) {
    const DefaultFloatEnv env;
    const Kernels& kernels = fedtlu::kernels();
    const Aggregation aggregation(out, clients, kernels);
    const FlatLayers layers{out, widened(clients.dtype), offsets, number};
    const LayerPass pass(layers, kTile * size_of(layers.type));
    const std::vector<Span> spans = spans_of(pass, layers, n);
    std::vector<Tile> tiles(static_cast<std::size_t>(pass.tiles()));
    const std::int64_t each = client_moments == nullptr ? 0 : clients.number;
    std::vector<Tile> client_tiles(static_cast<std::size_t>(pass.tiles() * each));

    const std::int64_t bytes = n * size_of(clients.dtype) * (clients.number + 1);
    const std::int64_t worth = std::max<std::int64_t>(1, bytes / kBytesPerThread);
    ThreadPool::instance().run(static_cast<int>(std::min<std::int64_t>(threads, worth)),
                               static_cast<std::int64_t>(spans.size()), [&](std::int64_t item) {
                                   const bool in_layers = item < pass.items();
                                   if (in_layers && client_moments != nullptr) {
                                       aggregation.add_and_read(pass, layers, item, spans[item],
                                                                client_tiles.data(), client_moments);
                                   } else {
                                       aggregation.add(spans[item]);
                                   }
                                   if (in_layers) pass.read(kernels, layers, item, tiles.data(), moments);
                               });

    pass.merge(layers, tiles.data(), moments);
    for (std::int64_t client = 0; client < each; ++client) {
        const Tile* own = client_tiles.data() + client * pass.tiles();
        FlatLayers of_client = aggregation.of_client(layers, client);
        if (clients.base != nullptr) of_client.type = layers.type;
        pass.merge(of_client, own, client_moments[client]);
    }
}

}  // namespace fedtlu
