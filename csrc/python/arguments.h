// The arguments of the module's functions on NumPy arrays: each check raises TypeError or ValueError with the
// argument's name.
//
// Memory arrives as NumPy arrays, never as addresses. bfloat16 and float16 come as 16-bit integers under
// their dtype's name.
//
// Every function works in the same order. First it converts the arguments whose conversion can run Python
// code: sequences, numbers, names. Then it pins the arrays (before that code where they are arguments of
// their own, lest it frees the memory behind a view), copies offsets, and makes the arrays of its answer,
// which may start the garbage collector. Only then does it check the other arrays and take their addresses.
// After that no Python code runs that could change them.
#pragma once

#include <pybind11/numpy.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "dtypes.h"

namespace fedtlu {

namespace py = pybind11;

// The name of an argument for messages, with an index for an entry of a list.
struct Name {
    const char* name;
    std::int64_t index = -1;

    std::string text() const {
        return index < 0 ? name : std::string(name) + "[" + std::to_string(index) + "]";
    }
};

[[noreturn]] void bad_type(const Name& name, const std::string& expected);
[[noreturn]] void bad_value(const Name& name, const std::string& expected);

Dtype parse_dtype(const Name& name, py::handle given);

// A flat C-contiguous array whose elements can hold this type, in the machine's byte order.
py::array vector_of(const Name& name, py::handle given, std::string_view kinds, std::int64_t item_size,
                    const char* expected);
py::array floats(const Name& name, py::handle given, Dtype dtype);
// float32 at aligned addresses, for loops that read the elements one by one.
py::array singles(const Name& name, py::handle given);

// Returns a copy of [layers + 1] non-decreasing offsets from 0 on, whose checked values cannot change.
std::vector<std::int64_t> offsets_of(py::handle given);
void check_within(const std::vector<std::int64_t>& offsets, std::int64_t length);

void check_writable(const Name& name, const py::array& array);
void check_as_long(const Name& name, const py::array& array, const Name& target_name,
                   const py::array& target);
// Requires an array as long as the target that shares all of its memory or none of it.
void check_beside(const Name& name, const py::array& array, const Name& target_name, const py::array& target);
// Requires separate memory, for inputs that are read after a part of the target was written.
void check_apart(const Name& name, const py::array& array, const Name& target_name, const py::array& target);
void check_threads(int threads);

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

// Returns a tuple, which keeps every item alive while other threads run, even if the sequence changes.
py::tuple tuple_of(const Name& name, py::handle given);

inline const std::byte* bytes_of(const py::array& array) {
    return static_cast<const std::byte*>(array.data());
}

}  // namespace fedtlu
