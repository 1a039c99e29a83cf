// SPDX-License-Identifier: Apache-2.0
// matmul_int8 without VNNI: vpmaddubsw multiplies 4-bit codes with int8, eight such products still fit int16, and vpmaddwd brings in
// the blocks' multipliers: 8 * 15 * 127 * 32767 * 2 < 2^31. 8-bit codes are two 4-bit halves.
#include "kernels/matmul_int8/x86.h"
#include "kernels/tiles_x86.h"

namespace gptq::kernels {
namespace {

// Two rows of a record, or (8 bit) the halves of one: codes, and a scale for each that the step has.
template <uint32_t tiles>
struct RowPair {
  Nibbles codes[2 * tiles];
  __m256 scale[2][tiles];
};

struct Avx2 {
  static constexpr uint32_t tokens = 32, lanes = 8;  // so that the sums stay in L1

  template <Kind kind, Step step, uint32_t tiles>
  GPTQ_INLINE RowPair<tiles> load_rows(const uint8_t* codes, const float* scale, uint32_t line) {
    RowPair<tiles> w;
#pragma GCC unroll 4
    for (uint32_t i = 0; i < 2 * tiles; ++i) w.codes[i] = load_nibbles<kind>(codes + i / 2 * tile_bytes(kind), line, i % 2);
#pragma GCC unroll 2
    for (uint32_t i = 0; i < (step == Step::tiles2 ? 1 : tiles); ++i)
#pragma GCC unroll 2
      for (uint32_t r = 0; r < 2; ++r) {
        const uint32_t row = line + (kind == Kind::q8 ? 0 : 8 * r);
        w.scale[r][i] = step == Step::pieces ? _mm256_broadcast_ps(reinterpret_cast<const __m128*>(scale + i * 64 + row * 4))
                                             : _mm256_broadcast_ss(scale + i * 16 + row);
        if (kind == Kind::q8 && r) w.scale[r][i] = _mm256_mul_ps(w.scale[r][i], _mm256_set1_ps(16));
      }
    return w;
  }

  template <Kind kind, Step step, uint32_t tiles>
  GPTQ_INLINE void add_token(const RowPair<tiles>& w, const Record& x, float* sum) {
    constexpr uint32_t steps = step == Step::tiles2 ? 1 : tiles, halves = 2 * tiles / steps;
    const __m256i multipliers = load_half(x.multiplier, 0);
    __m256 sums[2] = {_mm256_load_ps(sum), kind == Kind::q8 ? _mm256_setzero_ps() : _mm256_load_ps(sum + lanes)};
#pragma GCC unroll 2
    for (uint32_t s = 0; s < steps; ++s) {
      __m256i low, high;
#pragma GCC unroll 4
      for (uint32_t i = 0; i < halves; ++i) {
        const Nibbles& codes = w.codes[s * halves + i];
        const __m256i q = load_half(x.q, s * halves + i);
        low = i ? _mm256_add_epi16(low, _mm256_maddubs_epi16(codes.low, q)) : _mm256_maddubs_epi16(codes.low, q);
        high = i ? _mm256_add_epi16(high, _mm256_maddubs_epi16(codes.high, q)) : _mm256_maddubs_epi16(codes.high, q);
        asm("" : "+x"(low), "+x"(high));  // in this order: a tree of sums would push codes out of the registers
      }
      __m256& high_of = kind == Kind::q8 ? sums[0] : sums[1];
      sums[0] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_madd_epi16(low, multipliers)), w.scale[0][s], sums[0]);
      high_of = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_madd_epi16(high, multipliers)), w.scale[1][s], high_of);
    }
    _mm256_store_ps(sum, sums[0]);
    if (kind != Kind::q8) _mm256_store_ps(sum + lanes, sums[1]);
  }

  // All 16 rows of a record, or of its first tile.
  template <Kind kind, Step step, uint32_t tiles, uint32_t T>
  GPTQ_INLINE void add_record(const uint8_t* codes, const float* scale, const Record* x, uint32_t n, float* sums) {
    constexpr uint32_t rows = rows_of_line<kind>;
#pragma GCC unroll 1
    for (uint32_t line = 0; line < 16 / rows; ++line) {
      prefetch_part<tiles * tile_bytes(kind) * rows / 16>(codes + prefetch_bytes, line);
      const RowPair<tiles> w = load_rows<kind, step, tiles>(codes, scale, line);
      uint32_t t = 0;
#pragma GCC unroll 1
      for (; t + 2 <= (T ? T : n); t += 2, sums += 2 * rows * lanes) {
        add_token<kind, step, tiles>(w, x[t], sums);
        add_token<kind, step, tiles>(w, x[t + 1], sums + rows * lanes);
      }
      if (t == (T ? T : n)) continue;
      add_token<kind, step, tiles>(w, x[t], sums);
      sums += rows * lanes;
    }
  }

  GPTQ_INLINE __m256 load_sums(const float* sums) { return _mm256_load_ps(sums); }
};

}  // namespace

void matmul_int8_avx2(const MatmulArgs& a) { matmul_int8<Avx2>(a); }

}  // namespace gptq::kernels
