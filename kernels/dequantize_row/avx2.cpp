// SPDX-License-Identifier: Apache-2.0
// One row of a matrix as float32.
#include "kernels/tiles_x86.h"

namespace gptq::kernels {
namespace {

template <Kind kind>
void dequantize(const DequantizeRowArgs& a) {
  const Matrix& w = *a.w;
  if constexpr (!is_quantized(kind)) {
    const uint64_t from = uint64_t{a.row} * w.k;
    uint32_t k = 0;
    for (; k + 8 <= w.k; k += 8) _mm256_storeu_ps(a.out + k, load8<kind>(w.codes, from + k));
    if (k < w.k) store_some(a.out + k, load_some<kind>(w.codes, from + k, w.k - k), w.k - k);
  } else {
    const uint32_t row = a.row % 16, n_tiles = w.k_padded / 64;
    for (uint32_t tile = 0; tile < n_tiles; ++tile) {
      const auto* codes = static_cast<const uint8_t*>(w.codes) + (uint64_t{a.row} / 16 * n_tiles + tile) * tile_bytes(kind);
      TileScales scales;
      load_tile_scales(w, a.row / 16, tile, scales);
      float columns[64];
      if constexpr (kind == Kind::q8) {
        expand_row(load_half(codes + 64 * row, 0), load_half(codes + 64 * row, 1), scales, row, columns);
      } else {
        const Nibbles first = load_nibbles<kind>(codes, row % 8, 0), second = load_nibbles<kind>(codes, row % 8, 1);
        if (row < 8) expand_row(first.low, second.low, scales, row, columns);
        else expand_row(first.high, second.high, scales, row, columns);
      }
      const uint32_t rest = w.k_padded - tile * 64;
      for (uint32_t j = 0; w.perm && j < rest && j < 64; ++j)
        if (const int32_t input = w.perm[tile * 64 + j]; input >= 0) a.out[input] = columns[j];
      if (!w.perm && tile * 64 < w.k) memcpy(a.out + tile * 64, columns, (w.k - tile * 64 < 64 ? w.k - tile * 64 : 64) * sizeof(float));
    }
  }
}

}  // namespace

void dequantize_row_avx2(const DequantizeRowArgs& a) {
  with_kind(a.w->kind, [&]<Kind kind>() { dequantize<kind>(a); });
}

}  // namespace gptq::kernels
