// SPDX-License-Identifier: Apache-2.0
// One row of a matrix as float32.
#include "kernels/layout.h"
#include "kernels/tiles_neon.h"

namespace gptq::kernels {
namespace {

template <Kind kind>
void copy_row(const Matrix& w, uint32_t row, float* out) {
  const uint64_t from = uint64_t{row} * w.k;
  uint32_t k = 0;
  for (; k + lanes <= w.k; k += lanes) store(out + k, load_as<kind>(w.codes, from + k));
  store_part(out + k, load_part_as<kind>(w.codes, from + k, w.k - k), w.k - k);
}

// Four columns in a row are four bytes of a line, of one 16-column piece.
template <Kind kind>
void expand_row(const Matrix& w, uint32_t row, float* out) {
  const uint32_t n_tiles = w.k_padded / 64, line = kind == Kind::q8 ? row % 16 : row % 8;
  for (uint32_t tile = 0; tile < n_tiles; ++tile) {
    const auto* codes = static_cast<const uint8_t*>(w.codes) + (uint64_t{row} / 16 * n_tiles + tile) * tile_bytes(kind);
    RowScales scales;
    load_row_scales(w, row / 16, tile, scales);
    uint8_t bytes[64];
    for (uint32_t half = 0; half < 2; ++half) {
      const Nibbles nibbles = load_nibbles<kind>(codes, line, half);
      vst1q_u8_x2(bytes + 32 * half, kind == Kind::q8 ? load_half(codes + 64 * line, half) : row % 16 < 8 ? nibbles.low : nibbles.high);
    }
    for (uint32_t column = tile * 64; column < tile * 64 + 64; column += 4) {
      const uint32_t piece = column % 64 / 16;
      const Floats scale = all(scales.scale[row % 16][piece]), zero = all(scales.zero[row % 16][piece]);
      float values[4];
      store(values, multiply(scale, subtract(load_bytes(bytes + line_byte(column % 64)), zero)));
      for (uint32_t j = 0; j < 4; ++j)
        if (const int64_t input = w.perm ? w.perm[column + j] : column + j < w.k ? int64_t{column} + j : -1; input >= 0) out[input] = values[j];
    }
  }
}

}  // namespace

void dequantize_row_neon(const DequantizeRowArgs& a) {
  switch (a.w->kind) {
    case Kind::f32: return copy_row<Kind::f32>(*a.w, a.row, a.out);
    case Kind::f16: return copy_row<Kind::f16>(*a.w, a.row, a.out);
    case Kind::bf16: return copy_row<Kind::bf16>(*a.w, a.row, a.out);
    case Kind::q2: return expand_row<Kind::q2>(*a.w, a.row, a.out);
    case Kind::q3: return expand_row<Kind::q3>(*a.w, a.row, a.out);
    case Kind::q4: return expand_row<Kind::q4>(*a.w, a.row, a.out);
    case Kind::q8: return expand_row<Kind::q8>(*a.w, a.row, a.out);
  }
}

}  // namespace gptq::kernels
