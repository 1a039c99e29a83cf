// SPDX-License-Identifier: Apache-2.0
#include "engine/absorbed.h"

#include "base/checked.h"
#include "kernels/half.h"

namespace gptq::engine {

using model::Role;

Absorbed::Absorbed(const model::ModelSpec& spec, bool exact, base::Arena& arena) : kind_(exact ? kernels::Kind::f32 : kernels::Kind::f16) {
  if (!spec.any(model::Mixer::latent)) return;
  const model::Latent& l = spec.latent;
  const uint64_t row = base::mul(spec.n_heads, l.kv_rank, kernels::bits_of(kind_) / 8);
  key_bytes_ = base::mul(row, l.d_nope);
  value_bytes_ = base::mul(row, l.d_v);
  keys_ = arena.take<std::byte>(base::mul(key_bytes_, spec.n_layers));
  values_ = arena.take<std::byte>(base::mul(value_bytes_, spec.n_layers));
}

void Absorbed::fill(const model::Model& model, const kernels::Kernels& kernels, base::Pool& pool) const {
  if (!any()) return;
  const model::Latent& l = model.spec.latent;
  const auto put = [&](std::byte* base, uint64_t at, float value) {
    if (kind_ == kernels::Kind::f32) reinterpret_cast<float*>(base)[at] = value;
    else reinterpret_cast<uint16_t*>(base)[at] = kernels::half_from_float(value);
  };
  constexpr uint32_t rank_max = 4096;
  pool.run(model.spec.n_layers * model.spec.n_heads, [&](uint32_t task) {
    const uint32_t layer = task / model.spec.n_heads, head = task % model.spec.n_heads;
    if (model.spec.layers[layer].mixer != model::Mixer::latent || layer >= model.layers.size()) return;
    float row[rank_max];
    std::byte *keys = keys_ + layer * key_bytes_, *values = values_ + layer * value_bytes_;
    for (uint32_t i = 0; i < l.d_nope; ++i) {
      kernels.dequantize_row({&model.layers[layer][Role::k_b].w, head * l.d_nope + i, row});
      for (uint32_t j = 0; j < l.kv_rank; ++j) put(keys, (uint64_t{head} * l.kv_rank + j) * l.d_nope + i, row[j]);
    }
    for (uint32_t i = 0; i < l.d_v; ++i) {
      kernels.dequantize_row({&model.layers[layer][Role::v_b].w, head * l.d_v + i, row});
      for (uint32_t j = 0; j < l.kv_rank; ++j) put(values, (uint64_t{head} * l.d_v + i) * l.kv_rank + j, row[j]);
    }
  });
}

}  // namespace gptq::engine
