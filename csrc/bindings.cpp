// The Python module fedtlu_fast._native: checks every argument, then computes without the GIL.
//
// Memory arrives as NumPy arrays, never as addresses; or as torch's tensors (`python/tensor_bindings.cpp`).
// bfloat16 and float16 come as 16-bit integers under their dtype's name. Each check raises TypeError or
// ValueError with the argument's name.
//
// Every function works in the same order. First it converts the arguments whose conversion can run Python
// code: sequences, numbers, names. Then it pins the arrays, copies offsets, and makes the arrays of its
// answer, which may start the garbage collector. Only then does it check the other arrays and take their
// addresses. After that no Python code runs that could change them.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "aggregate.h"
#include "columns.h"
#include "distances.h"
#include "knapsack.h"
#include "moments.h"
#include "perceptron/perceptron.h"
#include "python/gil.h"
#include "python/tensor_bindings.h"
#include "read_loop.h"
#include "simd.h"
#include "update.h"

namespace py = pybind11;

namespace {

using namespace fedtlu;

// The name of an argument for messages, with an index for an entry of a list.
struct Name {
    const char* name;
    std::int64_t index = -1;

    std::string text() const {
        return index < 0 ? name : std::string(name) + "[" + std::to_string(index) + "]";
    }
};

[[noreturn]] void bad_type(const Name& name, const std::string& expected) {
    throw py::type_error(name.text() + ": expected " + expected);
}

[[noreturn]] void bad_value(const Name& name, const std::string& expected) {
    throw py::value_error(name.text() + ": expected " + expected);
}

Dtype parse_dtype(const Name& name, py::handle given) {
    if (!PyUnicode_Check(given.ptr())) bad_type(name, "the name of a dtype");
    Py_ssize_t length = 0;
    const char* text = PyUnicode_AsUTF8AndSize(given.ptr(), &length);
    if (text == nullptr) throw py::error_already_set();
    for (int i = 0; i < kDtypes; ++i) {
        const auto dtype = static_cast<Dtype>(i);
        if (std::string_view(text, static_cast<std::size_t>(length)) == name_of(dtype)) return dtype;
    }
    bad_value(name, "float32, bfloat16, float16 or float64, got " + std::string(py::repr(given)));
}

// A flat C-contiguous array whose elements can hold this type, in the machine's byte order.
py::array vector_of(const Name& name, py::handle given, std::string_view kinds, std::int64_t item_size,
                    const char* expected) {
    if (!py::isinstance<py::array>(given)) bad_type(name, "a NumPy array");
    auto array = py::reinterpret_borrow<py::array>(given);
    const py::dtype dtype = array.dtype();
    if (kinds.find(dtype.kind()) == std::string_view::npos || array.itemsize() != item_size ||
        dtype.byteorder() == (PY_BIG_ENDIAN ? '<' : '>')) {
        bad_type(name, expected);
    }
    if (array.ndim() != 1) bad_value(name, "a vector, got " + std::to_string(array.ndim()) + " dimensions");
    if ((array.flags() & py::array::c_style) == 0) bad_value(name, "contiguous memory");
    return array;
}

py::array floats(const Name& name, py::handle given, Dtype dtype) {
    switch (dtype) {
        case Dtype::kFloat32:
            return vector_of(name, given, "f", 4, "an array of float32");
        case Dtype::kFloat64:
            return vector_of(name, given, "f", 8, "an array of float64");
        default:
            return vector_of(name, given, "iu", 2, "an array of 16-bit integers");
    }
}

// Returns a copy of [layers + 1] non-decreasing offsets from 0 on, whose checked values cannot change.
std::vector<std::int64_t> offsets_of(py::handle given) {
    const Name name{"offsets"};
    const py::array array = vector_of(name, given, "i", 8, "an array of int64");
    if (array.size() == 0) bad_value(name, "at least one entry");
    std::vector<std::int64_t> offsets(static_cast<std::size_t>(array.size()));
    std::memcpy(offsets.data(), array.data(), offsets.size() * sizeof(std::int64_t));
    if (offsets.front() < 0 || !std::is_sorted(offsets.begin(), offsets.end())) {
        bad_value(name, "non-decreasing numbers from 0 on");
    }
    return offsets;
}

void check_within(const std::vector<std::int64_t>& offsets, std::int64_t length) {
    if (offsets.back() > length) {
        bad_value({"offsets"}, "non-decreasing numbers from 0 to " + std::to_string(length));
    }
}

std::int64_t layers_of(const std::vector<std::int64_t>& offsets) {
    return static_cast<std::int64_t>(offsets.size()) - 1;
}

void check_writable(const Name& name, const py::array& array) {
    if (!array.writeable()) bad_value(name, "writable memory");
}

void check_as_long(const Name& name, const py::array& array, const Name& target_name,
                   const py::array& target) {
    if (array.size() != target.size()) {
        bad_value(name, std::to_string(target.size()) + " elements, as " + target_name.text() + ", got " +
                            std::to_string(array.size()));
    }
}

// Requires an array as long as the target that shares all of its memory or none of it.
void check_beside(const Name& name, const py::array& array, const Name& target_name,
                  const py::array& target) {
    check_as_long(name, array, target_name, target);
    const auto mine = reinterpret_cast<std::uintptr_t>(array.data());
    const auto its = reinterpret_cast<std::uintptr_t>(target.data());
    const auto my_bytes = static_cast<std::uintptr_t>(array.nbytes());
    const auto its_bytes = static_cast<std::uintptr_t>(target.nbytes());
    const bool same = mine == its && my_bytes == its_bytes;
    if (!same && mine < its + its_bytes && its < mine + my_bytes) {
        bad_value(name, "memory that does not overlap " + target_name.text() + " in part");
    }
}

// Requires separate memory, for inputs that are read after a part of the target was written.
void check_apart(const Name& name, const py::array& array, const Name& target_name, const py::array& target) {
    const auto mine = reinterpret_cast<std::uintptr_t>(array.data());
    const auto its = reinterpret_cast<std::uintptr_t>(target.data());
    if (mine < its + static_cast<std::uintptr_t>(target.nbytes()) &&
        its < mine + static_cast<std::uintptr_t>(array.nbytes())) {
        bad_value(name, "memory that does not overlap " + target_name.text());
    }
}

// While it lives, NumPy refuses to resize these arrays and the arrays that own their memory, even when asked
// not to look for references: neither another thread nor a finalizer can free the checked memory.
class Pins {
  public:
    Pins(std::initializer_list<py::handle> arrays) {
        for (const py::handle array : arrays) add(array);
    }

