// SPDX-License-Identifier: Apache-2.0
// Multi-head latent attention (DeepSeek V2): keys and values of all heads come from kv_rank numbers a token.
#include "engine/forward.h"

namespace gptq::engine {

using model::Role;

// Whatever the config says (transformers' DeepSeek V2 and V3).
constexpr float latent_norm_eps = 1e-6f;

void Forward::attend_latent(uint32_t rows, const model::Layer& layer, uint32_t index, const device::Input& input) {
  const model::Latent& l = spec_.latent;
  // Buffers one behind another.
  float* q_a = ws_.inner;
  float* kv = q_a + uint64_t{rows} * l.q_rank;
  float* c = kv + uint64_t{rows} * l.width();
  float* k_nope = c + uint64_t{rows} * l.kv_rank;
  const auto product = [&](Role role, float* y) { return product_of(layer[role], y); };
  const device::Product first[] = {l.q_rank ? product(Role::q_a, q_a) : product(Role::q, ws_.q), product(Role::kv_a, kv)};
  device_.prepare(input, rows);
  device_.matmul(first, false);
  if (l.q_rank) {
    const device::Norm norm{.weight = layer.vector(Role::q_a_norm), .eps = latent_norm_eps};
    const device::Product q = product(Role::q, ws_.q);
    device_.prepare({.x = q_a, .norm = &norm}, rows);
    device_.matmul({&q, 1}, false);
  }
  device_.copy_columns({.from = kv, .from_stride = l.width(), .to = c, .to_stride = l.kv_rank, .rows = rows, .n = l.kv_rank});
  const device::Norm norm{.weight = layer.vector(Role::kv_a_norm), .eps = latent_norm_eps};
  if (absorbed_) {
    device_.norm(c, norm, c, rows, l.kv_rank);
    float* q_latent = k_nope;
    device_.latent_attention(layout_.cache(kv_, index), {.q = ws_.q,
                                                         .kv = kv,
                                                         .c = c,
                                                         .keys = absorbed_->keys(index),
                                                         .values = absorbed_->values(index),
                                                         .q_latent = q_latent,
                                                         .o_latent = q_latent + uint64_t{rows} * spec_.n_heads * l.width(),
                                                         .out = ws_.attended,
                                                         .n_heads = spec_.n_heads,
                                                         .kv_rank = l.kv_rank,
                                                         .d_nope = l.d_nope,
                                                         .d_rope = l.d_rope,
                                                         .d_v = l.d_v,
                                                         .rope = spec_.layers[index].rope,
                                                         .kind = absorbed_->kind(),
                                                         .scale = spec_.layers[index].attention_scale});
    return;
  }
  const device::Product keys_values[] = {product(Role::k_b, k_nope), product(Role::v_b, ws_.v)};
  device_.prepare({.x = c, .norm = &norm}, rows);
  device_.matmul(keys_values, false);

  device_.latent_heads({.q = ws_.q,
                        .kv = kv,
                        .k_nope = k_nope,
                        .k = ws_.k,
                        .n_heads = spec_.n_heads,
                        .kv_rank = l.kv_rank,
                        .d_nope = l.d_nope,
                        .d_rope = l.d_rope,
                        .rope = spec_.layers[index].rope});
  const device::KvCache cache = layout_.cache(kv_, index);
  device_.append_kv(cache, {.q = ws_.q, .k = ws_.k, .v = ws_.v, .norms = {}, .n_heads = spec_.n_heads, .rope = -1, .query_scale = {}});
  device_.attention(cache, ws_.q, ws_.attended,
                    {.n_heads = spec_.n_heads, .window = 0, .chunk = 0, .scale = spec_.layers[index].attention_scale, .softcap = 0, .alibi_slopes = nullptr, .sinks = nullptr});
}

}  // namespace gptq::engine
