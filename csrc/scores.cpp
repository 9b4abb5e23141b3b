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

// The loops below are short and write one kind of number each, so that the compiler makes vectors of them.

// std of n layers.
void deviations(const double* count, const double* m2, std::int64_t n, double* std) {
    for (std::int64_t i = 0; i < n; ++i) std[i] = std::sqrt(m2[i] / at_least(count[i], 1.0));
}

// The scores of a run of at most kRun layers.
void score_run(const Statistics& given, std::int64_t n, double ddof, const Scores& out) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    double regular[kRun];  // 1 or 0
    for (std::int64_t i = 0; i < n; ++i) {
        const double ratio = given.mean[i] / given.std[i];
        const double square = ratio * ratio;
        // Not one comparison holds for NaN.
        const bool yes = (given.count[i] >= 2) & (given.nonfinite[i] == 0) & (given.std[i] > 0) &
                         (given.std[i] < kInfinity) & (square < kInfinity);
        regular[i] = yes ? 1.0 : 0.0;
        out.excess[i] = yes ? square : 0.0;
    }
    for (std::int64_t i = 0; i < n; ++i) {
        const double count = given.count[i];
        const double share = at_least(count - ddof, 0.0) / at_least(count, 1.0);
        out.score[i] = std::sqrt(share * (1 + out.excess[i]));
    }
    for (std::int64_t i = 0; i < n; ++i) out.degenerate[i] = regular[i] == 0.0;
}

Scores from(const Scores& scores, std::int64_t start) {
    return {scores.score + start, scores.excess + start, scores.degenerate + start};
}

}  // namespace

void spread(const double* count, const double* mean, const double* m2, std::int64_t n, double* std,
            double* l2, int threads) {
    for_each_run(n, threads, [=](std::int64_t start, std::int64_t end) {
        deviations(count + start, m2 + start, end - start, std + start);
        for (std::int64_t i = start; i < end; ++i) l2[i] = std::sqrt(m2[i] + count[i] * (mean[i] * mean[i]));
    });
}

void score(const Statistics& given, std::int64_t n, double ddof, const Scores& out, int threads) {
    for_each_run(n, threads, [given, ddof, out](std::int64_t start, std::int64_t end) {
        const Statistics run{given.count + start, given.mean + start, given.std + start,
                             given.nonfinite + start};
        score_run(run, end - start, ddof, from(out, start));
    });
}

void score_moments(const Moments& given, std::int64_t n, double ddof, const Scores& out, int threads) {
    for_each_run(n, threads, [given, ddof, out](std::int64_t start, std::int64_t end) {
        double std[kRun];
        deviations(given.count + start, given.m2 + start, end - start, std);
        const Statistics run{given.count + start, given.mean + start, std, given.nonfinite + start};
        score_run(run, end - start, ddof, from(out, start));
    });
}

}  // namespace fedtlu
