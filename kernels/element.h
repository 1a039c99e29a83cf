// SPDX-License-Identifier: Apache-2.0
// One weight at a time, as kernels.h defines them: what the reference kernels are written with.
#pragma once
#include "kernels/half.h"
#include "kernels/layout.h"

namespace gptq::kernels {

static inline float load_element(const void* data, uint64_t index, Kind kind) {
  if (kind == Kind::f32) return static_cast<const float*>(data)[index];
  const uint16_t bits = static_cast<const uint16_t*>(data)[index];
  return kind == Kind::f16 ? float_from_half(bits) : float_from_bf16(bits);
}

static inline float weight_at(const Matrix& w, uint32_t row, uint32_t column) {
  if (!is_quantized(w.kind)) return load_element(w.codes, uint64_t{row} * w.k + column, w.kind);
  const uint64_t tile = uint64_t{row} / 16 * (w.k_padded / 64) + column / 64;
  const auto* codes = static_cast<const uint8_t*>(w.codes) + tile * tile_bytes(w.kind);
  const int code = static_cast<int>(read_code(codes, w.kind, row % 16, column % 64));
  const uint64_t group = (uint64_t{row} / 16 * n_groups(w) + column / w.group) * 16 + row % 16;
  const int zero = w.zeros ? w.zeros[group] : 1 << (bits_of(w.kind) - 1);
  return load_element(w.scales, group, w.scales_f32 ? Kind::f32 : Kind::f16) * static_cast<float>(code - zero);
}

}  // namespace gptq::kernels
