// SPDX-License-Identifier: Apache-2.0
// GPTQ for one matrix: codes whose outputs on the calibration inputs are close to those of the weights.
//
// The squared error of a row is e H e^T, e = w - w^. With H = R R^T, R upper triangular, that is the sum over columns k of
// (R_kk (e_k + sum_{j<k} e_j M_jk))^2, M_jk = R_jk / R_kk; so column k is rounded from w_k + sum_{j<k} (w_j - w^_j) M_jk. This is GPTQ
// (Frantar et al. 2022) without the inverse: the factor of the inverse is the inverse of R^T. (QuIP, Chee et al. 2023, calls it LDLQ.)
// Rows are independent of each other.
#pragma once
#include <functional>

#include "base/memory.h"
#include "base/threads.h"
#include "model/pack.h"
#include "quantize/gram.h"
#include "quantize/options.h"

namespace gptq::quantize {

// What the modules that read the same input share: the order of columns, the damped H, its factor.
class Problem {
 public:
  // gram: of the inputs, finished.
  Problem(const Gram& gram, const ModuleOptions& options, bool reference, const kernels::Kernels& kernels, base::Pool& pool,
          std::pmr::memory_resource* memory);

  struct Run {  // columns first..last-1 in the order of work, all of one group
    uint32_t first, last, group;
  };
  uint32_t k, group_size, n_groups;
  const ModuleOptions options;
  const bool reference;               // as published: no search, no refinement
  std::pmr::vector<uint32_t> order;   // [k]: the input that is worked on as column i
  std::pmr::vector<uint32_t> group;   // [k]: of column i
  std::pmr::vector<Run> runs;
  std::pmr::vector<bool> dead;        // [k]: column i had no input at all
  double damp = 0;
  bool solvable = true;
  const double* h() const { return reinterpret_cast<const double*>(h_.data()); }            // [k][k], damped, in the order of work
  const double* feedback() const { return reinterpret_cast<const double*>(factor_.data()); }  // M [k][k]
  double pivot(uint32_t column) const { return pivots_[column]; }                            // R_kk^2

 private:
  static double published_for_dead(const Gram& gram);
  void choose_order(const Gram& gram);
  void permute(const Gram& gram);
  void factor(const kernels::Kernels& kernels, base::Pool& pool, std::pmr::memory_resource* memory);
  base::Buffer h_, factor_;
  std::pmr::vector<double> pivots_;
};

struct Solution {
  explicit Solution(std::pmr::memory_resource* memory) : weight(memory) {}
  model::QuantizedWeight weight;
  double error = 0;  // relative, squared
};

// w [n][k] of any kind, with more [n][k] added where it is not NULL -> codes. tick is called now and then from the calling thread with the
// number of rows done since; it may throw.
Solution solve(const kernels::Matrix& w, const float* more, const Problem& problem, const kernels::Kernels& kernels, base::Pool& pool,
               std::pmr::memory_resource* memory, const std::function<void(uint32_t)>& tick);

}  // namespace gptq::quantize
