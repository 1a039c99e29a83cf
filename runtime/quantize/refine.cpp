// SPDX-License-Identifier: Apache-2.0
#include "quantize/refine.h"

#include <algorithm>
#include <memory>

namespace gptq::quantize {
namespace {

constexpr uint32_t sweeps = 2;

class Refinement {
 public:
  Refinement(Strip& strip, const Problem& problem, const kernels::Kernels& kernels)
      : s_(strip), p_(problem), kernels_(kernels), top_((1 << problem.options.bits) - 1) {}

  void run() {
    std::fill_n(s_.gradient, size_t{s_.rows} * p_.k, 0.0);
    kernels_.subtract_product({s_.change, p_.h(), s_.gradient, p_.k, p_.k, p_.k, s_.rows, p_.k, p_.k});
    for (uint32_t sweep = 0; sweep < sweeps; ++sweep) {
      if (p_.runs.size() == p_.n_groups)
        for (const Problem::Run& group : p_.runs) fit_scales(group);
      for (uint32_t row = 0; row < s_.rows; ++row) fit_codes(row);
    }
  }

 private:
  // The scale that is best for the group's codes, in every row.
  void fit_scales(const Problem::Run& group) {
    const uint32_t n = group.last - group.first, k = p_.k;
    for (uint32_t row = 0; row < s_.rows; ++row)
      for (uint32_t i = 0; i < n; ++i)
        s_.levels[size_t{row} * n + i] = s_.codes[size_t{row} * k + group.first + i] - s_.grid(row, group.group).zero;
    double* products = s_.wanted;  // -(levels H)
    std::fill_n(products, size_t{s_.rows} * k, 0.0);
    kernels_.subtract_product({s_.levels, p_.h() + size_t{group.first} * k, products, n, k, k, s_.rows, k, n});
    for (uint32_t row = 0; row < s_.rows; ++row) fit_scale(row, group, s_.levels + size_t{row} * n, products + size_t{row} * k);
  }

  void fit_scale(uint32_t row, const Problem::Run& group, const double* levels, const double* products) {
    double *gradient = s_.gradient + size_t{row} * p_.k, *change = s_.change + size_t{row} * p_.k;
    double slope = 0, curve = 0;
    for (uint32_t c = group.first; c < group.last; ++c) {
      slope += gradient[c] * levels[c - group.first];
      curve -= products[c] * levels[c - group.first];
    }
    if (!(curve > 0)) return;
    Grid& grid = s_.grid(row, group.group);
    const double scale = stored_scale(grid.scale + slope / curve), by = scale - grid.scale;
    if (by == 0 || scale * grid.scale <= 0) return;
    grid.scale = scale;
    for (uint32_t c = 0; c < p_.k; ++c) gradient[c] += by * products[c];
    for (uint32_t c = group.first; c < group.last; ++c) change[c] += by * levels[c - group.first];
  }

  void fit_codes(uint32_t row) {
    const size_t at = size_t{row} * p_.k;
    double *gradient = s_.gradient + at, *change = s_.change + at;
    for (uint32_t c = 0; c < p_.k; ++c) {
      const Grid& grid = s_.grid(row, p_.group[c]);
      const double* h = p_.h() + size_t{c} * p_.k;
      uint8_t& code = s_.codes[at + c];
      const double value = grid.scale * (code - grid.zero);
      const int32_t better = code_of(value + gradient[c] / h[c], grid, top_);
      if (better == code) continue;
      code = static_cast<uint8_t>(better);
      const double by = grid.scale * (better - grid.zero) - value;
      change[c] += by;
      for (uint32_t j = 0; j < p_.k; ++j) gradient[j] -= by * h[j];
    }
  }

  Strip& s_;
  const Problem& p_;
  const kernels::Kernels& kernels_;
  const int32_t top_;
};

}  // namespace

Strip::Strip(uint32_t rows, uint32_t k, uint32_t n_groups, std::pmr::memory_resource* resource) : rows(rows), n_groups(n_groups) {
  const auto cut = [&](base::Arena arena) {
    const uint64_t all = uint64_t{rows} * k;
    for (double** part : {&target, &wanted, &change, &gradient, &levels}) *part = arena.take<double>(all);
    importance = arena.take<double>(k);
    members = arena.take<double>(k);
    floats = arena.take<float>(k);
    codes = arena.take<uint8_t>(all);
    grids = arena.take<Grid>(uint64_t{rows} * n_groups);
    return arena.used();
  };
  memory = base::Buffer(resource, cut(base::Arena()));
  cut(base::Arena(memory.data()));
  std::uninitialized_default_construct_n(grids, size_t{rows} * n_groups);
}

void refine(Strip& strip, const Problem& problem, const kernels::Kernels& kernels) { Refinement(strip, problem, kernels).run(); }

}  // namespace gptq::quantize
