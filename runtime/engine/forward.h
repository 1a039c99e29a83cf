// SPDX-License-Identifier: Apache-2.0
// The forward pass: one batch of rows from several sequences, through the layers one at a time. It knows blocks, no family's name.
#pragma once
#include <span>

#include "base/memory.h"
#include "device/device.h"
#include "engine/absorbed.h"
#include "engine/kv_layout.h"
#include "model/weights.h"

namespace gptq::engine {

// The angles of every rotary embedding of a model for a batch's rows.
class Rotation {
 public:
  // n_ctx: the engine's context length.
  Rotation(const model::ModelSpec& spec, uint32_t n_ctx, uint32_t max_rows, base::Arena& arena);
  void turn_to(std::span<const device::Sequence> sequences);
  std::span<const device::Angles> angles() const { return {angles_, n_}; }

 private:
  static constexpr uint32_t ropes_max = 8;
  struct Frequencies {
    float* near = nullptr;  // [n]
    float* far = nullptr;   // [n] or NULL: for sequences of more than n_ctx_original tokens
    uint32_t n_ctx_original;
    float scale;
  };
  Frequencies frequencies_[ropes_max];
  device::Angles angles_[ropes_max];
  uint32_t n_;
};

// The activations of one batch, in the device's memory. What a model does not need is NULL.
struct Workspace {
  Workspace(const model::ModelSpec& spec, uint32_t max_rows, uint32_t max_logits, base::Arena& arena);
  float* x;         // [rows][n_embd]: the residual stream
  float* h;         // [rows][n_embd]: normalized
  float* branch;    // [rows][n_embd]: what a block gives before it is added
  float* q;         // [rows][n_heads * key_dim], or the channels of the delta rule's convolution, or of the short one's
  float* k;         // [rows][n_kv_heads * key_dim]
  float* v;         // [rows][n_kv_heads * value_dim]
  float* inner;     // [rows][...]: see inner_width()
  float* attended;  // [rows][what o reads]
  float* gate;      // [rows][n_ff], of experts [rows * n_active][their n_ff]
  float* up;
  float* parts;     // [rows * n_active][n_embd]: what experts give
  float* sorted;    // [rows * n_active][n_embd]: what they read
  float* scores;    // [rows][experts.n]
  float* embedded;  // [rows or max_logits][n_embed] where that is not n_embd
  float* logits;    // [max_logits][n_vocab]
};

inline device::Product product_of(const model::Linear& w, float* y) { return {.w = &w.w, .bias = w.bias, .y = y, .slot = w.slot}; }

// Which experts a batch's rows go to. On the host.
struct Routing {
  Routing(const model::ModelSpec& spec, uint32_t max_rows, base::Arena& arena);
  int32_t* chosen;     // [rows][n_active]
  float* weight;       // [rows][n_active]
  uint32_t* slot;      // [rows][n_active]: the place among all pairs, sorted by expert
  uint32_t* row;       // [rows * n_active]: of a slot
  uint32_t* begin;     // [experts.n + 1]: an expert's first slot
  device::Product* products;  // [2 * experts.n]
  float* scratch;      // [experts.n]
};

// Layers first_layer and on, on one device. A layer is four steps; the quantizer stops between them. Every step leaves its result in the
// workspace.
class Forward {
 public:
  Forward(const model::ModelSpec& spec, device::Device& device, const KvLayout& layout, std::byte* kv, const Workspace& workspace,
          const Routing& routing, const Absorbed* absorbed = nullptr)
      : spec_(spec), device_(device), layout_(layout), kv_(kv), ws_(workspace), routing_(routing), absorbed_(absorbed) {}

  void embed(uint32_t rows, const model::Ends& model);
  void layer(uint32_t rows, const model::Layer& layer, uint32_t index);
  // Logits of the batch's logit_rows[first .. first + count - 1] into the workspace: [count][n_vocab]. count <= max_logits.
  void logits(uint32_t first, uint32_t count, const model::Ends& model);
  // Hidden states, behind the last norm, of rows of the same list into the workspace's h: [count][n_embd]. count <= max_rows.
  void hidden(uint32_t first, uint32_t count, const model::Ends& model);
  const Workspace& workspace() const { return ws_; }

  void mix(uint32_t rows, const model::Layer& layer, uint32_t index, const device::Input& input);           // -> attended
  void mix_output(uint32_t rows, const model::Layer& layer, float* y, bool accumulate);                     // attended -> y
  void gate_up(uint32_t rows, const model::Layer& layer, const device::Input& input);                       // -> gate, up
  device::Input activated(const model::Layer& layer) const;                                                 // what down reads
  void mlp_output(uint32_t rows, const model::Layer& layer, const device::Input& input, float* y, bool accumulate);
  void experts(uint32_t rows, const model::Layer& layer, const float* h, float* y, bool accumulate);
  device::Norm norm_of(const model::Linear& weights) const;

 private:
  // blocks/
  void attend(uint32_t rows, const model::Layer& layer, uint32_t index, const device::Input& input);
  void attend_latent(uint32_t rows, const model::Layer& layer, uint32_t index, const device::Input& input);
  void apply_delta(uint32_t rows, const model::Layer& layer, uint32_t index, const device::Input& input);
  void convolve(uint32_t rows, const model::Layer& layer, uint32_t index, const device::Input& input);
  void route(uint32_t rows, const model::Layer& layer, const float* h);
  void shared_expert(uint32_t rows, const model::Layer& layer, const float* h, float* y);
  void mlp(uint32_t rows, const model::Layer& layer, uint32_t index, const model::Linear& norm, float* y, bool accumulate);
  void add_branch(uint32_t rows, const model::Linear& out_norm);
  bool plain_output(const model::Linear& out_norm) const { return !out_norm && spec_.residual_scale == 1; }

  const model::ModelSpec& spec_;
  device::Device& device_;
  const KvLayout layout_;
  std::byte* const kv_;
  const Workspace ws_;
  const Routing routing_;
  const Absorbed* const absorbed_;  // NULL: latent attention goes by keys and values of every head, and the layout has room for them
};

}  // namespace gptq::engine
