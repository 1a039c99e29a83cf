// SPDX-License-Identifier: Apache-2.0
// What a device does for the forward pass: one call per operation on rows of activations that live on the device.
#pragma once
#include <cstdint>
#include <span>

#include "kernels/kernels.h"

namespace gptq::device {

// As what quantized matrices read their inputs.
enum class Activations : uint8_t { int8, bf16, f32 };

// What products read: x, or its RMS norm, or silu(x) * up.
struct Input {
  float* x;                     // [rows][k]; with up it may be overwritten
  const float* norm = nullptr;  // [k]: x / sqrt(mean(x^2) + eps) * norm
  float eps = 0;
  const float* up = nullptr;    // [rows][k]
};

// y [rows][w.n] (+)= W input + bias
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

// What is computed together. Row i is one token at one position of one sequence.
struct Batch {
  std::span<const int32_t> tokens;          // [rows]
  std::span<const Sequence> sequences;      // their rows, in order
  std::span<const uint32_t> logit_rows;     // rows whose logits are wanted, rising
  const float* cos = nullptr;               // [rows][dim/2] of rope
  const float* sin = nullptr;

  uint32_t n_rows() const { return sequences.empty() ? 0 : sequences.back().first_row + sequences.back().n_rows; }
};

// The KV arena; page p of layer l starts at base + p * page_stride + l * layer_stride (kernels::KvView).
struct KvCache {
  std::byte* base;
  uint64_t page_stride, layer_stride, value_offset;
  uint32_t page_tokens, n_kv_heads, head_dim;
  kernels::KvKind kind;
};

// The queries, keys and values of a layer's rows on their way into attention.
struct Heads {
  float* q;             // [rows][n_heads * head_dim]
  float* k;             // [rows][n_kv_heads * head_dim]
  const float* v;
  const float* q_norm;  // [head_dim] or NULL: RMS norm of every head
  const float* k_norm;
  float eps;
  uint32_t n_heads, rope_dim;
};

struct AttentionShape {
  uint32_t n_heads, layer, window;  // layer: of those in the cache
  float scale;
};

struct Candidate {
  float logit;
  int32_t token;
};

class Device {
 public:
  virtual ~Device() = default;
  // What the calls that follow work on; it stays as it is until they are done.
  virtual void begin(const Batch& batch) = 0;
  // x [rows][table.k] = the tokens' rows of the table
  virtual void embed(const kernels::Matrix& table, float* x) = 0;
  // x = what lies on the host
  virtual void upload(const float* host, uint64_t count, float* x) = 0;
  virtual void matmul(std::span<const Product> products, const Input& input, uint32_t rows, bool accumulate) = 0;
  // Rotates q and k, and stores k and v.
  virtual void append_kv(const KvCache& kv, const Heads& heads, uint32_t layer) = 0;
  // q, out [rows][n_heads * head_dim]
  virtual void attention(const KvCache& kv, const float* q, float* out, const AttentionShape& shape) = 0;
  // out [count][n] = the rows of x that the batch's logit_rows first .. first + count - 1 name
  virtual void select_rows(const float* x, uint32_t n, uint32_t first, uint32_t count, float* out) = 0;
  // Where the host finds y, once the work so far is done.
  virtual const float* download(const float* y, uint64_t count) = 0;
  // Where it then finds each row's largest logit's token, -1 where one is not finite; NULL: the host is to look itself.
  virtual const int32_t* best_tokens(const float* logits, uint32_t rows, uint32_t n) = 0;
  // The same of each row's `count` best, higher logits first, then lower tokens; the first token is -1 where a logit is not finite.
  virtual const Candidate* candidates(const float* logits, uint32_t rows, uint32_t n, uint32_t count) = 0;

  // Work may go on when a call returns. Waits for it, at most so long (UINT32_MAX: to its end); whether all is done.
  virtual bool finish(uint32_t wait_us) = 0;
  // Does again what was recorded with this key, for a batch of the same number of rows, one a sequence; false: nothing was.
  virtual bool replay(uint32_t key) = 0;
};

}  // namespace gptq::device
