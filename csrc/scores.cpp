#include "scores.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "float_env.h"
#include "thread_pool.h"

namespace fedtlu {
namespace {

// Layers of one work item, and the least number that is worth waking a thread.
constexpr std::int64_t kItem = 4096;
constexpr std::int64_t kPerThread = 16384;

template <class Compute>
void for_each_layer(std::int64_t n, int threads, const Compute& compute) {
    const DefaultFloatEnv env;
    const std::int64_t worth = std::max<std::int64_t>(1, n / kPerThread);
    ThreadPool::instance().run(static_cast<int>(std::min<std::int64_t>(threads, worth)),
                               n / kItem + (n % kItem != 0), [&](std::int64_t item) {
                                   const std::int64_t end = std::min(n, (item + 1) * kItem);
                                   for (std::int64_t i = item * kItem; i < end; ++i) compute(i);
                               });
}

}  // namespace

void spread(const double* count, const double* mean, const double* m2, std::int64_t n, double* std,
            double* l2, int threads) {
    for_each_layer(n, threads, [=](std::int64_t i) {
        std[i] = std::sqrt(m2[i] / std::max(count[i], 1.0));
        l2[i] = std::sqrt(m2[i] + count[i] * (mean[i] * mean[i]));
    });
}

void score(const Statistics& given, std::int64_t n, double ddof, const Scores& out, int threads) {
    for_each_layer(n, threads, [=](std::int64_t i) {
        constexpr double kInfinity = std::numeric_limits<double>::infinity();
        const double count = given.count[i];
        const double ratio = given.mean[i] / given.std[i];
        const double square = ratio * ratio;
        // Not one comparison holds for NaN.
        const bool regular = (count >= 2) & (given.nonfinite[i] == 0) & (given.std[i] > 0) &
                             (given.std[i] < kInfinity) & (square < kInfinity);
        const double excess = regular ? square : 0.0;
        const double share = std::max(count - ddof, 0.0) / std::max(count, 1.0);
        out.score[i] = std::sqrt(share * (1 + excess));
        out.excess[i] = excess;
        out.degenerate[i] = !regular;
    });
}

}  // namespace fedtlu
