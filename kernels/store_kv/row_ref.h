// SPDX-License-Identifier: Apache-2.0
// One row into a cache: the specification.
#pragma once
#include <math.h>

#include "kernels/half.h"
#include "kernels/kv.h"

namespace gptq::kernels {

// NaN wins, so that it reaches the outputs.
static inline float largest(const float* x, uint32_t n) {
  float max = 0;
  for (uint32_t d = 0; d < n && !isnan(max); ++d)
    if (!(fabsf(x[d]) <= max)) max = fabsf(x[d]);
  return max;
}

static inline int8_t code(float q) { return static_cast<int8_t>(isfinite(q) ? nearbyintf(q) : 0); }

// The row's elements are `step` apart.
static inline void store_row(std::byte* to, uint32_t step, const float* from, uint32_t dim, KvKind kind, float* int8_scale) {
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

}  // namespace gptq::kernels
