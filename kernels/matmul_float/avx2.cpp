// SPDX-License-Identifier: Apache-2.0
// matmul_float in 8 lanes.
#include "kernels/matmul_float/x86.h"

namespace gptq::kernels {
namespace {

struct FloatAvx2 {
  static constexpr int tokens = 3;
  static constexpr bool adds_tiles = true;

  // A tile times one token's columns, added in the order of dot().
  template <Kind kind>
  GPTQ_INLINE void add_tile(const uint8_t* codes, const RowScales& s, const float* x, float (&sums)[16][8]) {
#pragma GCC unroll 1
    for (uint32_t line = 0; line < (kind == Kind::q8 ? 16 : 8); ++line) {
      const auto load = [&](uint32_t half) __attribute__((always_inline)) {
        return kind == Kind::q8 ? Nibbles{load_half(codes + 64 * line, half), {}} : load_nibbles<kind>(codes, line, half);
      };
      const Nibbles rows[2] = {load(0), load(1)};
      const uint32_t other = kind == Kind::q8 ? line : line + 8;
      const LaneScales low = lane_scales(s, line), high = lane_scales(s, other);
      __m256 low_sum = _mm256_load_ps(sums[line]), high_sum = _mm256_load_ps(sums[other]);
#pragma GCC unroll 8
      for (int at = 0; at < 8; ++at) {
        const __m256 columns = _mm256_loadu_ps(x + at * 8);
        low_sum = _mm256_fmadd_ps(unpack_bytes(rows[at % 2].low, low, at / 2), columns, low_sum);
        if (kind != Kind::q8) high_sum = _mm256_fmadd_ps(unpack_bytes(rows[at % 2].high, high, at / 2), columns, high_sum);
      }
      if (kind != Kind::q8) _mm256_store_ps(sums[other], high_sum);
      _mm256_store_ps(sums[line], low_sum);
    }
  }

  // 4 rows x T tokens.
  template <Kind kind, int T>
  GPTQ_INLINE void dot(const Rows& w, const float* x, uint64_t x_stride, float (&sums)[T][4]) {
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
        if constexpr (T == 1 || kind != Kind::f32) prefetch(static_cast<const char*>(w.data) + (row + k + w.ahead) * (bits_of(kind) / 8));
        return load8<kind>(w.data, row + k);
      };
      add(load_w, [&](const float* token) { return _mm256_loadu_ps(token + k); });
    }
    if (const uint32_t rest = w.columns - k)
      add([&](uint64_t row) { return load_some<kind>(w.data, row + k, rest); },
          [&](const float* token) { return load_some<Kind::f32>(token, k, rest); });
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) _mm_storeu_ps(sums[t], sum_lanes(acc[0][t], acc[1][t], acc[2][t], acc[3][t]));
  }
};

}  // namespace

void matmul_float_avx2(const MatmulArgs& a) { matmul_float<FloatAvx2>(a); }

}  // namespace gptq::kernels
