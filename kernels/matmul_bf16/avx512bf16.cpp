// SPDX-License-Identifier: Apache-2.0
// matmul_bf16 with vdpbf16ps. 16 rows x 256 columns of code - zero, whole numbers that bfloat16 holds, lie in L1 in pairs of columns, 16 rows
// to a vector; a pair of a token's activations goes to all rows at once, so that sums need no folding and a group's scales are one product.
#include "kernels/x86.h"

namespace gptq::kernels {
namespace {

constexpr uint32_t chunk_columns = 256;  // summed before they are added to y: part of the summation order
constexpr int tokens = 12;               // together: two sums each

// Lanes of a vector hold rows 0-3, 8-11, 4-7, 12-15, as nibbles come apart. The same step leads there and back.
GPTQ_INLINE __m512i swap_lanes(__m512i v) { return _mm512_shuffle_i64x2(v, v, 0xd8); }
GPTQ_INLINE __m512 swap_lanes(__m512 v) { return _mm512_castsi512_ps(swap_lanes(_mm512_castps_si512(v))); }

struct Panel {
  alignas(64) uint32_t pairs[chunk_columns / 2][16];
  // Runs of columns of one group: their scales and where each ends, in pairs.
  alignas(64) float scale[chunk_columns / 16][16];
  uint32_t end[chunk_columns / 16];
  uint32_t runs;
};

// bfloat16 of 0..15, -16..-1: of the low five bits of a number.
struct SmallNumbers {
  alignas(64) uint16_t bits[32];
  constexpr SmallNumbers() : bits() {
    for (int i = 0; i < 32; ++i) bits[i] = static_cast<uint16_t>(__builtin_bit_cast(uint32_t, static_cast<float>(i < 16 ? i : i - 32)) >> 16);
  }
};
constexpr SmallNumbers small_numbers;

// One 4-bit line of a tile, or an 8-bit one.
template <Kind kind>
GPTQ_INLINE __m512i load_line(const uint8_t* tile, uint32_t line) {
  if constexpr (kind == Kind::q4 || kind == Kind::q8) return _mm512_loadu_si512(tile + 64 * line);
  const auto bits = [&](const uint8_t* from, uint32_t shift, char mask) __attribute__((always_inline)) {
    return _mm512_and_si512(_mm512_srl_epi16(_mm512_loadu_si512(from), _mm_cvtsi32_si128(static_cast<int>(shift))), _mm512_set1_epi8(mask));
  };
  const __m512i low = bits(tile + 64 * (line % 4), line / 4 * 2, 0x33);
  if constexpr (kind == Kind::q2) return low;
  return _mm512_or_si512(low, _mm512_slli_epi16(bits(tile + 256 + 64 * (line / 4), line % 4, 0x11), 2));
}

// Four lines -> for each 16-column piece, in lane t the four lines' columns 4t and on.
template <Kind kind>
GPTQ_INLINE void load_quad(const uint8_t* tile, uint32_t line, __m512i (&pieces)[4]) {
  const __m512i v[4] = {load_line<kind>(tile, line), load_line<kind>(tile, line + 1), load_line<kind>(tile, line + 2), load_line<kind>(tile, line + 3)};
  const __m512i low[2] = {_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpacklo_epi32(v[2], v[3])};
  const __m512i high[2] = {_mm512_unpackhi_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[2], v[3])};
  pieces[0] = _mm512_unpacklo_epi64(low[0], low[1]);
  pieces[1] = _mm512_unpackhi_epi64(low[0], low[1]);
  pieces[2] = _mm512_unpacklo_epi64(high[0], high[1]);
  pieces[3] = _mm512_unpackhi_epi64(high[0], high[1]);
}

// Lane t of both vectors, each twice.
GPTQ_INLINE __m512i lane_of_both(__m512i a, __m512i b, int t) {
  return _mm512_permutex2var_epi64(a, _mm512_add_epi64(_mm512_setr_epi64(0, 1, 0, 1, 8, 9, 8, 9), _mm512_set1_epi64(2 * t)), b);
}

// Bytes 0 and 1 of every 32-bit lane, or 2 and 3, as two words.
GPTQ_INLINE __m512i words_of(__m512i v, int pair) {
  const __m512i bytes = _mm512_broadcast_i32x4(_mm_setr_epi8(0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1));
  return _mm512_shuffle_epi8(v, pair ? _mm512_add_epi8(bytes, _mm512_set1_epi16(2)) : bytes);
}

// Zeros of 16 rows, in each byte of their lanes.
GPTQ_INLINE __m512i load_zero_bytes(const Matrix& w, uint64_t group) {
  if (!w.zeros) return _mm512_set1_epi8(static_cast<char>(1 << (bits_of(w.kind) - 1)));
  const __m512i rows = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w.zeros + group * 16)));
  return swap_lanes(_mm512_mullo_epi32(rows, _mm512_set1_epi32(0x01010101)));
}

// Words to bfloat16.
template <Kind kind>
GPTQ_INLINE __m512i subtract_and_convert(__m512i codes, __m512i zeros, int pair) {
  if constexpr (kind != Kind::q8) {
    return _mm512_permutexvar_epi16(words_of(_mm512_sub_epi8(codes, zeros), pair), _mm512_load_si512(small_numbers.bits));
  }
  const __m512i words = _mm512_sub_epi16(words_of(codes, pair), words_of(zeros, 0));
  const __m512i first = _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(words, 16), 16)));
  const __m512i second = _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_srai_epi32(words, 16)));
  return _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(first, 16), second);
}

