// Every operation on random shapes, values, thread counts and SIMD levels against naive loops in long double.
// Stand-alone, without Python: .ci/sanitize runs it under the sanitizers. Exits with 1 at the first mismatch.
//
//     stress [seed [rounds]]

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "aggregate.h"
#include "columns.h"
#include "distances.h"
#include "knapsack.h"
#include "moments.h"
#include "perceptron/perceptron.h"
#include "simd.h"
#include "tiles.h"
#include "update.h"

namespace {

using namespace fedtlu;
using Random = std::mt19937_64;

constexpr Dtype kAll[] = {Dtype::kFloat32, Dtype::kBfloat16, Dtype::kFloat16, Dtype::kFloat64};

[[noreturn]] void fail(const std::string& what) {
    std::fprintf(stderr, "FAIL: %s\n", what.c_str());
    std::exit(1);
}

void check(bool holds, const std::string& what) {
    if (!holds) fail(what);
}

std::int64_t below(Random& random, std::int64_t end) {
    return std::uniform_int_distribution<std::int64_t>(0, end - 1)(random);
}

// Exactly the bytes of n elements, at an unaligned address: the address sanitizer sees a read past either
// end.
class Buffer {
  public:
    Buffer(Dtype dtype, std::int64_t n) : dtype_(dtype), n_(n), memory_(new std::byte[1 + bytes()]) {}

    std::byte* data() { return memory_.get() + 1; }
    const std::byte* data() const { return memory_.get() + 1; }
    std::size_t bytes() const { return static_cast<std::size_t>(n_ * size_of(dtype_)); }
    Dtype dtype() const { return dtype_; }
    std::int64_t size() const { return n_; }

    void set_bits(std::int64_t index, std::uint64_t bits) {
        // Little-endian, as every machine this builds for.
        std::memcpy(data() + index * size_of(dtype_), &bits, static_cast<std::size_t>(size_of(dtype_)));
    }
    void set(std::int64_t index, double value) {
        const auto narrow = bit_cast<std::uint32_t>(static_cast<float>(value));
        switch (dtype_) {
            case Dtype::kFloat32:
                return set_bits(index, narrow);
            case Dtype::kBfloat16:
                return set_bits(index, narrow >> 16);
            case Dtype::kFloat16: {  // values of [2^-14, 2^15] only; the fraction is cut
                const std::uint32_t rebiased = ((narrow & 0x7fffffff) >> 13) - ((127 - 15) << 10);
                return set_bits(index, (value < 0 ? 0x8000 : 0) | rebiased);
            }
            default:
                return set_bits(index, bit_cast<std::uint64_t>(value));
        }
    }

    // Decoded from the fields of the format, not by the code under test.
    double get(std::int64_t index) const {
        std::uint64_t bits = 0;
        std::memcpy(&bits, data() + index * size_of(dtype_), static_cast<std::size_t>(size_of(dtype_)));
        const int width = static_cast<int>(8 * size_of(dtype_));
        const int fraction_bits = dtype_ == Dtype::kFloat32    ? 23
                                  : dtype_ == Dtype::kBfloat16 ? 7
                                  : dtype_ == Dtype::kFloat16  ? 10
                                                               : 52;
        const int exponent_bits = width - 1 - fraction_bits;
        const auto fraction = static_cast<double>(bits & ((std::uint64_t{1} << fraction_bits) - 1));
        const int exponent = static_cast<int>(bits >> fraction_bits & ((1u << exponent_bits) - 1));
        const int bias = (1 << (exponent_bits - 1)) - 1;
        const double sign = bits >> (width - 1) ? -1.0 : 1.0;
        if (exponent == (1 << exponent_bits) - 1) {
            return fraction == 0 ? sign * std::numeric_limits<double>::infinity()
                                 : std::numeric_limits<double>::quiet_NaN();
        }
        if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias - fraction_bits);
        return sign * std::ldexp(std::ldexp(1.0, fraction_bits) + fraction, exponent - bias - fraction_bits);
    }

  private:
    Dtype dtype_;
    std::int64_t n_;
    std::unique_ptr<std::byte[]> memory_;
};

