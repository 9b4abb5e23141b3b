#include "shares.h"

#include <cmath>
#include <cstddef>

namespace fedtlu {
namespace {

// The rounding error of larger + smaller, where |larger| >= |smaller|; exact.
double lost(double larger, double smaller, double sum) { return smaller - (sum - larger); }

// A sum of numbers from 0 on, exact: parts of increasing magnitude whose bits do not overlap (Shewchuk 1997).
class ExactSum {
  public:
    void add(double number) {
        std::size_t kept = 0;
        for (double part : parts_) {
            const bool swap = std::fabs(number) < std::fabs(part);
            const double larger = swap ? part : number;
            const double smaller = swap ? number : part;
            number = larger + smaller;
            const double rest = lost(larger, smaller, number);
            if (rest != 0.0) parts_[kept++] = rest;
        }
        parts_.resize(kept);
        parts_.push_back(number);
    }

    // The double next to the sum; of two the even one.
    double rounded() const {
        std::size_t left = parts_.size();
        if (left == 0) return 0.0;
        double sum = parts_[--left];
        double rest = 0.0;
        while (left > 0 && rest == 0.0) {
            const double before = sum;
            const double part = parts_[--left];
            sum = before + part;
            rest = lost(before, part, sum);
        }
        // `sum` was rounded halfway between two doubles, but what is left says which of them is nearer.
        if (left > 0 && ((rest > 0.0) == (parts_[left - 1] > 0.0))) {
            const double other = sum + 2.0 * rest;
            if (other - sum == 2.0 * rest) return other;
        }
        return sum;
    }

  private:
    std::vector<double> parts_;
};

}  // namespace

bool share_out(std::vector<double>& weights) {
    ExactSum sum;
    for (double weight : weights) {
        if (weight < 0.0) return false;
        sum.add(weight);
    }
    const double total = sum.rounded();
    if (!(total > 0.0 && std::isfinite(total))) return false;
    for (double& weight : weights) weight /= total;
    return true;
}

}  // namespace fedtlu
