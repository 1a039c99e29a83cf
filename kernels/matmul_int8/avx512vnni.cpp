// SPDX-License-Identifier: Apache-2.0
// matmul_int8 with vpdpbusd, a line of 64 bytes at a time: codes are unsigned, activations signed. 8-bit codes are two 4-bit halves, so
// that the sums of a record fit int16 and can be multiplied in one instruction.
#include "kernels/matmul_int8/x86.h"

namespace gptq::kernels {
namespace {

// Two rows of codes.
struct RowPair {
  __m512i low, high;
};

GPTQ_INLINE __m512i load_line(const void* line) { return _mm512_loadu_si512(line); }

// Rows `line` and line + 8 of a tile; 8 bit: the halves of the codes of row `line`.
template <Kind kind>
GPTQ_INLINE RowPair load_rows(const uint8_t* tile, uint32_t line) {
  const __m512i mask = _mm512_set1_epi8(kind == Kind::q2 ? 3 : 15);
  __m512i v;
  if constexpr (kind == Kind::q4 || kind == Kind::q8) {
    v = load_line(tile + 64 * line);
  } else {
    v = _mm512_srl_epi16(load_line(tile + 64 * (line % 4)), _mm_cvtsi32_si128(static_cast<int>(line / 4 * 2)));
  }
  if constexpr (kind == Kind::q3) {
    const __m512i high = _mm512_srl_epi16(load_line(tile + 256 + 64 * (line / 4)), _mm_cvtsi32_si128(static_cast<int>(line % 4)));
    v = _mm512_or_si512(_mm512_and_si512(v, _mm512_set1_epi8(0x33)), _mm512_slli_epi16(_mm512_and_si512(high, _mm512_set1_epi8(0x11)), 2));
  }
  return {_mm512_and_si512(v, mask), _mm512_and_si512(_mm512_srli_epi16(v, 4), mask)};
}

// Two rows of a record: codes, and a scale for each that the step has. 8 bit: the halves of one row.
template <uint32_t tiles>
struct Rows {
  RowPair codes[tiles];
  __m512 scale[2][tiles];
};

struct Avx512Vnni {
  static constexpr uint32_t tokens = 16, lanes = 16;  // half of L1 for the sums

  template <Kind kind, Step step, uint32_t tiles>
  GPTQ_INLINE Rows<tiles> load(const uint8_t* codes, const float* scale, uint32_t line) {
    Rows<tiles> w;
#pragma GCC unroll 2
    for (uint32_t i = 0; i < tiles; ++i) w.codes[i] = load_rows<kind>(codes + i * tile_bytes(kind), line);
#pragma GCC unroll 2
    for (uint32_t i = 0; i < (step == Step::tiles2 ? 1 : tiles); ++i)
#pragma GCC unroll 2
      for (uint32_t r = 0; r < 2; ++r) {
        const uint32_t row = line + (kind == Kind::q8 ? 0 : 8 * r);
        w.scale[r][i] = step == Step::pieces ? _mm512_broadcast_f32x4(_mm_loadu_ps(scale + i * 64 + row * 4)) : _mm512_set1_ps(scale[i * 16 + row]);
        if (kind == Kind::q8 && r) w.scale[r][i] = _mm512_mul_ps(w.scale[r][i], _mm512_set1_ps(16));
      }
    return w;
  }

  // Sums of codes * q fit int16, so vpmaddwd multiplies them, each with a multiplier and a zero above it.
  template <Kind kind, Step step, uint32_t tiles>
  GPTQ_INLINE void add_token(const Rows<tiles>& w, const Record& x, float* sum) {
    constexpr uint32_t steps = step == Step::tiles2 ? 1 : tiles, count = tiles / steps;
    // Broadcast by the load: after the shift it would be a shuffle, on the ports that all the rest waits for.
    const __m512i twice = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x.multiplier)));
    const __m512i multipliers = _mm512_srli_epi32(twice, 16);
    __m512 sums[2] = {_mm512_load_ps(sum), kind == Kind::q8 ? _mm512_setzero_ps() : _mm512_load_ps(sum + lanes)};
#pragma GCC unroll 2
    for (uint32_t s = 0; s < steps; ++s) {
      __m512i low = _mm512_setzero_si512(), high = low;
#pragma GCC unroll 2
      for (uint32_t i = 0; i < count; ++i) {
        const __m512i q = load_line(x.q + 64 * (s * count + i));
        low = _mm512_dpbusd_epi32(low, w.codes[s * count + i].low, q);
        high = _mm512_dpbusd_epi32(high, w.codes[s * count + i].high, q);
      }
      __m512& high_of = kind == Kind::q8 ? sums[0] : sums[1];
      sums[0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_madd_epi16(low, multipliers)), w.scale[0][s], sums[0]);
      high_of = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_madd_epi16(high, multipliers)), w.scale[1][s], high_of);
    }
    _mm512_store_ps(sum, sums[0]);
    if (kind != Kind::q8) _mm512_store_ps(sum + lanes, sums[1]);
  }

  // All 16 rows of a record, or of its first tile.
  template <Kind kind, Step step, uint32_t tiles, uint32_t T>
  GPTQ_INLINE void add_record(const uint8_t* codes, const float* scale, const Record* x, uint32_t n, float* sums) {
    constexpr uint32_t rows = rows_of_line<kind>;
#pragma GCC unroll 1
    for (uint32_t line = 0; line < 16 / rows; ++line) {
      prefetch_part<tiles * tile_bytes(kind) * rows / 16>(codes + prefetch_bytes, line);
      const Rows<tiles> w = load<kind, step, tiles>(codes, scale, line);
#pragma GCC unroll 1
      for (uint32_t t = 0; t < (T ? T : n); ++t, sums += rows * lanes) add_token<kind, step, tiles>(w, x[t], sums);
    }
  }

  // The upper half onto the lower.
  GPTQ_INLINE __m256 load_sums(const float* sums) { return _mm256_add_ps(_mm256_load_ps(sums), _mm256_load_ps(sums + 8)); }
};

}  // namespace

void matmul_int8_avx512vnni(const MatmulArgs& a) { matmul_int8<Avx512Vnni>(a); }

}  // namespace gptq::kernels
