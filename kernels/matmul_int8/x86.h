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
  alignas(64) float zeros[Isa::tokens][16];               // what the zero points add
};

// The compiler must not make a memset of it: its rep stos takes longer to begin than a few tokens' sums take to clear.
GPTQ_INLINE void clear(float* data, uint32_t count) {
  __m256 zero = _mm256_setzero_ps();
  asm("" : "+x"(zero));
  for (uint32_t i = 0; i < count; i += 8) _mm256_store_ps(data + i, zero);
}

template <class Isa, Step step>
void add_zeros(const MatmulArgs& a, const ChunkScales<step>& chunk, uint32_t first_sum, uint32_t n_sums, uint32_t token, uint32_t tokens,
               Accumulators<Isa>& acc) {
  for (uint32_t t = 0; t < tokens; ++t) {
    const float* sums = a.x8.sum + uint64_t{first_sum} * a.x8.rows + token + t;
    __m256 low = _mm256_load_ps(acc.zeros[t]), high = _mm256_load_ps(acc.zeros[t] + 8);
    for (uint32_t s = 0; s < n_sums; ++s) {
      const __m256 sum = _mm256_broadcast_ss(sums + uint64_t{s} * a.x8.rows);
      low = _mm256_fmadd_ps(sum, _mm256_load_ps(chunk.zero + s * 16), low);
      high = _mm256_fmadd_ps(sum, _mm256_load_ps(chunk.zero + s * 16 + 8), high);
    }
    _mm256_store_ps(acc.zeros[t], low);
    _mm256_store_ps(acc.zeros[t] + 8, high);
  }
}

template <Kind kind>
constexpr uint32_t rows_of_line = kind == Kind::q8 ? 1 : 2;

// T: the number of tokens where it is known, else 0.
template <class Isa, Kind kind, Step step, uint32_t T>
__attribute__((noinline)) void multiply_block(const MatmulArgs& a, uint32_t block, uint32_t token, uint32_t n) {
  constexpr uint32_t rows = rows_of_line<kind>;
  const uint32_t tokens = T ? T : n;
  Accumulators<Isa> acc;
  clear(acc.sums, 16 * Isa::lanes * tokens);
  clear(acc.zeros[0], 16 * tokens);
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
    add_zeros<Isa>(a, chunk, first * (record_columns / sum_columns<step>), n_sums, token, tokens, acc);
  }
  for (uint32_t t = 0; t < tokens; ++t) {
    const __m256 scale = _mm256_broadcast_ss(a.x8.scale + token + t);
    alignas(32) float part[16];
    for (uint32_t r = 0; r < 16; r += 4) _mm_store_ps(part + r, Isa::sum_rows(acc.sums + ((r % (16 / rows) * tokens + t) * rows + r / (16 / rows)) * Isa::lanes, tokens * rows * Isa::lanes));
    for (uint32_t r = 0; r < 16; r += 8)
      _mm256_store_ps(part + r, _mm256_mul_ps(_mm256_sub_ps(_mm256_load_ps(part + r), _mm256_load_ps(acc.zeros[t] + r)), scale));
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