// Normal samples about a mean; sometimes one constant, or random bits (NaN, Inf and subnormals included).
void fill(Buffer& buffer, Random& random) {
    const std::int64_t kind = below(random, 8);
    std::normal_distribution<double> normal(kind < 4 ? 0.0 : 4.0, kind < 6 ? 1.0 : 1e-3);
    const double constant = normal(random) + 8.0;
    for (std::int64_t i = 0; i < buffer.size(); ++i) {
        double value = kind == 7 ? constant : normal(random);
        if (std::abs(value) < 1e-4) value = 0.5;
        buffer.set(i, value);
    }
    if (kind == 0 && buffer.size() > 0) {
        for (std::int64_t i = below(random, 20) - 10; i > 0; --i) {
            buffer.set_bits(below(random, buffer.size()), random());
        }
    }
}

std::int64_t any_length(Random& random) {
    const std::int64_t edges[] = {0, 1, kLanes, kTile, 2 * kTile, 3 * kTile};
    switch (below(random, 4)) {
        case 0:
            return std::max<std::int64_t>(0, edges[below(random, 6)] + below(random, 5) - 2);
        case 1:
            return below(random, 5 * kTile);
        default:
            return below(random, 200);
    }
}

int any_threads(Random& random) { return static_cast<int>(1 + below(random, 5)); }

struct Columns {
    explicit Columns(std::int64_t layers)
        : values(static_cast<std::size_t>(5 * layers), -1.0), layers(layers) {}

    Moments moments() {
        double* at = values.data();
        return {at, at + layers, at + 2 * layers, at + 3 * layers, at + 4 * layers};
    }

    std::vector<double> values;
    std::int64_t layers;
};

void check_same(const Columns& left, const Columns& right, const std::string& what) {
    const std::size_t bytes = left.values.size() * sizeof(double);
    check(bytes == 0 || std::memcmp(left.values.data(), right.values.data(), bytes) == 0, what);
}

void check_layer(const Buffer& x, std::int64_t start, std::int64_t end, const Moments& got,
                 std::int64_t row) {
    const auto n = static_cast<long double>(end - start);
    long double sum = 0, square = 0, largest = 0;
    std::int64_t nonfinite = 0;
    for (std::int64_t i = start; i < end; ++i) {
        const double value = x.get(i);
        nonfinite += !std::isfinite(value);
        sum += value;
        largest = std::max<long double>(largest, std::abs(value));
    }
    const long double mean = end > start ? sum / n : 0;
    for (std::int64_t i = start; i < end; ++i) square += (x.get(i) - mean) * (x.get(i) - mean);

    const std::string what =
        std::string(name_of(x.dtype())) + " layer of " + std::to_string(end - start) + ": ";
    check(got.count[row] == static_cast<double>(n), what + "count");
    check(got.nonfinite[row] == static_cast<double>(nonfinite), what + "nonfinite");
    if (nonfinite != 0) {
        check(std::isnan(got.mean[row]) && std::isnan(got.m2[row]) && std::isnan(got.abs_max[row]),
              what + "NaN");
        return;
    }
    check(got.abs_max[row] == static_cast<double>(largest), what + "abs_max");
    // Random bits of float64 may overflow when squared.
    if (!std::isfinite(static_cast<double>(square))) return;
    const auto tolerance =
        static_cast<double>(1e-12L * (std::abs(mean) + std::sqrt(square / std::max(n, 1.0L))));
    check(std::abs(got.mean[row] - static_cast<double>(mean)) <= tolerance, what + "mean");
    check(std::abs(got.m2[row] - static_cast<double>(square)) <=
              1e-11 * static_cast<double>(square) + n * 1e-25L,
          what + "m2");
}

