// The weighted sum of many clients' vectors, and the moments of its layers, in one pass over the clients.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dtypes.h"
#include "moments.h"

namespace fedtlu {

struct Clients {
    const std::byte* const* data;  // `number` vectors of any alignment
    const double* weights;         // `number` of them
    std::int64_t number;
    const std::byte* base;  // the parameters the clients started from; null if `data` holds changes
    Dtype dtype;            // of the clients and the base
};

// out[i] = T(0 + weights[0] * (double(data[0][i]) - double(base[i])) + weights[1] * ...) for i < n: in the
// order of the clients, in float64, rounded once to T = `widened(dtype)`. `out` may be one of the clients or
// the base, if the dtypes are equal, but must not overlap them in part.
//
// `moments` receives the moments of the layers of `out`, bit for bit as `layer_stats` gives them; `offsets`
// has layers + 1 non-decreasing entries in [0, n]. `client_moments`, if not null, has one entry per client
// and receives the moments of its change: of the client itself, or of client - base rounded to T.
//
// `client_squares`, if not null, has room for [number, layers] and receives sum((client - base)^2) of every
// client's layers, of the changes before they are rounded; NaN if that is not finite. At most one of the two
// may be asked for.
//
// Bits do not depend on `threads` or the SIMD level (except for the payload of a NaN). Throws std::bad_alloc
// and whatever `kernels` throws.
void aggregate(std::byte* out, const Clients& clients, std::int64_t n, const std::int64_t* offsets,
               std::int64_t layers, const Moments& moments, const Moments* client_moments,
               double* client_squares, int threads);

}  // namespace fedtlu
