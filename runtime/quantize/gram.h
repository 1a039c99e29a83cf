// SPDX-License-Identifier: Apache-2.0
// Sums of outer products of a layer's inputs over the calibration tokens: what GPTQ calls the Hessian; and of other rows with them.
#pragma once
#include "base/memory.h"
#include "base/threads.h"
#include "kernels/kernels.h"

namespace gptq::quantize {

// H [k][k] = sum over tokens of weight * x^T x, in float32 within runs of tokens and in float64 over them.
class Gram {
 public:
  Gram(uint32_t k, const kernels::Kernels& kernels, base::Pool& pool, std::pmr::memory_resource* memory) : Gram(k, k, kernels, pool, memory) {}
  // [n][k], for add_cross alone
  Gram(uint32_t n, uint32_t k, const kernels::Kernels& kernels, base::Pool& pool, std::pmr::memory_resource* memory);
  // x [rows][k]; weights [rows] or NULL = 1 each
  void add(const float* x, const float* weights, uint32_t rows);
  // G [n][k] = sum over tokens of weight * left^T x instead, left [rows][n]; nothing of it is mirrored
  void add_cross(const float* left, const float* x, const float* weights, uint32_t rows);
  void add(const Gram& other);
  // As add(x, ...), for a few rows at a time: they are kept until there are enough for a run.
  void collect(const float* x, const float* weights, uint32_t rows);
  void finish();  // adds what was kept, and fills the upper triangle
  bool is_finite() const;
  uint32_t k() const { return k_; }
  uint64_t rows() const { return rows_; }  // added
  double* data() const { return reinterpret_cast<double*>(sums_.data()); }
  static uint64_t bytes(uint32_t k, uint32_t threads) { return bytes(k, k, threads); }
  static uint64_t bytes(uint32_t n, uint32_t k, uint32_t threads);  // of memory, about

 private:
  void add_kept();
  void add_run(const float* left, const float* x, const float* weights, uint32_t rows);
  void fill_panels(const float* x, uint32_t width, const float* weights, uint32_t rows, base::Buffer& panels);
  void add_tile(const float* left, uint32_t i0, uint32_t j0, uint32_t rows, float* out);

  const uint32_t n_, k_;
  uint64_t rows_ = 0;
  const kernels::Kernels& kernels_;
  base::Pool& pool_;
  std::pmr::memory_resource* memory_;
  base::Buffer sums_, panels_, left_panels_, tiles_, kept_;  // kept_: [run][k] and a weight for each
  uint32_t n_kept_ = 0;
};

}  // namespace gptq::quantize
