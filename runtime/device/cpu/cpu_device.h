// SPDX-License-Identifier: Apache-2.0
// The CPU as a device: cuts every operation into tasks for the pool and calls the kernels.
#pragma once
#include "base/memory.h"
#include "base/threads.h"
#include "device/device.h"

namespace gptq::device {

struct CpuLimits {
  uint32_t rows;          // most rows of one call
  uint32_t k_padded;      // most columns of any matrix
  bool exact;             // float32 activations
  uint32_t n_heads, head_dim, ctx_tokens;
};

// Room for activations as the matrices want them, and for partial results of attention.
struct CpuScratch {
  CpuScratch(const CpuLimits& limits, base::Arena& arena);
  bool exact;
  kernels::Int8Activations packed{};
  float* gathered = nullptr;  // [rows][k_padded]
  float* partials = nullptr;  // [n_partials][n_heads][head_dim + 2]
  uint64_t n_partials;
};

class CpuDevice : public Device {
 public:
  CpuDevice(const kernels::Kernels& kernels, base::Pool& pool, const CpuScratch& scratch);

  void embed(const kernels::Matrix& table, std::span<const int32_t> tokens, float* x) override;
  void rms_norm(const float* x, const float* weight, float* y, uint32_t rows, uint32_t n, float eps) override;
  void matmul(std::span<const Product> products, const float* x, uint32_t rows) override;
  void matmul_add(const Product& product, const float* x, uint32_t rows) override;
  void rope(float* x, const float* cos, const float* sin, uint32_t rows, uint32_t n_heads, uint32_t head_dim, uint32_t dim) override;
  void store_kv(const KvCache& kv, std::span<const Sequence> sequences, const float* k, const float* v, uint32_t layer) override;
  void attention(const KvCache& kv, std::span<const Sequence> sequences, const float* q, float* out, const AttentionShape& shape) override;
  void silu_mul(float* gate, const float* up, uint64_t count) override;

 private:
  struct Input;  // activations in the form one kind of matrix wants them
  Input prepare(const kernels::Matrix& w, const float* x, uint32_t rows);
  void merge_attention(std::span<const Sequence> sequences, float* out, const AttentionShape& shape, uint32_t head_dim);
  void multiply(std::span<const Product> products, const float* x, uint32_t rows, bool accumulate);
  // Calls part(first, last) over 0..total in pieces of at least `least`.
  template <class F>
  void split(uint64_t total, uint64_t least, F&& part);

  kernels::Kernels kernels_;
  base::Pool& pool_;
  const CpuScratch scratch_;
};

}  // namespace gptq::device
