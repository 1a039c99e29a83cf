// SPDX-License-Identifier: Apache-2.0
// Weights one by one, whatever their kind: for the embedding, and to be written out as float16.
#pragma once
#include "kernels/cuda/simt.h"

namespace gptq::cuda {

GPTQ_DEVICE float element(const void* data, uint64_t index, kernels::Kind kind) {
  if (kind == kernels::Kind::f32) return static_cast<const float*>(data)[index];
  const uint16_t bits = static_cast<const uint16_t*>(data)[index];
  return kind == kernels::Kind::f16 ? half_value(bits) : bf16_value(bits);
}

// The codes of four columns, one in each byte.
GPTQ_DEVICE uint32_t four_codes(const kernels::Matrix& w, uint32_t row, uint32_t column) {
  const uint64_t tile = uint64_t{row} / 16 * (w.k_padded / 64) + column / 64;
  const uint8_t* codes = static_cast<const uint8_t*>(w.codes) + tile * kernels::tile_bytes(w.kind) + kernels::line_byte(column % 64);
  const auto line = [&](uint32_t i) { return *reinterpret_cast<const uint32_t*>(codes + 64 * i); };
  const uint32_t r = row % 16, nibble = r / 8 * 4, g = r % 8;
  if (w.kind == kernels::Kind::q8) return line(r);
  if (w.kind == kernels::Kind::q4) return line(g) >> nibble & 0x0f0f0f0f;
  const uint32_t low = line(g % 4) >> (nibble + g / 4 * 2) & 0x03030303;
  return w.kind == kernels::Kind::q2 ? low : low | (line(4 + g / 4) >> (nibble + g % 4) & 0x01010101) << 2;
}

// Columns `column`, a multiple of 4, to `column` + 3; 0 past k_padded.
GPTQ_DEVICE void four_weights(const kernels::Matrix& w, uint32_t row, uint32_t column, float (&v)[4]) {
  if (!kernels::is_quantized(w.kind)) {
    for (uint32_t i = 0; i < 4; ++i) v[i] = column + i < w.k ? element(w.codes, uint64_t{row} * w.k + column + i, w.kind) : 0.0f;
    return;
  }
  const uint64_t group = (uint64_t{row} / 16 * kernels::n_groups(w) + column / w.group) * 16 + row % 16;
  const int zero = w.zeros ? w.zeros[group] : 1 << (kernels::bits_of(w.kind) - 1);
  const float scale = element(w.scales, group, w.scales_f32 ? kernels::Kind::f32 : kernels::Kind::f16);
  const uint32_t codes = four_codes(w, row, column);
  for (uint32_t i = 0; i < 4; ++i) v[i] = scale * static_cast<float>(static_cast<int>(codes >> (8 * i) & 0xff) - zero);
}

// Four columns of a row, each with the input it is for; what is padding has none.
template <class F>
GPTQ_DEVICE void each_of_four(const kernels::Matrix& w, uint32_t row, uint32_t column, F f) {
  if (column >= w.k_padded) return;
  float v[4];
  four_weights(w, row, column, v);
  for (uint32_t i = 0; i < 4; ++i) {
    const int input = w.perm ? w.perm[column + i] : static_cast<int>(column + i);
    if (static_cast<uint32_t>(input) < w.k) f(static_cast<uint32_t>(input), v[i]);  // -1: padding
  }
}

}  // namespace gptq::cuda
