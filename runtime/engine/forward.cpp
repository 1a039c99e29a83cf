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

Rotation::Rotation(const model::ModelSpec& spec, uint32_t n_ctx, uint32_t max_rows, base::Arena& arena)
    : n(spec.rope.dim / 2), scale(spec.rope.scale), inv_freq(arena.take<float>(n)), cos(arena.take<float>(uint64_t{max_rows} * n)),
      sin(arena.take<float>(uint64_t{max_rows} * n)) {
  if (inv_freq) rope_frequencies(spec.rope, n_ctx, inv_freq);
}

void Rotation::turn_to(std::span<const device::Sequence> sequences) {
  for (const device::Sequence& s : sequences)
    for (uint32_t i = 0; i < s.n_rows; ++i)
      for (uint32_t j = 0; j < n; ++j) {
        // The product is rounded to float32 as in the models' own code; at far positions that is part of their result.
        const float angle = static_cast<float>(s.first_position + i) * inv_freq[j];
        const size_t at = size_t(s.first_row + i) * n + j;
        cos[at] = static_cast<float>(std::cos(double(angle))) * scale;
        sin[at] = static_cast<float>(std::sin(double(angle))) * scale;
      }
}

Workspace::Workspace(const model::ModelSpec& spec, uint32_t max_rows, uint32_t max_logits, base::Arena& arena) {
  const uint64_t rows = max_rows, q_size = uint64_t(spec.n_heads) * spec.head_dim, kv_size = uint64_t(spec.n_kv_heads) * spec.head_dim;
  x = arena.take<float>(rows * spec.n_embd);
  h = arena.take<float>(rows * spec.n_embd);
  q = arena.take<float>(rows * q_size);
  k = arena.take<float>(rows * kv_size);
  v = arena.take<float>(rows * kv_size);
  attended = arena.take<float>(rows * q_size);
  gate = arena.take<float>(rows * spec.n_ff);
  up = arena.take<float>(rows * spec.n_ff);
  logits = arena.take<float>(uint64_t(max_logits) * spec.n_vocab);
}

void Forward::layer(uint32_t rows, const model::Layer& layer, uint32_t index) {
  attend(rows, layer, index, {ws_.x, layer.attn_norm, spec_.norm_eps});
  attention_output(rows, layer);
  gate_up(rows, layer, {ws_.x, layer.mlp_norm, spec_.norm_eps});
  mlp_output(rows, layer, {.x = ws_.gate, .up = ws_.up});
}

void Forward::attend(uint32_t rows, const model::Layer& layer, uint32_t index, const device::Input& input) {
  const device::Product qkv[] = {{&layer.q.w, layer.q.bias, ws_.q}, {&layer.k.w, layer.k.bias, ws_.k}, {&layer.v.w, layer.v.bias, ws_.v}};
  device_.matmul(qkv, input, rows, false);
  device_.append_kv(kv_, {ws_.q, ws_.k, ws_.v, layer.q_norm, layer.k_norm, spec_.norm_eps, spec_.n_heads, spec_.rope.dim}, index - first_layer_);
  device_.attention(kv_, ws_.q, ws_.attended, {spec_.n_heads, index - first_layer_, spec_.windows[index], spec_.attention_scale});
}

void Forward::attention_output(uint32_t rows, const model::Layer& layer) {
  const device::Product product{&layer.o.w, layer.o.bias, ws_.x};
  device_.matmul({&product, 1}, {ws_.attended}, rows, true);
}

void Forward::gate_up(uint32_t rows, const model::Layer& layer, const device::Input& input) {
  const device::Product products[] = {{&layer.gate.w, layer.gate.bias, ws_.gate}, {&layer.up.w, layer.up.bias, ws_.up}};
  device_.matmul(products, input, rows, false);
}

void Forward::mlp_output(uint32_t rows, const model::Layer& layer, const device::Input& input) {
  const device::Product product{&layer.down.w, layer.down.bias, ws_.x};
  device_.matmul({&product, 1}, input, rows, true);
}

void Forward::logits(uint32_t first, uint32_t count, const float* final_norm, const model::Linear& head) {
  device_.select_rows(ws_.x, spec_.n_embd, first, count, ws_.h);
  const device::Product product{&head.w, head.bias, ws_.logits};
  device_.matmul({&product, 1}, {ws_.h, final_norm, spec_.norm_eps}, count, false);
}

}  // namespace gptq::engine
