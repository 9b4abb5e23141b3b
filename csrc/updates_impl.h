// Weighted sums of vectors. Included by `kernels_impl.h` once per SIMD level.

namespace fedtlu {
namespace {

template <class Format>
constexpr std::int64_t kBlockBytes = kLanes * sizeof(typename Format::Bits);

template <class Format>
FEDTLU_INLINE void prefetch_block(const std::byte* at) {
    FEDTLU_UNROLL
    for (std::int64_t line = 0; line < kBlockBytes<Format>; line += 64) prefetch(at + line);
}

struct NoSquares {
    FEDTLU_INLINE void add(int, int, Doubles) {}
};

// Sums of squares of several clients' changes. With kExact every square is exact in double.
template <int kClients, bool kExact>
class Squares {
  public:
    FEDTLU_INLINE explicit Squares(const double* lanes) { __builtin_memcpy(lanes_, lanes, sizeof lanes_); }

    FEDTLU_INLINE void add(int client, int v, Doubles x) {
        Doubles& sum = lanes_[client][v % kParts];
        sum = kExact ? add_exact_square(sum, x) : sum + x * x;
    }

    FEDTLU_INLINE void store(double* lanes) const { __builtin_memcpy(lanes, lanes_, sizeof lanes_); }

  private:
    static constexpr int kParts = kSquareLanes / kWidth;
    Doubles lanes_[kClients][kParts];
};

// For vector v of a block: total + w_0 (x_0 - b) + w_1 (x_1 - b) + ..., in this order.
template <class Format, int kClients, bool kSubtract, class Squared>
FEDTLU_INLINE Doubles add_weighted(Doubles total, const std::byte* const* clients, const double* weights,
                                   const std::byte* base, int v, Squared& squares) {
    const std::int64_t at = v * kWidth * sizeof(typename Format::Bits);
    Doubles subtrahend{};
    if constexpr (kSubtract) subtrahend = Format::read(base + at);
    FEDTLU_UNROLL
    for (int client = 0; client < kClients; ++client) {
        Doubles change = Format::read(clients[client] + at);
        if constexpr (kSubtract) change = change - subtrahend;
        squares.add(client, v, change);
        total = total + weights[client] * change;
    }
    return total;
}

template <class Format, bool kSubtract>
FEDTLU_INLINE void update_block(std::byte* target, const std::byte* change, const std::byte* base,
                                double weight) {
    using Wide = typename Format::Wide;
    FEDTLU_UNROLL
    for (int v = 0; v < kVectors; ++v) {
        std::byte* at = target + v * kWidth * sizeof(typename Wide::Bits);
        NoSquares none;
        Wide::write(at, add_weighted<Format, 1, kSubtract>(Wide::read(at), &change, &weight, base, v, none));
    }
}

template <class Format, bool kSubtract>
FEDTLU_INLINE void update_all(std::byte* target, const std::byte* change, const std::byte* base,
                              double weight, std::int64_t n) {
    using Wide = typename Format::Wide;
    constexpr std::int64_t kNarrow = kBlockBytes<Format>;
    constexpr std::int64_t kTarget = kBlockBytes<Wide>;
    for (; n >= kLanes; n -= kLanes, target += kTarget, change += kNarrow) {
        prefetch_block<Wide>(target + kAhead);
        prefetch_block<Format>(change + kAhead);
        if constexpr (kSubtract) prefetch_block<Format>(base + kAhead);
        update_block<Format, kSubtract>(target, change, base, weight);
        if constexpr (kSubtract) base += kNarrow;
    }
    if (n == 0) return;
    // The last few elements as a block of their own, in copies.
    std::byte targets[kTarget] = {};
    std::byte changes[kNarrow] = {};
    std::byte bases[kNarrow] = {};
    const std::int64_t bytes = n * static_cast<std::int64_t>(sizeof(typename Format::Bits));
    const std::int64_t target_bytes = n * static_cast<std::int64_t>(sizeof(typename Wide::Bits));
    __builtin_memcpy(targets, target, target_bytes);
    __builtin_memcpy(changes, change, bytes);
    if constexpr (kSubtract) __builtin_memcpy(bases, base, bytes);
    update_block<Format, kSubtract>(targets, changes, bases, weight);
    __builtin_memcpy(target, targets, target_bytes);
}

template <class Format>
void update(std::byte* target, const std::byte* change, const std::byte* base, double weight,
            std::int64_t n) {
    if (base == nullptr) {
        update_all<Format, false>(target, change, base, weight, n);
    } else {
        update_all<Format, true>(target, change, base, weight, n);
    }
}

template <class Format, int kClients, bool kSubtract, class Squared>
FEDTLU_INLINE void add_block(double* total, const std::byte* const* clients, const double* weights,
                             const std::byte* base, Squared& squares) {
    FEDTLU_UNROLL
    for (int v = 0; v < kVectors; ++v) {
        auto* at = reinterpret_cast<std::byte*>(total + v * kWidth);
        const Doubles sum = load<Doubles>(at);
        store(at, add_weighted<Format, kClients, kSubtract>(sum, clients, weights, base, v, squares));
    }
}

template <class Format, int kClients, bool kSubtract, class Squared>
FEDTLU_INLINE void add_all(double* total, const Addends& addends, const std::byte* base, std::int64_t n,
                           Squared& squares) {
    constexpr std::int64_t kStep = kBlockBytes<Format>;
    const std::byte* clients[kClients];
    const std::byte* ahead[kClients];
    double weights[kClients];
    FEDTLU_UNROLL
    for (int client = 0; client < kClients; ++client) {
        clients[client] = addends.clients[client];
        ahead[client] = addends.ahead[client];
        weights[client] = addends.weights[client];
    }
    for (; n >= kLanes; n -= kLanes, total += kLanes) {
        add_block<Format, kClients, kSubtract>(total, clients, weights, base, squares);
        FEDTLU_UNROLL
        for (int client = 0; client < kClients; ++client) {
            prefetch_block<Format>(ahead[client]);
            ahead[client] += kStep;
            clients[client] += kStep;
        }
        if constexpr (kSubtract) base += kStep;
    }
    if (n == 0) return;
    double totals[kLanes] = {};
    std::byte last[kClients][kStep] = {};
    std::byte bases[kStep] = {};
    const std::int64_t bytes = n * static_cast<std::int64_t>(sizeof(typename Format::Bits));
    __builtin_memcpy(totals, total, n * sizeof(double));
    for (int client = 0; client < kClients; ++client) {
        __builtin_memcpy(last[client], clients[client], bytes);
        clients[client] = last[client];
    }
    if constexpr (kSubtract) __builtin_memcpy(bases, base, bytes);
    add_block<Format, kClients, kSubtract>(totals, clients, weights, bases, squares);
    __builtin_memcpy(total, totals, n * sizeof(double));
}

template <class Format, int kClients, bool kSubtract>
FEDTLU_INLINE void add_some(double* total, const Addends& addends, const std::byte* base, std::int64_t n) {
    if (addends.squares == nullptr) {
        NoSquares none;
        return add_all<Format, kClients, kSubtract>(total, addends, base, n, none);
    }
    Squares<kClients, !kSubtract && sizeof(typename Format::Bits) < 8> squares(addends.squares);
    add_all<Format, kClients, kSubtract>(total, addends, base, n, squares);
    squares.store(addends.squares);
}

template <class Format, bool kSubtract>
FEDTLU_INLINE void add_any(double* total, const Addends& addends, const std::byte* base, std::int64_t n) {
    switch (addends.number) {
        case 1:
            return add_some<Format, 1, kSubtract>(total, addends, base, n);
        case 2:
            return add_some<Format, 2, kSubtract>(total, addends, base, n);
        case 3:
            return add_some<Format, 3, kSubtract>(total, addends, base, n);
        default:
            return add_some<Format, kAddends, kSubtract>(total, addends, base, n);
    }
}

template <class Format>
void add(double* total, const Addends& addends, const std::byte* base, std::int64_t n) {
    if (base == nullptr) {
        add_any<Format, false>(total, addends, base, n);
    } else {
        add_any<Format, true>(total, addends, base, n);
    }
}

template <class Format>
void round(std::byte* out, const double* total, std::int64_t n) {
    constexpr std::int64_t kStep = kWidth * sizeof(typename Format::Bits);
    for (; n >= kWidth; n -= kWidth, out += kStep, total += kWidth) {
        Format::write(out, load<Doubles>(reinterpret_cast<const std::byte*>(total)));
    }
    Doubles last{};
    std::byte rounded[kStep];
    __builtin_memcpy(&last, total, n * sizeof(double));
    Format::write(rounded, last);
    __builtin_memcpy(out, rounded, n * sizeof(typename Format::Bits));
}

}  // namespace
}  // namespace fedtlu
