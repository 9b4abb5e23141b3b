// The inner loops. No include guard: each kernels_*.cpp includes this once, under its own compiler target,
// after it has defined
//     FEDTLU_LEVEL, FEDTLU_KERNELS       the level's name and its table
//     Doubles, Floats                    vectors of the same number of elements
//     widen(Floats), narrow(Doubles)     between the two, rounded to nearest
//     Words, words(const std::byte*)     as many 32-bit integers, from 16-bit ones
//     halves(const std::byte*)           float16 elements as Floats
//     add_exact_square(sum, x)           sum + x * x where x * x is exact in double
//     add_fused(sum, x, one)             sum + x; on the units of multiplication, if those of addition are
//     scarce kStaged                            whether sums of 16-bit elements go by `stage_words` and
//     `stage_halves`:
//                                        a block of bfloat16 or float16 elements, to memory as float32, in
//                                        the order of its lanes
//     Singles, kRows, kColumns           see perceptron_impl.h
//
// Everything here has internal linkage and no template of the standard library is instantiated: the linker
// must never pick code compiled for a wider machine for the rest of the program.
//
// Multiplication and addition stay separate on every level: a fused one rounds differently, unless the
// product is exact in double.

#include "perceptron/perceptron_impl.h"
#include "simd.h"

namespace fedtlu {
namespace {

// Prefetches into the second-level cache: the first level can have fewer requests in flight, and was a fifth
// slower.
FEDTLU_INLINE void prefetch(const std::byte* at) { __builtin_prefetch(at, 0, 2); }

constexpr int kWidth = sizeof(Doubles) / sizeof(double);
constexpr int kVectors = kLanes / kWidth;

typedef std::int64_t Masks __attribute__((vector_size(8 * kWidth)));

template <class Vector>
FEDTLU_INLINE Vector load(const std::byte* at) {
    Vector vector;
    __builtin_memcpy(&vector, at, sizeof vector);
    return vector;
}

template <class Vector>
FEDTLU_INLINE void store(std::byte* at, Vector vector) {
    __builtin_memcpy(at, &vector, sizeof vector);
}

// A format reads kWidth elements as doubles. Wide is the format of a vector that such elements are added to.

// The element of a block of kLanes that each lane holds. A format chooses the order that is cheapest to
// load; the same one on every level.
constexpr double kNatural[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
constexpr double kEvenOdd[kLanes] = {0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15};

struct Block {
    Doubles lanes[kVectors];
};

struct Float64 {
    using Bits = std::int64_t;
    using Wide = Float64;
    static constexpr const double* kOrder = kNatural;
    static FEDTLU_INLINE Doubles read(const std::byte* x) { return load<Doubles>(x); }
    static FEDTLU_INLINE void write(std::byte* x, Doubles values) { store(x, values); }
};

struct Float32 {
    using Bits = std::int32_t;
    using Wide = Float32;
    static constexpr const double* kOrder = kNatural;
    static FEDTLU_INLINE Doubles read(const std::byte* x) { return widen(load<Floats>(x)); }
    static FEDTLU_INLINE void write(std::byte* x, Doubles values) { store(x, narrow(values)); }
};

struct Float16 {
    using Bits = std::int16_t;
    using Wide = Float32;
    static constexpr const double* kOrder = kNatural;
    static FEDTLU_INLINE Doubles read(const std::byte* x) { return widen(halves(x)); }
    static FEDTLU_INLINE void stage(float* to, const std::byte* x) { stage_halves(to, x); }
};

struct Bfloat16 {
    using Bits = std::int16_t;
    using Wide = Float32;
    static constexpr const double* kOrder = kEvenOdd;
    static FEDTLU_INLINE Doubles read(const std::byte* x) { return widen((Floats)(words(x) << 16)); }
    static FEDTLU_INLINE void stage(float* to, const std::byte* x) { stage_words(to, x); }
};

template <class Format>
FEDTLU_INLINE Block read_block(const std::byte* x) {
    Block block;
    FEDTLU_UNROLL
    for (int v = 0; v < kVectors; ++v) {
        block.lanes[v] = Format::read(x + v * kWidth * sizeof(typename Format::Bits));
    }
    return block;
}

// A 32-bit word holds two elements, and one operation makes either a float32: no shuffles.
template <>
FEDTLU_INLINE Block read_block<Bfloat16>(const std::byte* x) {
    Block block;
    FEDTLU_UNROLL
    for (int v = 0; v < kVectors / 2; ++v) {
        const Words pairs = load<Words>(x + v * sizeof(Words));
        block.lanes[v] = widen((Floats)(pairs << 16));
        block.lanes[v + kVectors / 2] = widen((Floats)(pairs & 0xffff0000u));
    }
    return block;
}

// Bits of the largest magnitude so far: for integers the comparison is exact and blind to NaN.
template <class Bits>
class Peak {
  public:
    FEDTLU_INLINE void add(const std::byte* x) {
        FEDTLU_UNROLL
        for (int v = 0; v < kRegisters; ++v) {
            const Register magnitude = load<Register>(x + v * sizeof(Register)) & kMagnitude;
            peaks_[v] = magnitude > peaks_[v] ? magnitude : peaks_[v];
        }
    }

    FEDTLU_INLINE std::int64_t get() const {
        Bits peaks[kLanes];
        __builtin_memcpy(peaks, peaks_, sizeof peaks);
        Bits largest = 0;
        for (const Bits peak : peaks) largest = peak > largest ? peak : largest;
        return largest;
    }

  private:
    static constexpr int kFit = 8 * kWidth / sizeof(Bits);
    static constexpr int kPerRegister = kFit < kLanes ? kFit : kLanes;
    static constexpr int kRegisters = kLanes / kPerRegister;
    static constexpr Bits kMagnitude = static_cast<Bits>(~(std::uint64_t{1} << (8 * sizeof(Bits) - 1)));
    typedef Bits Register __attribute__((vector_size(kPerRegister * sizeof(Bits))));

    Register peaks_[kRegisters] = {};
};

// Elements that are staged together: few enough that the processor sums those of one stage while it converts
// those of the next, enough that it has stored an element before it loads it. With 128 or 512 it is slower.
constexpr int kStage = 256;

// With kShifted the sums are of x - pivot; else the pivot is 0 and x of few enough bits for an exact square.
template <bool kShifted>
class Accumulator {
  public:
    FEDTLU_INLINE explicit Accumulator(double pivot) : pivot_(Doubles{} + pivot), one_(Doubles{} + 1.0) {
        hide(one_);
    }

    FEDTLU_INLINE void add(const Block& block) {
        FEDTLU_UNROLL
        for (int v = 0; v < kVectors; ++v) add(v, shifted(block, v));
    }

    // Adds only the elements of the block from `first` on; the others count as the pivot.
    FEDTLU_INLINE void add_from(const Block& block, const double* order, double first) {
        FEDTLU_UNROLL
        for (int v = 0; v < kVectors; ++v) {
            const Doubles element = load<Doubles>(reinterpret_cast<const std::byte*>(order + v * kWidth));
            const Masks chosen = (Masks)(element >= first);
            add(v, (Doubles)((Masks)shifted(block, v) & chosen));
        }
    }

    FEDTLU_INLINE double shift() const { return total(shift_); }
    FEDTLU_INLINE double square() const { return total(square_); }

  private:
    FEDTLU_INLINE Doubles shifted(const Block& block, int v) const {
        return kShifted ? block.lanes[v] - pivot_ : block.lanes[v];
    }

    FEDTLU_INLINE void add(int v, Doubles x) {
        // Conversions to double take the units of addition; every other sum leaves these to them.
        shift_[v] = kShifted || v % 2 == 1 ? shift_[v] + x : add_fused(shift_[v], x, one_);
        square_[v] = kShifted ? square_[v] + x * x : add_exact_square(square_[v], x);
    }

    // The tree: lane i takes lane i + 8, then i + 4, i + 2, i + 1.
    static FEDTLU_INLINE double total(const Doubles (&lanes)[kVectors]) {
        Doubles vectors[kVectors];
        FEDTLU_UNROLL
        for (int v = 0; v < kVectors; ++v) vectors[v] = lanes[v];
        FEDTLU_UNROLL
        for (int half = kVectors / 2; half > 0; half /= 2) {
            FEDTLU_UNROLL
            for (int v = 0; v < half; ++v) vectors[v] = vectors[v] + vectors[v + half];
        }
        double sums[kWidth];
        __builtin_memcpy(sums, vectors, sizeof sums);
        FEDTLU_UNROLL
        for (int half = kWidth / 2; half > 0; half /= 2) {
            FEDTLU_UNROLL
            for (int i = 0; i < half; ++i) sums[i] = sums[i] + sums[i + half];
        }
        return sums[0];
    }

    // The compiler would turn a multiplication by a number that it knows to be 1 into an addition.
    static FEDTLU_INLINE void hide(Doubles& number) {
#if defined(__x86_64__)
        asm("" : "+x"(number));
#else
        (void)number;
#endif
    }

    Doubles pivot_;
    Doubles one_;
    Doubles shift_[kVectors] = {};
    Doubles square_[kVectors] = {};
};

template <class Format, bool kShifted>
FEDTLU_INLINE Sums sums_of(const std::byte* x, std::int64_t n, double pivot, const std::byte* ahead) {
    constexpr std::int64_t kSize = sizeof(typename Format::Bits);
    constexpr std::int64_t kBlock = kLanes * kSize;
    Accumulator<kShifted> accumulator(pivot);
    Peak<typename Format::Bits> peak;

    const std::int64_t bytes = n * kSize;
    const std::byte* end = x + bytes;
    std::int64_t at = kBlock;
    if constexpr (kStaged && !kShifted && kSize == 2) {
        alignas(64) float staged[kStage];
        for (std::int64_t left = n / kStage; left > 0; --left) {
            for (int i = 0; i < kStage; i += kLanes, x += kBlock) {
                peak.add(x);
                Format::stage(staged + i, x);
            }
            // One line of memory for every two blocks, here where the loads are few. To the first-level
            // cache: the conversions above come in bursts that wait for the second.
            for (int i = 0; i < kStage; i += 2 * kLanes, ahead += 2 * kBlock) {
                __builtin_prefetch(ahead, 0, 3);
                accumulator.add(read_block<Float32>(reinterpret_cast<const std::byte*>(staged + i)));
                accumulator.add(read_block<Float32>(reinterpret_cast<const std::byte*>(staged + i + kLanes)));
            }
        }
        at += n / kStage * kStage * kSize;
    }
    for (; at <= bytes; at += kBlock, x += kBlock, ahead += kBlock) {
        prefetch(ahead);
        accumulator.add(read_block<Format>(x));
        peak.add(x);
    }
    if (const std::int64_t rest = n % kLanes; rest != 0) {
        // The last block ends at the last element and so overlaps elements already counted, or, in a run
        // shorter than a block, repetitions of the first one.
        std::byte padded[kBlock];
        const std::byte* last = end - kBlock;
        if (n < kLanes) {
            for (std::int64_t i = 0; i < kLanes - n; ++i) __builtin_memcpy(padded + i * kSize, x, kSize);
            __builtin_memcpy(padded + kBlock - bytes, x, bytes);
            last = padded;
        }
        accumulator.add_from(read_block<Format>(last), Format::kOrder, static_cast<double>(kLanes - rest));
        peak.add(last);
    }
    return {accumulator.shift(), accumulator.square(), peak.get()};
}

template <class Format>
Sums sums(const std::byte* x, std::int64_t n, double pivot, const std::byte* ahead) {
    if (sizeof(typename Format::Bits) < 8 && pivot == 0.0) return sums_of<Format, false>(x, n, pivot, ahead);
    return sums_of<Format, true>(x, n, pivot, ahead);
}

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

#include "columns_impl.h"
#include "distances_impl.h"

namespace fedtlu {

const Kernels FEDTLU_KERNELS = {
    FEDTLU_LEVEL,
    {sums<Float32>, sums<Bfloat16>, sums<Float16>, sums<Float64>},
    {update<Float32>, update<Bfloat16>, update<Float16>, update<Float64>},
    {add<Float32>, add<Bfloat16>, add<Float16>, add<Float64>},
    {round<Float32>, round<Float32>, round<Float32>, round<Float64>},
    train_client,
    {sort_tile<kTileColumns>, sort_tile<kTileColumns / 2>, sort_tile<kTileColumns / 4>},
    widen_row,
    squares,
    pair_squares};

}  // namespace fedtlu
