// SPDX-License-Identifier: Apache-2.0
// What a device does for the forward pass: one call per operation on rows of activations that live on the device.
#pragma once
#include <cstdint>
#include <span>

#include "kernels/kernels.h"

namespace gptq::device {

// As what quantized matrices read their inputs.
enum class Activations : uint8_t { int8, bf16, f32 };

struct Norm {
  const float* weight = nullptr;  // [n] or NULL: 1
  const float* bias = nullptr;    // of a layer norm
  float eps = 0;
  kernels::NormKind kind = kernels::NormKind::rms;
};

// What products read: x, or its norm, or act(x) * up, or act(x).
struct Input {
  const float* x;                 // [rows][k]
  const Norm* norm = nullptr;
  const float* up = nullptr;      // [rows][k]
  bool activated = false;
  kernels::Activation activation = kernels::Activation::silu;
  const float* act_params = nullptr;
};

constexpr uint32_t no_slot = UINT32_MAX;

// y [rows][w.n] (+)= W input + bias, of a range of the input's rows.
struct Product {
  const kernels::Matrix* w;
  const float* bias;  // [w.n] or NULL
  float* y;           // of row 0
  uint32_t first_row = 0, n_rows = UINT32_MAX;  // cut at the input's rows
  uint32_t slot = no_slot;                      // of w among those that adapters change; the rows are the batch's then
};

// One sequence's rows in a batch: rows first_row .. first_row + n_rows - 1 are its positions first_position and on.
struct Sequence {
  uint32_t first_row, n_rows, first_position;
  const uint32_t* pages;
  uint32_t n_tokens = 0;              // of the whole sequence, as far as they are known
  const std::byte* state = nullptr;   // recurrent layers: what the sequence's earlier tokens left; NULL: there were none
  std::byte* next_state = nullptr;    // and where its rows leave theirs
};

// The cosines and sines that a rotary embedding turns a batch's rows by.
struct Angles {
  uint32_t n = 0;        // pairs of a head
  float* cos = nullptr;  // [rows][n]
  float* sin = nullptr;
};

// Rows of a batch whose products have something added.
struct Adapted {
  uint32_t first_row, n_rows;
  std::span<const kernels::LowRank> changes;  // by slot
  float scale;
};

// What is computed together. Row i is one token at one position of one sequence.
struct Batch {
  std::span<const int32_t> tokens;          // [rows]
  std::span<const Sequence> sequences;      // their rows, in order
  std::span<const uint32_t> logit_rows;     // rows whose logits are wanted, rising
  std::span<const Angles> ropes = {};
  std::span<const Adapted> adapted = {};    // rising

