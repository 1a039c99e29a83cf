// SPDX-License-Identifier: Apache-2.0
#include "engine/forward.h"

#include <cmath>
#include <cstring>

namespace gptq::engine {
namespace {

// Dynamic NTK: the base grows with the context (model.fbs); everything else was worked out at conversion.
void rope_frequencies(const model::Rope& rope, uint32_t n_ctx, float* inv_freq) {
  const uint32_t n = rope.dim / 2;
  if (!(rope.dynamic_factor > 0 && n_ctx > rope.n_ctx_original)) {
    std::memcpy(inv_freq, rope.inv_freq.data(), n * sizeof(float));
    return;
  }
  const double stretch = double(rope.dynamic_factor) * n_ctx / rope.n_ctx_original - (rope.dynamic_factor - 1);
  const double theta = rope.theta * std::pow(stretch, rope.dim / (rope.dim - 2.0));
  for (uint32_t j = 0; j < n; ++j) inv_freq[j] = static_cast<float>(std::pow(theta, -2.0 * j / rope.dim));
}

}  // namespace

Workspace::Workspace(const model::ModelSpec& spec, uint32_t max_rows, uint32_t max_logits, base::Arena& arena) {
  const uint64_t rows = max_rows, q_size = uint64_t(spec.n_heads) * spec.head_dim, kv_size = uint64_t(spec.n_kv_heads) * spec.head_dim;
  inv_freq = arena.take<float>(spec.rope.dim / 2);
  x = arena.take<float>(rows * spec.n_embd);
  h = arena.take<float>(rows * spec.n_embd);
  q = arena.take<float>(rows * q_size);
  k = arena.take<float>(rows * kv_size);
  v = arena.take<float>(rows * kv_size);
  attended = arena.take<float>(rows * q_size);
  gate = arena.take<float>(rows * spec.n_ff);
  up = arena.take<float>(rows * spec.n_ff);
  cos = arena.take<float>(rows * (spec.rope.dim / 2));
  sin = arena.take<float>(rows * (spec.rope.dim / 2));
  logits = arena.take<float>(uint64_t(max_logits) * spec.n_vocab);
}

Forward::Forward(const model::Model& model, device::Device& device, const device::KvCache& kv, const Workspace& workspace, uint32_t n_ctx)
    : model_(model), device_(device), kv_(kv), ws_(workspace) {
  rope_frequencies(model.spec.rope, n_ctx, ws_.inv_freq);
}

void Forward::begin(const Batch& batch) {
  device_.embed(model_.embed.w, batch.tokens, ws_.x);
  const uint32_t n = model_.spec.rope.dim / 2;
  const float scale = model_.spec.rope.scale;
  for (const device::Sequence& s : batch.sequences)
    for (uint32_t i = 0; i < s.n_rows; ++i)
      for (uint32_t j = 0; j < n; ++j) {
        // The product is rounded to float32 as in the models' own code; at far positions that is part of their result.
        const float angle = static_cast<float>(s.first_position + i) * ws_.inv_freq[j];
        const size_t at = size_t(s.first_row + i) * n + j;
        ws_.cos[at] = static_cast<float>(std::cos(double(angle))) * scale;
        ws_.sin[at] = static_cast<float>(std::sin(double(angle))) * scale;
      }
}

void Forward::layer(const Batch& batch, uint32_t index) {
  const model::Layer& layer = model_.layers[index];
  attention(batch, layer, index);
  mlp(static_cast<uint32_t>(batch.tokens.size()), layer);
}

void Forward::attention(const Batch& batch, const model::Layer& layer, uint32_t index) {
  const model::ModelSpec& spec = model_.spec;
  const auto rows = static_cast<uint32_t>(batch.tokens.size());
  device_.rms_norm(ws_.x, layer.attn_norm, ws_.h, rows, spec.n_embd, spec.norm_eps);
  const device::Product qkv[] = {{&layer.q.w, layer.q.bias, ws_.q}, {&layer.k.w, layer.k.bias, ws_.k}, {&layer.v.w, layer.v.bias, ws_.v}};
  device_.matmul(qkv, ws_.h, rows);
  if (spec.qk_norm) {
    device_.rms_norm(ws_.q, layer.q_norm, ws_.q, rows * spec.n_heads, spec.head_dim, spec.norm_eps);
    device_.rms_norm(ws_.k, layer.k_norm, ws_.k, rows * spec.n_kv_heads, spec.head_dim, spec.norm_eps);
  }
  device_.rope(ws_.q, ws_.cos, ws_.sin, rows, spec.n_heads, spec.head_dim, spec.rope.dim);
  device_.rope(ws_.k, ws_.cos, ws_.sin, rows, spec.n_kv_heads, spec.head_dim, spec.rope.dim);
  device_.store_kv(kv_, batch.sequences, ws_.k, ws_.v, index);
  device_.attention(kv_, batch.sequences, ws_.q, ws_.attended, {spec.n_heads, index, spec.windows[index], spec.attention_scale});
  device_.matmul_add({&layer.o.w, layer.o.bias, ws_.x}, ws_.attended, rows);
}

void Forward::mlp(uint32_t rows, const model::Layer& layer) {
  const model::ModelSpec& spec = model_.spec;
  device_.rms_norm(ws_.x, layer.mlp_norm, ws_.h, rows, spec.n_embd, spec.norm_eps);
  const device::Product gate_up[] = {{&layer.gate.w, layer.gate.bias, ws_.gate}, {&layer.up.w, layer.up.bias, ws_.up}};
  device_.matmul(gate_up, ws_.h, rows);
  device_.silu_mul(ws_.gate, ws_.up, uint64_t(rows) * spec.n_ff);
  device_.matmul_add({&layer.down.w, layer.down.bias, ws_.x}, ws_.gate, rows);
}

const float* Forward::logits(const Batch& batch, uint32_t first, uint32_t count) {
  const model::ModelSpec& spec = model_.spec;
  for (uint32_t i = 0; i < count; ++i)
    device_.rms_norm(ws_.x + size_t(batch.logit_rows[first + i]) * spec.n_embd, model_.final_norm, ws_.h + size_t(i) * spec.n_embd, 1,
                     spec.n_embd, spec.norm_eps);
  const device::Product product{&model_.head.w, model_.head.bias, ws_.logits};
  device_.matmul({&product, 1}, ws_.h, count);
  return ws_.logits;
}

}  // namespace gptq::engine
