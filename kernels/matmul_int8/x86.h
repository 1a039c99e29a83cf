// SPDX-License-Identifier: Apache-2.0
// matmul_int8 around the dot products of an instruction set. Codes of a few lines of a tile stay in registers while the tokens pass by,
// and every line and token has a vector of sums, so that unpacking weights costs the less the more tokens there are and the same code is
// right for one token and for many. Zero points come off through the sums of the activations.
//
// A line goes as four vectors, t = 0..3: 16 bytes hold four columns of each 16-column block, low nibbles fill the lower half of a vector,
// high nibbles the upper half, and the sums of all four have a 32-bit lane for each block of two rows. So a vector of multipliers and one
// of scales finish it, whatever the groups are. 8-bit codes are two 4-bit halves, and a line is a row.
#pragma once
#include "kernels/x86.h"

namespace gptq::kernels {
namespace {

constexpr uint32_t chunk_tiles = 16;  // whose scales are worked out at a time
constexpr uint32_t prefetch_bytes = 4096;

template <Kind kind>
constexpr uint32_t lines_of = kind == Kind::q8 ? 16 : 8;

// Scales of 16 rows for the tiles of a chunk.
template <Kind kind, uint32_t sum_columns>
struct ChunkScales {
  static constexpr uint32_t sums_of_tile = 64 / sum_columns;
  alignas(64) float scale[chunk_tiles][lines_of<kind>][8];
  alignas(64) float zero[chunk_tiles * sums_of_tile][16];  // scale * zero
};

// [row][piece] of rows r and r + 8 side by side, from the rows' scales for each of the four 16-column pieces.
GPTQ_INLINE void pair_rows(const __m256 (&low)[4], const __m256 (&high)[4], __m256 (&pairs)[8]) {
  __m256 rows[2][4];  // rows r and r + 4 of each half
  transpose(low, rows[0]);
  transpose(high, rows[1]);
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    pairs[r] = _mm256_permute2f128_ps(rows[0][r], rows[1][r], 0x20);
    pairs[r + 4] = _mm256_permute2f128_ps(rows[0][r], rows[1][r], 0x31);
  }
}

GPTQ_INLINE void pair_rows(__m256 low, __m256 high, __m256 (&pairs)[8]) {
  const __m256 first = _mm256_permute2f128_ps(low, high, 0x20), second = _mm256_permute2f128_ps(low, high, 0x31);
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const __m256 v = i ? second : first;
    pairs[4 * i] = _mm256_permute_ps(v, 0x00);
    pairs[4 * i + 1] = _mm256_permute_ps(v, 0x55);
    pairs[4 * i + 2] = _mm256_permute_ps(v, 0xaa);
    pairs[4 * i + 3] = _mm256_permute_ps(v, 0xff);
  }
}

template <Kind kind>
GPTQ_INLINE void store_scales(const __m256 (&pairs)[8], float (*out)[8]) {
  const __m256 halves = _mm256_setr_ps(1, 1, 1, 1, 16, 16, 16, 16);
#pragma GCC unroll 8
  for (int r = 0; r < 8; ++r) {
    if constexpr (kind == Kind::q8) {
      _mm256_store_ps(out[r], _mm256_mul_ps(_mm256_permute2f128_ps(pairs[r], pairs[r], 0x00), halves));
      _mm256_store_ps(out[r + 8], _mm256_mul_ps(_mm256_permute2f128_ps(pairs[r], pairs[r], 0x11), halves));
    } else {
      _mm256_store_ps(out[r], pairs[r]);
    }
  }
}

template <Kind kind, uint32_t sum_columns>
void load_chunk_scales(const Matrix& w, uint32_t block, uint32_t first_tile, uint32_t tiles, ChunkScales<kind, sum_columns>& chunk) {
  constexpr uint32_t n_sums = 64 / sum_columns;
  for (uint32_t tile = 0; tile < tiles; ++tile) {
    __m256 low[n_sums], high[n_sums], pairs[8];
    for (uint32_t s = 0; s < n_sums; ++s) {
      const uint64_t group = uint64_t{block} * n_groups(w) + ((first_tile + tile) * 64 + s * sum_columns) / w.group;
      __m256 zero[2];
      load_scales(w, group, low[s], high[s]);
      load_zeros(w, group, zero[0], zero[1]);
      _mm256_store_ps(chunk.zero[tile * n_sums + s], _mm256_mul_ps(low[s], zero[0]));
      _mm256_store_ps(chunk.zero[tile * n_sums + s] + 8, _mm256_mul_ps(high[s], zero[1]));
    }
    if constexpr (n_sums == 1) pair_rows(low[0], high[0], pairs);
    else pair_rows(low, high, pairs);
    store_scales<kind>(pairs, chunk.scale[tile]);
  }
}

