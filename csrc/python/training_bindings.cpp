// Local training of perceptrons on NumPy arrays.

#include <algorithm>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "perceptron/perceptron.h"
#include "python/arguments.h"
#include "python/bindings.h"
#include "python/gil.h"

namespace fedtlu {
namespace {

// Returns a copy of numbers in [0, limit), whose checked values cannot change while the GIL is released.
std::vector<std::int64_t> indices_below(const Name& name, py::handle given, std::int64_t limit) {
    const py::array array = vector_of(name, given, "i", 8, "an array of int64");
    std::vector<std::int64_t> indices(static_cast<std::size_t>(array.size()));
    if (!indices.empty()) std::memcpy(indices.data(), array.data(), indices.size() * sizeof(std::int64_t));
    for (const std::int64_t index : indices) {
        if (index < 0 || index >= limit) {
            bad_value(name,
                      "numbers from 0 to " + std::to_string(limit - 1) + ", got " + std::to_string(index));
        }
    }
    return indices;
}

// Returns boundaries that cut [0, length) into parts that are not empty.
std::vector<std::int64_t> cuts_of(const Name& name, py::handle given, std::int64_t length) {
    std::vector<std::int64_t> cuts = indices_below(name, given, length + 1);
    if (cuts.size() < 2 || cuts.front() != 0 || cuts.back() != length ||
        std::adjacent_find(cuts.begin(), cuts.end(), std::greater_equal<>()) != cuts.end()) {
        bad_value(name, "increasing numbers from 0 to " + std::to_string(length));
    }
    return cuts;
}

// Rows (inputs, outputs, offset of the weight, offset of the bias), each layer as wide as the one before.
std::vector<Linear> linears_of(py::handle given, std::int64_t size) {
    const Name name{"layers"};
    const std::vector<std::int64_t> numbers = indices_below(name, given, size + 1);
    if (numbers.empty() || numbers.size() % 4 != 0) bad_value(name, "four numbers a layer");
    std::vector<Linear> layers;
    for (std::size_t i = 0; i < numbers.size(); i += 4) {
        const Linear layer{numbers[i], numbers[i + 1], numbers[i + 2], numbers[i + 3]};
        const bool fits =
            layer.inputs > 0 && layer.outputs > 0 && layer.inputs <= (size - layer.weight) / layer.outputs &&
            layer.outputs <= size - layer.bias && (layers.empty() || layers.back().outputs == layer.inputs);
        if (!fits) bad_value(name, "layers that follow each other within " + std::to_string(size));
        layers.push_back(layer);
    }
    return layers;
}

// Returns the number of clients that these boundaries describe if they are valid; at least 0.
py::ssize_t clients_in(py::handle firsts) {
    return std::max<py::ssize_t>(vector_of({"firsts"}, firsts, "i", 8, "an array of int64").size(), 1) - 1;
}

double number_of(const Name& name, const py::dict& given) {
    const double number = PyFloat_AsDouble(py::object(given[name.name]).ptr());
    if (PyErr_Occurred()) throw py::error_already_set();
    if (!(number >= 0)) bad_value(name, "a number from 0 on, got " + std::to_string(number));
    return number;
}

LocalSteps steps_of(const py::dict& given) {
    LocalSteps steps;
    steps.adamw = py::object(given["adamw"]).is(py::bool_(true));
    steps.lr = number_of({"lr"}, given);
    steps.momentum = number_of({"momentum"}, given);
    steps.weight_decay = number_of({"weight_decay"}, given);
    steps.proximal = number_of({"proximal"}, given);
    steps.clip = number_of({"clip"}, given);
    return steps;
}

py::tuple py_train_perceptrons(py::handle params, py::handle layers, const py::dict& steps,
                               py::handle features, py::handle labels, py::handle rows, py::handle starts,
                               py::handle firsts, py::handle weights, py::handle change, py::handle own) {
    // First, since a number of the steps may be an object whose __float__ frees the memory of an array that
    // one of these is a view of.
    const Pins pins{params, layers, features, labels, rows, starts, firsts, weights, change, own};
    const LocalSteps local = steps_of(steps);
    const std::int64_t clients = clients_in(firsts);
    py::array_t<double> losses(clients);
    py::array_t<bool> finite(clients);
    const py::array before = singles({"params"}, params);
    const std::vector<Linear> linears = linears_of(layers, before.size());
    const py::array pool = singles({"features"}, features);
    const std::int64_t inputs = linears.front().inputs;
    if (pool.size() % inputs != 0) bad_value({"features"}, "rows of " + std::to_string(inputs) + " numbers");
    const std::vector<std::int64_t> taken = indices_below({"rows"}, rows, pool.size() / inputs);
    const std::vector<std::int64_t> targets = indices_below({"labels"}, labels, linears.back().outputs);
    if (targets.size() != taken.size()) bad_value({"labels"}, "one for each of rows");
    const auto samples = static_cast<std::int64_t>(taken.size());
    const std::vector<std::int64_t> batches = cuts_of({"starts"}, starts, samples);
    const std::vector<std::int64_t> cuts =
        cuts_of({"firsts"}, firsts, static_cast<std::int64_t>(batches.size()) - 1);
    if (static_cast<std::int64_t>(cuts.size()) != clients + 1) bad_value({"firsts"}, "one length");
    const py::array shares = floats({"weights"}, weights, Dtype::kFloat64);
    if (shares.size() != clients) bad_value({"weights"}, std::to_string(clients) + " entries, one a client");
    std::vector<double> factors(static_cast<std::size_t>(clients));
    if (clients > 0) std::memcpy(factors.data(), shares.data(), factors.size() * sizeof(double));
    py::array sum = singles({"change"}, change);
    check_writable({"change"}, sum);
    check_as_long({"change"}, sum, {"params"}, before);
    check_apart({"change"}, sum, {"params"}, before);
    check_apart({"features"}, pool, {"change"}, sum);
    float* last = nullptr;
    if (!own.is_none()) {
        py::array vector = singles({"own"}, own);
        check_writable({"own"}, vector);
        check_as_long({"own"}, vector, {"params"}, before);
        check_apart({"own"}, vector, {"params"}, before);
        check_apart({"own"}, vector, {"change"}, sum);
        check_apart({"features"}, pool, {"own"}, vector);
        last = static_cast<float*>(vector.mutable_data());
    }

    const LocalData data{static_cast<const float*>(pool.data()), targets.data(), taken.data(), batches.data(),
                         cuts.data()};
    const LocalResults results{losses.mutable_data(), reinterpret_cast<std::uint8_t*>(finite.mutable_data())};
    const auto* start = static_cast<const float*>(before.data());
    auto* out = static_cast<float*>(sum.mutable_data());
    const std::int64_t size = before.size();
    without_gil([&] {
        train_perceptrons(linears, local, data, start, size, clients, factors.data(), out, last, results);
    });
    return py::make_tuple(losses, finite);
}

}  // namespace

void bind_training(py::module_& module) {
    module.def("train_perceptrons", &py_train_perceptrons, py::arg("params"), py::arg("layers"),
               py::arg("steps"), py::arg("features"), py::arg("labels"), py::arg("rows"), py::arg("starts"),
               py::arg("firsts"), py::arg("weights"), py::arg("change"), py::arg("own"),
               "Local training of K clients of a multi-layer perceptron: change = sum of weights[k] * (w_k - "
               "params) over clients without NaN and Inf. Returns losses [K] and which clients count [K].");
}

}  // namespace fedtlu
