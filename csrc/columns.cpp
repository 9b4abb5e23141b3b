#include "columns.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <vector>

#include "aligned.h"
#include "columns_tile.h"
#include "float_env.h"
#include "simd.h"
#include "thread_pool.h"

namespace fedtlu {
namespace {

// A thread works through this many columns at a time: a page of each row, whose address is then translated
// once.
constexpr std::int64_t kSpan = 1024;
// The least number of elements that is worth waking a thread: sorting takes far longer than reading.
constexpr std::int64_t kElementsPerThread = 16 * 1024;
// A tile should stay in a first-level cache.
constexpr std::int64_t kCached = 32 * 1024;

// A bitonic sorting network (Batcher, "Sorting networks and their applications", 1968) of any number of rows:
// that of the next power of two, from eight on. All rows that do not exist are one row of the largest key,
// which every exchange leaves where it is: they are the last ones, and the larger value always goes to the
// later row.
//
// Its steps take up to eight rows into registers and through up to six layers, because stores take longer
// than exchanges. So it is faster than networks of fewer exchanges.
class Network {
  public:
    explicit Network(std::int64_t rows) : rows_(rows) {
        std::int64_t size = 8;
        while (size < rows) size *= 2;
        sort(0, size);
    }

    // The steps that the sorted rows [first, last) depend on, in order.
    std::vector<Step> for_rows(std::int64_t first, std::int64_t last) && {
        std::vector<bool> needed(static_cast<std::size_t>(rows_) + 1, false);
        std::fill(needed.begin() + first, needed.begin() + last, true);
        std::vector<Step> kept;
        for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) {
            const std::int32_t* begin = step->rows;
            const std::int32_t* end = begin + rows_of(step->kind);
            const auto counts = [&](std::int32_t row) {
                return row < rows_ && needed[static_cast<std::size_t>(row)];
            };
            if (std::none_of(begin, end, counts)) continue;
            for (const std::int32_t* row = begin; row < end; ++row)
                needed[static_cast<std::size_t>(*row)] = true;
            kept.push_back(*step);
        }
        std::reverse(kept.begin(), kept.end());
        return kept;
    }

  private:
    // Each half is finished before the next begins, so that a part of a large tile stays in the cache.
    void sort(std::int64_t start, std::int64_t size) {
        if (size == 8) {
            add(StepKind::kSort8, start, 1);
            return;
        }
        sort(start, size / 2);
        sort(start + size / 2, size / 2);
        merge(start, size);
    }

    // Merges two sorted halves: exchanges of rows that mirror each other, then of rows at a distance of size
    // / 4, size / 8, ..., 1.
    void merge(std::int64_t start, std::int64_t size) {
        const std::int64_t eighth = size / 8;
        for (std::int64_t i = 0; i < eighth; ++i) {
            std::int64_t rows[8];
            for (std::int64_t k = 0; k < 4; ++k) {
                rows[k] = start + i + k * eighth;
                rows[7 - k] = start + size - 1 - i - k * eighth;
            }
            add(StepKind::kMerge8, rows);
        }
        std::int64_t distance = eighth / 2;
        while (distance > 0) {
            const StepKind kind = distance >= 4   ? StepKind::kClean8
                                  : distance >= 2 ? StepKind::kClean4
                                                  : StepKind::kClean2;
            const std::int64_t stride = 2 * distance / rows_of(kind);
            for (std::int64_t block = start; block < start + size; block += 2 * distance) {
                for (std::int64_t i = 0; i < stride; ++i) add(kind, block + i, stride);
            }
            distance = stride / 2;
        }
    }

    void add(StepKind kind, std::int64_t start, std::int64_t stride) {
        std::int64_t rows[8];
        for (int i = 0; i < rows_of(kind); ++i) rows[i] = start + i * stride;
        add(kind, rows);
    }

    void add(StepKind kind, const std::int64_t* rows) {
        const std::int64_t* end = rows + rows_of(kind);
        if (std::count_if(rows, end, [&](std::int64_t row) { return row < rows_; }) < 2) return;
        Step step{kind, {}};
        std::transform(rows, end, step.rows,
                       [&](std::int64_t row) { return static_cast<std::int32_t>(std::min(row, rows_)); });
        steps_.push_back(step);
    }

    std::int64_t rows_;
    std::vector<Step> steps_;
};

}  // namespace

void sorted_mean(float* out, const float* const* rows, std::int64_t number, const float* base, std::int64_t n,
                 std::int64_t first, std::int64_t last, int threads) {
    const DefaultFloatEnv env;
    const Kernels& kernels = fedtlu::kernels();
    const std::vector<Step> steps = Network(number).for_rows(first, last);
    std::size_t width = 0;
    while (width + 1 < kTileWidths && number * (kTileColumns >> width) * 4 > kCached) ++width;
    const std::int64_t columns = kTileColumns >> width;

    const std::int64_t spans = (n + kSpan - 1) / kSpan;
    const std::int64_t worth = std::max<std::int64_t>(1, n * number / kElementsPerThread);
    const std::int64_t workers = std::min<std::int64_t>({threads, worth, std::max<std::int64_t>(1, spans)});
    const std::int64_t room = (number + 1) * columns;
    AlignedMemory<std::int32_t> keys(workers * room);

    std::atomic<std::int64_t> next{0};
    ThreadPool::instance().run(static_cast<int>(workers), workers, [&](std::int64_t worker) {
        ColumnTile tile{};
        tile.rows = rows;
        tile.base = base;
        tile.number = number;
        tile.steps = steps.data();
        tile.number_of_steps = static_cast<std::int64_t>(steps.size());
        tile.first = first;
        tile.last = last;
        tile.keys = keys.data() + worker * room;
        tile.out = out;
        std::fill_n(tile.keys + number * columns, columns, std::numeric_limits<std::int32_t>::max());
        for (std::int64_t span; (span = next.fetch_add(1, std::memory_order_relaxed)) < spans;) {
            const std::int64_t end = std::min(n, (span + 1) * kSpan);
            for (tile.start = span * kSpan; tile.start < end; tile.start += columns) {
                tile.count = std::min(columns, end - tile.start);
                tile.ahead = tile.start + tile.count;
                kernels.sort_tiles[width](tile);
            }
        }
    });
}

}  // namespace fedtlu
