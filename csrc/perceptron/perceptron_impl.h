// The inner loops of `perceptron.h`; included by `kernels_impl.h`, once for every SIMD level, which defines
// Singles (a register of floats), kRows and kColumns (the block of a product held in registers).
//
// Sums over an inner dimension are formed one element after another, and registers run along an outer one:
// the bits are those of plain loops.

namespace fedtlu {
namespace {

constexpr int kSingles = sizeof(Singles) / sizeof(float);
constexpr int kPerPad = kPad / kSingles;  // registers in a padded group of columns

FEDTLU_INLINE Singles load_singles(const float* x) {
    Singles found;
    __builtin_memcpy(&found, x, sizeof found);
    return found;
}

FEDTLU_INLINE void store_singles(float* x, Singles values) { __builtin_memcpy(x, &values, sizeof values); }

// A matrix whose element (row, k) is at[row * row_step + k * inner_step].
struct Left {
    const float* at;
    std::int64_t row_step;
    std::int64_t inner_step;
};

// out[r, c] = first[c] + sum over k of left(r, k) * right[k, c], for a block of kBlock rows and kGroups
// groups of columns; `first` may be null.
template <int kBlock, int kGroups>
FEDTLU_INLINE void multiply_block(float* out, std::int64_t out_step, const Left& left, const float* right,
                                  std::int64_t right_step, std::int64_t inner, const float* first) {
    constexpr int kVectorsHere = kGroups * kPerPad;
    Singles sums[kBlock][kVectorsHere];
    FEDTLU_UNROLL
    for (int v = 0; v < kVectorsHere; ++v) {
        const Singles begin = first == nullptr ? Singles{} : load_singles(first + v * kSingles);
        FEDTLU_UNROLL
        for (int row = 0; row < kBlock; ++row) sums[row][v] = begin;
    }
    const float* at = left.at;
    for (std::int64_t k = 0; k < inner; ++k, at += left.inner_step, right += right_step) {
        Singles columns[kVectorsHere];
        FEDTLU_UNROLL
        for (int v = 0; v < kVectorsHere; ++v) columns[v] = load_singles(right + v * kSingles);
        FEDTLU_UNROLL
        for (int row = 0; row < kBlock; ++row) {
            const float factor = at[row * left.row_step];
            FEDTLU_UNROLL
            for (int v = 0; v < kVectorsHere; ++v) sums[row][v] += factor * columns[v];
        }
    }
    FEDTLU_UNROLL
    for (int row = 0; row < kBlock; ++row) {
        FEDTLU_UNROLL
        for (int v = 0; v < kVectorsHere; ++v) {
            store_singles(out + row * out_step + v * kSingles, sums[row][v]);
        }
    }
}

template <int kGroups>
FEDTLU_INLINE void multiply_rows(float* out, std::int64_t out_step, Left left, const float* right,
                                 std::int64_t right_step, std::int64_t rows, std::int64_t inner,
                                 const float* first) {
    for (; rows >= kRows; rows -= kRows, out += kRows * out_step, left.at += kRows * left.row_step) {
        multiply_block<kRows, kGroups>(out, out_step, left, right, right_step, inner, first);
    }
    if constexpr (kRows > 2) {
        for (; rows >= 2; rows -= 2, out += 2 * out_step, left.at += 2 * left.row_step) {
            multiply_block<2, kGroups>(out, out_step, left, right, right_step, inner, first);
        }
    }
    for (; rows >= 1; --rows, out += out_step, left.at += left.row_step) {
        multiply_block<1, kGroups>(out, out_step, left, right, right_step, inner, first);
    }
}

// out [rows, columns] = first + left [rows, inner] right [inner, columns]; the rows of `out` and `right` are
// `columns` apart, a multiple of kPad.
void multiply(float* out, Left left, const float* right, std::int64_t rows, std::int64_t columns,
              std::int64_t inner, const float* first) {
    std::int64_t column = 0;
    const auto begin = [&] { return first == nullptr ? nullptr : first + column; };
    for (; columns - column >= kColumns * kPad; column += kColumns * kPad) {
        multiply_rows<kColumns>(out + column, columns, left, right + column, columns, rows, inner, begin());
    }
    for (; column < columns; column += kPad) {
        multiply_rows<1>(out + column, columns, left, right + column, columns, rows, inner, begin());
    }
}

// to [columns, padded(rows)] = from [rows, columns] turned; `from` has rows `step` apart.
FEDTLU_INLINE void transpose(float* to, const float* from, std::int64_t rows, std::int64_t columns,
                             std::int64_t step) {
    const std::int64_t width = padded(rows);
    for (std::int64_t column = 0; column < columns; ++column) {
        for (std::int64_t row = 0; row < rows; ++row) to[column * width + row] = from[row * step + column];
        for (std::int64_t row = rows; row < width; ++row) to[column * width + row] = 0;
    }
}

FEDTLU_INLINE void forward(const ClientWork& work, std::int64_t batch) {
    for (int l = 0; l < work.number; ++l) {
        const StepLayer& layer = work.layers[l];
        const bool last = l + 1 == work.number;
        float* out = last ? work.logits : work.layers[l + 1].input;
        const std::int64_t width = padded(layer.outputs);
        multiply(out, {layer.input, padded(layer.inputs), 1}, work.params + layer.weight, batch, width,
                 layer.inputs, work.params + layer.bias);
        if (last) return;
        // A NaN stays a NaN, as in torch.
        for (std::int64_t i = 0; i < batch * width; ++i) out[i] = out[i] < 0 ? 0 : out[i];
    }
}

// Mean cross-entropy of the batch; its gradient for the logits goes to `error`.
FEDTLU_INLINE double cross_entropy(const ClientWork& work, const std::int64_t* labels, std::int64_t batch) {
    const std::int64_t classes = work.layers[work.number - 1].outputs;
    const std::int64_t width = padded(classes);
    const float share = 1.0f / static_cast<float>(batch);
    double loss = 0;
    for (std::int64_t b = 0; b < batch; ++b) {
        const float* logits = work.logits + b * width;
        float* error = work.error + b * width;
        float peak = logits[0];
        for (std::int64_t c = 1; c < classes; ++c) peak = logits[c] > peak ? logits[c] : peak;
        float sum = 0;
        for (std::int64_t c = 0; c < classes; ++c) {
            error[c] = __builtin_expf(logits[c] - peak);
            sum += error[c];
        }
        loss += static_cast<double>(__builtin_logf(sum) - (logits[labels[b]] - peak));
        const float scale = share / sum;
        for (std::int64_t c = 0; c < classes; ++c) error[c] *= scale;
        error[labels[b]] -= share;
        for (std::int64_t c = classes; c < width; ++c) error[c] = 0;
    }
    return loss / static_cast<double>(batch);
}

FEDTLU_INLINE void backward(const ClientWork& work, std::int64_t batch) {
    float* error = work.error;
    float* below = work.error_below;
    for (int l = work.number - 1; l >= 0; --l) {
        const StepLayer& layer = work.layers[l];
        const std::int64_t in = padded(layer.inputs);
        const std::int64_t out = padded(layer.outputs);
        multiply(work.grads + layer.weight, {layer.input, 1, in}, error, layer.inputs, out, batch, nullptr);
        float* bias = work.grads + layer.bias;
        for (std::int64_t i = 0; i < out; ++i) bias[i] = error[i];
        for (std::int64_t b = 1; b < batch; ++b) {
            for (std::int64_t i = 0; i < out; ++i) bias[i] += error[b * out + i];
        }
        if (l == 0) return;
        transpose(work.transposed, work.params + layer.weight, layer.inputs, layer.outputs, out);
        multiply(below, {error, out, 1}, work.transposed, batch, in, layer.outputs, nullptr);
        for (std::int64_t i = 0; i < batch * in; ++i) below[i] = layer.input[i] <= 0 ? 0 : below[i];
        float* const swap = error;
        error = below;
        below = swap;
    }
}

// The L2 norm, summed in float64 in kPad interleaved parts.
FEDTLU_INLINE double norm(const float* x, std::int64_t size) {
    double sums[kPad] = {};
    for (std::int64_t i = 0; i < size; i += kPad) {
        for (std::int64_t lane = 0; lane < kPad; ++lane) {
            const double value = x[i + lane];
            sums[lane] += value * value;
        }
    }
    double sum = 0;
    for (std::int64_t lane = 0; lane < kPad; ++lane) sum += sums[lane];
    return __builtin_sqrt(sum);
}

FEDTLU_INLINE void adjust(const ClientWork& work) {
    const LocalSteps& steps = *work.steps;
    float* grads = work.grads;
    if (steps.proximal != 0) {
        const auto mu = static_cast<float>(steps.proximal);
        for (std::int64_t i = 0; i < work.size; ++i) {
            grads[i] = grads[i] + mu * work.params[i] - mu * work.start[i];
        }
    }
    if (steps.clip != 0) {
        const double ratio = steps.clip / (norm(grads, work.size) + 1e-6);
        // A NaN stays a NaN; a gradient below the limit keeps its bits.
        const float scale = ratio > 1 ? 1.0f : static_cast<float>(ratio);
        if (!(ratio > 1)) {
            for (std::int64_t i = 0; i < work.size; ++i) grads[i] *= scale;
        }
    }
}

FEDTLU_INLINE void sgd(const ClientWork& work, std::int64_t step) {
    const LocalSteps& steps = *work.steps;
    float* grads = work.grads;
    const auto lr = static_cast<float>(steps.lr);
    if (steps.weight_decay != 0) {
        const auto decay = static_cast<float>(steps.weight_decay);
        for (std::int64_t i = 0; i < work.size; ++i) grads[i] += decay * work.params[i];
    }
    if (steps.momentum != 0) {
        const auto momentum = static_cast<float>(steps.momentum);
        float* velocity = work.first;
        for (std::int64_t i = 0; i < work.size; ++i) {
            velocity[i] = step == 0 ? grads[i] : momentum * velocity[i] + grads[i];
        }
        grads = velocity;
    }
    for (std::int64_t i = 0; i < work.size; ++i) work.params[i] -= lr * grads[i];
}

// `taken` counts the steps; it is 1 in the first.
FEDTLU_INLINE void adamw(const ClientWork& work, std::int64_t taken) {
    constexpr double kBeta1 = 0.9;
    constexpr double kBeta2 = 0.999;
    constexpr float kEpsilon = 1e-8f;
    const LocalSteps& steps = *work.steps;
    if (taken == 1) {
        for (std::int64_t i = 0; i < work.size; ++i) work.first[i] = work.second[i] = 0;
    }
    const auto exponent = static_cast<double>(taken);
    const double correction1 = 1 - __builtin_pow(kBeta1, exponent);
    const double correction2 = 1 - __builtin_pow(kBeta2, exponent);
    const auto shrink = static_cast<float>(1 - steps.lr * steps.weight_decay);
    const auto rate = static_cast<float>(steps.lr / correction1);
    const auto root = static_cast<float>(__builtin_sqrt(correction2));
    const auto keep = static_cast<float>(kBeta2);
    const auto take1 = static_cast<float>(1 - kBeta1);
    const auto take2 = static_cast<float>(1 - kBeta2);
    for (std::int64_t i = 0; i < work.size; ++i) {
        const float grad = work.grads[i];
        const float first = work.first[i] + take1 * (grad - work.first[i]);
        const float second = keep * work.second[i] + take2 * grad * grad;
        work.first[i] = first;
        work.second[i] = second;
        const float spread = __builtin_sqrtf(second) / root + kEpsilon;
        work.params[i] = work.params[i] * shrink - rate * (first / spread);
    }
}

// Trains one client for all its steps and returns its mean loss.
double train_client(const ClientWork& work) {
    __builtin_memcpy(work.params, work.start, static_cast<std::size_t>(work.size) * sizeof(float));
    const StepLayer& bottom = work.layers[0];
    const std::int64_t width = padded(bottom.inputs);
    double total = 0;
    for (std::int64_t step = 0; step < work.batches; ++step) {
        const std::int64_t begin = work.starts[step] - work.starts[0];
        const std::int64_t batch = work.starts[step + 1] - work.starts[step];
        for (std::int64_t b = 0; b < batch; ++b) {
            __builtin_memcpy(bottom.input + b * width, work.features + work.rows[begin + b] * bottom.inputs,
                             static_cast<std::size_t>(bottom.inputs) * sizeof(float));
        }
        forward(work, batch);
        total += cross_entropy(work, work.labels + begin, batch);
        backward(work, batch);
        adjust(work);
        if (work.steps->adamw) {
            adamw(work, step + 1);
        } else {
            sgd(work, step);
        }
    }
    return total / static_cast<double>(work.batches);
}

}  // namespace
}  // namespace fedtlu
