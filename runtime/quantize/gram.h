// SPDX-License-Identifier: Apache-2.0
// Sums of outer products of a layer's inputs over the calibration tokens: what GPTQ calls the Hessian.
#pragma once
#include "base/memory.h"
#include "base/threads.h"
#include "kernels/kernels.h"

namespace gptq::quantize {

// H [k][k] = sum over tokens of weight * x^T x, in float32 within runs of tokens and in float64 over them.
class Gram {
 public:
  Gram(uint32_t k, const kernels::Kernels& kernels, base::Pool& pool, std::pmr::memory_resource* memory);
  // x [rows][k]; weights [rows] or NULL = 1 each
  void add(const float* x, const float* weights, uint32_t rows);
  void finish();  // fills the upper triangle
  bool is_finite() const;
  uint32_t k() const { return k_; }
  uint64_t rows() const { return rows_; }  // added
  double* data() const { return reinterpret_cast<double*>(sums_.data()); }

 private:
  void add_run(const float* x, const float* weights, uint32_t rows);
  void fill_panels(const float* x, const float* weights, uint32_t rows);
  void add_tile(uint32_t i0, uint32_t j0, uint32_t rows, float* out);

  const uint32_t k_;
  uint64_t rows_ = 0;
  const kernels::Kernels& kernels_;
  base::Pool& pool_;
  base::Buffer sums_, panels_, tiles_;
};

}  // namespace gptq::quantize
