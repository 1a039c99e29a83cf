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
  Activations activations;
  uint32_t n_embd, n_heads, head_dim, ctx_tokens;
};

// Room for activations as the matrices want them, and for partial results of attention.
struct CpuScratch {
  CpuScratch(const CpuLimits& limits, base::Arena& arena);
  Activations activations;
  float* normed = nullptr;    // [rows][n_embd]
  kernels::Int8Activations packed{};
  float* gathered = nullptr;  // [rows][k_padded], but for int8
  uint16_t* gathered16() const { return reinterpret_cast<uint16_t*>(gathered); }  // the same as bfloat16
  float* partials = nullptr;  // [n_partials][n_heads][head_dim + 2]
  uint64_t n_partials;
};

class CpuDevice : public Device {
 public:
  CpuDevice(const kernels::Kernels& kernels, base::Pool& pool, const CpuScratch& scratch);

  void begin(const Batch& batch) override { batch_ = batch; }
  void embed(const kernels::Matrix& table, float* x) override;
  void upload(const float* host, uint64_t count, float* x) override;
  void matmul(std::span<const Product> products, const Input& input, uint32_t rows, bool accumulate) override;
  void append_kv(const KvCache& kv, const Heads& heads, uint32_t layer) override;
  void attention(const KvCache& kv, const float* q, float* out, const AttentionShape& shape) override;
  void select_rows(const float* x, uint32_t n, uint32_t first, uint32_t count, float* out) override;
  const float* download(const float* y, uint64_t) override { return y; }
  const int32_t* best_tokens(const float*, uint32_t, uint32_t) override { return nullptr; }
  const Candidate* candidates(const float*, uint32_t, uint32_t, uint32_t) override { return nullptr; }
  bool finish(uint32_t) override { return true; }
  bool replay(uint32_t) override { return false; }

  void embed(const kernels::Matrix& table, std::span<const int32_t> tokens, float* x);
  void rms_norm(const float* x, const float* weight, float* y, uint32_t rows, uint32_t n, float eps);
  // gate = silu(gate) * up
  void silu_mul(float* gate, const float* up, uint32_t rows, uint32_t n);

 private:
  enum class Form : uint8_t;
  struct Packed;  // activations in the form one kind of matrix wants them
  Form form_of(const kernels::Matrix& w) const;
  Packed pack(const kernels::Matrix& w, const Input& input, uint32_t rows);
  void pack_row(const kernels::Matrix& w, const float* x, const Packed& packed, uint32_t row);
  const float* finish_input(const Input& input, uint32_t row, uint32_t k);
  void append_rows(const KvCache& kv, const Heads& heads, uint32_t layer, const Sequence& sequence, uint32_t first, uint32_t n_rows);
  void merge_attention(float* out, const AttentionShape& shape, uint32_t head_dim);
  // Calls part(first, last) over 0..total in pieces of at least `least`.
  template <class F>
  void split(uint64_t total, uint64_t least, F&& part);

  kernels::Kernels kernels_;
  base::Pool& pool_;
  const CpuScratch scratch_;
  Batch batch_;
};

}  // namespace gptq::device
