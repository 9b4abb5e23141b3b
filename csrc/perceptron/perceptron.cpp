#include "perceptron/perceptron.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "float_env.h"
#include "perceptron/perceptron_step.h"
#include "simd.h"

namespace fedtlu {
namespace {

// The memory of one thread, which it uses for one client after another.
class Bench {
  public:
    Bench(const std::vector<Linear>& given, const LocalSteps& steps, std::int64_t batch) : given_(given) {
        std::int64_t activations = 0;
        std::int64_t widest = 0;
        std::int64_t turned = 0;
        for (const Linear& linear : given) {
            const std::int64_t width = padded(linear.outputs);
            const std::int64_t weight = size_;
            size_ += linear.inputs * width;
            layers_.push_back({linear.inputs, linear.outputs, weight, size_, nullptr});
            size_ += width;
            activations += batch * padded(linear.inputs);
            widest = std::max({widest, padded(linear.inputs), width});
            turned = std::max(turned, linear.outputs * padded(linear.inputs));
        }
        const std::int64_t states = steps.adamw ? 2 : steps.momentum != 0 ? 1 : 0;
        memory_.resize(
            static_cast<std::size_t>(size_ * (3 + states) + activations + batch * widest * 3 + turned));
        float* at = memory_.data();
        const auto take = [&at](std::int64_t number) {
            float* const mine = at;
            at += number;
            return mine;
        };
        start_ = take(size_);
        work_.params = take(size_);
        work_.grads = take(size_);
        if (states > 0) work_.first = take(size_);
        if (states > 1) work_.second = take(size_);
        for (StepLayer& layer : layers_) layer.input = take(batch * padded(layer.inputs));
        work_.logits = take(batch * widest);
        work_.error = take(batch * widest);
        work_.error_below = take(batch * widest);
        work_.transposed = take(turned);
        work_.layers = layers_.data();
        work_.number = static_cast<int>(layers_.size());
        work_.size = size_;
        work_.start = start_;
        work_.steps = &steps;
    }

    ClientWork& work() { return work_; }
    std::int64_t size() const { return size_; }

    // Copies the flat vector into the layout of the steps; padding is 0.
    void load(const float* params) {
        for (std::size_t l = 0; l < layers_.size(); ++l) {
            const Linear& linear = given_[l];
            float* weight = start_ + layers_[l].weight;
            const std::int64_t width = padded(linear.outputs);
            for (std::int64_t out = 0; out < linear.outputs; ++out) {
                const float* row = params + linear.weight + out * linear.inputs;
                for (std::int64_t in = 0; in < linear.inputs; ++in) weight[in * width + out] = row[in];
            }
            std::copy_n(params + linear.bias, linear.outputs, start_ + layers_[l].bias);
        }
    }

    // Copies the layout of the steps back into the flat vector.
    void store(const float* from, float* params) const {
        for (std::size_t l = 0; l < layers_.size(); ++l) {
            const Linear& linear = given_[l];
            const float* weight = from + layers_[l].weight;
            const std::int64_t width = padded(linear.outputs);
            for (std::int64_t out = 0; out < linear.outputs; ++out) {
                float* row = params + linear.weight + out * linear.inputs;
                for (std::int64_t in = 0; in < linear.inputs; ++in) row[in] = weight[in * width + out];
            }
            std::copy_n(from + layers_[l].bias, linear.outputs, params + linear.bias);
        }
    }

  private:
    const std::vector<Linear>& given_;
    std::vector<StepLayer> layers_;
    std::vector<float> memory_;
    float* start_ = nullptr;
    std::int64_t size_ = 0;
    ClientWork work_{};
};

// Whether all numbers are finite and below 2^60 in size (soundness.py says why). It compares bits: the
// compiler vectorizes integers, while a sum of floats has to wait for every addition.
bool all_sound(const float* x, std::int64_t size) {
    constexpr std::uint32_t kExponent = 0x7f800000;
    constexpr std::uint32_t kLargest = (127u + 60u) << 23;
    std::uint32_t found = 0;
    for (std::int64_t i = 0; i < size; ++i) {
        std::uint32_t bits;
        std::memcpy(&bits, x + i, sizeof bits);
        found |= (bits & kExponent) >= kLargest ? 1u : 0u;
    }
    return found == 0;
}

}  // namespace

void train_perceptrons(const std::vector<Linear>& layers, const LocalSteps& steps, const LocalData& data,
                       const float* params, std::int64_t size, std::int64_t clients, const double* weights,
                       float* change, float* own, const LocalResults& results) {
    const DefaultFloatEnv env;
    const Kernels& kernels = fedtlu::kernels();
    std::int64_t batch = 0;
    for (std::int64_t b = data.firsts[0]; b < data.firsts[clients]; ++b) {
        batch = std::max(batch, data.starts[b + 1] - data.starts[b]);
    }
    Bench bench(layers, steps, batch);
    bench.load(params);
    std::vector<double> total(static_cast<std::size_t>(bench.size()));

    ClientWork& work = bench.work();
    work.features = data.features;
    for (std::int64_t k = 0; k < clients; ++k) {
        work.starts = data.starts + data.firsts[k];
        work.batches = data.firsts[k + 1] - data.firsts[k];
        work.rows = data.rows + work.starts[0];
        work.labels = data.labels + work.starts[0];
        const double loss = kernels.train_client(work);
        const bool finite = std::isfinite(loss) && all_sound(work.params, bench.size());
        results.losses[k] = loss;
        results.finite[k] = finite ? 1 : 0;
        if (!finite) continue;
        Addends addends;
        addends.number = 1;
        addends.clients[0] = addends.ahead[0] = reinterpret_cast<const std::byte*>(work.params);
        addends.weights[0] = weights[k];
        kernels.add(Dtype::kFloat32)(total.data(), addends, reinterpret_cast<const std::byte*>(work.start),
                                     bench.size());
    }
    if (own != nullptr) {
        std::copy_n(params, size, own);
        bench.store(work.params, own);
    }
    std::fill_n(change, size, 0.0f);
    kernels.round(Dtype::kFloat32)(reinterpret_cast<std::byte*>(work.grads), total.data(), bench.size());
    bench.store(work.grads, change);
}

}  // namespace fedtlu
