// SPDX-License-Identifier: Apache-2.0
#include "quantize/solver.h"

#include <algorithm>
#include <cmath>

#include "base/checked.h"
#include "kernels/half.h"
#include "quantize/grid.h"
#include "quantize/refine.h"

namespace gptq::quantize {
namespace {

constexpr uint32_t block_columns = 64;

// The rows of one strip from the first column to the last.
class Walk {
 public:
  Walk(Strip& strip, const Problem& problem, const kernels::Kernels& kernels) : s_(strip), p_(problem), kernels_(kernels), top_((1 << problem.options.bits) - 1) {}

  void run() {
    // Groups that do not lie together get their grids before any of their columns is worked on.
    if (p_.runs.size() != p_.n_groups) fixed_grids();
    for (const Problem::Run& run : p_.runs) {
      if (p_.solvable && run.first) take_off(0, run.first, run.first, run.last);
      if (p_.runs.size() == p_.n_groups) choose_grids(run);
      for (uint32_t first = run.first; first < run.last; first += block_columns) {
        const uint32_t last = std::min(first + block_columns, run.last);
        if (p_.solvable && first > run.first) take_off(run.first, first, first, last);
        for (uint32_t column = first; column < last; ++column) round_column(column, last);
      }
    }
  }

 private:
  // The errors of columns from..to-1 passed on to columns first..last-1.
  void take_off(uint32_t from, uint32_t to, uint32_t first, uint32_t last) {
    kernels_.subtract_product({s_.change + from, p_.feedback() + size_t{from} * p_.k + first, s_.wanted + first, p_.k, p_.k, p_.k, s_.rows,
                               last - first, to - from});
  }

  Grid grid_of(const double* w, const double* importance, uint32_t n) const {
    return p_.reference ? published_grid(w, n, p_.options.bits, p_.options.symmetric)
                        : searched_grid(w, importance, n, p_.options.bits, p_.options.symmetric);
  }

  void choose_grids(const Problem::Run& run) {
    for (uint32_t c = run.first; c < run.last; ++c) s_.importance[c] = p_.pivot(c);
    for (uint32_t row = 0; row < s_.rows; ++row)
      s_.grid(row, run.group) = grid_of(unrounded(run, row) + run.first, s_.importance + run.first, run.last - run.first);
  }

  // What the columns of a group would become if none of them were rounded: the best answer to the errors before them.
  const double* unrounded(const Problem::Run& run, uint32_t row) {
    const double *wanted = s_.wanted + size_t{row} * p_.k, *target = s_.target + size_t{row} * p_.k;
    if (run.first == 0 || !p_.solvable) return wanted;
    double* w = s_.members;
    std::copy(wanted + run.first, wanted + run.last, w + run.first);
    for (uint32_t c = run.first; c < run.last; ++c) {
      const double* feedback = p_.feedback() + size_t{c} * p_.k;
      const double change = w[c] - target[c];
      for (uint32_t j = c + 1; j < run.last; ++j) w[j] -= change * feedback[j];
    }
    return w;
  }

  void fixed_grids() {
    for (uint32_t g = 0; g < p_.n_groups; ++g)
      for (uint32_t row = 0; row < s_.rows; ++row) {
        uint32_t n = 0;
        for (uint32_t c = 0; c < p_.k; ++c)
          if (p_.group[c] == g) {
            s_.members[n] = s_.target[size_t{row} * p_.k + c];
            s_.importance[n++] = p_.h()[size_t{c} * p_.k + c];
          }
        s_.grid(row, g) = grid_of(s_.members, s_.importance, n);
      }
  }

  void round_column(uint32_t column, uint32_t block_end) {
    const double* feedback = p_.feedback() + size_t{column} * p_.k;
    for (uint32_t row = 0; row < s_.rows; ++row) {
      const size_t at = size_t{row} * p_.k + column;
      const Grid& grid = s_.grid(row, p_.group[column]);
      const int32_t code = code_of(s_.wanted[at], grid, top_);
      const double value = grid.scale * (code - grid.zero), change = value - s_.target[at];
      s_.codes[at] = static_cast<uint8_t>(code);
      s_.change[at] = change;
      if (p_.solvable)
        for (uint32_t c = column + 1; c < block_end; ++c) s_.wanted[size_t{row} * p_.k + c] -= change * feedback[c];
    }
  }

