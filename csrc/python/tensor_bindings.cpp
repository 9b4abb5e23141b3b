// The operations on plain tensors (see `python/tensors.h`): every function checks all its arguments, and
// returns NotImplemented if it does not take one of them as it is. Python's checks then prepare the argument,
// or say what is wrong with it. For a model of 9,000 parameters the computation takes a few microseconds, and
// checks in Python took fifty.
//
// Numbers and offsets are copied first. What is read from a tensor is used before other Python code runs,
// except that other threads run during a long computation: as in torch's own operations, a thread must not
// free the memory of a tensor that another one computes with.

#include <pybind11/numpy.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "aggregate.h"
#include "moments.h"
#include "python/bindings.h"
#include "python/gil.h"
#include "python/moments_arrays.h"
#include "python/tensors.h"
#include "scores.h"
#include "update.h"

namespace py = pybind11;

namespace fedtlu {
namespace {

// A computation on fewer bytes takes less time than other threads may keep the GIL.
constexpr std::int64_t kWithGil = 512 * 1024;

template <class Compute>
void run(std::int64_t bytes, const Compute& compute) {
    if (bytes < kWithGil) {
        compute();
    } else {
        without_gil(compute);
    }
}

py::object refused() { return py::reinterpret_borrow<py::object>(Py_NotImplemented); }

// The cost of layers besides their bytes, in the time that a byte takes.
std::int64_t cost_of(const std::vector<std::int64_t>& bounds) { return 256 * layers_of(bounds); }

// Whether an input has the target's length, and all of its memory or none.
bool beside(const Elements& input, const Elements& target) {
    if (input.size != target.size) return false;
    const std::byte* end = target.data + target.bytes();
    const bool same = input.data == target.data && input.bytes() == target.bytes();
    return same || input.data >= end || target.data >= input.data + input.bytes();
}

// A vector that an operation may write, of the dtype to which `dtype` is added.
bool read_target(PyObject* given, Dtype dtype, Elements& out) {
    Dtype wide;
    return read_floats(given, out, wide) && wide == widened(dtype) && changeable(given);
}

// A vector of this dtype that is read while `target` is written.
bool read_beside(PyObject* given, Dtype dtype, const Elements& target, Elements& out) {
    Dtype own;
    return read_floats(given, out, own) && own == dtype && beside(out, target);
}

py::object layer_stats_of(py::handle delta, py::handle offsets, int threads) {
    Elements values;
    Dtype dtype;
    std::vector<std::int64_t> bounds;
    if (!read_floats(delta.ptr(), values, dtype) || !read_offsets(offsets.ptr(), values.size, bounds)) {
        return refused();
    }
    py::array_t<double> out = moments_array(layers_of(bounds));
    const Moments moments = rows(out.mutable_data(), layers_of(bounds));
    run(values.bytes() + cost_of(bounds),
        [&] { layer_stats(values.data, dtype, bounds.data(), layers_of(bounds), moments, threads); });
    return std::move(out);
}

py::object layer_stats_of_list(py::handle tensors, int threads) {
    // A tuple keeps the tensors while other threads run.
    const auto kept = py::reinterpret_steal<py::tuple>(PySequence_Tuple(tensors.ptr()));
    if (!kept) throw py::error_already_set();
    const auto layers = static_cast<std::int64_t>(kept.size());
    std::vector<LayerView> views(kept.size());
    std::int64_t bytes = 0;
    for (std::int64_t i = 0; i < layers; ++i) {
        Elements layer;
        LayerView& view = views[static_cast<std::size_t>(i)];
        if (!read_tensor(PyTuple_GET_ITEM(kept.ptr(), i), layer) || !float_type(layer.type, view.dtype)) {
            return refused();
        }
        view.data = layer.data;
        view.count = layer.size;
        bytes += layer.bytes();
    }
    py::array_t<double> out = moments_array(layers);
    const Moments moments = rows(out.mutable_data(), layers);
    run(bytes + 256 * layers, [&] { layer_stats_list(views.data(), layers, moments, threads); });
    return std::move(out);
}

py::object accumulate_on(py::handle aggregate, py::handle client, py::handle base, py::handle weight,
                         py::handle offsets, int threads) {
    Elements change, target, start;
    Dtype dtype;
    double factor;
    std::vector<std::int64_t> bounds{0};
    if (!read_number(weight.ptr(), factor) || !read_floats(client.ptr(), change, dtype) ||
        !read_target(aggregate.ptr(), dtype, target) || !beside(change, target) ||
        !(base.is_none() || read_beside(base.ptr(), dtype, target, start)) ||
        !(offsets.is_none() || read_offsets(offsets.ptr(), target.size, bounds))) {
        return refused();
    }
    if (offsets.is_none()) {
        run(2 * target.bytes(),
            [&] { accumulate_(target.data, change.data, start.data, dtype, target.size, factor, threads); });
        return py::none();
    }
    py::array_t<double> out = moments_array(layers_of(bounds));
    const Moments moments = rows(out.mutable_data(), layers_of(bounds));
    run(2 * target.bytes() + cost_of(bounds), [&] {
        accumulate_layer_stats_(target.data, change.data, start.data, dtype, target.size, factor,
                                bounds.data(), layers_of(bounds), moments, threads);
    });
    return std::move(out);
}

// The clients' vectors: rows of a matrix, or a list or tuple of vectors of one dtype and length.
bool read_clients(PyObject* given, std::vector<Elements>& out, Dtype& dtype) {
    if (!PyTuple_CheckExact(given)) {
        Elements matrix;
        if (!read_matrix(given, matrix) || !float_type(matrix.type, dtype)) return false;
        out.assign(static_cast<std::size_t>(matrix.rows), matrix);
        for (std::size_t i = 0; i < out.size(); ++i) {
            out[i].data += static_cast<std::int64_t>(i) * matrix.between;
        }
        return !out.empty();
    }
    out.resize(static_cast<std::size_t>(PyTuple_GET_SIZE(given)));
    for (std::size_t i = 0; i < out.size(); ++i) {
        Dtype own;
        if (!read_floats(PyTuple_GET_ITEM(given, static_cast<Py_ssize_t>(i)), out[i], own)) return false;
        if (i == 0) dtype = own;
        if (own != dtype || out[i].size != out[0].size) return false;
    }
    return !out.empty();
}

py::object aggregate_of(py::handle out, py::handle clients, py::handle weights, py::handle base,
                        py::handle offsets, py::handle client_stats, int threads) {
    py::object kept = py::reinterpret_borrow<py::object>(clients);
    if (PyList_CheckExact(kept.ptr())) {
        // A tuple keeps the tensors while other threads run.
        kept = py::reinterpret_steal<py::object>(PyList_AsTuple(kept.ptr()));
        if (!kept) throw py::error_already_set();
    }
    const bool squares = PyUnicode_CheckExact(client_stats.ptr()) &&
                         PyUnicode_CompareWithASCIIString(client_stats.ptr(), "norms") == 0;
    if (!squares && !PyBool_Check(client_stats.ptr())) return refused();
    std::vector<double> factors;
    std::vector<Elements> vectors;
    std::vector<std::int64_t> bounds;
    Elements target, start;
    Dtype dtype;
    if (!read_numbers(weights.ptr(), factors) || !read_clients(kept.ptr(), vectors, dtype) ||
        factors.size() != vectors.size() || !read_target(out.ptr(), dtype, target) ||
        !(base.is_none() || read_beside(base.ptr(), dtype, target, start)) ||
        !read_offsets(offsets.ptr(), target.size, bounds)) {
        return refused();
    }
    std::vector<const std::byte*> data;
    data.reserve(vectors.size());
    for (const Elements& vector : vectors) {
        if (!beside(vector, target)) return refused();
        data.push_back(vector.data);
    }
    const std::int64_t layers = layers_of(bounds);
    const auto number = static_cast<std::int64_t>(data.size());
    py::array_t<double> result = moments_array(layers);
    const Moments moments = rows(result.mutable_data(), layers);
    py::object each = py::none();
    std::vector<Moments> client_moments;
    double* client_squares = nullptr;
    if (squares) {
        py::array_t<double> matrix = rows_array(number, layers);
        client_squares = matrix.mutable_data();
        each = std::move(matrix);
    } else if (client_stats.ptr() == Py_True) {
        py::array_t<double> matrices({py::ssize_t{number}, py::ssize_t{5}, py::ssize_t{layers}});
        for (std::int64_t i = 0; i < number; ++i) {
            client_moments.push_back(rows(matrices.mutable_data() + 5 * layers * i, layers));
        }
        each = std::move(matrices);
    }
    const Clients given{data.data(), factors.data(), number, start.data, dtype};
    run((number + 1) * target.bytes() + cost_of(bounds), [&] {
        aggregate(target.data, given, target.size, bounds.data(), layers, moments,
                  client_moments.empty() ? nullptr : client_moments.data(), client_squares, threads);
    });
    return py::make_tuple(result, each);
}

py::object masked_apply_on(py::handle params, py::handle delta, py::handle offsets, py::handle mask,
                           py::handle lr, int threads) {
    Elements change, target, chosen;
    Dtype dtype;
    double factor;
    std::vector<std::int64_t> bounds;
    if (!read_number(lr.ptr(), factor) || !read_floats(delta.ptr(), change, dtype) ||
        !read_target(params.ptr(), dtype, target) || !beside(change, target) ||
        !read_offsets(offsets.ptr(), target.size, bounds) || !read_tensor(mask.ptr(), chosen) ||
        !chosen.vector() || !chosen.type.is(dlpack::kBool, 8) || chosen.size != layers_of(bounds)) {
        return refused();
    }
    const auto* flags = reinterpret_cast<const std::uint8_t*>(chosen.data);
    run(2 * target.bytes() + cost_of(bounds), [&] {
        masked_apply_(target.data, change.data, dtype, bounds.data(), flags, layers_of(bounds), factor,
                      threads);
    });
    return py::none();
}

// Vectors or matrices of float64 of one size.
template <std::size_t kNumber>
bool read_doubles(const py::handle (&given)[kNumber], Elements (&out)[kNumber]) {
    for (std::size_t i = 0; i < kNumber; ++i) {
        if (!read_tensor(given[i].ptr(), out[i]) || !out[i].type.is(dlpack::kFloat, 64)) return false;
        if (out[i].size != out[0].size) return false;
    }
    return true;
}

// The elements as doubles that loops may read one by one; at an odd address, a copy of them in `own`.
const double* doubles(const Elements& elements, std::vector<double>& own) {
    if (reinterpret_cast<std::uintptr_t>(elements.data) % alignof(double) == 0) {
        return reinterpret_cast<const double*>(elements.data);
    }
    own.resize(static_cast<std::size_t>(elements.size));
    if (!own.empty()) std::memcpy(own.data(), elements.data, own.size() * sizeof(double));
    return own.data();
}

py::object spread_of(py::handle moments, int threads) {
    Elements read[1];
    if (!read_doubles<1>({moments}, read) || read[0].size % 5 != 0) return refused();
    const std::int64_t n = read[0].size / 5;
    std::vector<double> own;
    const double* from = doubles(read[0], own);
    py::array_t<double> out = rows_array(2, n);
    double* to = out.mutable_data();
    run(64 * n, [&] { spread(from, from + n, from + 2 * n, n, to, to + n, threads); });
    return std::move(out);
}

py::object score_of(py::handle count, py::handle mean, py::handle std, py::handle nonfinite, double ddof,
                    int threads) {
    Elements read[4];
    if (!read_doubles<4>({count, mean, std, nonfinite}, read)) return refused();
    const std::int64_t n = read[0].size;
    py::array_t<double> out = rows_array(2, n);
    py::array_t<bool> degenerate(n);
    double* to = out.mutable_data();
    std::vector<double> own[4];
    const Statistics given{doubles(read[0], own[0]), doubles(read[1], own[1]), doubles(read[2], own[2]),
                           doubles(read[3], own[3])};
    const Scores scores{to, to + n, degenerate.mutable_data()};
    run(64 * n, [&] { score(given, n, ddof, scores, threads); });
    return py::make_tuple(out, degenerate);
}

bool py_learn_torch(py::handle torch) {
    const bool found = learn_torch(torch.ptr());
    if (PyErr_Occurred()) throw py::error_already_set();
    return found;
}

}  // namespace

void bind_tensors(py::module_& module) {
    module.def(
        "learn_torch", &py_learn_torch, py::arg("torch"),
        "Lets the functions on tensors work; returns False if this version of torch has no DLPack table.");
    module.def("layer_stats_of", &layer_stats_of, py::arg("delta"), py::arg("offsets"), py::arg("threads"),
               "layer_stats of plain tensors, or NotImplemented.");
    module.def("layer_stats_of_list", &layer_stats_of_list, py::arg("tensors"), py::arg("threads"),
               "layer_stats_list of plain tensors of any shapes, or NotImplemented.");
    module.def("accumulate_on", &accumulate_on, py::arg("aggregate"), py::arg("client"), py::arg("base"),
               py::arg("weight"), py::arg("offsets"), py::arg("threads"),
               "accumulate_ of plain tensors, or NotImplemented.");
    module.def("aggregate_of", &aggregate_of, py::arg("out"), py::arg("clients"), py::arg("weights"),
               py::arg("base"), py::arg("offsets"), py::arg("client_stats"), py::arg("threads"),
               "aggregate of plain tensors (a matrix, a list or a tuple), or NotImplemented.");
    module.def("masked_apply_on", &masked_apply_on, py::arg("params"), py::arg("delta"), py::arg("offsets"),
               py::arg("mask"), py::arg("lr"), py::arg("threads"),
               "masked_apply_ of plain tensors, or NotImplemented.");
    module.def("spread_of", &spread_of, py::arg("moments"), py::arg("threads"),
               "std and l2 [2, L] of moments, a plain float64 tensor [5, L]; or NotImplemented.");
    module.def("score_of", &score_of, py::arg("count"), py::arg("mean"), py::arg("std"), py::arg("nonfinite"),
               py::arg("ddof"), py::arg("threads"),
               "Eq. 1 from statistics: score and excess [2, L], and which layers are degenerate [L]; or "
               "NotImplemented.");
}

}  // namespace fedtlu