// The moments do not depend on threads, level or where the layers lie.
void test_layer_stats(Random& random, bool choose_level) {
    const Dtype dtype = kAll[below(random, kDtypes)];
    std::vector<std::int64_t> offsets{below(random, 3)};
    for (std::int64_t layers = below(random, 40); layers > 0; --layers) {
        offsets.push_back(offsets.back() + any_length(random));
    }
    const auto layers = static_cast<std::int64_t>(offsets.size()) - 1;
    Buffer delta(dtype, offsets.back() + below(random, 3));
    fill(delta, random);

    Columns first(layers);
    layer_stats(delta.data(), dtype, offsets.data(), layers, first.moments(), any_threads(random));
    for (std::int64_t l = 0; l < layers; ++l)
        check_layer(delta, offsets[l], offsets[l + 1], first.moments(), l);

    std::vector<Buffer> copies;
    std::vector<LayerView> views;
    for (std::int64_t l = 0; l < layers; ++l) {
        const std::int64_t count = offsets[l + 1] - offsets[l];
        Buffer copy(dtype, count);
        if (count != 0) std::memcpy(copy.data(), delta.data() + offsets[l] * size_of(dtype), copy.bytes());
        views.push_back({count == 0 ? nullptr : copy.data(), count, dtype});
        copies.push_back(std::move(copy));
    }
    for (const std::string& level : simd_levels()) {
        if (choose_level) set_simd_level(level);
        Columns again(layers);
        layer_stats(delta.data(), dtype, offsets.data(), layers, again.moments(), any_threads(random));
        check_same(first, again, "layer_stats differs at level " + level);
        Columns listed(layers);
        layer_stats_list(views.data(), layers, listed.moments(), any_threads(random));
        check_same(first, listed, "layer_stats_list differs at level " + level);
    }
}

double rounded(Dtype dtype, double value) {
    return dtype == Dtype::kFloat32 ? static_cast<double>(static_cast<float>(value)) : value;
}

// sum + weight * (change - base), without a fused multiply-add.
double added(double sum, const Buffer& change, const Buffer* base, double weight, std::int64_t i) {
    volatile double difference = change.get(i);
    if (base != nullptr) difference = difference - base->get(i);
    volatile double scaled = weight * difference;
    return sum + scaled;
}

double updated(const Buffer& target, const Buffer& change, const Buffer* base, double weight,
               std::int64_t i) {
    return rounded(target.dtype(), added(target.get(i), change, base, weight, i));
}

void check_element(const Buffer& got, std::int64_t i, double expected, const std::string& what) {
    const double value = got.get(i);
    check((std::isnan(value) && std::isnan(expected)) || value == expected, what);
}

// NaN may differ in payload.
void check_same_bits(const Buffer& left, const Buffer& right, const std::string& what) {
    for (std::int64_t i = 0; i < left.size(); ++i) check_element(left, i, right.get(i), what);
}

Buffer copy_of(const Buffer& buffer) {
    Buffer copy(buffer.dtype(), buffer.size());
    std::memcpy(copy.data(), buffer.data(), buffer.bytes());
    return copy;
}

void test_updates(Random& random, bool choose_level) {
    const Dtype dtype = kAll[below(random, kDtypes)];
    const std::int64_t n = below(random, 4) == 0 ? below(random, 300000) : any_length(random);
    const double weight = std::normal_distribution<double>()(random);
    Buffer target(widened(dtype), n), change(dtype, n), base(dtype, n);
    fill(target, random);
    fill(change, random);
    fill(base, random);
    std::vector<std::int64_t> offsets{std::min<std::int64_t>(n, below(random, 3))};
    std::vector<std::uint8_t> mask;
    while (offsets.back() < n && mask.size() < 300) {
        offsets.push_back(std::min(n, offsets.back() + any_length(random)));
        mask.push_back(static_cast<std::uint8_t>(below(random, 2)));
    }
    const auto layers = static_cast<std::int64_t>(mask.size());

    for (const std::string& level : simd_levels()) {
        if (choose_level) set_simd_level(level);
        for (const Buffer* start : {static_cast<const Buffer*>(nullptr), static_cast<const Buffer*>(&base)}) {
            Buffer got = copy_of(target);
            accumulate_(got.data(), change.data(), start == nullptr ? nullptr : start->data(), dtype, n,
                        weight, any_threads(random));
            for (std::int64_t i = 0; i < n; ++i) {
                check_element(got, i, updated(target, change, start, weight, i),
                              "accumulate_ at level " + level);
            }
            Buffer again = copy_of(target);
            Columns fused(layers), apart(layers);
            accumulate_layer_stats_(again.data(), change.data(), start == nullptr ? nullptr : start->data(),
                                    dtype, n, weight, offsets.data(), layers, fused.moments(),
                                    any_threads(random));
            layer_stats(got.data(), got.dtype(), offsets.data(), layers, apart.moments(), 1);
            check_same_bits(got, again, "accumulate_ with moments at level " + level);
            check_same(apart, fused, "moments of accumulate_ at level " + level);
        }
        Buffer got = copy_of(target);
        masked_apply_(got.data(), change.data(), dtype, offsets.data(), mask.data(), layers, weight,
                      any_threads(random));
        std::vector<bool> chosen(static_cast<std::size_t>(n), false);
        for (std::size_t l = 0; l < mask.size(); ++l) {
            std::fill(chosen.begin() + offsets[l], chosen.begin() + offsets[l + 1], mask[l] != 0);
        }
        for (std::int64_t i = 0; i < n; ++i) {
            const double expected = chosen[static_cast<std::size_t>(i)]
                                        ? updated(target, change, nullptr, weight, i)
                                        : target.get(i);
            check_element(got, i, expected, "masked_apply_ at level " + level);
        }
    }
}

