// The Python module fedtlu_fast._native. Every function checks its arguments, then computes without the GIL;
// this file and `python/` are the only ones that know Python.

#include "python/bindings.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>

#include "python/arguments.h"
#include "python/gil.h"
#include "read_loop.h"
#include "simd.h"

namespace {

using namespace fedtlu;

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

    bind_arrays(module);
    bind_tensors(module);
    bind_rules(module);
    bind_training(module);
    bind_knapsacks(module);
    module.def("read_loop", &py_read_loop, py::arg("values"), py::arg("threads"),
               "The exclusive or of a float32 vector's 64-bit words, to measure reading of memory.");
    module.def("simd_levels", &simd_levels, "Names of the SIMD levels of this machine, the widest last.");
    module.def("simd_level", [] { return std::string(kernels().level); }, "The SIMD level in use.");
    module.def("set_simd_level", &set_simd_level, py::arg("level"),
               "Use this SIMD level from now on; every level computes the same bits.");
}
