// Reads torch's tensors where they are. A tensor costs a fifth of a microsecond; a NumPy array of it, with
// its checks, costs two.
#pragma once

#include <Python.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "dtypes.h"
#include "python/dlpack.h"

namespace fedtlu {

// Contiguous elements in memory, as rows of one length: a tensor of any shape, or a matrix.
struct Elements {
    std::byte* data = nullptr;
    std::int64_t size = 0;  // of one row
    std::int64_t rows = 1;
    std::int64_t between = 0;  // bytes from one row's start to the next one's
    std::int64_t dimensions = 1;
    dlpack::Type type{};

    bool vector() const { return dimensions == 1; }
    std::int64_t bytes() const { return size * (type.bits / 8); }
};

// Learns torch's types from the module; returns false if this version of torch (before 2.10) has no table.
// Throws nothing; a Python error may be set.
bool learn_torch(PyObject* torch);

// Each function below returns false if the object is not plain, or not of the kind that it reads; no Python
// error is set then. A tensor is plain if its type is torch.Tensor or Parameter, and all its elements lie in
// CPU memory that it holds, one after another, as they are (and not negated lazily).

// A tensor of any shape.
bool read_tensor(PyObject* given, Elements& out);
// A matrix whose rows are contiguous.
bool read_matrix(PyObject* given, Elements& out);
// A vector of float32, bfloat16, float16 or float64.
bool read_floats(PyObject* given, Elements& out, Dtype& dtype);
bool float_type(const dlpack::Type& type, Dtype& out);
// Whether a plain tensor may be changed in place without a word to autograd, besides its version.
bool changeable(PyObject* tensor);
// A finite number: a float or an int.
bool read_number(PyObject* given, double& out);
// Finite numbers: a list or tuple of them, or a plain vector of float64.
bool read_numbers(PyObject* given, std::vector<double>& out);
// Non-decreasing bounds of layers within a vector of `length` elements: a plain vector of int64.
bool read_offsets(PyObject* given, std::int64_t length, std::vector<std::int64_t>& out);

}  // namespace fedtlu
