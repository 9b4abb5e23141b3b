// The best set of layers under a limit of costs.

#include <cstring>
#include <vector>

#include "knapsack.h"
#include "python/arguments.h"
#include "python/bindings.h"
#include "python/gil.h"

namespace fedtlu {
namespace {

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

}  // namespace

void bind_knapsacks(py::module_& module) {
    module.def(
        "knapsacks", &py_knapsacks, py::arg("values"), py::arg("rooms"), py::arg("costs"), py::arg("reach"),
        py::arg("nodes"),
        "The best set of layers for each of rooms, by values [rows * layers]: which layers [rows, layers], "
        "its value, and an upper bound of it; see csrc/knapsack.h.");
}

}  // namespace fedtlu
