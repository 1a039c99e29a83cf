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

KvLayout::KvLayout(const model::ModelSpec& spec, uint32_t first_layer, uint32_t page_tokens, kernels::KvKinds kinds)
    : spec_(spec), first_layer_(first_layer), page_tokens_(page_tokens), n_kv_heads_(spec.n_kv_heads), key_dim_(spec.head_dim),
      value_dim_(spec.head_dim), kinds_(kinds) {
  if (!spec.any(model::Mixer::latent)) return;
  n_kv_heads_ = spec.n_heads;
  key_dim_ = spec.latent.d_k();
  value_dim_ = spec.latent.d_v;
}

KvLayout::KvLayout(const model::ModelSpec& spec, uint32_t first_layer, uint32_t end_layer, uint32_t page_tokens, kernels::KvKinds kinds, Latents latents)
    : KvLayout(spec, first_layer, page_tokens, kinds) {
  const bool kept = spec.any(model::Mixer::latent) && latents == Latents::kept;
  if (kept) n_kv_heads_ = 1, key_dim_ = spec.latent.width(), value_dim_ = 0;
  const auto bytes = [&](kernels::KvKind kind, uint32_t dim) { return base::mul(n_kv_heads_, page_tokens, kernels::kv_row_bytes(kind, dim)); };
  key_bytes_ = bytes(kinds.keys, key_dim_);
  layer_bytes_ = base::add(key_bytes_, kept ? 0 : bytes(kinds.values, value_dim_));
  n_caches_ = caches_before(end_layer);
  page_bytes_ = base::round_up(base::mul(layer_bytes_, n_caches_), base::Buffer::align);
  state_bytes_ = state_before(end_layer);
}

KvLayout KvLayout::on_gpu(const model::ModelSpec& spec, uint32_t first_layer, uint32_t end_layer, uint32_t page_tokens, kernels::KvKind kind) {
  KvLayout layout(spec, first_layer, page_tokens, kernels::alike(kind));
  layout.on_gpu_ = true;
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

// Where 16 positions of a dimension lie side by side: on the CPU of keys, but not of latents, on a GPU of values (kernels::KvView, LatentView, gpu::KvCache).
void KvLayout::for_each_piece(uint32_t rows, const std::function<void(uint64_t, uint64_t)>& use) const {
  if (rows == page_tokens_) return use(0, layer_bytes_ * n_caches_);
  for (uint64_t cache = 0; cache < n_caches_; ++cache) {
    const uint64_t keys = cache * layer_bytes_;
    const bool latent = value_dim_ == 0;
    for_each_piece_of(keys, key_dim_, kinds_.keys, !on_gpu_ && !latent, rows, use);
    if (value_dim_) for_each_piece_of(keys + key_bytes_, value_dim_, kinds_.values, on_gpu_, rows, use);
  }
}

// grouped: 16 positions of a dimension, in int4 of two, lie side by side, otherwise the dimensions of a position. Scales are behind.
void KvLayout::for_each_piece_of(uint64_t half, uint32_t dim, kernels::KvKind kind, bool grouped, uint32_t rows,
                                 const std::function<void(uint64_t, uint64_t)>& use) const {
  constexpr uint32_t group = 16;
  const bool scaled = kernels::kv_is_scaled(kind);
  const uint64_t row = kernels::kv_bytes(kind, on_gpu_ ? gpu::kv_dims(dim) : kernels::kv_row_elements(dim));
  const uint64_t element = kind == kernels::KvKind::i4 ? 1 : kernels::kv_bytes(kind, 1), behind = half + n_kv_heads_ * page_tokens_ * row;
  const uint32_t whole = grouped ? rows / group * group : rows, last = rows - whole;
  for (uint32_t head = 0; head < n_kv_heads_; ++head) {
    const uint64_t first = half + head * page_tokens_ * row;
    if (whole) use(first, whole * row);
    for (uint64_t d = 0; last && d < row / element; ++d) {
      const uint64_t at = first + whole * row + d * group * element;
      if (!on_gpu_ || !scaled) use(at, last * element);
      else for (uint32_t i = 0; i < last; ++i) use(at + gpu::kv_byte_place(i), 1);
    }
  }
  for (uint32_t head = 0; scaled && head < n_kv_heads_; ++head) use(behind + head * page_tokens_ * sizeof(float), rows * sizeof(float));
}

device::KvCache KvLayout::cache(std::byte* arena, uint32_t layer) const {
  return {.base = arena + caches_before(layer) * layer_bytes_,
          .page_stride = page_bytes_,
          .value_offset = key_bytes_,
          .page_tokens = page_tokens_,
          .n_kv_heads = n_kv_heads_,
          .key_dim = key_dim_,
          .value_dim = value_dim_,
          .kinds = kinds_};
}

}  // namespace gptq::engine