// The sum has the bits of one client after another; the moments are those of `layer_stats`.
void test_aggregate(Random& random, bool choose_level) {
    const Dtype dtype = kAll[below(random, kDtypes)];
    std::vector<std::int64_t> offsets{below(random, 4) == 0 ? below(random, 2 * kTile) : below(random, 3)};
    for (std::int64_t layers = below(random, 12); layers > 0; --layers) {
        offsets.push_back(offsets.back() + any_length(random));
    }
    const auto layers = static_cast<std::int64_t>(offsets.size()) - 1;
    const std::int64_t n =
        offsets.back() + (below(random, 4) == 0 ? below(random, 2 * kTile) : below(random, 3));
    const std::int64_t number = below(random, 8);
    Buffer base(dtype, n);
    fill(base, random);
    const Buffer* start = below(random, 2) == 0 ? nullptr : &base;
    std::vector<Buffer> clients;
    std::vector<const std::byte*> data;
    std::vector<double> weights;
    for (std::int64_t k = 0; k < number; ++k) {
        clients.emplace_back(dtype, n);
        fill(clients.back(), random);
        data.push_back(clients.back().data());
        weights.push_back(std::normal_distribution<double>()(random));
    }
    const Clients given{data.data(), weights.data(), number, start == nullptr ? nullptr : start->data(),
                        dtype};

    Buffer expected(widened(dtype), n);
    for (std::int64_t i = 0; i < n; ++i) {
        double sum = 0.0;
        for (std::int64_t k = 0; k < number; ++k) sum = added(sum, clients[k], start, weights[k], i);
        if (expected.dtype() == Dtype::kFloat64) {
            expected.set_bits(i, bit_cast<std::uint64_t>(sum));
        } else {
            expected.set_bits(i, bit_cast<std::uint32_t>(static_cast<float>(sum)));
        }
    }
    std::vector<double> first;
    for (const std::string& level : simd_levels()) {
        if (choose_level) set_simd_level(level);
        for (const int of_clients : {0, 1, 2}) {
            const bool with_clients = of_clients == 1;
            std::vector<double> squares(static_cast<std::size_t>(number * layers), -1.0);
            const std::string what = "aggregate at level " + level;
            Buffer got(widened(dtype), n);
            Columns fused(layers), apart(layers);
            std::vector<Columns> each(static_cast<std::size_t>(number), Columns(layers));
            std::vector<Moments> moments;
            for (Columns& columns : each) moments.push_back(columns.moments());
            aggregate(got.data(), given, n, offsets.data(), layers, fused.moments(),
                      with_clients ? moments.data() : nullptr, of_clients == 2 ? squares.data() : nullptr,
                      any_threads(random));
            for (std::int64_t at = 0; of_clients == 2 && at < number * layers; ++at) {
                const std::int64_t layer = at % layers;
                double sum = 0.0;
                for (std::int64_t i = offsets[layer]; i < offsets[layer + 1]; ++i) {
                    const double change = added(0.0, clients[at / layers], start, 1.0, i);
                    sum += change * change;
                }
                const double found = squares[static_cast<std::size_t>(at)];
                if (first.size() == squares.size())
                    check(found == first[static_cast<std::size_t>(at)] || std::isnan(found), what);
                // A sum near the largest double may overflow in one order and not in another.
                if (!(sum < 1e307) ? !(std::isnan(found) || found > 1e306)
                                   : !(std::abs(found - sum) <= 1e-11 * sum)) {
                    fail(what + ": squares");
                }
            }
            if (of_clients == 2) first = squares;
            for (std::int64_t i = 0; i < n; ++i) check_element(got, i, expected.get(i), what);
            layer_stats(got.data(), got.dtype(), offsets.data(), layers, apart.moments(), 1);
            check_same(apart, fused, what + ": moments");
            for (std::int64_t k = 0; with_clients && k < number; ++k) {
                Columns own(layers);
                if (start == nullptr) {
                    layer_stats(data[k], dtype, offsets.data(), layers, own.moments(), 1);
                } else {
                    Buffer change(widened(dtype), n);
                    std::memset(change.data(), 0, change.bytes());
                    accumulate_(change.data(), data[k], start->data(), dtype, n, 1.0, 1);
                    layer_stats(change.data(), change.dtype(), offsets.data(), layers, own.moments(), 1);
                }
                check_same(own, each[k], what + ": moments of a client");
            }
        }
    }
}

