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
// Layers whose flags are kept between two loops.
constexpr std::int64_t kRun = 256;

// As std::max, but with values: the compiler makes no vectors of its references.
double at_least(double x, double least) { return x < least ? least : x; }

// Calls compute(start, end) for runs of layers.
template <class Compute>
void for_each_run(std::int64_t n, int threads, const Compute& compute) {
    const DefaultFloatEnv env;
    const std::int64_t worth = std::max<std::int64_t>(1, n / kPerThread);
    ThreadPool::instance().run(static_cast<int>(std::min<std::int64_t>(threads, worth)),
                               n / kItem + (n % kItem != 0), [&](std::int64_t item) {
                                   const std::int64_t end = std::min(n, (item + 1) * kItem);
                                   for (std::int64_t at = item * kItem; at < end; at += kRun) {
                                       compute(at, std::min(end, at + kRun));
                                   }
                               });
}

}  // namespace

// The loops below are short and write one kind of number each, so that the compiler makes vectors of them.

void spread(const double* count, const double* mean, const double* m2, std::int64_t n, double* std,
            double* l2, int threads) {
    for_each_run(n, threads, [=](std::int64_t start, std::int64_t end) {
        for (std::int64_t i = start; i < end; ++i) std[i] = std::sqrt(m2[i] / at_least(count[i], 1.0));
        for (std::int64_t i = start; i < end; ++i) l2[i] = std::sqrt(m2[i] + count[i] * (mean[i] * mean[i]));
    });
}

void score(const Statistics& given, std::int64_t n, double ddof, const Scores& out, int threads) {
    for_each_run(n, threads, [given, ddof, out](std::int64_t start, std::int64_t end) {
        constexpr double kInfinity = std::numeric_limits<double>::infinity();
        double regular[kRun];  // 1 or 0
        for (std::int64_t i = start; i < end; ++i) {
            const double ratio = given.mean[i] / given.std[i];
            const double square = ratio * ratio;
            // Not one comparison holds for NaN.
            const bool yes = (given.count[i] >= 2) & (given.nonfinite[i] == 0) & (given.std[i] > 0) &
                             (given.std[i] < kInfinity) & (square < kInfinity);
            regular[i - start] = yes ? 1.0 : 0.0;
            out.excess[i] = yes ? square : 0.0;
        }
        for (std::int64_t i = start; i < end; ++i) {
            const double count = given.count[i];
            const double share = at_least(count - ddof, 0.0) / at_least(count, 1.0);
            out.score[i] = std::sqrt(share * (1 + out.excess[i]));
        }
        for (std::int64_t i = start; i < end; ++i) out.degenerate[i] = regular[i - start] == 0.0;
    });
}

}  // namespace fedtlu
