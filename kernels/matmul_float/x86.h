// SPDX-License-Identifier: Apache-2.0
// matmul_float around the dot products of an instruction set: 16 rows x 256 columns at a time become float32 in L1, then every output is
// a dot product with columns in the order of the panel. Few tokens do without the panel, in the same order.
#pragma once
#include "kernels/tiles_x86.h"

namespace gptq::kernels {
namespace {

constexpr uint32_t chunk_columns = 256;  // summed before they are added to y: part of the summation order

// Rows of one chunk. stride: elements from one row to the next; ahead: from an element to the one to prefetch.
struct Rows {
  const void* data;
  uint64_t stride, ahead;
  uint32_t columns;
};

// 16 rows x T tokens, added to y.
template <class Isa, Kind kind, int T>
__attribute__((noinline)) void multiply_chunk(const MatmulArgs& a, const Rows& w, uint32_t block, uint32_t first_column, uint32_t token) {
  const float* x = a.x + uint64_t{token} * a.w->k_padded + first_column;
  alignas(32) float part[T][16];
  for (uint32_t r = 0; r < 16; r += 4) {
    const Rows four = {static_cast<const char*>(w.data) + r * w.stride * (bits_of(kind) / 8), w.stride, w.ahead, w.columns};
    float sums[T][4];
    Isa::template dot<kind, T>(four, x, a.w->k_padded, sums);
    for (int t = 0; t < T; ++t) memcpy(part[t] + r, sums[t], sizeof sums[t]);
  }
  for (uint32_t t = 0; t < T; ++t) add_rows(a, token + t, block, first_column == 0, part[t]);
}

// The same with the first n tokens, or T.
template <class Isa, Kind kind, int T = Isa::tokens>
void multiply_few(const MatmulArgs& a, const Rows& w, uint32_t block, uint32_t first_column, uint32_t token, uint32_t n) {
  if constexpr (T > 1) {
    if (n < T) return multiply_few<Isa, kind, T - 1>(a, w, block, first_column, token, n);
  }
  multiply_chunk<Isa, kind, T>(a, w, block, first_column, token);
}

// Calls f(codes, scales, first column within the chunk) for the tiles of a chunk.
template <Kind kind, class F>
GPTQ_INLINE void for_each_tile(const Matrix& w, uint32_t block, uint32_t first_column, uint32_t columns, F f) {
  RowScales scales;
  for (uint32_t column = 0; column < columns; column += 64) {
    const uint32_t tile = (first_column + column) / 64;
    const auto* codes = static_cast<const uint8_t*>(w.codes) + (uint64_t{block} * (w.k_padded / 64) + tile) * tile_bytes(kind);
    prefetch_part<tile_bytes(kind)>(codes + 4096, 0);
    const bool same_group = column && w.group % 64 == 0 && tile * 64 % w.group;
    if (!same_group) load_row_scales(w, block, tile, scales);
    f(codes, scales, column);
  }
}

// The chunk as float32; rows past n stay as they are.
template <Kind kind>
void fill_panel(const Matrix& w, uint32_t block, uint32_t first_column, uint32_t columns, float* panel) {
  if constexpr (is_quantized(kind)) {
    for_each_tile<kind>(w, block, first_column, columns, [&](const uint8_t* codes, const RowScales& scales, uint32_t column) {
      unpack_tile<kind>(codes, scales, panel + column, chunk_columns);
    });
  } else {
    for (uint32_t row = 0; row < 16 && block * 16 + row < w.n; ++row) {
      const uint64_t from = (uint64_t{block} * 16 + row) * w.k + first_column;
      uint32_t k = 0;
      for (; k + 8 <= columns; k += 8) _mm256_store_ps(panel + row * chunk_columns + k, load8<kind>(w.codes, from + k));
      if (k < columns) _mm256_store_ps(panel + row * chunk_columns + k, load_some<kind>(w.codes, from + k, columns - k));
    }
  }
}

// One token times quantized weights, which are multiplied as they are unpacked.
template <class Isa, Kind kind>
void multiply_tiles(const MatmulArgs& a, uint32_t block, uint32_t first_column, uint32_t columns, uint32_t token) {
  const float* x = a.x + uint64_t{token} * a.w->k_padded + first_column;
  alignas(32) float sums[16][8] = {};
  for_each_tile<kind>(*a.w, block, first_column, columns, [&](const uint8_t* codes, const RowScales& scales, uint32_t column) {
    Isa::template add_tile<kind>(codes, scales, x + column, sums);
  });
  alignas(32) float part[16];
  for (uint32_t r = 0; r < 16; r += 4)
    _mm_store_ps(part + r, sum_lanes(_mm256_load_ps(sums[r]), _mm256_load_ps(sums[r + 1]), _mm256_load_ps(sums[r + 2]), _mm256_load_ps(sums[r + 3])));
  add_rows(a, token, block, first_column == 0, part);
}

template <class Isa, Kind kind>
void multiply_block(const MatmulArgs& a, uint32_t block, uint32_t chunk, uint32_t token, uint32_t last_token) {
  const uint32_t first = chunk * chunk_columns, rest = a.w->k_padded - first, columns = rest < chunk_columns ? rest : chunk_columns;
  if constexpr (!is_quantized(kind)) {
    constexpr uint32_t few = 4 * Isa::tokens;
    if (last_token - token <= few && block * 16 + 16 <= a.w->n) {
      const auto* data = static_cast<const char*>(a.w->codes) + (uint64_t{block} * 16 * a.w->k + first) * (bits_of(kind) / 8);
      const Rows rows = {data, a.w->k, uint64_t{a.w->k} * 16, columns};
      for (; token < last_token; token += Isa::tokens) multiply_few<Isa, kind>(a, rows, block, first, token, last_token - token);
      return;
    }
  }
  if constexpr (is_quantized(kind) && Isa::adds_tiles) {
    if (last_token - token == 1) return multiply_tiles<Isa, kind>(a, block, first, columns, token);
  }
  alignas(64) float panel[16 * chunk_columns];
  if (block * 16 + 16 > a.w->n) memset(panel, 0, sizeof panel);
  fill_panel<kind>(*a.w, block, first, columns, panel);
  const Rows rows = {panel, chunk_columns, 0, columns};
  for (; last_token - token >= Isa::tokens; token += Isa::tokens) multiply_chunk<Isa, Kind::f32, Isa::tokens>(a, rows, block, first, token);
  if (token < last_token) multiply_few<Isa, Kind::f32>(a, rows, block, first, token, last_token - token);
}

template <class Isa, Kind kind>
void multiply_all(const MatmulArgs& a) {
  const uint32_t chunks = (a.w->k_padded + chunk_columns - 1) / chunk_columns;
  for_each_chunk(a, chunks, [&](uint32_t block, uint32_t chunk, uint32_t token, uint32_t last_token) {
    multiply_block<Isa, kind>(a, block, chunk, token, last_token);
  });
}

template <class Isa>
void matmul_float(const MatmulArgs& a) {
  with_kind(a.w->kind, [&]<Kind kind>() { multiply_all<Isa, kind>(a); });
}

}  // namespace
}  // namespace gptq::kernels
