// SPDX-License-Identifier: Apache-2.0
// Keys and values into the pages of a KV cache: the specification.
#include <math.h>

#include "kernels/half.h"
#include "kernels/kv.h"

namespace gptq::kernels {
namespace {

// NaN wins, so that it reaches the outputs.
float largest(const float* x, uint32_t n) {
  float max = 0;
  for (uint32_t d = 0; d < n && !isnan(max); ++d)
    if (!(fabsf(x[d]) <= max)) max = fabsf(x[d]);
  return max;
}

int8_t code(float q) { return static_cast<int8_t>(isfinite(q) ? nearbyintf(q) : 0); }

// The row's elements are `step` apart.
void store_row(std::byte* to, uint32_t step, const float* from, uint32_t dim, KvKind kind, float* int8_scale) {
  const float max = largest(from, dim), inverse = max < 1e-30f ? 0 : 127 / max;
  for (uint32_t d = 0; d < kv_row_elements(dim); ++d) {
    const float x = d < dim ? from[d] : 0;
    switch (kind) {
      case KvKind::f32: reinterpret_cast<float*>(to)[d * step] = x; break;
      case KvKind::f16: reinterpret_cast<uint16_t*>(to)[d * step] = half_from_float(x); break;
      case KvKind::i8: reinterpret_cast<int8_t*>(to)[d * step] = code(x * inverse); break;
    }
  }
  if (kind == KvKind::i8) *int8_scale = max < 1e-30f ? 0 : max / 127;
}

}  // namespace

void store_kv_ref(const StoreKvArgs& a) {
  for (uint32_t i = 0; i < a.m; ++i)
    for (uint32_t head = 0; head < a.kv.n_kv_heads; ++head) {
      const uint32_t position = a.first_position + i, k_dim = a.kv.key_dim, v_dim = a.kv.value_dim;
      const float* k = a.k + uint64_t{i} * a.k_stride + uint64_t{head} * k_dim;
      const float* v = a.v + uint64_t{i} * a.v_stride + uint64_t{head} * v_dim;
      store_row(kv_key(a.kv, head, position), 16, k, k_dim, a.kv.kind, kv_key_scales(a.kv, head, position));
      store_row(kv_value(a.kv, head, position), 1, v, v_dim, a.kv.kind, kv_value_scales(a.kv, head, position));
    }
}

}  // namespace gptq::kernels
