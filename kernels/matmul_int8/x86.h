// SPDX-License-Identifier: Apache-2.0
// matmul_int8 around the dot products of an instruction set. The codes of two rows and a record's columns stay in registers while the
// tokens pass by, and every row and token has a vector of sums, so that unpacking weights costs the less the more tokens there are and
// the same code is right for one token and for many. Zero points come off through the sums of the activations.
#pragma once
#include "kernels/x86.h"

namespace gptq::kernels {
namespace {

// What one weight scale covers: a record's two tiles, one, or a 16-column piece of one.
enum class Step { tiles2, tiles1, pieces };

constexpr uint32_t chunk_records = 16;  // whose scales are worked out at a time
constexpr uint32_t prefetch_bytes = 4096;

template <Step step>
constexpr uint32_t sum_columns = step == Step::pieces ? 16 : step == Step::tiles1 ? 64 : 128;

// Scales of 16 rows for the records of a chunk.
template <Step step>
struct ChunkScales {
  static constexpr uint32_t sums = chunk_records * record_columns / sum_columns<step>;
  alignas(64) float scale[sums * 16];  // [sums][16], or [tiles][16][4] for pieces
  alignas(64) float zero[sums * 16];   // [sums][16]: scale * zero
};

template <Step step>
void load_chunk_scales(const Matrix& w, uint32_t block, uint32_t first_record, uint32_t n_sums, ChunkScales<step>& chunk) {
  __m256 pieces[2][4];
  for (uint32_t s = 0; s < n_sums; ++s) {
    const uint64_t group = uint64_t{block} * n_groups(w) + (first_record * record_columns + s * sum_columns<step>) / w.group;
    __m256 scale[2], zero[2];
    load_scales(w, group, scale[0], scale[1]);
    load_zeros(w, group, zero[0], zero[1]);
    for (int half = 0; half < 2; ++half) {
      _mm256_store_ps(chunk.zero + s * 16 + half * 8, _mm256_mul_ps(scale[half], zero[half]));
      if constexpr (step == Step::pieces) {
        pieces[half][s % 4] = scale[half];
        if (s % 4 == 3) store_transposed(pieces[half], chunk.scale + s / 4 * 64 + half * 32);
      } else {
        _mm256_store_ps(chunk.scale + s * 16 + half * 8, scale[half]);
      }
    }
  }
}

// The sums of one block of rows for up to Isa::tokens tokens, without gaps for fewer: [line][token][row of the line][lane], a line being
// rows r and r + 8, or (8 bit) one row.
template <class Isa>
struct Accumulators {
  alignas(64) float sums[16 * Isa::tokens * Isa::lanes];
  alignas(64) float zeros[Isa::tokens][16];  // what the zero points add
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

// T tokens' sums times what the scales and zeros of 16 rows come to, [n_sums][16].
template <uint32_t T>
GPTQ_INLINE void add_zeros_of(const float* sums, uint32_t stride, const float* zero, uint32_t n_sums, float (*to)[16]) {
  __m256 low[T], high[T];
  for (uint32_t t = 0; t < T; ++t) {
    low[t] = _mm256_load_ps(to[t]);
    high[t] = _mm256_load_ps(to[t] + 8);
  }
#pragma GCC unroll 1
  for (uint32_t s = 0; s < n_sums; ++s, sums += stride, zero += 16)
#pragma GCC unroll 4
    for (uint32_t t = 0; t < T; ++t) {
      const __m256 sum = _mm256_broadcast_ss(sums + t);
      low[t] = _mm256_fmadd_ps(sum, _mm256_load_ps(zero), low[t]);
      high[t] = _mm256_fmadd_ps(sum, _mm256_load_ps(zero + 8), high[t]);
    }
  for (uint32_t t = 0; t < T; ++t) {
    _mm256_store_ps(to[t], low[t]);
    _mm256_store_ps(to[t] + 8, high[t]);
  }
}

__attribute__((noinline)) void add_zeros(const Int8Activations& x, uint64_t first_sum, uint32_t token, uint32_t tokens, const float* zero,
                                         uint32_t n_sums, float (*to)[16]) {
  const float* sums = x.sum + first_sum * x.rows + token;
  uint32_t t = 0;
  for (; t + 4 <= tokens; t += 4) add_zeros_of<4>(sums + t, x.rows, zero, n_sums, to + t);
  for (; t < tokens; ++t) add_zeros_of<1>(sums + t, x.rows, zero, n_sums, to + t);
}

// The lanes of eight rows, each as ((0+1)+(2+3)) + ((4+5)+(6+7)).
template <class Isa>
GPTQ_INLINE __m256 sum_rows(const float* sums, uint32_t stride) {
  __m256 quads[2];
#pragma GCC unroll 2
  for (uint32_t i = 0; i < 2; ++i, sums += 4 * stride)
    quads[i] = add_pairs(add_pairs(Isa::load_sums(sums), Isa::load_sums(sums + stride)),
                         add_pairs(Isa::load_sums(sums + 2 * stride), Isa::load_sums(sums + 3 * stride)));
  return _mm256_add_ps(_mm256_permute2f128_ps(quads[0], quads[1], 0x20), _mm256_permute2f128_ps(quads[0], quads[1], 0x31));
}

template <Kind kind>
constexpr uint32_t rows_of_line = kind == Kind::q8 ? 1 : 2;

// T: the number of tokens where it is known, else 0.
template <class Isa, Kind kind, Step step, uint32_t T>
__attribute__((noinline)) void multiply_block(const MatmulArgs& a, uint32_t block, uint32_t token, uint32_t n) {
  constexpr uint32_t rows = rows_of_line<kind>;
  const uint32_t tokens = T ? T : n;
  Accumulators<Isa> acc;
  clear(acc.sums, Isa::lanes * tokens);
  clear(acc.zeros[0], tokens);
  const uint32_t n_tiles = a.w->k_padded / 64;
  const uint8_t* codes = static_cast<const uint8_t*>(a.w->codes) + uint64_t{block} * n_tiles * tile_bytes(kind);
  ChunkScales<step> chunk;
  for (uint32_t first = 0; first < n_records(a.w->k_padded); first += chunk_records) {
    const uint32_t rest = n_tiles - first * 2, tiles = rest < chunk_records * 2 ? rest : chunk_records * 2;
    const uint32_t n_sums = (tiles * 64 + sum_columns<step> - 1) / sum_columns<step>;
    load_chunk_scales<step>(*a.w, block, first, n_sums, chunk);
    const Record* x = a.x8.records + uint64_t{first} * a.x8.rows + token;
    const float* scale = chunk.scale;
    uint32_t tile = 0;
    for (; tile + 2 <= tiles; tile += 2, x += a.x8.rows, codes += 2 * tile_bytes(kind)) {
      Isa::template add_record<kind, step, 2, T>(codes, scale, x, tokens, acc.sums);
      scale += 2048 / sum_columns<step>;
    }
    if (tile < tiles) Isa::template add_record<kind, step, 1, T>(codes, scale, x, tokens, acc.sums);
    add_zeros(a.x8, first * (record_columns / sum_columns<step>), token, tokens, chunk.zero, n_sums, acc.zeros);
  }
  for (uint32_t t = 0; t < tokens; ++t) {
    const __m256 scale = _mm256_broadcast_ss(a.x8.scale + token + t);
    alignas(32) float part[16];
    for (uint32_t r = 0; r < 16; r += 8) {
      const float* sums = acc.sums + ((r % (16 / rows) * tokens + t) * rows + r / (16 / rows)) * Isa::lanes;
      const __m256 whole = sum_rows<Isa>(sums, tokens * rows * Isa::lanes);
      _mm256_store_ps(part + r, _mm256_mul_ps(_mm256_sub_ps(whole, _mm256_load_ps(acc.zeros[t] + r)), scale));
    }
    add_rows(a, token + t, block, true, part);
  }
}

template <class Isa, Kind kind, Step step>
void multiply_all(const MatmulArgs& a) {
  for (uint32_t token = 0; token < a.m; token += Isa::tokens) {
    const uint32_t tokens = a.m - token < Isa::tokens ? a.m - token : Isa::tokens;
    for (uint32_t block = a.first_block; block < a.last_block; ++block) {
      if (tokens == 1) multiply_block<Isa, kind, step, 1>(a, block, token, tokens);
      else multiply_block<Isa, kind, step, 0>(a, block, token, tokens);
    }
  }
}

template <class Isa, Kind kind>
void choose_step(const MatmulArgs& a) {
  if (a.w->group % 64) return multiply_all<Isa, kind, Step::pieces>(a);
  if (a.w->group % 128) return multiply_all<Isa, kind, Step::tiles1>(a);
  multiply_all<Isa, kind, Step::tiles2>(a);
}

template <class Isa>
void matmul_int8(const MatmulArgs& a) {
  switch (a.w->kind) {
    case Kind::q2: return choose_step<Isa, Kind::q2>(a);
    case Kind::q3: return choose_step<Isa, Kind::q3>(a);
    case Kind::q4: return choose_step<Isa, Kind::q4>(a);
    case Kind::q8: return choose_step<Isa, Kind::q8>(a);
    default: return;
  }
}

}  // namespace
}  // namespace gptq::kernels
