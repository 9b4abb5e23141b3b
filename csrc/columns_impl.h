// The loops of `columns.cpp` for one SIMD level; included by kernels_impl.h, whose comment holds here too.
//
// A column is sorted as integers whose order is that of the numbers: their smaller and larger are exact,
// equal for every order of the rows, and blind to NaN.

#include "columns_tile.h"

namespace fedtlu {
namespace {

typedef std::int32_t Ints __attribute__((vector_size(sizeof(Singles))));
typedef std::int32_t HalfInts __attribute__((vector_size(sizeof(Floats))));

constexpr int kFloats = sizeof(Singles) / sizeof(float);
constexpr std::int32_t kNan = 0x7fc00000;

// Between the bits of a float and an integer of the same order: negative numbers are ordered backwards.
template <class Integers>
FEDTLU_INLINE Integers reordered(Integers bits) {
    return bits ^ ((bits >> 31) & 0x7fffffff);
}

FEDTLU_INLINE Ints key_of(Singles x) {
    const Ints is_nan = (Ints)(x != x);
    return reordered((Ints)((is_nan & kNan) | (~is_nan & (Ints)x)));
}

template <int kColumns>
FEDTLU_INLINE void read_keys(std::int32_t* keys, const float* x, const float* base) {
    FEDTLU_UNROLL
    for (int v = 0; v < kColumns; v += kFloats) {
        Singles values = load<Singles>(reinterpret_cast<const std::byte*>(x + v));
        if (base != nullptr) values = values - load<Singles>(reinterpret_cast<const std::byte*>(base + v));
        store(reinterpret_cast<std::byte*>(keys + v), key_of(values));
    }
}

FEDTLU_INLINE void exchange(Ints& low, Ints& high) {
    const Ints smaller = low < high ? low : high;
    high = low < high ? high : low;
    low = smaller;
}

// Layers of eight registers: of rows that mirror each other, and of rows at a distance of 4, 2 and 1.
FEDTLU_INLINE void mirror8(Ints (&x)[8]) {
    FEDTLU_UNROLL
    for (int i = 0; i < 4; ++i) exchange(x[i], x[7 - i]);
}

template <int kRows, int kDistance>
FEDTLU_INLINE void clean(Ints (&x)[kRows]) {
    FEDTLU_UNROLL
    for (int i = 0; i < kRows; ++i) {
        if ((i & kDistance) == 0) exchange(x[i], x[i + kDistance]);
    }
}

struct Sort8 {
    static constexpr int kRows = 8;
    // Batcher's network of 19 exchanges.
    static FEDTLU_INLINE void run(Ints (&x)[8]) {
        clean<8, 1>(x);
        clean<8, 2>(x);
        exchange(x[1], x[2]);
        exchange(x[5], x[6]);
        clean<8, 4>(x);
        exchange(x[2], x[4]);
        exchange(x[3], x[5]);
        exchange(x[1], x[2]);
        exchange(x[3], x[4]);
        exchange(x[5], x[6]);
    }
};

struct Merge8 {
    static constexpr int kRows = 8;
    static FEDTLU_INLINE void run(Ints (&x)[8]) {
        mirror8(x);
        clean<8, 2>(x);
        clean<8, 1>(x);
    }
};

struct Clean8 {
    static constexpr int kRows = 8;
    static FEDTLU_INLINE void run(Ints (&x)[8]) {
        clean<8, 4>(x);
        clean<8, 2>(x);
        clean<8, 1>(x);
    }
};

struct Clean4 {
    static constexpr int kRows = 4;
    static FEDTLU_INLINE void run(Ints (&x)[4]) {
        clean<4, 2>(x);
        clean<4, 1>(x);
    }
};

struct Clean2 {
    static constexpr int kRows = 2;
    static FEDTLU_INLINE void run(Ints (&x)[2]) { exchange(x[0], x[1]); }
};

template <class Layers, int kColumns>
FEDTLU_INLINE void apply(std::int32_t* keys, const std::int32_t* rows) {
    std::int32_t* at[Layers::kRows];
    FEDTLU_UNROLL
    for (int i = 0; i < Layers::kRows; ++i) at[i] = keys + static_cast<std::int64_t>(rows[i]) * kColumns;
    for (int v = 0; v < kColumns; v += kFloats) {
        Ints x[Layers::kRows];
        FEDTLU_UNROLL
        for (int i = 0; i < Layers::kRows; ++i)
            x[i] = load<Ints>(reinterpret_cast<const std::byte*>(at[i] + v));
        Layers::run(x);
        FEDTLU_UNROLL
        for (int i = 0; i < Layers::kRows; ++i) store(reinterpret_cast<std::byte*>(at[i] + v), x[i]);
    }
}

template <int kColumns>
FEDTLU_INLINE void apply(std::int32_t* keys, const Step& step) {
    switch (step.kind) {
        case StepKind::kSort8:
            return apply<Sort8, kColumns>(keys, step.rows);
        case StepKind::kMerge8:
            return apply<Merge8, kColumns>(keys, step.rows);
        case StepKind::kClean8:
            return apply<Clean8, kColumns>(keys, step.rows);
        case StepKind::kClean4:
            return apply<Clean4, kColumns>(keys, step.rows);
        default:
            return apply<Clean2, kColumns>(keys, step.rows);
    }
}

template <int kColumns>
FEDTLU_INLINE void average(const ColumnTile& tile, float* out) {
    // The sums of several registers of columns side by side: one alone would wait for its own additions.
    constexpr int kSums = kColumns / kWidth < 4 ? kColumns / kWidth : 4;
    const double count = static_cast<double>(tile.last - tile.first);
    for (int at = 0; at < kColumns; at += kSums * kWidth) {
        Doubles sums[kSums] = {};
        for (std::int64_t row = tile.first; row < tile.last; ++row) {
            const auto* keys = reinterpret_cast<const std::byte*>(tile.keys + row * kColumns + at);
            FEDTLU_UNROLL
            for (int v = 0; v < kSums; ++v) {
                const auto bits = reordered(load<HalfInts>(keys + v * sizeof(HalfInts)));
                sums[v] = sums[v] + widen((Floats)bits);
            }
        }
        FEDTLU_UNROLL
        for (int v = 0; v < kSums; ++v) {
            store(reinterpret_cast<std::byte*>(out + at + v * kWidth), narrow(sums[v] / count));
        }
    }
}

template <int kColumns>
void sort_tile(const ColumnTile& tile) {
    const bool whole = tile.count == kColumns;
    const std::size_t bytes = static_cast<std::size_t>(tile.count) * sizeof(float);
    float padded[kColumns] = {};
    float bases[kColumns] = {};
    const float* base = tile.base == nullptr ? nullptr : tile.base + tile.start;
    if (base != nullptr && !whole) {
        __builtin_memcpy(bases, base, bytes);
        base = bases;
    }
    for (std::int64_t row = 0; row < tile.number; ++row) {
        const float* x = tile.rows[row] + tile.start;
        if (!whole) {
            __builtin_memcpy(padded, x, bytes);
            x = padded;
        }
        read_keys<kColumns>(tile.keys + row * kColumns, x, base);
    }

    // Some lines of the next tile with every step: all at once would fill the queue of misses and wait.
    constexpr std::int64_t kLine = 16;
    const std::int64_t lines =
        (tile.number * kColumns / kLine + tile.number_of_steps) / (tile.number_of_steps + 1);
    std::int64_t row = 0;
    std::int64_t column = 0;
    for (std::int64_t i = 0; i < tile.number_of_steps; ++i) {
        for (std::int64_t line = 0; line < lines && row < tile.number; ++line) {
            prefetch(reinterpret_cast<const std::byte*>(tile.rows[row] + tile.ahead + column));
            column += kLine;
            if (column >= kColumns) {
                column = 0;
                ++row;
            }
        }
        apply<kColumns>(tile.keys, tile.steps[i]);
    }

    if (whole) {
        average<kColumns>(tile, tile.out + tile.start);
    } else {
        average<kColumns>(tile, padded);
        __builtin_memcpy(tile.out + tile.start, padded, bytes);
    }
}

}  // namespace
}  // namespace fedtlu
