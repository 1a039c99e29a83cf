// SPDX-License-Identifier: Apache-2.0
// The forward pass: one batch of rows from several sequences, through the layers one at a time.
#pragma once
#include <span>

#include "base/memory.h"
#include "device/device.h"
#include "model/weights.h"

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

// A layer is six steps; the quantizer stops between them. Every step leaves its result in the workspace.
class Forward {
 public:
  // n_ctx: the engine's context length.
  Forward(const model::ModelSpec& spec, device::Device& device, const device::KvCache& kv, const Workspace& workspace, uint32_t n_ctx);

  void begin(const Batch& batch, const model::Linear& embed);
  void layer(const Batch& batch, const model::Layer& layer, uint32_t index);
  // Logits of logit_rows[first .. first + count - 1]: [count][n_vocab]. count <= max_logits.
  const float* logits(const Batch& batch, uint32_t first, uint32_t count, const float* final_norm, const model::Linear& head);

  void rotate(std::span<const device::Sequence> sequences);                   // cos, sin of the rows' positions
  void attention_input(uint32_t rows, const model::Layer& layer);             // x -> h
  void attend(std::span<const device::Sequence> sequences, uint32_t rows, const model::Layer& layer, uint32_t index);  // h -> attended
  void attention_output(uint32_t rows, const model::Layer& layer);            // attended -> x
  void mlp_input(uint32_t rows, const model::Layer& layer);                   // x -> h
  void activate(uint32_t rows, const model::Layer& layer);                    // h -> gate
  void mlp_output(uint32_t rows, const model::Layer& layer);                  // gate -> x

 private:
  const model::ModelSpec& spec_;
  device::Device& device_;
  const device::KvCache kv_;
  const Workspace ws_;
};

}  // namespace gptq::engine
