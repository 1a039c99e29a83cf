// SPDX-License-Identifier: Apache-2.0
// Activations to int8: the specification.
#include <math.h>

#include "kernels/kernels.h"

namespace gptq::kernels {
namespace {

float input(const PackInt8Args& a, uint32_t i, uint32_t column) {
  const int64_t from = a.perm ? a.perm[column] : column < a.k ? int64_t{column} : -1;
  return from < 0 ? 0.0f : a.x[uint64_t{i} * a.k + static_cast<uint64_t>(from)];
}

// NaN wins, so that it reaches the outputs.
float largest(const PackInt8Args& a, uint32_t i, uint32_t begin) {
  float max = 0;
  for (uint32_t column = begin; column < begin + activation_block; ++column) {
    const float x = fabsf(input(a, i, column));
    if (!(x <= max)) max = x;
    if (isnan(max)) return max;
  }
  return max;
}

}  // namespace

void pack_int8_ref(const PackInt8Args& a) {
  const Int8Activations& out = a.out;
  const uint32_t n_sums = (out.k_padded + out.sum_block - 1) / out.sum_block;
  for (uint32_t i = 0; i < a.m; ++i)
    for (uint32_t begin = 0; begin < out.k_padded; begin += activation_block) {
      const float max = largest(a, i, begin);
      const float scale = max < 1e-30f ? 0 : max / 127, inverse = max < 1e-30f ? 0 : 127 / max;
      out.scale[(uint64_t{i} * out.k_padded + begin) / activation_block] = scale;
      int sum = 0;
      for (uint32_t column = begin; column < begin + activation_block; ++column) {
        const float q = nearbyintf(input(a, i, column) * inverse);
        const int8_t code = isfinite(q) ? static_cast<int8_t>(q) : 0;
        out.q[uint64_t{i} * out.k_padded + column / 64 * 64 + line_byte(column % 64)] = code;
        sum += code;
      }
      float& sums = out.sum[uint64_t{i} * n_sums + begin / out.sum_block];
      sums = (begin % out.sum_block ? sums : 0) + scale * static_cast<float>(sum);
    }
}

}  // namespace gptq::kernels
