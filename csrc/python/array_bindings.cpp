// The operations on NumPy arrays.

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "aggregate.h"
#include "moments.h"
#include "python/arguments.h"
#include "python/bindings.h"
#include "python/gil.h"
#include "python/moments_arrays.h"
#include "update.h"

namespace fedtlu {
namespace {

// Returns the base, checked against the target; no array for None.
py::array base_beside(py::handle base, Dtype dtype, const Name& target_name, const py::array& target) {
    if (base.is_none()) return {};
    py::array array = floats({"base"}, base, dtype);
    check_beside({"base"}, array, target_name, target);
    return array;
}

py::array_t<double> py_layer_stats(py::handle delta, py::handle dtype, py::handle offsets, int threads) {
    const Dtype type = parse_dtype({"dtype"}, dtype);
    check_threads(threads);
    const Pins pins{delta, offsets};
    const std::vector<std::int64_t> bounds = offsets_of(offsets);
    const std::int64_t layers = layers_of(bounds);
    py::array_t<double> out = moments_array(layers);
    const Moments moments = rows(out.mutable_data(), layers);
    const py::array values = floats({"delta"}, delta, type);
    check_within(bounds, values.size());

    const std::byte* data = bytes_of(values);
    without_gil([&] { layer_stats(data, type, bounds.data(), layers, moments, threads); });
    return out;
}

py::array_t<double> py_layer_stats_list(py::handle tensors, py::handle dtypes, int threads) {
    const py::tuple arrays = tuple_of({"tensors"}, tensors);
    const auto layers = static_cast<std::int64_t>(arrays.size());
    const bool one_dtype = PyUnicode_Check(dtypes.ptr());
    if (!one_dtype && !PySequence_Check(dtypes.ptr()))
        bad_type({"dtypes"}, "a dtype's name or a sequence of them");
    const auto names =
        one_dtype ? py::tuple() : py::reinterpret_steal<py::tuple>(PySequence_Tuple(dtypes.ptr()));
    if (!names) throw py::error_already_set();
    if (!one_dtype && names.size() != arrays.size()) {
        bad_value({"dtypes"}, std::to_string(layers) + " names, got " + std::to_string(names.size()));
    }
    check_threads(threads);

    const Dtype shared = one_dtype ? parse_dtype({"dtypes"}, dtypes) : Dtype::kFloat32;
    const Pins pins(arrays);
    py::array_t<double> out = moments_array(layers);
    const Moments moments = rows(out.mutable_data(), layers);
    std::vector<LayerView> views(arrays.size());
    for (std::int64_t i = 0; i < layers; ++i) {
        const Dtype type = one_dtype ? shared : parse_dtype({"dtypes", i}, PyTuple_GET_ITEM(names.ptr(), i));
        const py::array array = floats({"tensors", i}, PyTuple_GET_ITEM(arrays.ptr(), i), type);
        views[static_cast<std::size_t>(i)] = {bytes_of(array), array.size(), type};
    }
    without_gil([&] { layer_stats_list(views.data(), layers, moments, threads); });
    return out;
}

py::object py_accumulate(py::handle aggregate, py::handle client, py::handle base, py::handle dtype,
                         double weight, py::handle offsets, int threads) {
    const Dtype type = parse_dtype({"dtype"}, dtype);
    check_threads(threads);
    const Pins pins{aggregate, client, base};
    const bool with_stats = !offsets.is_none();
    const std::vector<std::int64_t> bounds = with_stats ? offsets_of(offsets) : std::vector<std::int64_t>{0};
    const std::int64_t layers = layers_of(bounds);
    py::array_t<double> result = moments_array(layers);
    const Moments moments = rows(result.mutable_data(), layers);
    py::array target = floats({"aggregate"}, aggregate, widened(type));
    check_writable({"aggregate"}, target);
    const py::array change = floats({"client"}, client, type);
    check_beside({"client"}, change, {"aggregate"}, target);
    const py::array start = base_beside(base, type, {"aggregate"}, target);
    check_within(bounds, target.size());

    auto* out = static_cast<std::byte*>(target.mutable_data());
    const std::byte* from = bytes_of(change);
    const std::byte* minus = base.is_none() ? nullptr : bytes_of(start);
    const std::int64_t n = target.size();
    if (!with_stats) {
        without_gil([&] { accumulate_(out, from, minus, type, n, weight, threads); });
        return py::none();
    }
    without_gil([&] {
        accumulate_layer_stats_(out, from, minus, type, n, weight, bounds.data(), layers, moments, threads);
    });
    return std::move(result);
}

// What `aggregate` computes of every client.
enum class OfClients { kNothing, kMoments, kSquares };

OfClients of_clients(const Name& name, py::handle given) {
    if (PyUnicode_Check(given.ptr()) && PyUnicode_CompareWithASCIIString(given.ptr(), "norms") == 0) {
        return OfClients::kSquares;
    }
    py::detail::make_caster<bool> flag;
    if (!flag.load(given, true)) bad_type(name, "a bool or 'norms'");
    return static_cast<bool>(flag) ? OfClients::kMoments : OfClients::kNothing;
}

py::tuple py_aggregate(py::handle out, py::handle clients, py::handle weights, py::handle base,
                       py::handle dtype, py::handle offsets, py::handle client_stats, int threads) {
    const py::tuple arrays = tuple_of({"clients"}, clients);
    const Dtype type = parse_dtype({"dtype"}, dtype);
    const OfClients wanted = of_clients({"client_stats"}, client_stats);
    check_threads(threads);
    Pins pins(arrays);
    for (const py::handle array : {out, weights, base}) pins.add(array);
    const std::vector<std::int64_t> bounds = offsets_of(offsets);
    const std::int64_t layers = layers_of(bounds);
    const auto number = static_cast<std::int64_t>(arrays.size());
    py::array_t<double> result = moments_array(layers);
    const Moments moments = rows(result.mutable_data(), layers);
    py::object each = py::none();
    std::vector<Moments> client_moments;
    double* client_squares = nullptr;
    if (wanted == OfClients::kSquares) {
        py::array_t<double> matrix({py::ssize_t{number}, py::ssize_t{layers}});
        client_squares = matrix.mutable_data();
        each = std::move(matrix);
    } else if (wanted == OfClients::kMoments) {
        py::array_t<double> matrices({py::ssize_t{number}, py::ssize_t{5}, py::ssize_t{layers}});
        double* at = matrices.mutable_data();
        for (std::int64_t i = 0; i < number; ++i, at += 5 * layers) {
            client_moments.push_back(rows(at, layers));
        }
        each = std::move(matrices);
    }
    py::array target = floats({"out"}, out, widened(type));
    check_writable({"out"}, target);
    std::vector<const std::byte*> data(arrays.size());
    for (std::int64_t i = 0; i < number; ++i) {
        const py::array array = floats({"clients", i}, PyTuple_GET_ITEM(arrays.ptr(), i), type);
        check_beside({"clients", i}, array, {"out"}, target);
        data[static_cast<std::size_t>(i)] = bytes_of(array);
    }
    const py::array shares = vector_of({"weights"}, weights, "f", 8, "an array of float64");
    if (shares.size() != number) {
        bad_value({"weights"},
                  std::to_string(number) + " numbers, one per client, got " + std::to_string(shares.size()));
    }
    // A copy: the numbers may lie anywhere, even in memory that is written.
    std::vector<double> factors(arrays.size());
    if (number > 0) std::memcpy(factors.data(), shares.data(), factors.size() * sizeof(double));
    const py::array start = base_beside(base, type, {"out"}, target);
    check_within(bounds, target.size());

    auto* to = static_cast<std::byte*>(target.mutable_data());
    const Clients given{data.data(), factors.data(), number, base.is_none() ? nullptr : bytes_of(start),
                        type};
    const std::int64_t n = target.size();
    without_gil([&] {
        aggregate(to, given, n, bounds.data(), layers, moments,
                  wanted == OfClients::kMoments ? client_moments.data() : nullptr, client_squares, threads);
    });
    return py::make_tuple(result, each);
}

void py_masked_apply(py::handle params, py::handle delta, py::handle offsets, py::handle mask,
                     py::handle dtype, double lr, int threads) {
    const Dtype type = parse_dtype({"dtype"}, dtype);
    check_threads(threads);
    const Pins pins{params, delta, mask};
    const std::vector<std::int64_t> bounds = offsets_of(offsets);
    py::array target = floats({"params"}, params, widened(type));
    check_writable({"params"}, target);
    const py::array change = floats({"delta"}, delta, type);
    check_beside({"delta"}, change, {"params"}, target);
    check_within(bounds, target.size());
    const py::array chosen = vector_of({"mask"}, mask, "b", 1, "an array of bool");
    const std::int64_t layers = layers_of(bounds);
    if (chosen.size() != layers) {
        bad_value({"mask"},
                  std::to_string(layers) + " entries, one per layer, got " + std::to_string(chosen.size()));
    }

    auto* out = static_cast<std::byte*>(target.mutable_data());
    const std::byte* from = bytes_of(change);
    const auto* flags = static_cast<const std::uint8_t*>(chosen.data());
    without_gil([&] { masked_apply_(out, from, type, bounds.data(), flags, layers, lr, threads); });
}

}  // namespace

void bind_arrays(py::module_& module) {
    module.def(
        "layer_stats", &py_layer_stats, py::arg("delta"), py::arg("dtype"), py::arg("offsets"),
        py::arg("threads"),
        "Moments of the layers delta[offsets[l]:offsets[l + 1]] as a float64 array [5, L]: count, mean, m2, "
        "abs_max, nonfinite.");
    module.def("layer_stats_list", &py_layer_stats_list, py::arg("tensors"), py::arg("dtypes"),
               py::arg("threads"),
               "Moments of separate vectors, one layer each; one dtype for all or one each.");
    module.def(
        "accumulate_", &py_accumulate, py::arg("aggregate"), py::arg("client"), py::arg("base"),
        py::arg("dtype"), py::arg("weight"), py::arg("offsets"), py::arg("threads"),
        "aggregate += weight * (client - base), in float64, rounded once. base may be None; with offsets "
        "that are not None, the moments [5, L] of the new aggregate.");
    module.def("aggregate", &py_aggregate, py::arg("out"), py::arg("clients"), py::arg("weights"),
               py::arg("base"), py::arg("dtype"), py::arg("offsets"), py::arg("client_stats"),
               py::arg("threads"),
               "out = sum of weights[k] * (clients[k] - base), in float64, rounded once. base may be None. "
               "Returns the moments [5, L] of out and those of the clients [K, 5, L], or None; with "
               "client_stats 'norms', the clients' sums of squares [K, L].");
    module.def("masked_apply_", &py_masked_apply, py::arg("params"), py::arg("delta"), py::arg("offsets"),
               py::arg("mask"), py::arg("dtype"), py::arg("lr"), py::arg("threads"),
               "params += lr * delta on the layers whose mask is set, in float64, rounded once.");
}

}  // namespace fedtlu
