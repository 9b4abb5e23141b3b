// Means of the middle values of every column of K rows: the coordinate-wise median and trimmed mean.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fedtlu {

// out[i] = float((0 + s[first] + ... + s[last - 1]) / (last - first)) for i < n, summed in double, where s is
// the column rows[k][i] - base[i] for k < number (rounded to float; without the subtraction when `base` is
// null) in ascending order. -0 comes before +0; NaN of either sign comes last.
// 0 <= first < last <= number. `out` may be one of the rows or the base, but must not overlap them in part.
//
// Bits do not depend on the order of the rows, on `threads` or on the SIMD level. Throws std::bad_alloc and
// whatever `kernels` throws.
void sorted_mean(float* out, const float* const* rows, std::int64_t number, const float* base, std::int64_t n,
                 std::int64_t first, std::int64_t last, int threads);

}  // namespace fedtlu
