// SPDX-License-Identifier: Apache-2.0
// Where things lie in a KV cache (KvView in kernels.h), and which positions a query sees.
#pragma once
#include "kernels/kernels.h"

namespace gptq::kernels {

// Rows of a page, counted over its heads, in front of a position's row.
static inline uint64_t kv_rows_before(const KvView& kv, uint32_t head, uint32_t position) {
  return uint64_t{head} * kv.page_tokens + position % kv.page_tokens;
}
static inline std::byte* kv_page(const KvView& kv, uint32_t position) {
  return kv.base + kv.pages[position / kv.page_tokens] * kv.page_stride;
}

// The first element of a position's key; the next are 16 elements apart, in int4 the next two. Of a multiple of 16: the tile of 16 keys.
static inline std::byte* kv_key(const KvView& kv, uint32_t head, uint32_t position) {
  const uint64_t row = kv_rows_before(kv, head, position), element = kv.kinds.keys == KvKind::i4 ? 1 : kv_bytes(kv.kinds.keys, 1);
  return kv_page(kv, position) + kv_bytes(kv.kinds.keys, row / 16 * 16 * kv_row_elements(kv.key_dim)) + row % 16 * element;
}
// Keys in int4 are differences from the key at the beginning of their 16 positions, as that one was rounded: what all keys have in common takes
// no part in the others' steps.
static inline bool kv_key_is_relative(const KvView& kv, uint32_t position) { return kv.kinds.keys == KvKind::i4 && position % 16; }
static inline std::byte* kv_value(const KvView& kv, uint32_t head, uint32_t position) {
  const uint64_t row = kv_rows_before(kv, head, position);
  return kv_page(kv, position) + kv.value_offset + kv_bytes(kv.kinds.values, row * kv_row_elements(kv.value_dim));
}
// The scales of a position, of int4 with the offset, and those that follow in its page.
static inline float* kv_scales(const KvView& kv, std::byte* rows, KvKind kind, uint32_t dim, uint32_t head, uint32_t position) {
  const uint64_t n = uint64_t{kv.n_kv_heads} * kv.page_tokens;
  return reinterpret_cast<float*>(rows + kv_bytes(kind, n * kv_row_elements(dim))) + kv_rows_before(kv, head, position);
}
static inline float* kv_key_scales(const KvView& kv, uint32_t head, uint32_t position) {
  return kv_scales(kv, kv_page(kv, position), kv.kinds.keys, kv.key_dim, head, position);
}
static inline float* kv_value_scales(const KvView& kv, uint32_t head, uint32_t position) {
  return kv_scales(kv, kv_page(kv, position) + kv.value_offset, kv.kinds.values, kv.value_dim, head, position);
}

// A position's row of a latent cache, and the int8 scale of it; those that follow in its page lie behind.
static inline std::byte* latent_page(const LatentView& kv, uint32_t position) {
  return kv.base + kv.pages[position / kv.page_tokens] * kv.page_stride;
}
static inline std::byte* latent_row(const LatentView& kv, uint32_t position) {
  return latent_page(kv, position) + kv_bytes(kv.kind, uint64_t{position % kv.page_tokens} * kv_row_elements(kv.width));
}
static inline float* latent_scale(const LatentView& kv, uint32_t position) {
  const uint64_t rows = uint64_t{kv.page_tokens} * kv_row_elements(kv.width);
  return reinterpret_cast<float*>(latent_page(kv, position) + rows) + position % kv.page_tokens;
}

static inline uint32_t first_seen(uint32_t position, uint32_t window, uint32_t chunk) {
  const uint32_t of_window = window && position >= window ? position - window + 1 : 0, of_chunk = chunk ? position / chunk * chunk : 0;
  return of_window > of_chunk ? of_window : of_chunk;
}

}  // namespace gptq::kernels
