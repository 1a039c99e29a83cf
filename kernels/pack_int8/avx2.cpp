// SPDX-License-Identifier: Apache-2.0
// Activations to int8, a line of 64 columns at a time: four blocks of 16.
#include "kernels/x86.h"

namespace gptq::kernels {
namespace {

// 64 columns of token i from column begin on; buffer is used where they do not lie in x as they are.
const float* load_line(const PackInt8Args& a, uint32_t i, uint32_t begin, float* buffer) {
  const float* x = a.x + uint64_t{i} * a.k;
  if (!a.perm && begin + 64 <= a.k) return x + begin;
  for (uint32_t j = 0; j < 64; ++j) {
    const uint32_t column = begin + j;
    const int64_t from = a.perm ? a.perm[column] : column < a.k ? int64_t{column} : -1;
    buffer[j] = from < 0 ? 0.0f : x[from];
  }
  return buffer;
}

// Compared as integers, where NaN is largest, so that it reaches the outputs.
float largest(const float* x) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  const __m256i max = _mm256_max_epi32(_mm256_and_si256(_mm256_castps_si256(_mm256_loadu_ps(x)), magnitude),
                                       _mm256_and_si256(_mm256_castps_si256(_mm256_loadu_ps(x + 8)), magnitude));
  __m128i half = _mm_max_epi32(_mm256_castsi256_si128(max), _mm256_extracti128_si256(max, 1));
  half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0x4e));
  return float_from_bits(static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_max_epi32(half, _mm_shuffle_epi32(half, 0xb1)))));
}

GPTQ_INLINE __m256i quantize(const float* x, __m256 inverse) { return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), inverse)); }

// 32 bytes of a line: its columns come from every second 8 of the 64. inverse: 127 / max of each block.
GPTQ_INLINE __m256i pack_half(const float* x, const __m256 (&inverse)[4]) {
  const __m256i first = _mm256_packs_epi32(quantize(x, inverse[0]), quantize(x + 16, inverse[1]));
  return _mm256_packs_epi16(first, _mm256_packs_epi32(quantize(x + 32, inverse[2]), quantize(x + 48, inverse[3])));
}

// One line; returns the sums of its four 16-column pieces.
__m128i pack_line(const float* x, const __m256 (&inverse)[4], int8_t* q) {
  const __m256i low = pack_half(x, inverse), high = pack_half(x + 8, inverse), ones = _mm256_set1_epi8(1);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(q), low);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(q + 32), high);
  const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(ones, low), _mm256_maddubs_epi16(ones, high));
  const __m256i sums = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  return _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
}

// One token's line: codes, four scales, and its part of the sums.
void pack(const PackInt8Args& a, uint32_t i, uint32_t begin, const float* x) {
  const Int8Activations& out = a.out;
  float* scale = out.scale + (uint64_t{i} * out.k_padded + begin) / activation_block;
  __m256 inverse[4];
  for (int b = 0; b < 4; ++b) {
    const float max = largest(x + b * activation_block);
    scale[b] = max < 1e-30f ? 0 : max / 127;
    inverse[b] = _mm256_set1_ps(max < 1e-30f ? 0 : 127 / max);
  }
  const __m128i pieces = pack_line(x, inverse, out.q + uint64_t{i} * out.k_padded + begin);
  alignas(16) float piece[4];
  _mm_store_ps(piece, _mm_mul_ps(_mm_loadu_ps(scale), _mm_cvtepi32_ps(pieces)));
  float* sums = out.sum + i * ((uint64_t{out.k_padded} + out.sum_block - 1) / out.sum_block) + begin / out.sum_block;
  if (out.sum_block == 16) {
    _mm_storeu_ps(sums, _mm_load_ps(piece));
  } else {
    *sums = (begin % out.sum_block ? *sums : 0) + piece[0] + piece[1] + piece[2] + piece[3];
  }
}

}  // namespace

void pack_int8_avx2(const PackInt8Args& a) {
  float buffer[64];
  for (uint32_t i = 0; i < a.m; ++i)
    for (uint32_t begin = 0; begin < a.out.k_padded; begin += 64) pack(a, i, begin, load_line(a, i, begin, buffer));
}

}  // namespace gptq::kernels