// Values of a wide range; sometimes NaN, Inf and numbers whose squares float32 cannot hold.
std::vector<float> any_row(Random& random, std::int64_t n) {
    std::normal_distribution<float> normal(below(random, 3) == 0 ? 100.0f : 0.0f, 1.0f);
    const float scales[] = {1.0f, 1.0f, 1e-3f, 1e-22f, 1e21f};
    const float scale = scales[below(random, 5)];
    std::vector<float> row(static_cast<std::size_t>(n));
    for (float& each : row) each = scale * normal(random);
    if (n > 0 && below(random, 20) == 0) row[0] = std::numeric_limits<float>::quiet_NaN();
    if (n > 0 && below(random, 20) == 0) row[0] = std::numeric_limits<float>::infinity();
    return row;
}

// Sorted columns and distances are those of plain loops; bounds hold for the distances.
void test_stacks(Random& random, bool choose_level) {
    const std::int64_t number = 1 + below(random, below(random, 4) == 0 ? 140 : 12);
    const std::int64_t n = below(random, 4) == 0 ? below(random, 2000) : below(random, 100);
    std::vector<std::vector<float>> stack;
    std::vector<const float*> rows;
    for (std::int64_t k = 0; k < number; ++k) stack.push_back(any_row(random, n));
    for (const std::vector<float>& row : stack) rows.push_back(row.data());
    const std::vector<float> base = any_row(random, n), centre = any_row(random, n);
    const std::int64_t first = below(random, number), last = first + 1 + below(random, number - first);
    const std::int64_t chosen = below(random, number + 1);

    std::vector<float> means;
    for (std::int64_t i = 0; i < n; ++i) {
        std::vector<float> column;
        for (const float* row : rows) column.push_back(row[i] - base[static_cast<std::size_t>(i)]);
        std::sort(column.begin(), column.end(), [](float a, float b) {
            return std::isnan(a) || std::isnan(b) ? !std::isnan(a) && std::isnan(b) : a < b;
        });
        double sum = 0.0;
        for (std::int64_t k = first; k < last; ++k) sum += static_cast<double>(column[k]);
        means.push_back(static_cast<float>(sum / static_cast<double>(last - first)));
    }
    const auto squares = [&](std::int64_t row, const auto& origin) {
        long double sum = 0;
        for (std::int64_t i = 0; i < n; ++i) {
            const auto away = static_cast<long double>(static_cast<double>(rows[row][i]) - origin(i));
            sum += away * away;
        }
        return static_cast<double>(sum);
    };
    const auto close = [](double got, double wanted) {
        return got == wanted || (std::isnan(got) && std::isnan(wanted)) ||
               std::abs(got - wanted) <= 1e-12 * wanted;
    };

    for (const std::string& level : simd_levels()) {
        if (choose_level) set_simd_level(level);
        const std::string what = " at level " + level;
        std::vector<float> out(static_cast<std::size_t>(n));
        sorted_mean(out.data(), rows.data(), number, base.data(), n, first, last, any_threads(random));
        for (std::size_t i = 0; i < out.size(); ++i) {
            check(out[i] == means[i] || (std::isnan(out[i]) && std::isnan(means[i])), "sorted_mean" + what);
        }
        const auto room = static_cast<std::size_t>(number * number);
        std::vector<double> some(static_cast<std::size_t>(chosen * number)), all(room);
        std::vector<double> lower(room), upper(room), from(static_cast<std::size_t>(number));
        squared_distances(some.data(), rows.data(), number, chosen, n, any_threads(random));
        squared_distances(all.data(), rows.data(), number, number, n, any_threads(random));
        squared_distance_bounds(lower.data(), upper.data(), rows.data(), number, n, any_threads(random));
        squared_distances_from(from.data(), rows.data(), number, base.data(), centre.data(), n,
                               any_threads(random));
        for (std::int64_t i = 0; i < number; ++i) {
            const double away = squares(i, [&](std::int64_t at) {
                return static_cast<double>(base[static_cast<std::size_t>(at)]) +
                       static_cast<double>(centre[static_cast<std::size_t>(at)]);
            });
            check(close(from[static_cast<std::size_t>(i)], away), "squared_distances_from" + what);
            for (std::int64_t j = 0; j < number; ++j) {
                const auto at = static_cast<std::size_t>(i * number + j);
                const double wanted =
                    i == j ? 0.0
                           : squares(i, [&](std::int64_t c) { return static_cast<double>(rows[j][c]); });
                check(close(all[at], wanted), "squared_distances" + what);
                check(i >= chosen || some[at] == all[at] || std::isnan(some[at]), "chosen distances" + what);
                check(std::isnan(all[at]) ? std::isnan(lower[at]) && std::isnan(upper[at])
                                          : lower[at] <= all[at] && all[at] <= upper[at],
                      "squared_distance_bounds" + what);
            }
        }
    }
}

