// How elements of every dtype are read and written, a vector or a block at a time. Included by
// `kernels_impl.h` once per SIMD level.

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

// The lanes' sum, in a tree that is the same on every level: lane i takes lane i + half, and so on.
template <int kRegisters>
FEDTLU_INLINE double tree(Doubles (&vectors)[kRegisters]) {
    FEDTLU_UNROLL
    for (int half = kRegisters / 2; half > 0; half /= 2) {
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

}  // namespace
}  // namespace fedtlu
