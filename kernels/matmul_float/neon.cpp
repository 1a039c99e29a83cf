// SPDX-License-Identifier: Apache-2.0
// matmul_float with NEON: 16 rows x 256 columns at a time become float32 in L1, then every output is a dot product with columns in that order.
#include "kernels/tiles_neon.h"

namespace gptq::kernels {
namespace {

constexpr uint32_t chunk_columns = 256;  // summed before they are added to y: part of the summation order

struct Panel {
  float rows[16][chunk_columns];
};

// Half a line of codes, byte by byte of its 32-bit lanes: out[float_place].
GPTQ_INLINE void unpack(const Half& codes, Floats scale, Floats zero, float* out) {
#pragma GCC unroll 2
  for (int j = 0; j < 2; ++j) {
    uint32x4_t words = vreinterpretq_u32_u8(codes.val[j]);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i, words = vshrq_n_u32(words, 8))
      store(out + i * 16 + j * 4, multiply(scale, subtract(vcvtq_f32_u32(vandq_u32(words, vdupq_n_u32(255))), zero)));
  }
}

template <Kind kind>
void unpack_tile(const uint8_t* codes, const RowScales& s, uint32_t column, Panel& panel) {
  for (uint32_t line = 0; line < (kind == Kind::q8 ? 16 : 8); ++line)
    for (uint32_t half = 0; half < 2; ++half) {
      const auto unpack_row = [&](const Half& row_codes, uint32_t row) {
        unpack(row_codes, load(s.scale[row]), load(s.zero[row]), panel.rows[row] + column + half * 8);
      };
      if constexpr (kind == Kind::q8) {
        unpack_row(load_half(codes + 64 * line, half), line);
      } else {
        const Nibbles nibbles = load_nibbles<kind>(codes, line, half);
        unpack_row(nibbles.low, line);
        unpack_row(nibbles.high, line + 8);
      }
    }
}

// Rows past n stay as they are.
template <Kind kind>
void fill_panel(const Matrix& w, uint32_t block, uint32_t first, uint32_t columns, Panel& panel) {
  if constexpr (is_quantized(kind)) {
    RowScales scales;
    for (uint32_t column = 0; column < columns; column += 64) {
      const uint32_t tile = (first + column) / 64;
      const bool same_group = column && w.group % 64 == 0 && tile * 64 % w.group;
      if (!same_group) load_row_scales(w, block, tile, scales);
      const uint64_t at = (uint64_t{block} * (w.k_padded / 64) + tile) * tile_bytes(kind);
      unpack_tile<kind>(static_cast<const uint8_t*>(w.codes) + at, scales, column, panel);
    }
  } else {
    for (uint32_t row = 0; row < 16 && block * 16 + row < w.n; ++row) {
      const uint64_t from = (uint64_t{block} * 16 + row) * w.k + first;
      uint32_t k = 0;
      for (; k + lanes <= columns; k += lanes) store(panel.rows[row] + k, load_as<kind>(w.codes, from + k));
      if (k < columns) store(panel.rows[row] + k, load_part_as<kind>(w.codes, from + k, columns - k));
    }
  }
}

// Four rows times T tokens; every output is summed in the same order for any T.
template <uint32_t T>
GPTQ_INLINE void dot(const float (*rows)[chunk_columns], const float* x, uint32_t x_stride, uint32_t columns, float* sums) {
  Floats acc[T][4];
#pragma GCC unroll 4
  for (uint32_t t = 0; t < T; ++t)
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) acc[t][r] = all(0);
  const auto add_columns = [&](uint32_t k, auto load_x) __attribute__((always_inline)) {
    Floats row[4];
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) row[r] = load(rows[r] + k);
#pragma GCC unroll 4
    for (uint32_t t = 0; t < T; ++t) {
      const Floats token = load_x(x + uint64_t{t} * x_stride + k);
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) acc[t][r] = fma(row[r], token, acc[t][r]);
    }
  };
  uint32_t k = 0;
  for (; k + lanes <= columns; k += lanes) add_columns(k, [](const float* token) { return load(token); });
  if (k < columns) add_columns(k, [&](const float* token) { return load_part(token, columns - k); });
#pragma GCC unroll 4
  for (uint32_t t = 0; t < T; ++t) sums_of(acc[t][0], acc[t][1], acc[t][2], acc[t][3], sums + t * 16);
}

// A chunk of 16 rows times T tokens, added to y.
template <uint32_t T>
void multiply_panel(const MatmulArgs& a, const Panel& panel, uint32_t block, uint32_t first, uint32_t columns, uint32_t token) {
  const uint32_t row = block * 16, rows = a.w->n - row < 16 ? a.w->n - row : 16;
  const float* x = a.x + uint64_t{token} * a.w->k_padded + first;
  float sums[T * 16];
  for (uint32_t r = 0; r < 16; r += 4) dot<T>(panel.rows + r, x, a.w->k_padded, columns, sums + r);
  for (uint32_t t = 0; t < T; ++t) {
    float* y = a.y + uint64_t{token + t} * a.y_stride + row;
    for (uint32_t r = 0; r < rows; ++r) {
      const float bias = first == 0 && a.bias ? a.bias[row + r] : 0;
      y[r] = sums[t * 16 + r] + ((a.accumulate || first ? y[r] : 0) + bias);
    }
  }
}

template <Kind kind>
void multiply_block(const MatmulArgs& a, uint32_t block, uint32_t first) {
  constexpr uint32_t together = 4;  // 16 registers of sums
  const uint32_t rest = a.w->k_padded - first, columns = rest < chunk_columns ? rest : chunk_columns;
  Panel panel;
  if (block * 16 + 16 > a.w->n) memset(&panel, 0, sizeof panel);
  fill_panel<kind>(*a.w, block, first, columns, panel);
  uint32_t token = 0;
  for (; token + together <= a.m; token += together) multiply_panel<together>(a, panel, block, first, columns, token);
  for (; token < a.m; ++token) multiply_panel<1>(a, panel, block, first, columns, token);
}

template <Kind kind>
void multiply_kind(const MatmulArgs& a) {
  for (uint32_t block = a.first_block; block < a.last_block; ++block)
    for (uint32_t first = 0; first < a.w->k_padded; first += chunk_columns) multiply_block<kind>(a, block, first);
}

}  // namespace

void matmul_float_neon(const MatmulArgs& a) {
  with_kind(a.w->kind, [&]<Kind kind>() { multiply_kind<kind>(a); });
}

}  // namespace gptq::kernels