// One client's SGD with a proximal term and clipping, by plain loops in double; gives its mean loss.
double train_plainly(const std::vector<Linear>& layers, const LocalSteps& steps, const LocalData& data,
                     std::int64_t client, const std::vector<double>& start, std::vector<double>& params) {
    params = start;
    double total = 0;
    const std::int64_t batches = data.firsts[client + 1] - data.firsts[client];
    for (std::int64_t b = data.firsts[client]; b < data.firsts[client + 1]; ++b) {
        std::vector<double> grads(params.size());
        const auto batch = static_cast<double>(data.starts[b + 1] - data.starts[b]);
        for (std::int64_t s = data.starts[b]; s < data.starts[b + 1]; ++s) {
            const float* sample = data.features + data.rows[s] * layers.front().inputs;
            std::vector<std::vector<double>> inputs{{sample, sample + layers.front().inputs}};
            for (const Linear& layer : layers) {
                std::vector<double> out(static_cast<std::size_t>(layer.outputs));
                for (std::int64_t o = 0; o < layer.outputs; ++o) {
                    out[o] = params[layer.bias + o];
                    for (std::int64_t i = 0; i < layer.inputs; ++i) {
                        out[o] += params[layer.weight + o * layer.inputs + i] * inputs.back()[i];
                    }
                    if (&layer != &layers.back()) out[o] = std::max(out[o], 0.0);
                }
                inputs.push_back(out);
            }
            double sum = 0;
            for (const double logit : inputs.back()) sum += std::exp(logit);
            total += (std::log(sum) - inputs.back()[data.labels[s]]) / batch / static_cast<double>(batches);
            std::vector<double> error;
            for (const double logit : inputs.back()) error.push_back(std::exp(logit) / sum / batch);
            error[data.labels[s]] -= 1 / batch;
            for (std::size_t l = layers.size(); l-- > 0;) {
                const Linear& layer = layers[l];
                std::vector<double> below(static_cast<std::size_t>(layer.inputs));
                for (std::int64_t o = 0; o < layer.outputs; ++o) {
                    grads[layer.bias + o] += error[o];
                    for (std::int64_t i = 0; i < layer.inputs; ++i) {
                        const std::int64_t at = layer.weight + o * layer.inputs + i;
                        grads[at] += error[o] * inputs[l][i];
                        if (inputs[l][i] > 0) below[i] += error[o] * params[at];
                    }
                }
                error = below;
            }
        }
        double square = 0;
        for (std::size_t i = 0; i < grads.size(); ++i) {
            grads[i] += steps.proximal * (params[i] - start[i]);
            square += grads[i] * grads[i];
        }
        const double scale = steps.clip == 0 ? 1 : std::min(1.0, steps.clip / (std::sqrt(square) + 1e-6));
        for (std::size_t i = 0; i < grads.size(); ++i) params[i] -= steps.lr * scale * grads[i];
    }
    return total;
}

