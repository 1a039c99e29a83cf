// SPDX-License-Identifier: Apache-2.0
// Activations to int8, a block of 64 or 128 columns at a time.
#include "kernels/x86.h"

namespace gptq::kernels {
namespace {

constexpr uint32_t max_block = 128;

// count columns (a multiple of 64) of token i from column begin on; buffer is used where they do not lie in x as they are.
const float* load_block(const PackInt8Args& a, uint32_t i, uint32_t begin, uint32_t count, float* buffer) {
  const float* x = a.x + uint64_t{i} * a.k;
  if (!a.perm && begin + count <= a.k) return x + begin;
  for (uint32_t j = 0; j < count; ++j) {
    const uint32_t column = begin + j;
    const int64_t from = a.perm ? a.perm[column] : column < a.k ? int64_t{column} : -1;
    buffer[j] = from < 0 ? 0.0f : x[from];
  }
  return buffer;
}

// Compared as integers, where NaN is largest, so that it reaches the outputs.
float largest(const float* x, uint32_t count) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  __m256i max = _mm256_setzero_si256();
  for (uint32_t j = 0; j < count; j += 8)
    max = _mm256_max_epi32(max, _mm256_and_si256(_mm256_castps_si256(_mm256_loadu_ps(x + j)), magnitude));
  __m128i half = _mm_max_epi32(_mm256_castsi256_si128(max), _mm256_extracti128_si256(max, 1));
  half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0x4e));
  return float_from_bits(static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_max_epi32(half, _mm_shuffle_epi32(half, 0xb1)))));
}

GPTQ_INLINE __m256i quantize(const float* x, __m256 inverse) { return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), inverse)); }

// 32 bytes of a line: its columns come from every second 8 of the 64.
GPTQ_INLINE __m256i pack_half(const float* x, __m256 inverse) {
  const __m256i first = _mm256_packs_epi32(quantize(x, inverse), quantize(x + 16, inverse));
  return _mm256_packs_epi16(first, _mm256_packs_epi32(quantize(x + 32, inverse), quantize(x + 48, inverse)));
}

// One line; returns the sums of its four 16-column pieces.
__m128i pack_line(const float* x, __m256 inverse, int8_t* q) {
  const __m256i low = pack_half(x, inverse), high = pack_half(x + 8, inverse), ones = _mm256_set1_epi8(1);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(q), low);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(q + 32), high);
  const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(ones, low), _mm256_maddubs_epi16(ones, high));
  const __m256i sums = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  return _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
}

void pack_block(const float* x, uint32_t count, bool sum_pieces, int8_t* q, float* out_scale, float* out_sum) {
  const float max = largest(x, count);
  const float scale = max < 1e-30f ? 0 : max / 127, inverse = max < 1e-30f ? 0 : 127 / max;
  __m128i total = _mm_setzero_si128();
  for (uint32_t j = 0; j < count; j += 64) {
    const __m128i sums = pack_line(x + j, _mm256_set1_ps(inverse), q + j);
    if (sum_pieces) _mm_storeu_ps(out_sum + j / 16, _mm_mul_ps(_mm_cvtepi32_ps(sums), _mm_set1_ps(scale)));
    total = _mm_add_epi32(total, sums);
  }
  *out_scale = scale;
  total = _mm_add_epi32(total, _mm_shuffle_epi32(total, 0x4e));
  total = _mm_add_epi32(total, _mm_shuffle_epi32(total, 0xb1));
  if (!sum_pieces) *out_sum = scale * static_cast<float>(_mm_cvtsi128_si32(total));
}

}  // namespace

void pack_int8_avx2(const PackInt8Args& a) {
  const Int8Activations& out = a.out;
  const uint64_t n_scales = (out.k_padded + out.block - 1) / out.block, n_sums = (out.k_padded + out.sum_block - 1) / out.sum_block;
  float buffer[max_block];
  for (uint32_t i = 0; i < a.m; ++i)
    for (uint32_t begin = 0; begin < out.k_padded; begin += out.block) {
      const uint32_t rest = out.k_padded - begin, count = rest < out.block ? rest : out.block;
      pack_block(load_block(a, i, begin, count, buffer), count, out.sum_block == 16, out.q + uint64_t{i} * out.k_padded + begin,
                 out.scale + i * n_scales + begin / out.block, out.sum + i * n_sums + begin / out.sum_block);
    }
}

}  // namespace gptq::kernels
