// SPDX-License-Identifier: Apache-2.0
// Blocked, from the last column to the first: GPTQ wants the factor of the inverse, which is the inverse of this one, and the solver
// needs no inverse (solver.h).
#include "quantize/cholesky.h"

#include <algorithm>
#include <cmath>

namespace gptq::quantize {
namespace {

constexpr uint32_t block = 64, rows_per_task = 32;

// The square on the diagonal, columns first..last-1.
bool factor_diagonal(double* h, uint32_t k, uint32_t first, uint32_t last) {
  for (uint32_t j = last; j-- > first;) {
    double* row = h + size_t{j} * k;
    double pivot = row[j];
    for (uint32_t m = j + 1; m < last; ++m) pivot -= row[m] * row[m];
    if (!(pivot > 0) || !std::isfinite(pivot)) return false;
    row[j] = std::sqrt(pivot);
    for (uint32_t i = first; i < j; ++i) {
      double* above = h + size_t{i} * k;
      for (uint32_t m = j + 1; m < last; ++m) above[j] -= above[m] * row[m];
      above[j] /= row[j];
    }
  }
  return true;
}

// Columns first..last-1 of a row that what comes after them is taken off already: times the inverse of R^T's square on the diagonal.
void divide_row(const double* r, uint32_t k, uint32_t first, uint32_t last, double* row) {
  for (uint32_t j = last; j-- > first;) {
    const double* pivot = r + size_t{j} * k;
    for (uint32_t m = j + 1; m < last; ++m) row[j] -= row[m] * pivot[m];
    row[j] /= pivot[j];
  }
}

}  // namespace

bool factor_upper(double* h, uint32_t k, double* scratch, const kernels::Kernels& kernels, base::Pool& pool) {
  for (uint32_t last = k; last > 0;) {
    const uint32_t first = (last - 1) / block * block, width = last - first;
    // What the finished columns take off: h[0..last)[first..last) -= R[..][last..k) R[first..last)[last..k)^T.
    for (uint32_t j = 0; j < width; ++j)
      for (uint32_t m = last; m < k; ++m) scratch[size_t{m - last} * width + j] = h[size_t{first + j} * k + m];
    pool.run((last + rows_per_task - 1) / rows_per_task, [&](uint32_t task) {
      const uint32_t i = task * rows_per_task, n = std::min(rows_per_task, last - i);
      kernels.subtract_product({h + size_t{i} * k + last, scratch, h + size_t{i} * k + first, k, width, k, n, width, k - last});
    });
    if (!factor_diagonal(h, k, first, last)) return false;
    pool.run((first + rows_per_task - 1) / rows_per_task, [&](uint32_t task) {
      for (uint32_t i = task * rows_per_task; i < std::min(first, (task + 1) * rows_per_task); ++i)
        divide_row(h, k, first, last, h + size_t{i} * k);
    });
    last = first;
  }
  for (uint32_t i = 1; i < k; ++i) std::fill_n(h + size_t{i} * k, i, 0.0);
  return true;
}

void mirror_upper(double* r, uint32_t k, base::Pool& pool) {
  pool.run(k, [&](uint32_t j) {
    for (uint32_t i = 0; i < j; ++i) r[size_t{j} * k + i] = r[size_t{i} * k + j];
  });
}

void solve_rows(const double* r, uint32_t k, double* y, uint32_t rows, const kernels::Kernels& kernels) {
  for (uint32_t last = k; last > 0;) {  // u R^T = y
    const uint32_t first = (last - 1) / block * block;
    if (last < k) kernels.subtract_product({y + last, r + size_t{last} * k + first, y + first, k, k, k, rows, last - first, k - last});
    for (uint32_t row = 0; row < rows; ++row) divide_row(r, k, first, last, y + size_t{row} * k);
    last = first;
  }
  for (uint32_t first = 0; first < k; first += block) {  // z R = u
    const uint32_t last = std::min(k, first + block);
    if (first) kernels.subtract_product({y, r + first, y + first, k, k, k, rows, last - first, first});
    for (uint32_t row = 0; row < rows; ++row) {
      double* z = y + size_t{row} * k;
      for (uint32_t j = first; j < last; ++j) {
        const double* pivot = r + size_t{j} * k;  // below the diagonal: the column of R
        for (uint32_t m = first; m < j; ++m) z[j] -= z[m] * pivot[m];
        z[j] /= pivot[j];
      }
    }
  }
}

}  // namespace gptq::quantize
