// SPDX-License-Identifier: Apache-2.0
// The forward pass: one batch of rows from several sequences, through the layers one at a time.
#pragma once
#include <span>

#include "base/memory.h"
#include "device/device.h"
#include "model/model.h"

namespace gptq::engine {

// What is computed together. Row i is one token at one position of one sequence.
struct Batch {
  std::span<const int32_t> tokens;               // [rows]
  std::span<const device::Sequence> sequences;   // their rows, in order
  std::span<const uint32_t> logit_rows;          // rows whose logits are wanted, rising
};

// The activations of one batch, taken from an arena.
struct Workspace {
  Workspace(const model::ModelSpec& spec, uint32_t max_rows, uint32_t max_logits, base::Arena& arena);
  float* inv_freq;  // [rope.dim/2]
  float* x;         // [rows][n_embd]: the residual stream
  float* h;         // [rows][n_embd]: normalized
  float* q;         // [rows][n_heads * head_dim]
  float* k;         // [rows][n_kv_heads * head_dim]
  float* v;
  float* attended;  // [rows][n_heads * head_dim]
  float* gate;      // [rows][n_ff]
  float* up;
  float* cos;       // [rows][rope.dim/2]
  float* sin;
  float* logits;    // [max_logits][n_vocab]
};

class Forward {
 public:
  // n_ctx: the engine's context length.
  Forward(const model::Model& model, device::Device& device, const device::KvCache& kv, const Workspace& workspace, uint32_t n_ctx);

  void begin(const Batch& batch);
  void layer(const Batch& batch, uint32_t index);
  // Logits of logit_rows[first .. first + count - 1]: [count][n_vocab]. count <= max_logits.
  const float* logits(const Batch& batch, uint32_t first, uint32_t count);

 private:
  void attention(const Batch& batch, const model::Layer& layer, uint32_t index);
  void mlp(uint32_t rows, const model::Layer& layer);

  const model::Model& model_;
  device::Device& device_;
  const device::KvCache kv_;
  const Workspace ws_;
};

}  // namespace gptq::engine
