// SPDX-License-Identifier: Apache-2.0
// matmul_float: 16 rows x 256 columns at a time become float32 in L1, then every output is a dot product in 8 lanes with columns in
// increasing order. A single token takes floating weights straight from memory, in the same order.
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

// 4 rows x T tokens.
template <Kind kind, int T>
GPTQ_INLINE void dot(const Rows& w, const float* x, uint64_t x_stride, float (*part)[16]) {
  __m256 acc[4][T];
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r)
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) acc[r][t] = _mm256_setzero_ps();
  const auto add = [&](auto load_w, auto load_x) __attribute__((always_inline)) {
    __m256 columns[T];
#pragma GCC unroll 4
    for (uint64_t t = 0; t < T; ++t) columns[t] = load_x(x + t * x_stride);
#pragma GCC unroll 4
    for (uint64_t r = 0; r < 4; ++r) {
      const __m256 row = load_w(r * w.stride);
#pragma GCC unroll 4
      for (uint64_t t = 0; t < T; ++t) acc[r][t] = _mm256_fmadd_ps(row, columns[t], acc[r][t]);
    }
  };
  uint32_t k = 0;
  for (; k + 8 <= w.columns; k += 8) {
    const auto load_w = [&](uint64_t row) {
      if constexpr (T == 1) _mm_prefetch(static_cast<const char*>(w.data) + (row + k + w.ahead) * (bits_of(kind) / 8), _MM_HINT_T0);
      return load8<kind>(w.data, row + k);
    };
    add(load_w, [&](const float* token) { return _mm256_loadu_ps(token + k); });
  }
  if (const uint32_t rest = w.columns - k)
    add([&](uint64_t row) { return load_some<kind>(w.data, row + k, rest); },
        [&](const float* token) { return load_some<Kind::f32>(token, k, rest); });
#pragma GCC unroll 4
  for (int t = 0; t < T; ++t) _mm_storeu_ps(part[t], sum_lanes(acc[0][t], acc[1][t], acc[2][t], acc[3][t]));
}

// 16 rows x T tokens, added to y.
template <Kind kind, int T>
__attribute__((noinline)) void multiply(const MatmulArgs& a, const Rows& w, uint32_t block, uint32_t first_column, uint32_t token) {
  const float* x = a.x + uint64_t{token} * a.w->k_padded + first_column;
  alignas(32) float part[T][16];
  for (uint32_t r = 0; r < 16; r += 4) {
    const Rows four = {static_cast<const char*>(w.data) + r * w.stride * (bits_of(kind) / 8), w.stride, w.ahead, w.columns};
    float sums[T][16];
    dot<kind, T>(four, x, a.w->k_padded, sums);
    for (int t = 0; t < T; ++t) memcpy(part[t] + r, sums[t], 16);
  }
  for (uint32_t t = 0; t < T; ++t) add_rows(a, token + t, block, first_column == 0, part[t]);
}

// The chunk as float32; rows past n stay as they are.
template <Kind kind>
void fill_panel(const Matrix& w, uint32_t block, uint32_t first_column, uint32_t columns, float* panel) {
  if constexpr (is_quantized(kind)) {
    for (uint32_t column = 0; column < columns; column += 64) {
      const uint32_t tile = (first_column + column) / 64;
      TileScales scales;
      load_tile_scales(w, block, tile, scales);
      const uint64_t at = (uint64_t{block} * (w.k_padded / 64) + tile) * tile_bytes(kind);
      expand_tile<kind>(static_cast<const uint8_t*>(w.codes) + at, scales, panel + column, chunk_columns);
    }
  } else {
    for (uint32_t row = 0; row < 16 && block * 16 + row < w.n; ++row) {
      const uint64_t from = (uint64_t{block} * 16 + row) * w.k + first_column;
      uint32_t k = 0;
      for (; k + 8 <= columns; k += 8) _mm256_store_ps(panel + row * chunk_columns + k, load8<kind>(w.codes, from + k));
      if (k < columns) _mm256_store_ps(panel + row * chunk_columns + k, load_some<kind>(w.codes, from + k, columns - k));
    }
  }
}

template <Kind kind>
void multiply_block(const MatmulArgs& a, uint32_t block, uint32_t chunk, uint32_t token, uint32_t last_token) {
  const uint32_t first = chunk * chunk_columns, rest = a.w->k_padded - first, columns = rest < chunk_columns ? rest : chunk_columns;
  if constexpr (!is_quantized(kind)) {
    if (last_token - token == 1 && block * 16 + 16 <= a.w->n) {
      const auto* data = static_cast<const char*>(a.w->codes) + (uint64_t{block} * 16 * a.w->k + first) * (bits_of(kind) / 8);
      return multiply<kind, 1>(a, {data, a.w->k, uint64_t{a.w->k} * 16, columns}, block, first, token);
    }
  }
  alignas(64) float panel[16 * chunk_columns];
  if (block * 16 + 16 > a.w->n) memset(panel, 0, sizeof panel);
  fill_panel<kind>(*a.w, block, first, columns, panel);
  const Rows rows = {panel, chunk_columns, 0, columns};
  for (; last_token - token >= 3; token += 3) multiply<Kind::f32, 3>(a, rows, block, first, token);
  for (; token < last_token; ++token) multiply<Kind::f32, 1>(a, rows, block, first, token);
}

template <Kind kind>
void multiply_all(const MatmulArgs& a) {
  const uint32_t chunks = (a.w->k_padded + chunk_columns - 1) / chunk_columns;
  for_each_chunk(a, chunks, [&](uint32_t block, uint32_t chunk, uint32_t token, uint32_t last_token) {
    multiply_block<kind>(a, block, chunk, token, last_token);
  });
}

}  // namespace

void matmul_float_avx2(const MatmulArgs& a) {
  switch (a.w->kind) {
    case Kind::f32: return multiply_all<Kind::f32>(a);
    case Kind::f16: return multiply_all<Kind::f16>(a);
    case Kind::bf16: return multiply_all<Kind::bf16>(a);
    case Kind::q2: return multiply_all<Kind::q2>(a);
    case Kind::q3: return multiply_all<Kind::q3>(a);
    case Kind::q4: return multiply_all<Kind::q4>(a);
    case Kind::q8: return multiply_all<Kind::q8>(a);
  }
}

}  // namespace gptq::kernels
