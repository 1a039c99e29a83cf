// SPDX-License-Identifier: Apache-2.0
#include "engine/kv_layout.h"

#include "base/checked.h"
#include "base/memory.h"
#include "kernels/gpu/ops.h"

namespace gptq::engine {
namespace {

bool has_pages(const model::LayerSpec& layer) { return layer.mixer == model::Mixer::attention || layer.mixer == model::Mixer::latent; }

}  // namespace

uint64_t recurrent_bytes(const model::ModelSpec& spec, const model::LayerSpec& layer) {
  const model::Delta& d = spec.delta;
  uint64_t floats = 0;
  if (layer.mixer == model::Mixer::short_conv) floats = uint64_t{spec.conv_kernel - 1} * spec.n_embd;
  if (layer.mixer == model::Mixer::delta) floats = uint64_t{d.kernel - 1} * d.channels() + base::round_up(uint64_t{d.n_v} * d.d_k * d.d_v, 16);
  return base::round_up(floats * sizeof(float), base::Buffer::align);
}

KvLayout::KvLayout(const model::ModelSpec& spec, uint32_t first_layer, uint32_t page_tokens, kernels::KvKind kind)
    : spec_(spec), first_layer_(first_layer), page_tokens_(page_tokens), n_kv_heads_(spec.n_kv_heads), key_dim_(spec.head_dim),
      value_dim_(spec.head_dim), kind_(kind) {
  if (!spec.any(model::Mixer::latent)) return;
  n_kv_heads_ = spec.n_heads;
  key_dim_ = spec.latent.d_k();
  value_dim_ = spec.latent.d_v;
}

KvLayout::KvLayout(const model::ModelSpec& spec, uint32_t first_layer, uint32_t end_layer, uint32_t page_tokens, kernels::KvKind kind, Latents latents)
    : KvLayout(spec, first_layer, page_tokens, kind) {
  const bool kept = spec.any(model::Mixer::latent) && latents == Latents::kept;
  if (kept) n_kv_heads_ = 1, key_dim_ = spec.latent.width(), value_dim_ = 0;
  const auto bytes = [&](uint32_t dim) { return base::mul(n_kv_heads_, page_tokens, kernels::kv_row_bytes(kind, dim)); };
  key_bytes_ = bytes(key_dim_);
  layer_bytes_ = base::add(key_bytes_, kept ? 0 : bytes(value_dim_));
  n_caches_ = caches_before(end_layer);
  page_bytes_ = base::round_up(base::mul(layer_bytes_, n_caches_), base::Buffer::align);
  state_bytes_ = state_before(end_layer);
}

KvLayout KvLayout::on_gpu(const model::ModelSpec& spec, uint32_t first_layer, uint32_t end_layer, uint32_t page_tokens, kernels::KvKind kind) {
  KvLayout layout(spec, first_layer, page_tokens, kind);
  layout.key_bytes_ = gpu::kv_half_bytes({.page_tokens = page_tokens, .n_kv_heads = spec.n_kv_heads, .head_dim = spec.head_dim,
                                           .int8 = kind == kernels::KvKind::i8});
  layout.layer_bytes_ = 2 * layout.key_bytes_;
  layout.n_caches_ = layout.caches_before(end_layer);
  layout.page_bytes_ = base::mul(layout.layer_bytes_, layout.n_caches_);
  return layout;
}

uint64_t KvLayout::caches_before(uint32_t layer) const {
  uint64_t n = 0;
  for (uint32_t i = first_layer_; i < layer; ++i) n += has_pages(spec_.layers[i]);
  return n;
}

uint64_t KvLayout::state_before(uint32_t layer) const {
  uint64_t bytes = 0;
  for (uint32_t i = first_layer_; i < layer; ++i) bytes = base::add(bytes, recurrent_bytes(spec_, spec_.layers[i]));
  return bytes;
}

void KvLayout::for_each_piece(uint32_t rows, const std::function<void(uint64_t, uint64_t)>& use) const {
  if (rows == page_tokens_) return use(0, layer_bytes_ * n_caches_);
  constexpr uint32_t group = 16;  // kernels::KvView: so many positions of a key lie side by side
  const uint64_t element = kernels::kv_element_bytes(kind_);
  const auto scales = [&](uint64_t at) {
    for (uint32_t head = 0; kind_ == kernels::KvKind::i8 && head < n_kv_heads_; ++head) use(at + head * page_tokens_ * sizeof(float), rows * sizeof(float));
  };
  for (uint64_t cache = 0; cache < n_caches_; ++cache) {
    const uint64_t keys = cache * layer_bytes_, values = keys + key_bytes_;
    const uint64_t key = kernels::kv_row_elements(key_dim_) * element, value = kernels::kv_row_elements(value_dim_) * element;
    const uint32_t whole = rows / group * group, last = rows % group;
    for (uint32_t head = 0; head < n_kv_heads_; ++head) {
      const uint64_t at = keys + head * page_tokens_ * key;
      if (whole) use(at, whole * key);
      for (uint64_t d = 0; last && d < key / element; ++d) use(at + whole * key + d * group * element, last * element);
    }
    scales(keys + n_kv_heads_ * page_tokens_ * key);
    if (!value_dim_) continue;
    for (uint32_t head = 0; head < n_kv_heads_; ++head) use(values + head * page_tokens_ * value, rows * value);
    scales(values + n_kv_heads_ * page_tokens_ * value);
  }
}

device::KvCache KvLayout::cache(std::byte* arena, uint32_t layer) const {
  return {.base = arena + caches_before(layer) * layer_bytes_,
          .page_stride = page_bytes_,
          .value_offset = key_bytes_,
          .page_tokens = page_tokens_,
          .n_kv_heads = n_kv_heads_,
          .key_dim = key_dim_,
          .value_dim = value_dim_,
          .kind = kind_};
}

}  // namespace gptq::engine
