// SPDX-License-Identifier: Apache-2.0
// What a device does for the forward pass: one call per operation on rows of activations that live on the device.
#pragma once
#include <cstdint>
#include <span>

#include "kernels/kernels.h"

namespace gptq::device {

// y [rows][w.n] (+)= W x + bias
struct Product {
  const kernels::Matrix* w;
  const float* bias;  // [w.n] or NULL
  float* y;
};

// One sequence's rows in a batch: rows first_row .. first_row + n_rows - 1 are its positions first_position and on.
struct Sequence {
  uint32_t first_row, n_rows, first_position;
  const uint32_t* pages;
};

// The KV arena; page p of layer l starts at base + p * page_stride + l * layer_stride (kernels::KvView).
struct KvCache {
  std::byte* base;
  uint64_t page_stride, layer_stride, value_offset;
  uint32_t page_tokens, n_kv_heads, head_dim;
  kernels::KvKind kind;
};

struct AttentionShape {
  uint32_t n_heads, layer, window;
  float scale;
};

class Device {
 public:
  virtual ~Device() = default;
  // x [rows][table.k] = the tokens' rows of the table
  virtual void embed(const kernels::Matrix& table, std::span<const int32_t> tokens, float* x) = 0;
  virtual void rms_norm(const float* x, const float* weight, float* y, uint32_t rows, uint32_t n, float eps) = 0;
  // All products read x [rows][k].
  virtual void matmul(std::span<const Product> products, const float* x, uint32_t rows) = 0;
  virtual void matmul_add(const Product& product, const float* x, uint32_t rows) = 0;
  // x [rows][n_heads][head_dim], cos and sin [rows][dim/2]
  virtual void rope(float* x, const float* cos, const float* sin, uint32_t rows, uint32_t n_heads, uint32_t head_dim, uint32_t dim) = 0;
  // k, v [rows][n_kv_heads * head_dim]
  virtual void store_kv(const KvCache& kv, std::span<const Sequence> sequences, const float* k, const float* v, uint32_t layer) = 0;
  // q, out [rows][n_heads * head_dim]
  virtual void attention(const KvCache& kv, std::span<const Sequence> sequences, const float* q, float* out,
                         const AttentionShape& shape) = 0;
  // gate = silu(gate) * up, count elements
  virtual void silu_mul(float* gate, const float* up, uint64_t count) = 0;
};

}  // namespace gptq::device
