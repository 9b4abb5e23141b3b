// Statistics that follow from layers' moments, and Eq. 1 of FedTLU (arXiv 2412.17692), layer by layer.
#pragma once

#include <cstdint>

namespace fedtlu {

// std = sqrt(m2 / max(count, 1)) and l2 = sqrt(m2 + count * mean^2), for n layers.
void spread(const double* count, const double* mean, const double* m2, std::int64_t n, double* std,
            double* l2, int threads);

struct Statistics {
    const double* count;
    const double* mean;
    const double* std;
    const double* nonfinite;
};

struct Scores {
    double* score;   // sqrt(max(count - ddof, 0) / max(count, 1) * (1 + excess))
    double* excess;  // (mean / std)^2; 0 for a degenerate layer
    bool* degenerate;
};

// A layer is degenerate if it has fewer than two elements, or its excess or std is no positive finite number.
void score(const Statistics& given, std::int64_t n, double ddof, const Scores& out, int threads);

}  // namespace fedtlu
