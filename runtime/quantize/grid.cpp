// SPDX-License-Identifier: Apache-2.0
#include "quantize/grid.h"

#include <algorithm>

#include "kernels/half.h"

namespace gptq::quantize {
namespace {

struct Range {
  double low = 0, high = 0;
};

Range range_of(const double* w, uint32_t n) {
  Range range;
  for (uint32_t i = 0; i < n; ++i) {
    range.low = std::min(range.low, w[i]);
    range.high = std::max(range.high, w[i]);
  }
  return range;
}

// Written so that compilers turn it into vector code.
double error_of(const Grid& grid, const double* w, const double* importance, uint32_t n, double top) {
  const double inverse = 1 / grid.scale, zero = grid.zero;
  double sums[4] = {};
  uint32_t i = 0;
  const auto add = [&](uint32_t at, double& sum) {
    const double code = std::min(std::max(nearest(w[at] * inverse) + zero, 0.0), top);
    const double error = w[at] - (code - zero) * grid.scale;
    sum += importance[at] * error * error;
  };
  for (; i + 4 <= n; i += 4)
    for (uint32_t lane = 0; lane < 4; ++lane) add(i + lane, sums[lane]);
  for (; i < n; ++i) add(i, sums[0]);
  return sums[0] + sums[1] + sums[2] + sums[3];
}

// Keeps the best of the grids it is shown.
class Search {
 public:
  Search(const double* w, const double* importance, uint32_t n, uint32_t bits) : w_(w), importance_(importance), n_(n), top_((1 << bits) - 1) {}

  void look_at(double scale, int32_t zero) {
    const Grid grid{stored_scale(scale), zero};
    const double error = error_of(grid, w_, importance_, n_, top_);
    if (best_error_ >= 0 && !(error < best_error_)) return;
    best_error_ = error;
    best = grid;
  }
  // The scale that suits the codes best.
  void fit() {
    double products = 0, squares = 0;
    for (uint32_t i = 0; i < n_; ++i) {
      const double level = code_of(w_[i], best, top_) - best.zero;
      products += importance_[i] * w_[i] * level;
      squares += importance_[i] * level * level;
    }
    if (squares > 0 && products != 0) look_at(products / squares, best.zero);
  }
  Grid best;

 private:
  const double *w_, *importance_;
  uint32_t n_;
  int32_t top_;
  double best_error_ = -1;
};

}  // namespace

double stored_scale(double scale) {
  constexpr float largest = 65504, smallest = 0x1p-24f;
  const float magnitude = std::clamp(static_cast<float>(std::fabs(scale)), smallest, largest);
  const float rounded = kernels::float_from_half(kernels::half_from_float(magnitude));
  return scale < 0 ? -rounded : rounded;
}

Grid published_grid(const double* w, uint32_t n, uint32_t bits, bool symmetric) {
  const double top = (1 << bits) - 1;
  Range range = range_of(w, n);
  if (symmetric) {
    range.high = std::max(-range.low, range.high);
    if (range.low < 0) range.low = -range.high;
  }
  if (range.low == 0 && range.high == 0) range = {-1, 1};
  const double scale = (range.high - range.low) / top;
  return {scale, symmetric ? 1 << (bits - 1) : static_cast<int32_t>(nearest(-range.low / scale))};
}

Grid searched_grid(const double* w, const double* importance, uint32_t n, uint32_t bits, bool symmetric) {
  constexpr double most = 1.2, step = 0.03;
  const double least = bits == 2 ? 0.3 : bits == 3 ? 0.45 : bits == 4 ? 0.6 : 0.9;
  const int32_t top = (1 << bits) - 1, middle = 1 << (bits - 1);
  const Range range = range_of(w, n);
  if (range.low == 0 && range.high == 0) return {1, middle};
  Search search(w, importance, n, bits);
  for (double stretch = most; stretch > least; stretch -= step)
    if (symmetric) {
      const double scale = stretch * std::max(-range.low, range.high) / middle;
      search.look_at(scale, middle);
      search.look_at(-scale, middle);
    } else {
      const double scale = stretch * (range.high - range.low) / top;
      const auto zero = static_cast<int32_t>(nearest(-range.low * stretch / scale));
      for (int32_t z = zero - 1; z <= zero + 1; ++z) search.look_at(scale, std::clamp(z, 1, top));
    }
  search.fit();
  search.fit();
  return search.best;
}

}  // namespace gptq::quantize