void test_perceptrons(Random& random, bool choose_level) {
    std::normal_distribution<float> normal;
    std::vector<Linear> layers;
    std::int64_t size = below(random, 3);
    std::int64_t width = 1 + below(random, 40);
    const std::int64_t depth = 1 + below(random, 3);
    for (std::int64_t l = 0; l < depth; ++l) {
        const std::int64_t outputs = (l + 1 == depth ? 2 : 1) + below(random, 40);
        layers.push_back({width, outputs, size, size + width * outputs});
        size += width * outputs + outputs;
        width = outputs;
    }
    size += below(random, 3);  // numbers of no layer, before and after
    const std::int64_t samples = 1 + below(random, 30);
    const std::int64_t inputs = layers.front().inputs;
    // Exactly these bytes: the address sanitizer sees a read or a write past an end.
    const auto params = std::make_unique<float[]>(size);
    const auto features = std::make_unique<float[]>(samples * inputs);
    for (std::int64_t i = 0; i < size; ++i) params[i] = 0.3f * normal(random);
    for (std::int64_t i = 0; i < samples * inputs; ++i) features[i] = normal(random);

    const std::int64_t clients = 1 + below(random, 4);
    std::vector<std::int64_t> rows, labels, starts{0}, firsts{0};
    std::vector<double> weights;
    for (std::int64_t k = 0; k < clients; ++k) {
        for (std::int64_t b = 1 + below(random, 3); b > 0; --b) {
            for (std::int64_t s = 1 + below(random, 9); s > 0; --s) {
                rows.push_back(below(random, samples));
                labels.push_back(below(random, layers.back().outputs));
            }
            starts.push_back(static_cast<std::int64_t>(rows.size()));
        }
        firsts.push_back(static_cast<std::int64_t>(starts.size()) - 1);
        weights.push_back(static_cast<double>(1 + below(random, 9)));
    }
    const LocalData data{features.get(), labels.data(), rows.data(), starts.data(), firsts.data()};
    LocalSteps steps;
    steps.lr = 0.1;
    if (below(random, 2) == 0) steps.proximal = 0.5;
    if (below(random, 2) == 0) steps.clip = 0.1;

    const std::vector<double> start(params.get(), params.get() + size);
    std::vector<double> expected(start.size()), own, losses;
    for (std::int64_t k = 0; k < clients; ++k) {
        losses.push_back(train_plainly(layers, steps, data, k, start, own));
        for (std::size_t i = 0; i < own.size(); ++i) expected[i] += weights[k] * (own[i] - start[i]);
    }
    std::vector<float> first;
    for (const std::string& level : simd_levels()) {
        if (choose_level) set_simd_level(level);
        const std::string what = "train_perceptrons at level " + level;
        const auto change = std::make_unique<float[]>(size);
        const auto last = std::make_unique<float[]>(size);
        std::vector<double> found(static_cast<std::size_t>(clients));
        std::vector<std::uint8_t> finite(static_cast<std::size_t>(clients));
        train_perceptrons(layers, steps, data, params.get(), size, clients, weights.data(), change.get(),
                          last.get(), {found.data(), finite.data()});
        for (std::int64_t k = 0; k < clients; ++k) {
            check(finite[k] == 1 && std::abs(found[k] - losses[k]) < 1e-4, what + ": loss");
        }
        for (std::int64_t i = 0; i < size; ++i) {
            check(std::abs(change[i] - expected[i]) < 1e-3, what + ": change");
            check(std::abs(last[i] - own[i]) < 1e-4, what + ": the last client");
        }
        if (first.empty()) first.assign(change.get(), change.get() + size);
        check(std::memcmp(first.data(), change.get(), size * sizeof(float)) == 0, what + ": other bits");
    }
    // AdamW and momentum only have to stay within their memory here.
    steps.adamw = below(random, 2) == 0;
    steps.momentum = steps.adamw ? 0 : 0.9;
    steps.weight_decay = 0.01;
    std::vector<double> found(static_cast<std::size_t>(clients));
    std::vector<std::uint8_t> finite(static_cast<std::size_t>(clients));
    train_perceptrons(layers, steps, data, params.get(), size, clients, weights.data(), first.data(), nullptr,
                      {found.data(), finite.data()});
    check(finite[0] == 1, "train_perceptrons: finite");
}