// The sums of one block of rows for up to Isa::tokens tokens, without gaps for fewer: [lines together][token][line of these][8].
template <class Isa, Kind kind>
struct Accumulators {
  alignas(64) float sums[lines_of<kind> * Isa::tokens * 8];
  alignas(64) float zeros[Isa::tokens][16];  // what the zero points add

  const float* of(uint32_t line, uint32_t token, uint32_t tokens) const {
    return sums + ((line / Isa::lines * tokens + token) * Isa::lines + line % Isa::lines) * 8;
  }
};

// The compiler must not make a memset of it: its rep stos takes longer to begin than a few tokens' sums take to clear.
GPTQ_INLINE void clear(float* data, uint32_t lines) {
  __m256 zero = _mm256_setzero_ps();
  asm("" : "+x"(zero));
#pragma GCC unroll 4
  for (uint32_t i = 0; i < lines; ++i) {
    _mm256_store_ps(data + i * 16, zero);
    _mm256_store_ps(data + i * 16 + 8, zero);
  }
}

// T tokens' sums times what the scales and zeros of 16 rows come to.
template <uint32_t T>
GPTQ_INLINE void add_zeros_of(const float* sums, uint32_t stride, const float (*zero)[16], uint32_t n_sums, float (*to)[16]) {
  __m256 low[T], high[T];
  for (uint32_t t = 0; t < T; ++t) {
    low[t] = _mm256_load_ps(to[t]);
    high[t] = _mm256_load_ps(to[t] + 8);
  }
#pragma GCC unroll 1
  for (uint32_t s = 0; s < n_sums; ++s, sums += stride)
#pragma GCC unroll 4
    for (uint32_t t = 0; t < T; ++t) {
      const __m256 sum = _mm256_broadcast_ss(sums + t);
      low[t] = _mm256_fmadd_ps(sum, _mm256_load_ps(zero[s]), low[t]);
      high[t] = _mm256_fmadd_ps(sum, _mm256_load_ps(zero[s] + 8), high[t]);
    }
  for (uint32_t t = 0; t < T; ++t) {
    _mm256_store_ps(to[t], low[t]);
    _mm256_store_ps(to[t] + 8, high[t]);
  }
}

__attribute__((noinline)) void add_zeros(const Int8Activations& x, uint64_t first_sum, uint32_t token, uint32_t tokens,
                                         const float (*zero)[16], uint32_t n_sums, float (*to)[16]) {
  const float* sums = x.sum + first_sum * x.rows + token;
  uint32_t t = 0;
  for (; t + 4 <= tokens; t += 4) add_zeros_of<4>(sums + t, x.rows, zero, n_sums, to + t);
  for (; t < tokens; ++t) add_zeros_of<1>(sums + t, x.rows, zero, n_sums, to + t);
}

// The halves of four lines, each as (0+1)+(2+3).
template <class Acc>
GPTQ_INLINE __m256 sum_lines(const Acc& acc, uint32_t line, uint32_t token, uint32_t tokens) {
  const auto at = [&](uint32_t i) { return _mm256_load_ps(acc.of(line + i, token, tokens)); };
  return add_pairs(add_pairs(at(0), at(1)), add_pairs(at(2), at(3)));
}

// 16 rows of a token.
template <Kind kind, class Acc>
GPTQ_INLINE void sum_rows(const Acc& acc, uint32_t token, uint32_t tokens, __m256& low, __m256& high) {
  __m256 sums[lines_of<kind> / 4];
#pragma GCC unroll 4
  for (uint32_t i = 0; i < lines_of<kind> / 4; ++i) sums[i] = sum_lines(acc, i * 4, token, tokens);
  low = _mm256_permute2f128_ps(sums[0], sums[1], 0x20);
  high = _mm256_permute2f128_ps(sums[0], sums[1], 0x31);
  if constexpr (kind == Kind::q8) {
    low = _mm256_add_ps(low, high);
    high = _mm256_add_ps(_mm256_permute2f128_ps(sums[2], sums[3], 0x20), _mm256_permute2f128_ps(sums[2], sums[3], 0x31));
  }
}

