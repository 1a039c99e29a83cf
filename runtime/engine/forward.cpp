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

Forward::Forward(const model::ModelSpec& spec, device::Device& device, const device::KvCache& kv, const Workspace& workspace, uint32_t n_ctx)
    : spec_(spec), device_(device), kv_(kv), ws_(workspace) {
  rope_frequencies(spec.rope, n_ctx, ws_.inv_freq);
}

void Forward::begin(const Batch& batch, const model::Linear& embed) {
  device_.embed(embed.w, batch.tokens, ws_.x);
  rotate(batch.sequences);
}

void Forward::rotate(std::span<const device::Sequence> sequences) {
  const uint32_t n = spec_.rope.dim / 2;
  for (const device::Sequence& s : sequences)
    for (uint32_t i = 0; i < s.n_rows; ++i)
      for (uint32_t j = 0; j < n; ++j) {
        // The product is rounded to float32 as in the models' own code; at far positions that is part of their result.
        const float angle = static_cast<float>(s.first_position + i) * ws_.inv_freq[j];
        const size_t at = size_t(s.first_row + i) * n + j;
        ws_.cos[at] = static_cast<float>(std::cos(double(angle))) * spec_.rope.scale;
        ws_.sin[at] = static_cast<float>(std::sin(double(angle))) * spec_.rope.scale;
      }
}

void Forward::layer(const Batch& batch, const model::Layer& layer, uint32_t index) {
  const auto rows = static_cast<uint32_t>(batch.tokens.size());
  attention_input(rows, layer);
  attend(batch.sequences, rows, layer, index);
  attention_output(rows, layer);
  mlp_input(rows, layer);
  activate(rows, layer);
  mlp_output(rows, layer);
}

void Forward::attention_input(uint32_t rows, const model::Layer& layer) {
  device_.rms_norm(ws_.x, layer.attn_norm, ws_.h, rows, spec_.n_embd, spec_.norm_eps);
}

void Forward::attend(std::span<const device::Sequence> sequences, uint32_t rows, const model::Layer& layer, uint32_t index) {
  const device::Product qkv[] = {{&layer.q.w, layer.q.bias, ws_.q}, {&layer.k.w, layer.k.bias, ws_.k}, {&layer.v.w, layer.v.bias, ws_.v}};
  device_.matmul(qkv, ws_.h, rows);
  if (spec_.qk_norm) {
    device_.rms_norm(ws_.q, layer.q_norm, ws_.q, rows * spec_.n_heads, spec_.head_dim, spec_.norm_eps);
    device_.rms_norm(ws_.k, layer.k_norm, ws_.k, rows * spec_.n_kv_heads, spec_.head_dim, spec_.norm_eps);
  }
  device_.rope(ws_.q, ws_.cos, ws_.sin, rows, spec_.n_heads, spec_.head_dim, spec_.rope.dim);
  device_.rope(ws_.k, ws_.cos, ws_.sin, rows, spec_.n_kv_heads, spec_.head_dim, spec_.rope.dim);
  device_.store_kv(kv_, sequences, ws_.k, ws_.v, index);
  device_.attention(kv_, sequences, ws_.q, ws_.attended, {spec_.n_heads, index, spec_.windows[index], spec_.attention_scale});
}

void Forward::attention_output(uint32_t rows, const model::Layer& layer) {
  device_.matmul_add({&layer.o.w, layer.o.bias, ws_.x}, ws_.attended, rows);
}

void Forward::mlp_input(uint32_t rows, const model::Layer& layer) {
  device_.rms_norm(ws_.x, layer.mlp_norm, ws_.h, rows, spec_.n_embd, spec_.norm_eps);
}

void Forward::activate(uint32_t rows, const model::Layer& layer) {
  const device::Product gate_up[] = {{&layer.gate.w, layer.gate.bias, ws_.gate}, {&layer.up.w, layer.up.bias, ws_.up}};
  device_.matmul(gate_up, ws_.h, rows);
  device_.silu_mul(ws_.gate, ws_.up, uint64_t(rows) * spec_.n_ff);
}

void Forward::mlp_output(uint32_t rows, const model::Layer& layer) {
  device_.matmul_add({&layer.down.w, layer.down.bias, ws_.x}, ws_.gate, rows);
}

const float* Forward::logits(const Batch& batch, uint32_t first, uint32_t count, const float* final_norm, const model::Linear& head) {
  for (uint32_t i = 0; i < count; ++i)
    device_.rms_norm(ws_.x + size_t(batch.logit_rows[first + i]) * spec_.n_embd, final_norm, ws_.h + size_t(i) * spec_.n_embd, 1,
                     spec_.n_embd, spec_.norm_eps);
  const device::Product product{&head.w, head.bias, ws_.logits};
  device_.matmul({&product, 1}, ws_.h, count);
  return ws_.logits;
}

}  // namespace gptq::engine
