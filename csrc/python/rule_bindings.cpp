// What robust rules compute of a cohort of NumPy arrays.

#include <limits>
#include <string>
#include <vector>

#include "columns.h"
#include "distances.h"
#include "python/arguments.h"
#include "python/bindings.h"
#include "python/gil.h"

namespace fedtlu {
namespace {

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

py::array_t<double> py_squared_distances(py::handle clients, std::int64_t chosen, int threads) {
    const py::tuple arrays = tuple_of({"clients"}, clients);
    check_threads(threads);
    const Pins pins(arrays);
    const auto number = static_cast<py::ssize_t>(arrays.size());
    if (chosen < 0 || chosen > number) bad_value({"chosen"}, "0 to " + std::to_string(number));
    py::array_t<double> out({static_cast<py::ssize_t>(chosen), number});
    if (number == 0) return out;
    const py::array one = singles({"clients", 0}, PyTuple_GET_ITEM(arrays.ptr(), 0));
    const std::vector<const float*> rows = rows_of(arrays, {"clients", 0}, one);
    double* to = out.mutable_data();
    const std::int64_t n = one.size();
    without_gil([&] { squared_distances(to, rows.data(), number, chosen, n, threads); });
    return out;
}

py::tuple py_squared_distance_bounds(py::handle clients, int threads) {
    const py::tuple arrays = tuple_of({"clients"}, clients);
    check_threads(threads);
    const Pins pins(arrays);
    const auto number = static_cast<py::ssize_t>(arrays.size());
    py::array_t<double> lower({number, number}), upper({number, number});
    if (number > 0) {
        const py::array one = singles({"clients", 0}, PyTuple_GET_ITEM(arrays.ptr(), 0));
        const std::vector<const float*> rows = rows_of(arrays, {"clients", 0}, one);
        double* low = lower.mutable_data();
        double* high = upper.mutable_data();
        const std::int64_t n = one.size();
        without_gil([&] { squared_distance_bounds(low, high, rows.data(), number, n, threads); });
    }
    return py::make_tuple(lower, upper);
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

}  // namespace

void bind_rules(py::module_& module) {
    module.def(
        "sorted_mean", &py_sorted_mean, py::arg("out"), py::arg("clients"), py::arg("base"), py::arg("first"),
        py::arg("last"), py::arg("threads"),
        "out = the mean of the values number first to last - 1 of clients - base in ascending order, at "
        "every place; float32, summed in float64. base may be None.");
    module.def(
        "squared_distances", &py_squared_distances, py::arg("clients"), py::arg("chosen"), py::arg("threads"),
        "The squared distances of the first chosen float32 vectors to all, as a float64 array [chosen, K].");
    module.def("squared_distance_bounds", &py_squared_distance_bounds, py::arg("clients"), py::arg("threads"),
               "Lower and upper bounds of the squared distances of every two float32 vectors, from float32 "
               "arithmetic, as float64 arrays [K, K].");
    module.def("squared_distances_from", &py_squared_distances_from, py::arg("clients"), py::arg("base"),
               py::arg("centre"), py::arg("threads"),
               "The squared norms of clients[k] - (base + centre), float32 vectors, as a float64 array [K]. "
               "centre may be None.");
}

}  // namespace fedtlu
