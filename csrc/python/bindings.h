// The functions of the Python module, by subject; `bindings.cpp` defines the module.
#pragma once

#include <pybind11/pybind11.h>

namespace fedtlu {

// The operations on NumPy arrays, and on torch's tensors where they are.
void bind_arrays(pybind11::module_& module);
void bind_tensors(pybind11::module_& module);

void bind_rules(pybind11::module_& module);
void bind_training(pybind11::module_& module);
void bind_knapsacks(pybind11::module_& module);

}  // namespace fedtlu