    explicit Pins(const py::tuple& arrays) {
        for (const py::handle array : arrays) add(array);
    }

    void add(py::handle given) {
        auto array = py::reinterpret_borrow<py::object>(given);
        while (array && py::isinstance<py::array>(array)) {
            references_.emplace_back(array);
            array = py::reinterpret_borrow<py::array>(array).base();
        }
    }

  private:
    std::vector<py::weakref> references_;
};

// Returns the base, checked against the target; no array for None.
py::array base_beside(py::handle base, Dtype dtype, const Name& target_name, const py::array& target) {
    if (base.is_none()) return {};
    py::array array = floats({"base"}, base, dtype);
    check_beside({"base"}, array, target_name, target);
    return array;
}

// Returns a tuple, which keeps every item alive while other threads run, even if the sequence changes.
py::tuple tuple_of(const Name& name, py::handle given) {
    if (!PySequence_Check(given.ptr())) bad_type(name, "a sequence of NumPy arrays");
    auto items = py::reinterpret_steal<py::tuple>(PySequence_Tuple(given.ptr()));
    if (!items) throw py::error_already_set();
    return items;
}

void check_threads(int threads) {
    if (threads < 1) bad_value({"threads"}, "at least 1, got " + std::to_string(threads));
}

const std::byte* bytes_of(const py::array& array) { return static_cast<const std::byte*>(array.data()); }

// A float64 array [5, layers]: one row for each of Moments' vectors.
py::array_t<double> moments_array(std::int64_t layers) {
    return py::array_t<double>({py::ssize_t{5}, layers});
}

Moments rows(double* data, std::int64_t layers) {
    return {data, data + layers, data + 2 * layers, data + 3 * layers, data + 4 * layers};
}

Moments rows(py::array_t<double>& array) { return rows(array.mutable_data(), array.shape(1)); }

py::array_t<double> py_layer_stats(py::handle delta, py::handle dtype, py::handle offsets, int threads) {
    const Dtype type = parse_dtype({"dtype"}, dtype);
    check_threads(threads);
    const Pins pins{delta, offsets};
    const std::vector<std::int64_t> bounds = offsets_of(offsets);
    const std::int64_t layers = layers_of(bounds);
    py::array_t<double> out = moments_array(layers);
    const Moments moments = rows(out);
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
    const Moments moments = rows(out);
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
    const Moments moments = rows(result);
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
    const Moments moments = rows(result);
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

// float32 at aligned addresses: the perceptron's loops read the elements one by one.
py::array singles(const Name& name, py::handle given) {
    py::array array = floats(name, given, Dtype::kFloat32);
    if (reinterpret_cast<std::uintptr_t>(array.data()) % alignof(float) != 0)
        bad_value(name, "aligned memory");
    return array;
}

// The addresses of float32 vectors, each as long as another array.
std::vector<const float*> rows_of(const py::tuple& arrays, const Name& like_name, const py::array& like) {
    std::vector<const float*> data(arrays.size());
    for (std::size_t i = 0; i < data.size(); ++i) {
        const Name name{"clients", static_cast<std::int64_t>(i)};
        const py::array array = singles(name, PyTuple_GET_ITEM(arrays.ptr(), static_cast<Py_ssize_t>(i)));
        check_as_long(name, array, like_name, like);
        data[i] = static_cast<const float*>(array.data());
    }
    return data;
}

void py_sorted_mean(py::handle out, py::handle clients, py::handle base, std::int64_t first,
                    std::int64_t last, int threads) {
    const py::tuple arrays = tuple_of({"clients"}, clients);
    check_threads(threads);
    Pins pins(arrays);
    for (const py::handle array : {out, base}) pins.add(array);
    const auto number = static_cast<std::int64_t>(arrays.size());
    if (number > std::numeric_limits<std::int32_t>::max()) bad_value({"clients"}, "fewer vectors");
    if (first < 0 || last <= first || last > number) {
        bad_value({"first"}, "0 <= first < last <= " + std::to_string(number) + ", got " +
                                 std::to_string(first) + " and " + std::to_string(last));
    }
    py::array target = singles({"out"}, out);
    check_writable({"out"}, target);
    const std::vector<const float*> rows = rows_of(arrays, {"out"}, target);
    for (std::int64_t i = 0; i < number; ++i) {
        const py::handle row = PyTuple_GET_ITEM(arrays.ptr(), i);
        check_beside({"clients", i}, py::reinterpret_borrow<py::array>(row), {"out"}, target);
    }
    const float* start = nullptr;
    if (!base.is_none()) {
        const py::array vector = singles({"base"}, base);
        check_beside({"base"}, vector, {"out"}, target);
        start = static_cast<const float*>(vector.data());
    }

    auto* to = static_cast<float*>(target.mutable_data());
    const std::int64_t n = target.size();
    without_gil([&] { sorted_mean(to, rows.data(), number, start, n, first, last, threads); });
}

py::array_t<double> py_squared_distances(py::handle clients, int threads) {
    const py::tuple arrays = tuple_of({"clients"}, clients);
    check_threads(threads);
    const Pins pins(arrays);
    const auto number = static_cast<py::ssize_t>(arrays.size());
    py::array_t<double> out({number, number});
    if (number == 0) return out;
    const py::array one = singles({"clients", 0}, PyTuple_GET_ITEM(arrays.ptr(), 0));
    const std::vector<const float*> rows = rows_of(arrays, {"clients", 0}, one);
    double* to = out.mutable_data();
    const std::int64_t n = one.size();
    without_gil([&] { squared_distances(to, rows.data(), number, n, threads); });
    return out;
}

py::array_t<double> py_squared_distances_from(py::handle clients, py::handle base, py::handle centre,
                                              int threads) {
    const py::tuple arrays = tuple_of({"clients"}, clients);
    check_threads(threads);
    Pins pins(arrays);
    for (const py::handle array : {base, centre}) pins.add(array);
    const auto number = static_cast<py::ssize_t>(arrays.size());
    py::array_t<double> out(number);
    const py::array start = singles({"base"}, base);
    const std::vector<const float*> rows = rows_of(arrays, {"base"}, start);
    const float* middle = nullptr;
    if (!centre.is_none()) {
        const py::array vector = singles({"centre"}, centre);
        check_as_long({"centre"}, vector, {"base"}, start);
        middle = static_cast<const float*>(vector.data());
    }
    double* to = out.mutable_data();
    const auto* from = static_cast<const float*>(start.data());
    const std::int64_t n = start.size();
    without_gil([&] { squared_distances_from(to, rows.data(), number, from, middle, n, threads); });
    return out;
}

py::tuple py_train_perceptrons(py::handle params, py::handle layers, const py::dict& steps,
                               py::handle features, py::handle labels, py::handle rows, py::handle starts,
                               py::handle firsts, py::handle weights, py::handle change, py::handle own) {
    const LocalSteps local = steps_of(steps);
    const Pins pins{params, features, weights, change, own};
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

// Returns a copy of a vector of float64, which other threads cannot change.
std::vector<double> doubles_of(const Name& name, py::handle given) {
    const py::array array = floats(name, given, Dtype::kFloat64);
    std::vector<double> numbers(static_cast<std::size_t>(array.size()));
    if (!numbers.empty()) std::memcpy(numbers.data(), array.data(), numbers.size() * sizeof(double));
    return numbers;
}

py::tuple py_knapsacks(py::handle values, py::handle rooms, py::handle costs, py::handle reach,
                       std::int64_t nodes) {
    const std::vector<double> worth = doubles_of({"values"}, values), room = doubles_of({"rooms"}, rooms);
    const std::vector<double> cost = doubles_of({"costs"}, costs), way = doubles_of({"reach"}, reach);
    if (way.size() != cost.size()) bad_value({"reach"}, "as many numbers as costs");
    const auto rows = static_cast<std::int64_t>(room.size()), layers = static_cast<std::int64_t>(cost.size());
    if (worth.size() != room.size() * cost.size())
        bad_value({"values"}, "a number for each of rooms and costs");
    py::array_t<bool> mask({rows, layers});
    py::array_t<double> best(rows), upper(rows);
    auto* chosen = reinterpret_cast<std::uint8_t*>(mask.mutable_data());
    double *reached = best.mutable_data(), *most = upper.mutable_data();
    without_gil([&] {
        knapsacks(worth.data(), room.data(), cost.data(), way.data(), rows, layers, nodes, chosen, reached,
                  most);
    });
    return py::make_tuple(mask, best, upper);
}

std::uint64_t py_read_loop(py::handle values, int threads) {
    const py::array array = floats({"values"}, values, Dtype::kFloat32);
    check_threads(threads);
    const std::byte* data = bytes_of(array);
    const std::int64_t bytes = array.nbytes();
    std::uint64_t found = 0;
    without_gil([&] { found = read_loop(data, bytes, threads); });
    return found;
}

}  // namespace

PYBIND11_MODULE(_native, module) {
    module.doc() = "The C++ kernels of fedtlu-fast; fedtlu_fast.ops.native calls them with torch tensors.";
    // Loads NumPy now: pybind11 releases the GIL for it, and takes it back in the way that `take_gil` avoids.
    py::dtype::of<double>();

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
    module.def("train_perceptrons", &py_train_perceptrons, py::arg("params"), py::arg("layers"),
               py::arg("steps"), py::arg("features"), py::arg("labels"), py::arg("rows"), py::arg("starts"),
               py::arg("firsts"), py::arg("weights"), py::arg("change"), py::arg("own"),
               "Local training of K clients of a multi-layer perceptron: change = sum of weights[k] * (w_k - "
               "params) over clients without NaN and Inf. Returns losses [K] and which clients count [K].");
    module.def(
        "knapsacks", &py_knapsacks, py::arg("values"), py::arg("rooms"), py::arg("costs"), py::arg("reach"),
        py::arg("nodes"),
        "The best set of layers for each of rooms, by values [rows * layers]: which layers [rows, layers], "
        "its value, and an upper bound of it; see csrc/knapsack.h.");
    bind_tensors(module);
    module.def(
        "sorted_mean", &py_sorted_mean, py::arg("out"), py::arg("clients"), py::arg("base"), py::arg("first"),
        py::arg("last"), py::arg("threads"),
        "out = the mean of the values number first to last - 1 of clients - base in ascending order, at "
        "every place; float32, summed in float64. base may be None.");
    module.def("squared_distances", &py_squared_distances, py::arg("clients"), py::arg("threads"),
               "The squared distances of every two float32 vectors, as a float64 array [K, K].");
    module.def("squared_distances_from", &py_squared_distances_from, py::arg("clients"), py::arg("base"),
               py::arg("centre"), py::arg("threads"),
               "The squared norms of clients[k] - (base + centre), float32 vectors, as a float64 array [K]. "
               "centre may be None.");
    module.def("read_loop", &py_read_loop, py::arg("values"), py::arg("threads"),
               "The exclusive or of a float32 vector's 64-bit words, to measure reading of memory.");
    module.def("simd_levels", &simd_levels, "Names of the SIMD levels of this machine, the widest last.");
    module.def("simd_level", [] { return std::string(kernels().level); }, "The SIMD level in use.");
    module.def("set_simd_level", &set_simd_level, py::arg("level"),
               "Use this SIMD level from now on; every level computes the same bits.");
}
