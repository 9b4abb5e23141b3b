// The shares of clients in a weighted mean.
#pragma once

#include <vector>

namespace fedtlu {

// Divides finite weights by their sum, which is exact and then rounded once, as Python's math.fsum. Returns
// false, and may have changed nothing, if a weight is negative, all are 0, or the sum overflows.
bool share_out(std::vector<double>& weights);

}  // namespace fedtlu
