#include "aggregate.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "float_env.h"
#include "layer_pass.h"
#include "simd.h"
#include "thread_pool.h"

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace fedtlu {
namespace {

// The elements are worked through in runs of this length, each over all clients. The totals of a run and a
// group of clients fit into half of a first-level cache; runs of 4096 took a sixth longer.
constexpr std::int64_t kRun = 512;
// Consecutive tiles for one thread.
constexpr std::int64_t kGrain = 8;
// A sum of this many bytes would evict everything else from a second-level cache.
constexpr std::int64_t kPastCaches = 4 * 1024 * 1024;
// The least number of bytes that is worth waking a thread.
constexpr std::int64_t kBytesPerThread = 512 * 1024;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// Copies, and bypasses the caches for a large vector. An ordinary store first reads its cache line from
// memory, which would cost as much as one more client.
void put(std::byte* to, const std::byte* from, std::int64_t bytes, bool past_caches) {
    if (bytes == 0) return;  // of an empty tensor, which has no address that memcpy could take
#if defined(__x86_64__)
    if (past_caches) {
        const auto misaligned = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(to) % 16);
        const std::int64_t head = std::min(bytes, misaligned == 0 ? 0 : 16 - misaligned);
        std::memcpy(to, from, static_cast<std::size_t>(head));
        std::int64_t at = head;
        for (; at + 16 <= bytes; at += 16) {
            const __m128i vector = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + at));
            _mm_stream_si128(reinterpret_cast<__m128i*>(to + at), vector);
        }
        std::memcpy(to + at, from + at, static_cast<std::size_t>(bytes - at));
        _mm_sfence();  // before another thread learns that this is done
        return;
    }
#endif
    std::memcpy(to, from, static_cast<std::size_t>(bytes));
}

class Aggregation {
  public:
    Aggregation(const Clients& clients, const Kernels& kernels) : clients_(clients), kernels_(kernels) {
        // Groups of almost equal size, none above kAddends.
        const std::int64_t groups = (clients.number + kAddends - 1) / kAddends;
        for (std::int64_t group = 0; group < groups; ++group) {
            groups_.push_back({clients.number * group / groups, clients.number * (group + 1) / groups});
        }
    }

    // The sum over a span of at most kTile elements, to `out`.
    void add(const Span& span, std::byte* out) const {
        alignas(64) double total[kRun];
        for (Span run{span.start, 0}; run.start < span.end; run.start = run.end) {
            run.end = std::min(span.end, run.start + kRun);
            std::memset(total, 0, static_cast<std::size_t>(run.size()) * sizeof(double));
            for (std::size_t group = 0; group < groups_.size(); ++group) add(group, run, total);
            round(run, span.start, total, out);
        }
    }

    // Does the same for an item of `pass`, with the moments of each client: a group of clients is added while
    // its elements are still in the cache. `places` has the tiles client by client.
    void add_and_read(const LayerPass& pass, const FlatLayers& layers, std::int64_t item, const Span& span,
                      Tile* places, const Moments* moments, std::byte* out) const {
        alignas(64) double total[kTile];
        std::memset(total, 0, static_cast<std::size_t>(span.size()) * sizeof(double));
        for (std::size_t group = 0; group < groups_.size(); ++group) {
            for (std::int64_t client = groups_[group].start; client < groups_[group].end; ++client) {
                read(pass, layers, item, span, client, places + client * pass.tiles(), moments[client]);
            }
            add(group, span, total);
        }
        round(span, span.start, total, out);
    }

    // Does the same with the sums of squares of each client's changes: those of a layer of one tile go to its
    // place in `squares` [clients, layers], those of other tiles to `places` [clients, tiles].
    void add_and_square(const LayerPass& pass, const FlatLayers& layers, std::int64_t item, double* places,
                        double* squares, std::byte* out) const {
        alignas(64) double total[kRun];
        std::vector<double> lanes(static_cast<std::size_t>(clients_.number * kSquareLanes));
        const std::int64_t origin = pass.span(layers, item).start;
        pass.each_tile(layers, item,
                       [&](std::int64_t layer, std::int64_t tile, std::int64_t slot, std::int64_t length) {
                           std::fill(lanes.begin(), lanes.end(), 0.0);
                           const std::int64_t start = layers.offsets[layer] + tile * kTile;
                           for (Span run{start, start}; run.start < start + length; run.start = run.end) {
                               run.end = std::min(start + length, run.start + kRun);
                               std::memset(total, 0, static_cast<std::size_t>(run.size()) * sizeof(double));
                               for (std::size_t group = 0; group < groups_.size(); ++group) {
                                   add(group, run, total, lanes.data() + groups_[group].start * kSquareLanes);
                               }
                               round(run, origin, total, out);
                           }
                           for (std::int64_t client = 0; client < clients_.number; ++client) {
                               const double sum = total_of(lanes.data() + client * kSquareLanes);
                               if (slot < 0) {
                                   squares[client * layers.number + layer] = std::isfinite(sum) ? sum : kNan;
                               } else {
                                   places[client * pass.tiles() + slot] = sum;
                               }
                           }
                       });
    }

