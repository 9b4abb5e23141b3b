#include "knapsack.h"

#include <algorithm>
#include <vector>

namespace fedtlu {
namespace {

// Sets that are better by less count as equal, because sums in another order differ by as much.
constexpr double kSame = 1e-13;

struct Item {
    double value, cost, worth;  // worth: the value for each unit of cost
    std::int32_t layer, kind;   // kind: items of one kind have the same cost
};

// The state of one row's search.
class Row {
  public:
    explicit Row(std::int64_t layers) {
        const auto size = static_cast<std::size_t>(layers);
        items_.reserve(size), few_.reserve(size), path_.reserve(size), starts_.reserve(size);
        closed_.resize(size);
    }

    void solve(const double* values, double room, const double* costs, const double* reach,
               const std::int32_t* kinds, std::int32_t layers, std::int64_t nodes, std::uint8_t* mask) {
        items_.clear();
        for (std::int32_t layer = 0; layer < layers; ++layer) {
            const double value = values[layer], cost = costs[layer], worth = value / cost;
            // The last check leaves out NaN, which cannot be sorted.
            if (value > 0 && cost <= room && worth >= 0) {
                items_.push_back({value, cost, worth, layer, kinds[layer]});
            }
        }
        std::sort(items_.begin(), items_.end(), [](const Item& a, const Item& b) {
            return a.worth != b.worth ? a.worth > b.worth : a.layer < b.layer;
        });
        best = upper = 0;
        left_ = nodes;
        mask_ = mask;
        std::fill_n(mask, layers, std::uint8_t{0});
        starts_.clear();
        std::size_t first = 0;
        for (std::int32_t from = 0, next; from < layers; from = next) {
            // The layers from `from` to `next` have the same way down, which pays for all of them.
            next = from + 1;
            while (next < layers && reach[next] == reach[from]) ++next;
            Start start{0, 0, room - reach[from], from, -1};
            if (next == from + 1) {
                // A set that pays this way for nothing is a set of the layers above, so it holds this layer.
                if (!(values[from] > 0 && costs[from] <= start.room)) continue;
                start = {0, values[from], start.room - costs[from], next, from};
            }
            if (start.room < 0) continue;
            start.bound = bound(start);
            starts_.push_back(start);
            if (start.bound > starts_[first].bound) first = starts_.size() - 1;
        }
        if (starts_.empty()) return;
        std::swap(starts_[0], starts_[first]);
        for (const Start& start : starts_) {
            if (!(start.bound > enough())) continue;
            if (left_ <= 0) {
                upper = std::max(upper, start.bound);
                continue;
            }
            search(start);
        }
        upper = std::max(upper, best);
    }

    double best = 0, upper = 0;

  private:
    // Sets of the layers from this one on, beside one layer that they all hold (or -1).
    struct Start {
        double bound, value, room;
        std::int32_t from, held;
    };
    struct Step {
        std::int32_t item;
        double value, room;  // before it was taken
    };

    double enough() const { return best * (1 + kSame); }

    // The most that a set can be worth, if its last item may be taken in part.
    double bound(const Start& start) const {
        double value = start.value, room = start.room;
        for (const Item& item : items_) {
            if (item.layer < start.from || item.cost > start.room) continue;
            if (item.cost > room) return value + room * item.worth;
            value += item.value;
            room -= item.cost;
        }
        return value;
    }

    // The same for a branch, whose next item is this one.
    double bound(std::int32_t from, double value, double room) const {
        const auto count = static_cast<std::int32_t>(few_.size());
        for (std::int32_t i = from; i < count; ++i) {
            const Item& item = few_[i];
            if (closed_[item.kind] < i) continue;
            if (item.cost > room) return value + room * item.worth;
            value += item.value;
            room -= item.cost;
        }
        return value;
    }

    void search(const Start& start) {
        few_.clear();
        for (const Item& item : items_) {
            if (item.layer >= start.from && item.cost <= start.room) few_.push_back(item);
        }
        std::fill(closed_.begin(), closed_.end(), kOpen);
        path_.clear();
        const auto count = static_cast<std::int32_t>(few_.size());
        double value = start.value, room = start.room;
        std::int32_t at = 0;
        while (true) {
            if (left_-- <= 0) return abandon(at, value, room);
            if (bound(at, value, room) > enough()) {
                for (; at < count; ++at) {
                    const Item& item = few_[at];
                    if (closed_[item.kind] < at) continue;
                    if (item.cost > room) break;
                    path_.push_back({at, value, room});
                    value += item.value;
                    room -= item.cost;
                }
                if (at < count) {
                    // This item does not fit, so others of its cost do not fit either.
                    closed_[few_[at].kind] = at;
                    ++at;
                    continue;
                }
                if (value > best) keep(value, start.held);
            }
            if (path_.empty()) return;
            // Try it without the item that was taken last, and so without the lesser ones of its cost.
            const Step last = path_.back();
            path_.pop_back();
            leave(last.item);
            value = last.value, room = last.room, at = last.item + 1;
        }
    }

    void leave(std::int32_t item) {
        for (std::int32_t& since : closed_) {
            if (since > item) since = kOpen;
        }
        closed_[few_[item].kind] = item;
    }

    void keep(double value, std::int32_t held) {
        best = value;
        for (const Item& item : items_) mask_[item.layer] = 0;
        if (held >= 0) mask_[held] = 1;
        for (const Step& step : path_) mask_[few_[step.item].layer] = 1;
    }

    // Bounds what was not searched: the current branch, and those without each item on the way to it.
    void abandon(std::int32_t at, double value, double room) {
        upper = std::max(upper, bound(at, value, room));
        for (; !path_.empty(); path_.pop_back()) {
            const Step& step = path_.back();
            leave(step.item);
            upper = std::max(upper, bound(step.item + 1, step.value, step.room));
        }
    }

    static constexpr std::int32_t kOpen = 1 << 30;
    std::vector<Item> items_, few_;
    std::vector<Step> path_;
    std::vector<Start> starts_;
    std::vector<std::int32_t> closed_;  // by kind: the item since which no other of the kind is taken
    std::int64_t left_ = 0;
    std::uint8_t* mask_ = nullptr;
};

}  // namespace

void knapsacks(const double* values, const double* rooms, const double* costs, const double* reach,
               std::int64_t rows, std::int64_t layers, std::int64_t nodes, std::uint8_t* mask, double* best,
               double* upper) {
    std::vector<std::int32_t> kinds(static_cast<std::size_t>(layers));
    for (std::int64_t layer = 0; layer < layers; ++layer) {
        kinds[layer] = static_cast<std::int32_t>(std::find(costs, costs + layer, costs[layer]) - costs);
    }
    Row row(layers);
    for (std::int64_t i = 0; i < rows; ++i) {
        row.solve(values + i * layers, rooms[i], costs, reach, kinds.data(),
                  static_cast<std::int32_t>(layers), nodes, mask + i * layers);
        best[i] = row.best;
        upper[i] = row.upper;
    }
}

}  // namespace fedtlu
