// The loops of `distances.cpp` for one SIMD level; included by kernels_impl.h, whose comment holds here too.

namespace fedtlu {
namespace {

// to[i] = x[i] for i < n.
void widen_row(double* to, const float* x, std::int64_t n) {
    for (; n >= kWidth; n -= kWidth, to += kWidth, x += kWidth) {
        const Doubles wide = widen(load<Floats>(reinterpret_cast<const std::byte*>(x)));
        store(reinterpret_cast<std::byte*>(to), wide);
    }
    for (std::int64_t i = 0; i < n; ++i) to[i] = x[i];
}

FEDTLU_INLINE void add_squares(Doubles (&sums)[kVectors], const float* x, const double* origin) {
    FEDTLU_UNROLL
    for (int v = 0; v < kVectors; ++v) {
        const Doubles wide = widen(load<Floats>(reinterpret_cast<const std::byte*>(x + v * kWidth)));
        const Doubles away = wide - load<Doubles>(reinterpret_cast<const std::byte*>(origin + v * kWidth));
        sums[v] = sums[v] + away * away;
    }
}

// The sum of (x[i] - origin[i])^2 for i < n; as many bytes from `ahead` on are prefetched.
double squares(const float* x, const double* origin, std::int64_t n, const float* ahead) {
    Doubles sums[kVectors] = {};
    for (; n >= kLanes; n -= kLanes, x += kLanes, origin += kLanes, ahead += kLanes) {
        prefetch(reinterpret_cast<const std::byte*>(ahead));
        add_squares(sums, x, origin);
    }
    if (n > 0) {
        float last[kLanes] = {};
        double origins[kLanes] = {};
        __builtin_memcpy(last, x, static_cast<std::size_t>(n) * sizeof(float));
        __builtin_memcpy(origins, origin, static_cast<std::size_t>(n) * sizeof(double));
        add_squares(sums, last, origins);
    }
    return tree(sums);
}

// x - y. Of every two differences one goes through the units that multiply, which have less to do than those
// that add; 1 * x is exact, so that the bits are the same.
FEDTLU_INLINE Doubles minus(Doubles x, Doubles y) {
#if defined(FEDTLU_FMSUB)
    return FEDTLU_FMSUB(x, y);
#else
    return x - y;
#endif
}

// out[i * kPairColumns + j] = the sum of (left[i][c] - right[j][c])^2 for c < n, a multiple of kPairLanes.
void pair_squares(double* out, const double* const* left, const double* const* right, std::int64_t n) {
    constexpr int kRegisters = kPairLanes / kWidth;
    Doubles sums[kPairRows][kPairColumns][kRegisters];
    // The registers of a lane group at a time: the sums of all would not fit into the machine's registers.
    FEDTLU_UNROLL
    for (int group = 0; group < kRegisters; ++group) {
        Doubles totals[kPairRows][kPairColumns] = {};
        for (std::int64_t at = group * kWidth; at < n; at += kPairLanes) {
            Doubles others[kPairColumns];
            FEDTLU_UNROLL
            for (int j = 0; j < kPairColumns; ++j) {
                others[j] = load<Doubles>(reinterpret_cast<const std::byte*>(right[j] + at));
            }
            FEDTLU_UNROLL
            for (int i = 0; i < kPairRows; ++i) {
                const Doubles own = load<Doubles>(reinterpret_cast<const std::byte*>(left[i] + at));
                FEDTLU_UNROLL
                for (int j = 0; j < kPairColumns; ++j) {
                    const Doubles away = j % 2 == 0 ? minus(own, others[j]) : own - others[j];
                    totals[i][j] = totals[i][j] + away * away;
                }
            }
        }
        FEDTLU_UNROLL
        for (int i = 0; i < kPairRows; ++i) {
            FEDTLU_UNROLL
            for (int j = 0; j < kPairColumns; ++j) sums[i][j][group] = totals[i][j];
        }
    }
    for (int i = 0; i < kPairRows; ++i) {
        for (int j = 0; j < kPairColumns; ++j) out[i * kPairColumns + j] = tree(sums[i][j]);
    }
}

// The sums of (left[i][c] - right[j][c])^2 for c < n in float32, for kSingleRows rows i and kGroup rows j.
template <int kGroup>
FEDTLU_INLINE void single_sums(Singles (&totals)[kSingleRows * kGroup], const float* left, const float* right,
                               std::int64_t n) {
    constexpr std::int64_t kWide = sizeof(Singles) / sizeof(float);
    constexpr std::int64_t kChain = kSingleChain * kWide;
    static_assert(kSinglePad % kWide == 0 && kSingleRun <= kSinglePad * kSingleChain);
    for (std::int64_t start = 0; start < n; start += kChain) {
        const std::int64_t end = n - start < kChain ? n : start + kChain;
        Singles sums[kSingleRows * kGroup] = {};
        for (std::int64_t at = start; at < end; at += kWide) {
            Singles others[kGroup];
            FEDTLU_UNROLL
            for (int j = 0; j < kGroup; ++j) {
                others[j] = load<Singles>(reinterpret_cast<const std::byte*>(right + j * kSingleRun + at));
            }
            FEDTLU_UNROLL
            for (int i = 0; i < kSingleRows; ++i) {
                const Singles own =
                    load<Singles>(reinterpret_cast<const std::byte*>(left + i * kSingleRun + at));
                FEDTLU_UNROLL
                for (int j = 0; j < kGroup; ++j) {
                    sums[i * kGroup + j] = add_square(sums[i * kGroup + j], own - others[j]);
                }
            }
        }
        FEDTLU_UNROLL
        for (int pair = 0; pair < kSingleRows * kGroup; ++pair) totals[pair] = totals[pair] + sums[pair];
    }
}

// out[i * kSingleColumns + j] = the sum of (left[i][c] - right[j][c])^2 for c < n, at most kSingleRun. The
// bits depend on the level (distances.cpp has the bound), because the lanes are the register's and only some
// levels fuse the square with its addition.
void single_pair_squares(float* out, const float* left, const float* right, std::int64_t n) {
    // As many columns at a time as the machine's registers hold sums for.
    constexpr int kGroup = sizeof(Singles) == 64 ? 4 : 2;
    static_assert(kSingleColumns % kGroup == 0);
    for (int group = 0; group < kSingleColumns; group += kGroup) {
        Singles totals[kSingleRows * kGroup] = {};
        single_sums<kGroup>(totals, left, right + group * kSingleRun, n);
        float found[kSingleRows * kGroup];
        lanes_added<kSingleRows * kGroup>(found, totals);
        for (int i = 0; i < kSingleRows; ++i) {
            for (int j = 0; j < kGroup; ++j) out[i * kSingleColumns + group + j] = found[i * kGroup + j];
        }
    }
}

}  // namespace
}  // namespace fedtlu
