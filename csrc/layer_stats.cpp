#include <algorithm>
#include <vector>

#include "float_env.h"
#include "layer_pass.h"
#include "moments.h"
#include "thread_pool.h"

namespace fedtlu {
namespace {

// Bytes of one work item, and consecutive items for one thread.
constexpr std::int64_t kItemBytes = 256 * 1024;
constexpr std::int64_t kGrain = 16;
// The least number of bytes that is worth waking a thread.
constexpr std::int64_t kBytesPerThread = 512 * 1024;

template <class Layers>
void run(const Layers& layers, const Moments& out, int threads) {
    const DefaultFloatEnv env;
    const Kernels& kernels = fedtlu::kernels();
    const LayerPass pass(layers, kItemBytes);
    std::vector<Tile> tiles(static_cast<std::size_t>(pass.tiles()));

    const std::int64_t worth = std::max<std::int64_t>(1, pass.bytes() / kBytesPerThread);
    ThreadPool::instance().run(
        static_cast<int>(std::min<std::int64_t>(threads, worth)), pass.items(),
        [&](std::int64_t item) { pass.read(kernels, layers, item, tiles.data(), out); }, kGrain);
    pass.merge(layers, tiles.data(), out);
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