  Strip& s_;
  const Problem& p_;
  const kernels::Kernels& kernels_;
  const int32_t top_;
};

// Rows of w in the order of work.
void load(const kernels::Matrix& w, const float* more, const Problem& p, const kernels::Kernels& kernels, uint32_t first, Strip& s) {
  for (uint32_t row = 0; row < s.rows; ++row) {
    kernels.dequantize_row({&w, first + row, s.floats});
    if (more)
      for (uint32_t i = 0; i < p.k; ++i) s.floats[i] += more[(size_t{first} + row) * p.k + i];
    for (uint32_t c = 0; c < p.k; ++c) {
      const double value = p.reference && p.dead[c] ? 0.0 : static_cast<double>(s.floats[p.order[c]]);
      s.target[size_t{row} * p.k + c] = s.wanted[size_t{row} * p.k + c] = value;
    }
  }
}

void store(const Problem& p, uint32_t first, Strip& s, model::QuantizedWeight& out) {
  for (uint32_t row = 0; row < s.rows; ++row) {
    const size_t at = size_t{first} + row;
    for (uint32_t c = 0; c < p.k; ++c) out.codes[at * p.k + p.order[c]] = s.codes[size_t{row} * p.k + c];
    for (uint32_t g = 0; g < p.n_groups; ++g) {
      out.scales[at * p.n_groups + g] = static_cast<float>(stored_scale(s.grid(row, g).scale));
      if (!out.zeros.empty()) out.zeros[at * p.n_groups + g] = static_cast<uint8_t>(s.grid(row, g).zero);
    }
  }
}

double dot(const double* a, const double* b, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// x H x^T summed over the strip's rows.
double energy(const double* x, const Problem& p, const kernels::Kernels& kernels, Strip& s) {
  std::fill_n(s.gradient, size_t{s.rows} * p.k, 0.0);
  kernels.subtract_product({x, p.h(), s.gradient, p.k, p.k, p.k, s.rows, p.k, p.k});
  return -dot(x, s.gradient, size_t{s.rows} * p.k);
}

}  // namespace

Solution solve(const kernels::Matrix& w, const float* more, const Problem& p, const kernels::Kernels& kernels, base::Pool& pool,
               std::pmr::memory_resource* memory, const std::function<void(uint32_t)>& tick) {
  Solution solution(memory);
  model::QuantizedWeight& out = solution.weight;
  out.bits = p.options.bits;
  out.group_size = p.options.group_size;
  out.n_groups = p.n_groups;
  out.codes.resize(base::to_size(base::mul(w.n, p.k)));
  out.scales.resize(size_t{w.n} * p.n_groups);
  if (!p.options.symmetric) out.zeros.resize(out.scales.size());
  if (p.options.order == Order::act_order && !p.options.static_groups) {
    out.g_idx.resize(p.k);
    for (uint32_t c = 0; c < p.k; ++c) out.g_idx[p.order[c]] = static_cast<int32_t>(p.group[c]);
  }
  const uint32_t strips = (w.n + strip_rows - 1) / strip_rows, at_a_time = pool.threads() * 4;
  std::pmr::vector<double> errors(strips, memory), wholes(strips, memory);
  for (uint32_t first = 0; first < strips; first += at_a_time) {
    pool.run_throwing(std::min(at_a_time, strips - first), [&](uint32_t task) {
      const uint32_t strip_index = first + task, row = strip_index * strip_rows;
      Strip strip(std::min(strip_rows, w.n - row), p.k, p.n_groups, memory);
      load(w, more, p, kernels, row, strip);
      wholes[strip_index] = energy(strip.target, p, kernels, strip);
      Walk(strip, p, kernels).run();
      if (p.solvable && !p.reference) {
        refine(strip, p, kernels);
        errors[strip_index] = -dot(strip.change, strip.gradient, size_t{strip.rows} * p.k);
      } else {
        errors[strip_index] = energy(strip.change, p, kernels, strip);
      }
      store(p, row, strip, out);
    });
    tick(std::min(w.n - first * strip_rows, at_a_time * strip_rows));
  }
  double error = 0, whole = 0;
  for (uint32_t i = 0; i < strips; ++i) error += errors[i], whole += wholes[i];
  solution.error = whole > 0 ? error / whole : 0;
  return solution;
}

}  // namespace gptq::quantize
