// SPDX-License-Identifier: Apache-2.0
// Attention over heads with keys and values of their own, grouped or not.
#include "engine/forward.h"

namespace gptq::engine {

using model::Role;

void Forward::attend(uint32_t rows, const model::Layer& layer, uint32_t index, const device::Input& input) {
  const model::LayerSpec& l = spec_.layers[index];
  const auto product = [&](Role role, float* y) { return product_of(layer[role], y); };
  const device::Product products[] = {product(Role::q, ws_.q), product(Role::k, ws_.k), product(Role::v, ws_.v), product(Role::attn_gate, ws_.inner)};
  device_.prepare(input, rows);
  device_.matmul({products, spec_.attention_gate ? 4u : 3u}, false);

  const auto head_norm = [&](Role role) { return device::Norm{layer.vector(role), layer[role].bias, spec_.norm_eps, spec_.qk_norm_kind}; };
  // Norms without weights belong to the rotation (Llama 4).
  const bool norms = spec_.qk_norm && (spec_.qk_norm_span != model::Span::unit || l.rope >= 0);
  device::Heads heads{.q = ws_.q, .k = ws_.k, .v = ws_.v, .norms = {}, .n_heads = spec_.n_heads, .rope = l.rope, .clip = spec_.clip_qkv, .query_scale = {}};
  if (norms) heads.norms = {head_norm(Role::q_norm), head_norm(Role::k_norm), spec_.qk_norm_span, true, spec_.qk_norm_after_rope};
  if (l.query_scaled) heads.query_scale = {spec_.query_scale.floor, spec_.query_scale.factor, spec_.query_scale.offset};
  const device::KvCache kv = layout_.cache(kv_, index);
  device_.append_kv(kv, heads);
  device_.attention(kv, ws_.q, ws_.attended,
                    {.n_heads = spec_.n_heads,
                     .window = l.window,
                     .chunk = l.chunk,
                     .scale = l.attention_scale,
                     .softcap = spec_.attention_softcap,
                     .alibi_slopes = spec_.alibi_slopes.empty() ? nullptr : spec_.alibi_slopes.data(),
                     .sinks = layer.vector(Role::sinks)});
  if (spec_.attention_gate) device_.gate(ws_.attended, ws_.inner, uint64_t{rows} * layer[Role::attn_gate].w.n);
}

}  // namespace gptq::engine
