// The sums of a run of elements, for statistics. Included by `kernels_impl.h` once per SIMD level.

namespace fedtlu {
namespace {

// The largest of a vector's numbers, in registers.
template <int kNumber, class Number, class Vector>
FEDTLU_INLINE Number largest_of(Vector numbers) {
    if constexpr (kNumber == 1) {
        return numbers[0];
    } else {
        typedef Number Half __attribute__((vector_size(kNumber / 2 * sizeof(Number))));
        const auto* bytes = reinterpret_cast<const std::byte*>(&numbers);
        const Half low = load<Half>(bytes), high = load<Half>(bytes + sizeof(Half));
        return largest_of<kNumber / 2, Number>(high > low ? high : low);
    }
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
        Register largest = peaks_[0];
        FEDTLU_UNROLL
        for (int v = 1; v < kRegisters; ++v) largest = peaks_[v] > largest ? peaks_[v] : largest;
        return largest_of<kPerRegister, Bits>(largest);
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

    // `tree` works in place, so it gets a copy.
    static FEDTLU_INLINE double total(const Doubles (&lanes)[kVectors]) {
        Doubles vectors[kVectors];
        FEDTLU_UNROLL
        for (int v = 0; v < kVectors; ++v) vectors[v] = lanes[v];
        return tree(vectors);
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
        prefetch(ahead);  // or a line between the blocks of two short layers would be missed
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
void sums_of_short(const ShortLayers& layers, ShortSums& out) {
    for (int i = 0; i < layers.number; ++i) {
        const Sums found = sums_of<Format, false>(layers.x[i], layers.count[i], 0.0, layers.ahead[i]);
        out.shift[i] = found.shift;
        out.square[i] = found.square;
        out.peak[i] = found.peak;
    }
}

}  // namespace
}  // namespace fedtlu
