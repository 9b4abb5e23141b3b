// Squared Euclidean distances between vectors, from direct differences in double.
#pragma once

#include <cstdint>

namespace fedtlu {

// out[i * number + j] = sum over c < n of (double(rows[i][c]) - double(rows[j][c]))^2, symmetric, with zeros
// on the diagonal. Equal rows have equal distances to all others, bit for bit.
//
// Bits do not depend on `threads` or the SIMD level. Throws std::bad_alloc and whatever `kernels` throws.
void squared_distances(double* out, const float* const* rows, std::int64_t number, std::int64_t n,
                       int threads);

// out[i] = sum over c < n of (double(rows[i][c]) - (double(base[c]) + double(centre[c])))^2; a null `centre`
// is zero. Bits and errors as above.
void squared_distances_from(double* out, const float* const* rows, std::int64_t number, const float* base,
                            const float* centre, std::int64_t n, int threads);

}  // namespace fedtlu
