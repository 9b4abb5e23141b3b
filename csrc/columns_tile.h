// A tile of columns and the network that sorts it, laid out for the inner loops of `columns_impl.h`.
#pragma once

#include <cstdint>

namespace fedtlu {

// What a step of the network does with some rows of the tile, in registers and column by column; the rows are
// given from the top down, and afterwards the smaller values are above the larger ones.
enum class StepKind : std::int32_t {
    kSort8,   // sorts eight rows
    kMerge8,  // of four rows in order and four rows in order: the first three layers of a longer merge
    kClean8,  // three more layers of a merge
    kClean4,  // two
    kClean2,  // one
};

struct Step {
    StepKind kind;
    std::int32_t rows[8];  // as many as the kind says; a row of the tile, or the row behind the last
};

constexpr int rows_of(StepKind kind) {
    return kind == StepKind::kClean2 ? 2 : kind == StepKind::kClean4 ? 4 : 8;
}

// The widest tile has this many columns.
constexpr std::int64_t kTileColumns = 64;

struct ColumnTile {
    const float* const* rows;  // each from the first column of the vectors on
    const float* base;         // null for none
    std::int64_t number;       // of rows
    std::int64_t start;        // the first column
    std::int64_t count;        // of columns, from 1 to the width of the tile
    std::int64_t ahead;        // the column whose elements are read next; it is only prefetched
    const Step* steps;
    std::int64_t number_of_steps;
    std::int64_t first;  // the rows of the sorted tile that are averaged
    std::int64_t last;
    std::int32_t* keys;  // room for (number + 1) * width; the row behind the last holds the largest key
    float* out;          // from the first column on
};

}  // namespace fedtlu