// All lines of a tile for n tokens, or T where their number is known.
template <class Isa, Kind kind, uint32_t T>
GPTQ_INLINE void add_tile(const uint8_t* tile, const float (*scale)[8], const Record* x, uint32_t n, float* sums) {
  constexpr uint32_t lines = Isa::lines;
#pragma GCC unroll 1
  for (uint32_t line = 0; line < lines_of<kind>; line += lines) {
    prefetch_part<tile_bytes(kind) * lines / lines_of<kind>>(tile + prefetch_bytes, line / lines);
    const typename Isa::Lines w = Isa::template load_lines<kind>(tile, line);
    uint32_t t = 0;
#pragma GCC unroll 1
    for (; t + 2 <= (T ? T : n); t += 2, sums += 2 * lines * 8) {
      Isa::add_token(w, scale + line, x[t], sums);
      Isa::add_token(w, scale + line, x[t + 1], sums + lines * 8);
    }
    if (t == (T ? T : n)) continue;
    Isa::add_token(w, scale + line, x[t], sums);
    sums += lines * 8;
  }
}

template <class Isa, Kind kind, uint32_t sum_columns, uint32_t T>
__attribute__((noinline)) void multiply_block(const MatmulArgs& a, uint32_t block, uint32_t token, uint32_t n) {
  const uint32_t tokens = T ? T : n, n_tiles = a.w->k_padded / 64;
  Accumulators<Isa, kind> acc;
  clear(acc.sums, lines_of<kind> / 2 * tokens);
  clear(acc.zeros[0], tokens);
  const uint8_t* codes = static_cast<const uint8_t*>(a.w->codes) + uint64_t{block} * n_tiles * tile_bytes(kind);
  const Record* x = a.x8.records + token;
  ChunkScales<kind, sum_columns> chunk;
  for (uint32_t first = 0; first < n_tiles; first += chunk_tiles) {
    const uint32_t tiles = n_tiles - first < chunk_tiles ? n_tiles - first : chunk_tiles;
    load_chunk_scales(*a.w, block, first, tiles, chunk);
    for (uint32_t tile = 0; tile < tiles; ++tile, x += a.x8.rows, codes += tile_bytes(kind))
      add_tile<Isa, kind, T>(codes, chunk.scale[tile], x, tokens, acc.sums);
    add_zeros(a.x8, first * (64 / sum_columns), token, tokens, chunk.zero, tiles * (64 / sum_columns), acc.zeros);
  }
  for (uint32_t t = 0; t < tokens; ++t) {
    const __m256 scale = _mm256_broadcast_ss(a.x8.scale + token + t);
    __m256 low, high;
    sum_rows<kind>(acc, t, tokens, low, high);
    alignas(32) float part[16];
    _mm256_store_ps(part, _mm256_mul_ps(_mm256_sub_ps(low, _mm256_load_ps(acc.zeros[t])), scale));
    _mm256_store_ps(part + 8, _mm256_mul_ps(_mm256_sub_ps(high, _mm256_load_ps(acc.zeros[t] + 8)), scale));
    add_rows(a, token + t, block, true, part);
  }
}

template <class Isa, Kind kind, uint32_t sum_columns>
void multiply_all(const MatmulArgs& a) {
  for (uint32_t token = 0; token < a.m; token += Isa::tokens) {
    const uint32_t tokens = a.m - token < Isa::tokens ? a.m - token : Isa::tokens;
    for (uint32_t block = a.first_block; block < a.last_block; ++block) {
      if (tokens == 1) multiply_block<Isa, kind, sum_columns, 1>(a, block, token, tokens);
      else multiply_block<Isa, kind, sum_columns, 0>(a, block, token, tokens);
    }
  }
}

template <class Isa, Kind kind>
void multiply_codes(const MatmulArgs& a) {
  a.x8.sum_block == 64 ? multiply_all<Isa, kind, 64>(a) : multiply_all<Isa, kind, 16>(a);
}

template <class Isa>
void matmul_int8(const MatmulArgs& a) {
  with_quantized_kind(a.w->kind, [&]<Kind kind>() { multiply_codes<Isa, kind>(a); });
}

}  // namespace
}  // namespace gptq::kernels
