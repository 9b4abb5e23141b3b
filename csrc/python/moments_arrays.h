// NumPy arrays for moments.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <vector>

#include "moments.h"

namespace fedtlu {

// A float64 array: `number` rows with one element for each layer.
inline pybind11::array_t<double> rows_array(std::int64_t number, std::int64_t layers) {
    return pybind11::array_t<double>(
        {static_cast<pybind11::ssize_t>(number), static_cast<pybind11::ssize_t>(layers)});
}

// One row for each of Moments' vectors.
inline pybind11::array_t<double> moments_array(std::int64_t layers) { return rows_array(5, layers); }

inline Moments rows(double* data, std::int64_t layers) {
    return {data, data + layers, data + 2 * layers, data + 3 * layers, data + 4 * layers};
}

// Layers between these boundaries.
inline std::int64_t layers_of(const std::vector<std::int64_t>& bounds) {
    return static_cast<std::int64_t>(bounds.size()) - 1;
}

}  // namespace fedtlu
