// Element-wise updates of a vector, in float64 and rounded once.
//
// `dtype` is the dtype of the addend; the target has `widened(dtype)`, float32 or float64. The vectors may
// have any alignment. The addend may be the target itself, if the dtypes are equal, but must not overlap it
// in part. Bits do not depend on `threads` or the SIMD level (except for the payload of a NaN). All functions
// throw std::bad_alloc and whatever `kernels` throws.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dtypes.h"
#include "moments.h"

namespace fedtlu {

// aggregate[i] = T(double(aggregate[i]) + weight * (double(client[i]) - double(base[i]))) for i < n;
// without the subtraction when `base` is null.
void accumulate_(std::byte* aggregate, const std::byte* client, const std::byte* base, Dtype dtype,
                 std::int64_t n, double weight, int threads);

// The same, and also the moments of the new aggregate's layers while they are in the cache, bit for bit as
// `layer_stats` gives them. `offsets` has layers + 1 non-decreasing entries in [0, n].
void accumulate_layer_stats_(std::byte* aggregate, const std::byte* client, const std::byte* base,
                             Dtype dtype, std::int64_t n, double weight, const std::int64_t* offsets,
                             std::int64_t layers, const Moments& out, int threads);

// params[i] = T(double(params[i]) + lr * double(delta[i])) for i in [offsets[l], offsets[l + 1]) of every
// layer l whose mask[l] is not 0; other elements are neither read nor written. `offsets` has layers + 1
// non-decreasing entries.
void masked_apply_(std::byte* params, const std::byte* delta, Dtype dtype, const std::int64_t* offsets,
                   const std::uint8_t* mask, std::int64_t layers, double lr, int threads);

}  // namespace fedtlu