void test_knapsacks(Random& random) {
    const auto layers = static_cast<std::int64_t>(below(random, 9));
    const std::int64_t rows = 3, sets = std::int64_t{1} << layers;
    std::vector<double> costs, reach, values, rooms;
    for (std::int64_t i = 0; i < layers; ++i) costs.push_back(static_cast<double>(below(random, 5)));
    for (std::int64_t i = 0; i < layers; ++i) reach.push_back(static_cast<double>(layers - i) / 2);
    for (std::int64_t i = 0; i < rows * layers; ++i)
        values.push_back(static_cast<double>(below(random, 9)) - 2);
    for (std::int64_t i = 0; i < rows; ++i) rooms.push_back(static_cast<double>(below(random, 20)));
    std::vector<std::uint8_t> mask(values.size());
    std::vector<double> best(rooms.size()), upper(rooms.size());
    const auto nodes = static_cast<std::int64_t>(below(random, 2) == 0 ? below(random, 20) : 100000);
    knapsacks(values.data(), rooms.data(), costs.data(), reach.data(), rows, layers, nodes, mask.data(),
              best.data(), upper.data());
    for (std::int64_t row = 0; row < rows; ++row) {
        double optimum = 0;
        for (std::int64_t set = 0; set < sets; ++set) {
            double value = 0, spent = 0;
            for (std::int64_t i = layers - 1; i >= 0; --i) {
                if ((set >> i & 1) == 0) continue;
                value += values[row * layers + i];
                spent += costs[i];
            }
            for (std::int64_t i = 0; i < layers; ++i) {
                if ((set >> i & 1) == 0) continue;
                spent += reach[i];
                break;
            }
            if (spent <= rooms[row]) optimum = std::max(optimum, value);
        }
        check(best[row] <= optimum && optimum <= upper[row], "knapsacks: bounds");
        check(nodes < 100000 || best[row] == optimum, "knapsacks: optimum");
    }
}

void run(std::uint64_t seed, int rounds, bool choose_level) {
    Random random(seed);
    for (int round = 0; round < rounds; ++round) {
        test_layer_stats(random, choose_level);
        test_updates(random, choose_level);
        test_aggregate(random, choose_level);
        test_stacks(random, choose_level);
        test_perceptrons(random, choose_level);
        test_knapsacks(random);
    }
}

}  // namespace

int main(int argc, char** argv) {
    const std::uint64_t seed = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : std::random_device{}();
    const int rounds = argc > 2 ? std::atoi(argv[2]) : 40;
    std::printf("seed %llu, %d rounds, levels:", static_cast<unsigned long long>(seed), rounds);
    for (const std::string& level : simd_levels()) std::printf(" %s", level.c_str());
    std::printf("\n");

    run(seed, rounds, true);

    // Several concurrent callers; one of them changes the level meanwhile.
    std::vector<std::thread> callers;
    for (std::uint64_t i = 1; i <= 4; ++i) callers.emplace_back(run, seed + i, rounds / 4, i == 1);
    for (std::thread& caller : callers) caller.join();
    std::printf("ok\n");
}
