// SPDX-License-Identifier: Apache-2.0
// 256-bit helpers of the x86 kernels. Everything is static: these files are compiled once per instruction set.
#pragma once
#include <immintrin.h>

#include "kernels/common.h"

namespace gptq::kernels {

// What vhaddps does, in fewer steps.
GPTQ_INLINE __m256 add_pairs(__m256 a, __m256 b) { return _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x88), _mm256_shuffle_ps(a, b, 0xdd)); }

// ((v0+v1)+(v2+v3)) + ((v4+v5)+(v6+v7)) of four vectors.
GPTQ_INLINE __m128 sum_lanes(__m256 a, __m256 b, __m256 c, __m256 d) {
  const __m256 sums = add_pairs(add_pairs(a, b), add_pairs(c, d));
  return _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
}

// Eight elements as float32; index counts elements.
template <Kind kind>
GPTQ_INLINE __m256 load8(const void* data, uint64_t index) {
  if constexpr (kind == Kind::f32) return _mm256_loadu_ps(static_cast<const float*>(data) + index);
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(static_cast<const uint16_t*>(data) + index));
  if constexpr (kind == Kind::f16) return _mm256_cvtph_ps(bits);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

// The first count of them, zeros behind; reads nothing past them.
template <Kind kind>
GPTQ_INLINE __m256 load_some(const void* data, uint64_t index, uint32_t count) {
  constexpr uint32_t size = bits_of(kind) / 8;
  float part[8] = {};
  if (count) memcpy(part, static_cast<const char*>(data) + index * size, count * size);
  return load8<kind>(part, 0);
}

GPTQ_INLINE void store_some(float* to, __m256 v, uint32_t count) {
  float part[8];
  _mm256_storeu_ps(part, v);
  if (count) memcpy(to, part, count * sizeof *part);
}

// The 16 scales of a group of rows.
GPTQ_INLINE void load_scales(const Matrix& w, uint64_t group, __m256& low, __m256& high) {
  low = w.scales_f32 ? load8<Kind::f32>(w.scales, group * 16) : load8<Kind::f16>(w.scales, group * 16);
  high = w.scales_f32 ? load8<Kind::f32>(w.scales, group * 16 + 8) : load8<Kind::f16>(w.scales, group * 16 + 8);
}

// Their 16 zeros.
GPTQ_INLINE void load_zeros(const Matrix& w, uint64_t group, __m256& low, __m256& high) {
  low = high = _mm256_set1_ps(static_cast<float>(1 << (bits_of(w.kind) - 1)));
  if (!w.zeros) return;
  const __m128i zeros = _mm_loadu_si128(reinterpret_cast<const __m128i*>(w.zeros + group * 16));
  low = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(zeros));
  high = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(zeros, 8)));
}

// Four vectors of eight rows -> vectors of four elements of row r, then of row r + 4.
GPTQ_INLINE void transpose(const __m256 (&pieces)[4], __m256 (&rows)[4]) {
  const __m256 low[2] = {_mm256_unpacklo_ps(pieces[0], pieces[1]), _mm256_unpacklo_ps(pieces[2], pieces[3])};
  const __m256 high[2] = {_mm256_unpackhi_ps(pieces[0], pieces[1]), _mm256_unpackhi_ps(pieces[2], pieces[3])};
  rows[0] = _mm256_shuffle_ps(low[0], low[1], 0x44);
  rows[1] = _mm256_shuffle_ps(low[0], low[1], 0xee);
  rows[2] = _mm256_shuffle_ps(high[0], high[1], 0x44);
  rows[3] = _mm256_shuffle_ps(high[0], high[1], 0xee);
}

// The same into memory, [row][4].
GPTQ_INLINE void store_transposed(const __m256 (&pieces)[4], float* out) {
  __m256 rows[4];
  transpose(pieces, rows);
  for (int r = 0; r < 4; ++r) {
    _mm_store_ps(out + r * 4, _mm256_castps256_ps128(rows[r]));
    _mm_store_ps(out + (r + 4) * 4, _mm256_extractf128_ps(rows[r], 1));
  }
}

// Calls f(block, chunk, first_token, last_token) with the chunks of a block in order. Many tokens go in parts whose chunk of
// activations stays in L2; with few tokens a block of rows is finished at once, so that the weights are read in order.
template <class F>
GPTQ_INLINE void for_each_chunk(const MatmulArgs& a, uint32_t chunks, F f) {
  constexpr uint32_t part = 256, few = 8;
  const uint32_t blocks = a.last_block - a.first_block;
  for (uint32_t token = 0; token < a.m; token += part) {
    const uint32_t last_token = a.m - token < part ? a.m : token + part;
    for (uint64_t i = 0; i < uint64_t{blocks} * chunks; ++i) {
      const uint64_t block = a.m <= few ? i / chunks : i % blocks, chunk = a.m <= few ? i % chunks : i / blocks;
      f(a.first_block + static_cast<uint32_t>(block), static_cast<uint32_t>(chunk), token, last_token);
    }
  }
}

// rows (up to 16) outputs: y = part + (first ? bias + (accumulate ? y : 0) : y).
GPTQ_INLINE void add_rows(const MatmulArgs& a, uint32_t token, uint32_t block, bool first, const float part[16]) {
  const uint32_t row = block * 16, rows = a.w->n - row < 16 ? a.w->n - row : 16;
  float* y = a.y + uint64_t{token} * a.y_stride + row;
  const bool add = a.accumulate || !first;
  const float* bias = first && a.bias ? a.bias + row : nullptr;
  if (rows < 16) {
    for (uint32_t r = 0; r < rows; ++r) y[r] = part[r] + ((add ? y[r] : 0.0f) + (bias ? bias[r] : 0.0f));
    return;
  }
  for (uint32_t r = 0; r < 16; r += 8) {
    __m256 base = add ? _mm256_loadu_ps(y + r) : _mm256_setzero_ps();
    if (bias) base = _mm256_add_ps(base, _mm256_loadu_ps(bias + r));
    _mm256_storeu_ps(y + r, _mm256_add_ps(_mm256_loadu_ps(part + r), base));
  }
}

}  // namespace gptq::kernels
