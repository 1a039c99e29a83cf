// SPDX-License-Identifier: Apache-2.0
// The values that the codes of one group stand for: scale * (code - zero).
#pragma once
#include <cmath>
#include <cstdint>

namespace gptq::quantize {

struct Grid {
  double scale = 1;  // as it divides; stored rounded to float16
  int32_t zero = 0;
};

// Nearest whole number, ties to even, for |x| < 2^51.
inline double nearest(double x) {
  constexpr double shift = 0x1.8p52;
  return (x + shift) - shift;
}

inline int32_t code_of(double w, const Grid& grid, int32_t top) {
  const double code = nearest(w / grid.scale) + grid.zero;
  return code > 0 ? (code < top ? static_cast<int32_t>(code) : top) : 0;
}

// From the smallest and the largest of w [n], as published; symmetric: zero = 2^(bits-1). The scale is not rounded.
Grid published_grid(const double* w, uint32_t n, uint32_t bits, bool symmetric);
// The one with the smallest sum of importance * (w - value)^2 among stretched and shrunk ranges. The scale is a float16 and, where
// symmetric, may be negative, so that the larger side gets the longer end of the codes; zero >= 1.
Grid searched_grid(const double* w, const double* importance, uint32_t n, uint32_t bits, bool symmetric);
// The nearest float16 that can divide.
double stored_scale(double scale);

}  // namespace gptq::quantize
