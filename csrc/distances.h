// Squared Euclidean distances between vectors, from direct differences.
#pragma once

#include <cstdint>

namespace fedtlu {

// out[i * number + j] = sum over c < n of (double(rows[i][c]) - double(rows[j][c]))^2 for i < chosen and
// j < number; 0 for j = i. Equal rows have equal distances to all others, bit for bit. 0 <= chosen <= number.
//
// The bits of a distance depend on its two rows only, not on the other rows, their order, `threads` or the
// SIMD level. Throws std::bad_alloc and whatever `kernels` throws.
void squared_distances(double* out, const float* const* rows, std::int64_t number, std::int64_t chosen,
                       std::int64_t n, int threads);

// lower[i * number + j] <= d <= upper[i * number + j], where d is what `squared_distances` computes; both are
// NaN where d is NaN. The bounds are symmetric, with zeros on the diagonal, about 2.5e-6 of d wide on either
// side, and come from float32 arithmetic, in a fraction of the time. A distance whose sum overflows float32
// is only known to be above 2^127.
//
// Bits do not depend on `threads`, but they do on the SIMD level. Throws as above.
void squared_distance_bounds(double* lower, double* upper, const float* const* rows, std::int64_t number,
                             std::int64_t n, int threads);

// out[i] = sum over c < n of (double(rows[i][c]) - (double(base[c]) + double(centre[c])))^2; a null `centre`
// is zero. Bits do not depend on `threads` or the SIMD level. Throws as above.
void squared_distances_from(double* out, const float* const* rows, std::int64_t number, const float* base,
                            const float* centre, std::int64_t n, int threads);

}  // namespace fedtlu
