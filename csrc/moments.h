// Moments of the layers of a change: count, mean, squared deviations, largest magnitude, non-finite values.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dtypes.h"

namespace fedtlu {

// The arrays that the results are written to: five vectors of one double per layer.
struct Moments {
    double* count;      // n
    double* mean;       // sum(x) / n
    double* m2;         // sum((x - mean)^2); exactly 0 for a constant layer
    double* abs_max;    // max |x|
    double* nonfinite;  // how many elements are NaN or Inf; if any, mean, m2 and abs_max are NaN
};

// One layer anywhere in memory.
struct LayerView {
    const std::byte* data;  // of any alignment; may be null when count is 0
    std::int64_t count;     // elements
    Dtype dtype;
};

// Both functions read every byte once and compute in float64; an empty layer gives zeros. float64 input whose
// squared deviations leave the range of double gives m2 = inf (below 1e-308 they are lost), and its mean is
// finite only if the sum of the deviations is. The bits of the result do not depend on `threads` or the SIMD
// level. Both throw std::bad_alloc and whatever `kernels` throws; no input value makes them throw.

// Layer l is elements offsets[l] to offsets[l + 1] of `delta`; `offsets` has layers + 1 non-decreasing
// entries.
void layer_stats(const std::byte* delta, Dtype dtype, const std::int64_t* offsets, std::int64_t layers,
                 const Moments& out, int threads);

// Separate layers.
void layer_stats_list(const LayerView* views, std::int64_t layers, const Moments& out, int threads);

}  // namespace fedtlu
