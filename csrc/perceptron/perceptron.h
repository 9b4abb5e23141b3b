// Local training of multi-layer perceptrons, client after client: a few hundred numbers a step cost less than
// one call into a tensor library, so whole clients are trained in one call.
//
// A perceptron is Linear, ReLU, ..., Linear under softmax and cross-entropy, in float32. Products are summed
// over their inner dimension in order, without fused multiply-add: the bits depend neither on the SIMD level
// nor on which clients share a call (exp and log are the C library's).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fedtlu {

// One Linear: where its weight [outputs, inputs] and its bias [outputs] lie in the flat vector.
struct Linear {
    std::int64_t inputs;
    std::int64_t outputs;
    std::int64_t weight;
    std::int64_t bias;
};

// The settings of a client's step, in torch's order: proximal term, clipping, weight decay, update.
struct LocalSteps {
    bool adamw = false;
    double lr = 0;
    double momentum = 0;
    double weight_decay = 0;
    double proximal = 0;  // FedProx's mu
    double clip = 0;      // largest L2 norm of a gradient; 0: no limit
};

// Samples of K clients: client k trains on the batches b from firsts[k] to firsts[k + 1], whose samples are
// rows[starts[b]:starts[b + 1]] of `features` [*, inputs]; `labels` has one entry for each entry of `rows`.
struct LocalData {
    const float* features;
    const std::int64_t* labels;
    const std::int64_t* rows;
    const std::int64_t* starts;
    const std::int64_t* firsts;
};

// The results, one entry per client: the mean loss over its steps, and whether the loss is finite and all
// parameters are finite and below 2^60 in size.
struct LocalResults {
    double* losses;
    std::uint8_t* finite;
};

// change[i] = float(sum of weights[k] * (double(w_k[i]) - double(params[i]))) over the clients whose results
// are finite, in order; w_k are client k's parameters after its steps, from `params`. Both have `size`
// numbers; w_k keeps the numbers of `params` that belong to no layer. If `own` is not null, the last client's
// w_k is written to it. Throws std::bad_alloc and whatever `kernels` throws.
void train_perceptrons(const std::vector<Linear>& layers, const LocalSteps& steps, const LocalData& data,
                       const float* params, std::int64_t size, std::int64_t clients, const double* weights,
                       float* change, float* own, const LocalResults& results);

}  // namespace fedtlu
