// Compares rows with each other in tiles of their columns, which are copied so that they begin at lines of
// the cache and lie beside each other.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "simd.h"
#include "vectors.h"

namespace fedtlu {

// How rows are compared with elements of a type: kRows times kColumns of them at a time, over kTile columns.
// Two tiles of 100 rows stay in a second-level cache, and kBlock rows of one in a first-level cache beside
// the rows that they are compared with.
template <class Element>
struct Shape;
template <>
struct Shape<double> {
    static constexpr std::int64_t kTile = 512, kBlock = kPairRows;
    static constexpr int kRows = kPairRows, kColumns = kPairColumns;
};
template <>
struct Shape<float> {
    static constexpr std::int64_t kTile = kSingleRun, kBlock = 2 * kSingleRows;
    static constexpr int kRows = kSingleRows, kColumns = kSingleColumns;
};

// Tiles are padded with zeros, which add nothing to a distance, to a multiple of this many columns.
constexpr std::int64_t kPadded = 16;
constexpr std::int64_t padded(std::int64_t count) { return (count + kPadded - 1) / kPadded * kPadded; }

// Copies at most kTile of the columns [start, end) of rows to a tile, a piece of a row at a time, while
// another tile is compared. A piece is prefetched before, so that the copy waits for nothing.
template <class Element>
class TileCopy {
  public:
    static constexpr std::int64_t kPiece = 128;  // columns

    TileCopy(const float* const* rows, std::int64_t number, std::int64_t start, std::int64_t end,
             const Kernels& kernels, Element* to)
        : rows_(rows),
          number_(number),
          start_(start),
          count_(std::clamp<std::int64_t>(end - start, 0, kTile)),
          kernels_(kernels),
          to_(to) {
        if (count_ == 0) read_.row = copied_.row = number;
        for (int i = 0; i < kAhead; ++i) prefetch();
    }

    void advance(std::int64_t pieces) {
        for (; pieces > 0 && copied_.row < number_; --pieces) {
            prefetch();
            const std::int64_t count = std::min(kPiece, count_ - copied_.column);
            Element* to = to_ + copied_.row * kTile + copied_.column;
            const float* from = rows_[copied_.row] + start_ + copied_.column;
            if constexpr (std::is_same_v<Element, double>) {
                kernels_.widen_row(to, from, count);
            } else {
                std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float));
            }
            std::fill(to + count, to + padded(count), Element{0});
            next(copied_);
        }
    }

    void finish() {
        while (copied_.row < number_) advance(kTile);
    }

  private:
    static constexpr std::int64_t kTile = Shape<Element>::kTile;
    static constexpr int kAhead = 4;  // pieces

    struct Place {
        std::int64_t row = 0;
        std::int64_t column = 0;
    };

    void next(Place& place) const {
        place.column += kPiece;
        if (place.column >= count_) place = {place.row + 1, 0};
    }

    void prefetch() {
        if (read_.row == number_) return;
        const float* from = rows_[read_.row] + start_ + read_.column;
        const std::int64_t count = std::min(kPiece, count_ - read_.column);
        for (std::int64_t i = 0; i < count; i += 16) __builtin_prefetch(from + i, 0, 2);
        next(read_);
    }

    const float* const* rows_;
    std::int64_t number_;
    std::int64_t start_;
    std::int64_t count_;  // of columns
    const Kernels& kernels_;
    Element* to_;
    Place read_, copied_;
};

// Compares the first `chosen` rows with all that follow them, in elements of double or float.
template <class Element>
class Comparison : Shape<Element> {
  public:
    Comparison(const float* const* rows, std::int64_t number, std::int64_t chosen, const Kernels& kernels)
        : rows_(rows), number_(number), chosen_(chosen), kernels_(kernels) {
        const std::int64_t calls =
            std::max<std::int64_t>(1, chosen * (2 * number - chosen) / 2 / (kRows * kColumns));
        pieces_ = number_ * (kTile / TileCopy<Element>::kPiece) / calls + 1;
    }

    // The distance of rows i and j > i is number i * stride() + j of this many. The others are room for rows
    // that do not exist, which are compared together with the last ones, and for repetitions.
    std::int64_t sums() const { return (chosen_ + kRows - 1) / kRows * kRows * stride(); }
    std::int64_t stride() const { return number_ + kColumns; }

    // Elements of two tiles: one is filled while the other is compared.
    std::int64_t room() const { return 2 * (number_ + kRows + kColumns) * kTile; }

    // Adds the squared distances over the columns [start, end) to `sums`.
    void add(std::int64_t start, std::int64_t end, Element* tiles, double* sums) const {
        Element* tile = tiles;
        Element* next = tiles + room() / 2;
        TileCopy<Element>(rows_, number_, start, end, kernels_, tile).finish();
        for (std::int64_t at = start; at < end; at += kTile, std::swap(tile, next)) {
            TileCopy<Element> ahead(rows_, number_, at + kTile, end, kernels_, next);
            const std::int64_t count = padded(std::min(kTile, end - at));
            for (std::int64_t row = 0; row < chosen_; row += kBlock) compare(row, count, tile, sums, ahead);
            ahead.finish();
        }
    }

  private:
    using Shape<Element>::kTile;
    using Shape<Element>::kBlock;
    using Shape<Element>::kRows;
    using Shape<Element>::kColumns;
    static_assert(kTile % TileCopy<Element>::kPiece == 0 && TileCopy<Element>::kPiece % kPadded == 0);
    static_assert(kPadded % kPairLanes == 0 && kPadded % kSinglePad == 0);

    // Compares a block of rows with those that follow.
    void compare(std::int64_t block, std::int64_t count, const Element* tile, double* sums,
                 TileCopy<Element>& ahead) const {
        const std::int64_t end = std::min(block + kBlock, chosen_);
        for (std::int64_t other = block + 1; other < number_; other += kColumns) {
            for (std::int64_t row = block; row < end && row + 1 < other + kColumns; row += kRows) {
                ahead.advance(pieces_);
                Element found[kRows * kColumns];
                pair_squares(found, tile + row * kTile, tile + other * kTile, count);
                double* to = sums + row * stride() + other;
                FEDTLU_UNROLL
                for (int i = 0; i < kRows; ++i, to += stride()) {
                    FEDTLU_UNROLL
                    for (int j = 0; j < kColumns; ++j) to[j] += found[i * kColumns + j];
                }
            }
        }
    }

    void pair_squares(double* out, const double* left, const double* right, std::int64_t count) const {
        const double* rows[kRows];
        const double* others[kColumns];
        for (int i = 0; i < kRows; ++i) rows[i] = left + i * kTile;
        for (int j = 0; j < kColumns; ++j) others[j] = right + j * kTile;
        kernels_.pair_squares(out, rows, others, count);
    }

    void pair_squares(float* out, const float* left, const float* right, std::int64_t count) const {
        kernels_.single_pair_squares(out, left, right, count);
    }

    const float* const* rows_;
    std::int64_t number_;
    std::int64_t chosen_;
    const Kernels& kernels_;
    std::int64_t pieces_;  // of the next tile that are copied before a call of the kernel
};

}  // namespace fedtlu
