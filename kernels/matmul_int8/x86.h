// SPDX-License-Identifier: Apache-2.0
// matmul_int8 around the dot products of an instruction set. Isa::dot adds up one line of a chunk of tiles for T tokens; here are the
// blocking over rows, columns and tokens, the scales, and the zero points, which come off through the sums of the activations.
#pragma once
#include "kernels/x86.h"

namespace gptq::kernels {
namespace {

// What one weight scale covers: two tiles, one, or a 16-column piece of one.
enum class Step { tiles2, tiles1, pieces };

constexpr uint32_t chunk_tiles = 16;     // summed before they are added to y: part of the summation order
constexpr uint32_t prefetch_bytes = 4096;

constexpr uint32_t tiles_of(Step step) { return step == Step::tiles2 ? 2 : 1; }

// 16 rows of a chunk.
struct Chunk {
  const uint8_t* codes;
  uint32_t tiles;
  uint64_t ahead;                             // bytes from a line to the one to prefetch
  alignas(64) float scale[chunk_tiles * 64];  // [steps][16], or [tiles][16][4] for pieces
  alignas(64) float zero[chunk_tiles * 64];   // [sums][16]: scale * zero
};

// The activations of T tokens for it.
template <int T>
struct Tokens {
  const int8_t* q[T];
  const float* scale[T];  // four a tile
  const float* sum[T];
};

template <Step step>
void load_chunk_scales(const Matrix& w, uint32_t block, uint32_t first_tile, Chunk& chunk) {
  constexpr uint32_t columns = step == Step::pieces ? 16 : tiles_of(step) * 64;
  const uint32_t n_sums = (chunk.tiles * 64 + columns - 1) / columns;
  for (uint32_t s = 0; s < n_sums; ++s) {
    const uint64_t group = uint64_t{block} * n_groups(w) + (first_tile * 64 + s * columns) / w.group;
    __m256 scale[2], zero[2];
    load_scales(w, group, scale[0], scale[1]);
    load_zeros(w, group, zero[0], zero[1]);
    for (int half = 0; half < 2; ++half) {
      _mm256_store_ps(chunk.zero + s * 16 + half * 8, _mm256_mul_ps(scale[half], zero[half]));
      if constexpr (step != Step::pieces) _mm256_store_ps(chunk.scale + s * 16 + half * 8, scale[half]);
    }
    if constexpr (step == Step::pieces) {
      float rows[16];
      _mm256_storeu_ps(rows, scale[0]);
      _mm256_storeu_ps(rows + 8, scale[1]);
      for (int row = 0; row < 16; ++row) chunk.scale[s / 4 * 64 + row * 4 + s % 4] = rows[row];
    }
  }
}

template <class Isa, Kind kind, Step step, int T>
void multiply(const MatmulArgs& a, const Chunk& chunk, uint32_t block, uint32_t first_tile, uint32_t token) {
  constexpr uint32_t sum_columns = step == Step::pieces ? 16 : tiles_of(step) * 64;
  const Int8Activations& x = a.x8;
  const uint32_t n_sums = (x.k_padded + sum_columns - 1) / sum_columns;
  Tokens<T> tokens;
  for (int t = 0; t < T; ++t) {
    const uint64_t i = token + static_cast<uint32_t>(t);
    tokens.q[t] = x.q + i * x.k_padded + first_tile * 64;
    tokens.scale[t] = x.scale + i * (x.k_padded / activation_block) + first_tile * 4;
    tokens.sum[t] = x.sum + i * n_sums + first_tile * 64 / sum_columns;
  }
  alignas(64) float part[T][16];
  Isa::template dot<kind, step, T>(chunk, tokens, part);
  const uint32_t sums = (chunk.tiles * 64 + sum_columns - 1) / sum_columns;
  for (int t = 0; t < T; ++t) {
    __m256 low = _mm256_load_ps(part[t]), high = _mm256_load_ps(part[t] + 8);
    for (uint32_t s = 0; s < sums; ++s) {
      const __m256 sum = _mm256_broadcast_ss(tokens.sum[t] + s);
      low = _mm256_fnmadd_ps(sum, _mm256_load_ps(chunk.zero + s * 16), low);
      high = _mm256_fnmadd_ps(sum, _mm256_load_ps(chunk.zero + s * 16 + 8), high);
    }
    _mm256_store_ps(part[t], low);
    _mm256_store_ps(part[t] + 8, high);
    add_rows(a, token + static_cast<uint32_t>(t), block, first_tile == 0, part[t]);
  }
}

template <class Isa, Kind kind, Step step>
void multiply_block(const MatmulArgs& a, uint32_t block, uint32_t first_tile, uint32_t first_token, uint32_t last_token) {
  const uint32_t n_tiles = a.w->k_padded / 64;
  Chunk chunk;
  chunk.tiles = n_tiles - first_tile < chunk_tiles ? n_tiles - first_tile : chunk_tiles;
  chunk.codes = static_cast<const uint8_t*>(a.w->codes) + (uint64_t{block} * n_tiles + first_tile) * tile_bytes(kind);
  chunk.ahead = prefetch_bytes;
  load_chunk_scales<step>(*a.w, block, first_tile, chunk);
  uint32_t token = first_token;
  for (; last_token - token >= 4; token += 4) {
    multiply<Isa, kind, step, 4>(a, chunk, block, first_tile, token);
    chunk.ahead = 0;
  }
  if (last_token - token >= 2) {
    multiply<Isa, kind, step, 2>(a, chunk, block, first_tile, token);
    chunk.ahead = 0;
    token += 2;
  }
  if (token < last_token) multiply<Isa, kind, step, 1>(a, chunk, block, first_tile, token);
}

template <class Isa, Kind kind, Step step>
void multiply_all(const MatmulArgs& a) {
  const uint32_t chunks = (a.w->k_padded / 64 + chunk_tiles - 1) / chunk_tiles;
  for_each_chunk(a, chunks, [&](uint32_t block, uint32_t chunk, uint32_t token, uint32_t last_token) {
    multiply_block<Isa, kind, step>(a, block, chunk * chunk_tiles, token, last_token);
  });
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
