// Activations on NumPy arrays.

#include "gelu.h"
#include "python/arguments.h"
#include "python/bindings.h"
#include "python/gil.h"

namespace fedtlu {
namespace {

void py_gelu(py::handle out, py::handle slope, py::handle x, int threads) {
    check_threads(threads);
    const Pins pins{out, slope, x};
    const py::array from = singles({"x"}, x);
    py::array value = singles({"out"}, out);
    check_writable({"out"}, value);
    check_as_long({"out"}, value, {"x"}, from);
    check_apart({"x"}, from, {"out"}, value);
    float* steep = nullptr;
    if (!slope.is_none()) {
        py::array derivative = singles({"slope"}, slope);
        check_writable({"slope"}, derivative);
        check_as_long({"slope"}, derivative, {"x"}, from);
        check_apart({"x"}, from, {"slope"}, derivative);
        check_apart({"out"}, value, {"slope"}, derivative);
        steep = static_cast<float*>(derivative.mutable_data());
    }
    auto* to = static_cast<float*>(value.mutable_data());
    const auto* data = static_cast<const float*>(from.data());
    const std::int64_t n = from.size();
    without_gil([&] { gelu(to, steep, data, n, threads); });
}

}  // namespace

void bind_activations(py::module_& module) {
    module.def("gelu", &py_gelu, py::arg("out"), py::arg("slope"), py::arg("x"), py::arg("threads"),
               "Writes GELU (its approximation by tanh) of x to out, and its derivative to slope if given.");
}

}  // namespace fedtlu