  uint32_t n_rows() const { return sequences.empty() ? 0 : sequences.back().first_row + sequences.back().n_rows; }
};

// A layer of the KV arena; page p is at base + p * page_stride (kernels::KvView).
struct KvCache {
  std::byte* base;
  uint64_t page_stride, value_offset;
  uint32_t page_tokens, n_kv_heads, key_dim, value_dim;
  kernels::KvKinds kinds;
};

// q is multiplied by 1 + factor * ln(1 + floor((position + offset) / floor)).
struct QueryScale {
  float floor = 1, factor = 0, offset = 0;
};

struct HeadNorms {
  Norm q, k;
  kernels::Span span = kernels::Span::head;
  bool any = false, after_rope = false;
};

// The queries, keys and values of a layer's rows on their way into attention.
struct Heads {
  float* q;             // [rows][n_heads * key_dim]
  float* k;             // [rows][n_kv_heads * key_dim]
  float* v;             // [rows][n_kv_heads * value_dim]
  HeadNorms norms;
  uint32_t n_heads;
  int32_t rope;         // of the batch's; -1 = none
  float clip = 0;       // q, k and v are kept within it
  QueryScale query_scale;
};

struct AttentionShape {
  uint32_t n_heads, window, chunk;
  float scale, softcap;
  const float* alibi_slopes;  // [n_heads] or NULL
  const float* sinks;
};

// Multi-head latent attention: what its matrices gave, on its way into keys and values of every head.
struct LatentHeads {
  float* q;              // [rows][n_heads][d_nope + d_rope]; the rope part is turned in place
  const float* kv;       // [rows][kv_rank + d_rope]; behind kv_rank the key that all heads share, not turned yet
  const float* k_nope;   // [rows][n_heads][d_nope]
  float* k;              // [rows][n_heads][d_nope + d_rope]
  uint32_t n_heads, kv_rank, d_nope, d_rope;
  int32_t rope;
};

// The same on a cache of what keys and values come from: c, normed, and behind it the key that all heads share.
struct LatentAttention {
  float* q;              // [rows][n_heads][d_nope + d_rope]; the rope part is turned in place
  float* kv;             // [rows][kv_rank + d_rope]; its rope part is turned in place
  const float* c;        // [rows][kv_rank]
  const void* keys;      // [n_heads][kv_rank][d_nope] of kind
  const void* values;    // [n_heads][d_v][kv_rank]
  float* q_latent;       // [rows][n_heads][kv_rank + d_rope]
  float* o_latent;       // [rows][n_heads][kv_rank]
  float* out;            // [rows][n_heads][d_v]
  uint32_t n_heads, kv_rank, d_nope, d_rope, d_v;
  int32_t rope;
  kernels::Kind kind;
  float scale;
};

// A causal convolution over each sequence's rows, channel by channel, with silu or without: y = after * convolved(x * before).
struct Convolution {
  const float* x;        // [rows, stride apart][n]
  const float* before;   // like x, or NULL
  const float* after;
  const float* weight;   // [n][kernel]
  float* y;              // [rows][n]
  uint32_t n, kernel, stride;
  bool silu;
  uint64_t state;        // where in a sequence's state: [kernel - 1][n]
};

// The gated delta rule over each sequence's rows.
struct DeltaRule {
  const float* qkv;      // [rows][2 n_k d_k + n_v d_v]
  const float* a;        // [rows][n_v]
  const float* b;
  const float* z;        // [rows][n_v * d_v]
  const float* decay;    // [n_v]
  const float* dt_bias;
  const float* norm;     // [d_v]
  float* y;              // [rows][n_v * d_v]
  uint32_t n_k, n_v, d_k, d_v;
  float eps;
  uint64_t state;        // where in a sequence's state: [n_v][d_k][d_v]
};

// y row i (+)= sum over j of weight[i][j] * parts row slot[i][j]; slot and weight on the host.
struct Mixture {
  const float* parts;     // [slots][n]
  const uint32_t* slot;   // [rows][n_parts]
  const float* weight;
  uint32_t n_parts;
  float* y;               // [rows][n]
  uint32_t rows, n;
  bool accumulate;
};

struct Copy {
  const float* from;
  uint64_t from_stride;
  float* to;
  uint64_t to_stride;
  uint32_t rows, n;
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
  // What the products that follow read.
  virtual void prepare(const Input& input, uint32_t rows) = 0;
  virtual void matmul(std::span<const Product> products, bool accumulate) = 0;
  // Norms and turns q and k, and stores k and v.
  virtual void append_kv(const KvCache& kv, const Heads& heads) = 0;
  // q [rows][n_heads * key_dim], out [rows][n_heads * value_dim]
  virtual void attention(const KvCache& kv, const float* q, float* out, const AttentionShape& shape) = 0;
  // out [count][n] = the rows of x that the batch's logit_rows first .. first + count - 1 name
  virtual void select_rows(const float* x, uint32_t n, uint32_t first, uint32_t count, float* out) = 0;

  // What the Llama line does without. A device that lacks them never sees a model with them; here they fail with INTERNAL.
  virtual void norm(const float* x, const Norm& norm, float* y, uint32_t rows, uint32_t n);  // y may be x
  virtual void scale(float* x, uint64_t count, float factor);
  virtual void add(float* y, const float* x, uint64_t count, float factor);  // y += factor * x
  virtual void gate(float* x, const float* gate, uint64_t count);            // x *= sigmoid(gate)
  virtual void copy_columns(const Copy& copy);
  // out row i = x row rows[i]; rows on the host
  virtual void gather_rows(const float* x, const uint32_t* rows, uint32_t count, uint32_t n, float* out);
  virtual void mix_parts(const Mixture& mixture);
  virtual void softcap(float* x, uint64_t count, float cap);
  virtual void add_positions(const kernels::Matrix& table, uint32_t offset, float* x);
  virtual void latent_heads(const LatentHeads& heads);
  virtual void latent_attention(const KvCache& kv, const LatentAttention& attention);
  virtual void convolve(const Convolution& convolution);
  virtual void delta_rule(const DeltaRule& rule);
};

}  // namespace gptq::device
