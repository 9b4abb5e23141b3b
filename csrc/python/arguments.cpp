#include "python/arguments.h"

#include <algorithm>
#include <cstring>

namespace fedtlu {

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

py::array singles(const Name& name, py::handle given) {
    py::array array = floats(name, given, Dtype::kFloat32);
    if (reinterpret_cast<std::uintptr_t>(array.data()) % alignof(float) != 0)
        bad_value(name, "aligned memory");
    return array;
}

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

void check_apart(const Name& name, const py::array& array, const Name& target_name, const py::array& target) {
    const auto mine = reinterpret_cast<std::uintptr_t>(array.data());
    const auto its = reinterpret_cast<std::uintptr_t>(target.data());
    if (mine < its + static_cast<std::uintptr_t>(target.nbytes()) &&
        its < mine + static_cast<std::uintptr_t>(array.nbytes())) {
        bad_value(name, "memory that does not overlap " + target_name.text());
    }
}

void check_threads(int threads) {
    if (threads < 1) bad_value({"threads"}, "at least 1, got " + std::to_string(threads));
}

py::tuple tuple_of(const Name& name, py::handle given) {
    if (!PySequence_Check(given.ptr())) bad_type(name, "a sequence of NumPy arrays");
    auto items = py::reinterpret_steal<py::tuple>(PySequence_Tuple(given.ptr()));
    if (!items) throw py::error_already_set();
    return items;
}

}  // namespace fedtlu
