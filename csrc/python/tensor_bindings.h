// The operations on torch's tensors, without NumPy arrays.
#pragma once

#include <pybind11/pybind11.h>

namespace fedtlu {

void bind_tensors(pybind11::module_& module);

}  // namespace fedtlu
