// Best sets of layers within a budget: 0/1 knapsacks with a fee for the way down to the lowest layer.
#pragma once

#include <cstdint>

namespace fedtlu {

// Solves one knapsack for each row. A set fits if the costs of its layers and the reach of its lowest layer
// add up to at most the room of its row. Depth-first branch and bound, the best value for its cost first; the
// bound is that of the linear relaxation. The reference, which computes the same bits: selection/agreement/
// knapsack.py.
//
//   values  [rows, layers]  finite; only positive ones are ever taken, and each of these for its cost is a
//                           normal number (else upper may be too small)
//   rooms   [rows]          not negative
//   costs   [layers]        not negative
//   reach   [layers]        not negative, not increasing
//   nodes                   the nodes of a row after which its search ends
//   mask    [rows, layers]  out: 1 for each layer of the best set found
//   best    [rows]          out: its value
//   upper   [rows]          out: no set that fits has a larger value; best, unless the search ended early
void knapsacks(const double* values, const double* rooms, const double* costs, const double* reach,
               std::int64_t rows, std::int64_t layers, std::int64_t nodes, std::uint8_t* mask, double* best,
               double* upper);

}  // namespace fedtlu
