// SPDX-License-Identifier: Apache-2.0
// What the matrices that read one input aim at.
//
// With X the inputs in the original model and X~ those that the quantized matrices before give, W^ X~ is to be close to W X, not to W X~
// (GPTAQ, Li et al. 2025). That is GPTQ's problem with W + W (X - X~) X~^T H^-1 instead of W, H = X~ X~^T. Of few tokens the correction is
// mostly noise; so some rows are held back, and what it gains on them decides how far it is damped and which share of it is added.
//
// A matrix whose output is added to the residual stream makes up for what the stream has lost so far as well: with r and r~ the stream of the
// two models, r~ + W^ X~ is to be close to r + W X.
#pragma once
#include <span>
#include <vector>

#include "quantize/gram.h"

namespace gptq::quantize {

struct Target {
  base::Buffer more;  // [n][k] floats to add to the weights; empty = none
  double share = 0, damp = 0, gain = 0;  // gain: of the squared error on rows held back
};

class Aim {
 public:
  // chunk_tokens: the most rows given at a time. residual: the width of the stream that the one matrix is added to; 0 = none.
  Aim(uint32_t k, uint32_t residual, uint32_t chunk_tokens, const kernels::Kernels& kernels, base::Pool& pool, std::pmr::memory_resource* memory);
  // Rows of the original model [rows][k], and then those of the quantized one, with weights or NULL = 1; rows from first_held on are held back.
  // r [rows][residual]: the stream, in units of what is added to it.
  void keep(const float* x, const float* r, uint32_t rows);
  void add(const float* x, const float* r, const float* weights, uint32_t rows, uint32_t first_held);
  // For each matrix [n][k]. The inputs' own products are added to gram. No further rows then.
  std::vector<Target> finish(std::span<const kernels::Matrix* const> matrices, Gram& gram);
  static uint64_t bytes(uint32_t k, uint32_t residual, uint32_t chunk_tokens, uint32_t threads);  // of memory, about

 private:
  struct Pair {
    Pair(uint32_t k, uint32_t residual, const kernels::Kernels& kernels, base::Pool& pool, std::pmr::memory_resource* memory);
    Gram h, cross, lost;  // X~ X~^T, (X - X~) X~^T, (r - r~) X~^T
  };
  bool factor(double damp);
  void choose(const kernels::Matrix& w, double damp, Target& target);
  void correct(const kernels::Matrix& w, Target& target);
  void wanted(const kernels::Matrix& w, std::span<const uint32_t> rows, const Pair& pair, double* out) const;

  const uint32_t k_, residual_;
  const kernels::Kernels& kernels_;
  base::Pool& pool_;
  std::pmr::memory_resource* memory_;
  base::Buffer kept_, kept_residual_;  // x, then x - x~; r, then r - r~
  Pair used_, held_;
  base::Buffer factor_;
};

}  // namespace gptq::quantize