template <Kind kind>
GPTQ_INLINE void unpack_tile(const Matrix& w, uint32_t block, uint32_t tile, const uint8_t* codes, uint32_t (*pairs)[16]) {
  __m512i quads[kind == Kind::q8 ? 4 : 2][4];
#pragma GCC unroll 4
  for (uint32_t i = 0; i < sizeof quads / sizeof *quads; ++i) load_quad<kind>(codes, i * 4, quads[i]);
#pragma GCC unroll 4
  for (uint32_t c = 0; c < 4; ++c) {
    const __m512i zeros = load_zero_bytes(w, uint64_t{block} * n_groups(w) + (tile * 64 + c * 16) / w.group);
#pragma GCC unroll 4
    for (int t = 0; t < 4; ++t) {
      __m512i v = lane_of_both(quads[0][c], quads[1][c], t);
      if constexpr (kind == Kind::q8) {
        v = _mm512_mask_blend_epi64(0xcc, v, lane_of_both(quads[2][c], quads[3][c], t));
      } else {
        v = _mm512_and_si512(_mm512_srlv_epi64(v, _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4)), _mm512_set1_epi8(15));
      }
#pragma GCC unroll 2
      for (int p = 0; p < 2; ++p) _mm512_store_si512(pairs[c * 8 + static_cast<uint32_t>(t * 2 + p)], subtract_and_convert<kind>(v, zeros, p));
    }
  }
}

template <Kind kind>
void fill_panel(const Matrix& w, uint32_t block, uint32_t first_column, uint32_t columns, Panel& panel) {
  for (uint32_t column = 0; column < columns; column += 64) {
    const uint32_t tile = (first_column + column) / 64;
    const auto* codes = static_cast<const uint8_t*>(w.codes) + (uint64_t{block} * (w.k_padded / 64) + tile) * tile_bytes(kind);
    prefetch_part<tile_bytes(kind)>(codes + 4096, 0);
    unpack_tile<kind>(w, block, tile, codes, panel.pairs + column / 2);
  }
  panel.runs = 0;
  for (uint32_t column = first_column, last = first_column + columns; column < last; ++panel.runs) {
    const uint32_t group = column / w.group;
    __m256 low, high;
    load_scales(w, uint64_t{block} * n_groups(w) + group, low, high);
    const __m512 scale = _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
    _mm512_store_ps(panel.scale[panel.runs], swap_lanes(scale));
    column = last - column < w.group - column % w.group ? last : (group + 1) * w.group;
    panel.end[panel.runs] = (column - first_column) / 2;
  }
}

// Two activations, for every row.
GPTQ_INLINE __m512bh load_pair(const uint16_t* x) {
  int pair;
  memcpy(&pair, x, sizeof pair);
  return __builtin_bit_cast(__m512bh, _mm512_set1_epi32(pair));
}

// 16 rows x T tokens, added to y.
template <int T>
__attribute__((noinline)) void multiply(const MatmulArgs& a, const Panel& panel, uint32_t block, uint32_t first_column, uint32_t token) {
  const uint64_t stride = a.w->k_padded;
  const uint16_t* x = a.x16 + token * stride + first_column;
  __m512 sums[T];
#pragma GCC unroll 12
  for (int t = 0; t < T; ++t) sums[t] = _mm512_setzero_ps();
  for (uint32_t run = 0, pair = 0; run < panel.runs; ++run) {
    __m512 dots[T];
#pragma GCC unroll 12
    for (int t = 0; t < T; ++t) dots[t] = _mm512_setzero_ps();
    for (; pair < panel.end[run]; ++pair) {
      const auto codes = __builtin_bit_cast(__m512bh, _mm512_load_si512(panel.pairs[pair]));
#pragma GCC unroll 12
      for (uint64_t t = 0; t < T; ++t) dots[t] = _mm512_dpbf16_ps(dots[t], codes, load_pair(x + t * stride + 2 * pair));
    }
    const __m512 scale = _mm512_load_ps(panel.scale[run]);
#pragma GCC unroll 12
    for (int t = 0; t < T; ++t) sums[t] = _mm512_fmadd_ps(dots[t], scale, sums[t]);
  }
  alignas(64) float part[T][16];
#pragma GCC unroll 12
  for (int t = 0; t < T; ++t) _mm512_store_ps(part[t], swap_lanes(sums[t]));
#pragma GCC unroll 1
  for (uint32_t t = 0; t < T; ++t) add_rows(a, token + t, block, first_column == 0, part[t]);
}

template <Kind kind>
void multiply_all(const MatmulArgs& a) {
  const uint32_t chunks = (a.w->k_padded + chunk_columns - 1) / chunk_columns;
  Panel panel;
  for_each_chunk(a, chunks, [&](uint32_t block, uint32_t chunk, uint32_t token, uint32_t last_token) {
    const uint32_t first = chunk * chunk_columns, rest = a.w->k_padded - first;
    fill_panel<kind>(*a.w, block, first, rest < chunk_columns ? rest : chunk_columns, panel);
    for (; last_token - token >= tokens; token += tokens) multiply<tokens>(a, panel, block, first, token);
    for (; last_token - token >= 4; token += 4) multiply<4>(a, panel, block, first, token);
    for (; token < last_token; ++token) multiply<1>(a, panel, block, first, token);
  });
}

}  // namespace

void matmul_bf16_avx512bf16(const MatmulArgs& a) {
  with_quantized_kind(a.w->kind, [&]<Kind kind>() { multiply_all<kind>(a); });
}

}  // namespace gptq::kernels
