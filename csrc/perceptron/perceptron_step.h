// The memory of one client's training, laid out for the inner loops of `perceptron_impl.h`.
#pragma once

#include <cstdint>

#include "perceptron/perceptron.h"

namespace fedtlu {

// Rows of every matrix are padded with zeros to a multiple of this many floats, one register of the widest
// level.
constexpr std::int64_t kPad = 16;

constexpr std::int64_t padded(std::int64_t width) { return (width + kPad - 1) / kPad * kPad; }

// A layer's weight transposed, [inputs, padded(outputs)], so that a product runs along the outputs; then its
// bias. Both at offsets in the client's own vector of parameters.
struct StepLayer {
    std::int64_t inputs;
    std::int64_t outputs;
    std::int64_t weight;
    std::int64_t bias;
    float* input;  // [batch, padded(inputs)]
};

// One client's work. All vectors of parameters have `size` numbers, padding included.
struct ClientWork {
    const StepLayer* layers;
    int number;         // of layers
    std::int64_t size;  // of the vectors below
    const float* start;
    float* params;
    float* grads;
    float* first;   // the optimizer's state: momentum, or AdamW's first moment
    float* second;  // AdamW's second moment
    float* logits;  // [batch, padded(classes)]
    float* error;   // [batch, widest layer]: gradients of a layer's outputs
    float* error_below;
    float* transposed;  // of the largest weight
    const LocalSteps* steps;

    const float* features;
    const std::int64_t* labels;  // of this client's first batch
    const std::int64_t* rows;
    const std::int64_t* starts;  // of its batches, from `starts[0]`
    std::int64_t batches;
};

}  // namespace fedtlu
