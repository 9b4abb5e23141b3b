// The activation GELU in its approximation by tanh, x * sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)), with its
// derivative, which the backward pass needs.
#pragma once

#include <cstdint>

namespace fedtlu {

// out[i] and slope[i] = value and derivative at x[i] for i < n, each a few float32 roundings off; slope may
// be null. NaN gives NaN, -infinity a number near 0. The arrays must not overlap. Bits do not depend on
// `threads` or the SIMD level (except for the payload of a NaN). Throws what `kernels` throws.
void gelu(float* out, float* slope, const float* x, std::int64_t n, int threads);

}  // namespace fedtlu