    FlatLayers of_client(const FlatLayers& layers, std::int64_t client) const {
        return {clients_.data[client], clients_.dtype, layers.offsets, layers.number};
    }

    // The memory that is read after this span.
    const std::byte* next_of_first(const Span& span) const { return at(clients_.data[0], span.end); }

  private:
    const std::byte* at(const std::byte* vector, std::int64_t element) const {
        return vector + element * size_of(clients_.dtype);
    }

    static double total_of(const double* lanes) {
        double sums[kSquareLanes];
        std::memcpy(sums, lanes, sizeof sums);
        for (int half = kSquareLanes / 2; half > 0; half /= 2) {
            for (int i = 0; i < half; ++i) sums[i] += sums[i + half];
        }
        return sums[0];
    }

    void add(std::size_t group, const Span& run, double* total, double* squares = nullptr) const {
        const Span& clients = groups_[group];
        // The memory that is read next: these elements of the next group, or the next elements of the first
        // group.
        const bool last = group + 1 == groups_.size();
        const std::int64_t next = last ? 0 : clients.end;
        const std::int64_t from = last ? run.end : run.start;
        Addends addends;
        addends.squares = squares;
        addends.number = static_cast<int>(clients.size());
        for (int i = 0; i < addends.number; ++i) {
            addends.clients[i] = at(clients_.data[clients.start + i], run.start);
            addends.ahead[i] = at(clients_.data[std::min(next + i, clients_.number - 1)], from);
            addends.weights[i] = clients_.weights[clients.start + i];
        }
        const std::byte* base = clients_.base == nullptr ? nullptr : at(clients_.base, run.start);
        kernels_.add(clients_.dtype)(total, addends, base, run.size());
    }

    void round(const Span& run, std::int64_t origin, const double* total, std::byte* out) const {
        std::byte* to = out + (run.start - origin) * size_of(widened(clients_.dtype));
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

    const Clients& clients_;
    const Kernels& kernels_;
    std::vector<Span> groups_;
};

}  // namespace

void aggregate(std::byte* out, const Clients& clients, std::int64_t n, const std::int64_t* offsets,
               std::int64_t number, const Moments& moments, const Moments* client_moments,
               double* client_squares, int threads) {
    const DefaultFloatEnv env;
    const Kernels& kernels = fedtlu::kernels();
    const Aggregation aggregation(clients, kernels);
    const FlatLayers layers{nullptr, widened(clients.dtype), offsets, number};
    const LayerPass pass(layers, kTile * size_of(layers.type));
    const std::vector<Span> spans = spans_of(pass, layers, n);
    std::vector<Tile> tiles(static_cast<std::size_t>(pass.tiles()));
    const std::int64_t each = client_moments == nullptr ? 0 : clients.number;
    std::vector<Tile> client_tiles(static_cast<std::size_t>(pass.tiles() * each));
    const std::int64_t squared = client_squares == nullptr ? 0 : clients.number;
    std::vector<double> square_tiles(static_cast<std::size_t>(pass.tiles() * squared));

    const std::int64_t bytes = n * size_of(clients.dtype) * (clients.number + 1);
    const std::int64_t worth = std::max<std::int64_t>(1, bytes / kBytesPerThread);
    ThreadPool::instance().run(
        static_cast<int>(std::min<std::int64_t>(threads, worth)), static_cast<std::int64_t>(spans.size()),
        [&](std::int64_t item) {
            const Span& span = spans[item];
            alignas(64) std::byte sum[kTile * sizeof(double)];
            const bool in_layers = item < pass.items();
            if (in_layers && client_moments != nullptr) {
                aggregation.add_and_read(pass, layers, item, span, client_tiles.data(), client_moments, sum);
            } else if (in_layers && client_squares != nullptr) {
                aggregation.add_and_square(pass, layers, item, square_tiles.data(), client_squares, sum);
            } else {
                aggregation.add(span, sum);
            }
            if (in_layers) {
                // The first client's next elements are prefetched meanwhile.
                const std::byte* ahead = clients.number == 0 ? nullptr : aggregation.next_of_first(span);
                const FlatLayers here{sum, layers.type, offsets, number, span.start, ahead};
                pass.read(kernels, here, item, tiles.data(), moments);
            }
            const std::int64_t size = size_of(layers.type);
            put(out + span.start * size, sum, span.size() * size, n * size >= kPastCaches);
        },
        kGrain);

    pass.merge(layers, tiles.data(), moments);
    for (std::int64_t client = 0; client < squared; ++client) {
        pass.each_long([&](std::int64_t layer, std::int64_t slot) {
            const double* own = square_tiles.data() + client * pass.tiles() + slot;
            double sum = 0.0;
            for (std::int64_t i = 0; i < tiles_of(layers.count(layer)); ++i) sum += own[i];
            client_squares[client * number + layer] = std::isfinite(sum) ? sum : kNan;
        });
    }
    for (std::int64_t client = 0; client < each; ++client) {
        const Tile* own = client_tiles.data() + client * pass.tiles();
        FlatLayers of_client = aggregation.of_client(layers, client);
        if (clients.base != nullptr) of_client.type = layers.type;
        pass.merge(of_client, own, client_moments[client]);
    }
}

}  // namespace fedtlu
