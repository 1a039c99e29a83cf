// SPDX-License-Identifier: Apache-2.0
// The forward pass: one batch of rows from several sequences, through the layers one at a time.
#pragma once
#include <span>

#include "base/memory.h"
#include "device/device.h"
#include "model/weights.h"

namespace gptq::engine {

// The angles that rope turns a batch's rows by.
struct Rotation {
  // n_ctx: the engine's context length.
  Rotation(const model::ModelSpec& spec, uint32_t n_ctx, uint32_t max_rows, base::Arena& arena);
  void turn_to(std::span<const device::Sequence> sequences);

  uint32_t n;       // rope.dim/2
  float scale;
  float* inv_freq;  // [n]
  float* cos;       // [rows][n]
  float* sin;
};

// The activations of one batch, in the device's memory.
struct Workspace {
  Workspace(const model::ModelSpec& spec, uint32_t max_rows, uint32_t max_logits, base::Arena& arena);
  float* x;         // [rows][n_embd]: the residual stream
  float* h;         // [rows][n_embd]: normalized
  float* q;         // [rows][n_heads * head_dim]
  float* k;         // [rows][n_kv_heads * head_dim]
  float* v;
  float* attended;  // [rows][n_heads * head_dim]
  float* gate;      // [rows][n_ff]
  float* up;
  float* logits;    // [max_logits][n_vocab]
};

// Layers first_layer and on, on one device. A layer is four steps; the quantizer stops between them. Every step leaves its result in the
// workspace.
class Forward {
 public:
  Forward(const model::ModelSpec& spec, device::Device& device, const device::KvCache& kv, const Workspace& workspace, uint32_t first_layer = 0)
      : spec_(spec), device_(device), kv_(kv), ws_(workspace), first_layer_(first_layer) {}

  void embed(const model::Linear& table) { device_.embed(table.w, ws_.x); }
  void layer(uint32_t rows, const model::Layer& layer, uint32_t index);
  // Logits of the batch's logit_rows[first .. first + count - 1] into the workspace: [count][n_vocab]. count <= max_logits.
  void logits(uint32_t first, uint32_t count, const float* final_norm, const model::Linear& head);
  const Workspace& workspace() const { return ws_; }

  void attend(uint32_t rows, const model::Layer& layer, uint32_t index, const device::Input& input);  // -> attended
  void attention_output(uint32_t rows, const model::Layer& layer);                                    // attended -> x
  void gate_up(uint32_t rows, const model::Layer& layer, const device::Input& input);                 // -> gate, up
  void mlp_output(uint32_t rows, const model::Layer& layer, const device::Input& input);              // -> x

 private:
  const model::ModelSpec& spec_;
  device::Device& device_;
  const device::KvCache kv_;
  const Workspace ws_;
  const uint32_t first_layer_;
};

}  // namespace gptq::engine
