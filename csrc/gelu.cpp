#include "gelu.h"

#include <algorithm>

#include "float_env.h"
#include "simd.h"
#include "thread_pool.h"

namespace fedtlu {
namespace {

constexpr std::int64_t kItem = 16384;

}  // namespace

void gelu(float* out, float* slope, const float* x, std::int64_t n, int threads) {
    const DefaultFloatEnv env;
    const Kernels& kernels = fedtlu::kernels();
    const std::int64_t items = n / kItem + (n % kItem != 0);
    const int worth = static_cast<int>(std::min<std::int64_t>(threads, std::max<std::int64_t>(1, items / 2)));
    ThreadPool::instance().run(worth, items, [&](std::int64_t item) {
        const std::int64_t start = item * kItem;
        const std::int64_t number = std::min(n - start, kItem);
        kernels.gelu(out + start, slope == nullptr ? nullptr : slope + start, x + start, number);
    });
}

}  // namespace fedtlu
