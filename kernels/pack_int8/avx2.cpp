// SPDX-License-Identifier: Apache-2.0
// Activations to int8 in two passes over a token: the largest of every block of 16 columns, then its codes.
#include "kernels/x86.h"

namespace gptq::kernels {
namespace {

// 64 columns of token i from column begin on; buffer is used where they do not lie in x as they are.
const float* load_columns(const PackInt8Args& a, uint32_t i, uint32_t begin, float* buffer) {
  const float* x = a.x + uint64_t{i} * a.k;
  if (!a.perm && begin + record_columns <= a.k) return x + begin;
  for (uint32_t j = 0; j < record_columns; ++j) {
    const uint32_t column = begin + j;
    const int64_t from = a.perm ? a.perm[column] : column < a.k ? int64_t{column} : -1;
    buffer[j] = from < 0 ? 0.0f : x[from];
  }
  return buffer;
}

GPTQ_INLINE __m256i magnitude_of(const float* x) {
  return _mm256_and_si256(_mm256_castps_si256(_mm256_loadu_ps(x)), _mm256_set1_epi32(0x7fffffff));
}

// The largest magnitude_of of each block, compared as integers, where NaN is largest.
__m128i largest_of_blocks(const float* x) {
  __m256i max[4];
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) max[c] = _mm256_max_epi32(magnitude_of(x + 16 * c), magnitude_of(x + 16 * c + 8));
  const __m256i first = _mm256_max_epi32(_mm256_unpacklo_epi32(max[0], max[1]), _mm256_unpackhi_epi32(max[0], max[1]));
  const __m256i second = _mm256_max_epi32(_mm256_unpacklo_epi32(max[2], max[3]), _mm256_unpackhi_epi32(max[2], max[3]));
  const __m256i both = _mm256_max_epi32(_mm256_unpacklo_epi64(first, second), _mm256_unpackhi_epi64(first, second));
  return _mm_max_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
}

// First pass: the blocks' largest into the records' multipliers; returns the token's.
float find_largest(const PackInt8Args& a, uint32_t i) {
  alignas(32) float buffer[record_columns];
  __m128i largest = _mm_setzero_si128();
  for (uint32_t r = 0; r < a.out.k_padded / record_columns; ++r) {
    const __m128i blocks = largest_of_blocks(load_columns(a, i, r * record_columns, buffer));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(a.out.records[uint64_t{r} * a.out.rows + i].multiplier), blocks);
    largest = _mm_max_epi32(largest, blocks);
  }
  largest = _mm_max_epi32(largest, _mm_shuffle_epi32(largest, 0x4e));
  return float_from_bits(static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_max_epi32(largest, _mm_shuffle_epi32(largest, 0xb1)))));
}

// Half a line: its columns are eight of every 16.
GPTQ_INLINE __m256i pack_half(const float* x, __m128 inverses) {
  const __m256 inverse = _mm256_set_m128(inverses, inverses);
  const __m256i q[4] = {_mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), _mm256_permute_ps(inverse, 0x00))),
                        _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 16), _mm256_permute_ps(inverse, 0x55))),
                        _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 32), _mm256_permute_ps(inverse, 0xaa))),
                        _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 48), _mm256_permute_ps(inverse, 0xff)))};
  return _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
}

// Multiplier * q, summed over each block.
GPTQ_INLINE __m128i sum_blocks(__m256i first, __m256i second, __m128i multipliers) {
  const __m256i ones = _mm256_set1_epi8(1);
  const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(ones, first), _mm256_maddubs_epi16(ones, second));
  return _mm_madd_epi16(_mm_add_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1)), multipliers);
}

// Codes and multipliers of a record; its largest lie where the multipliers belong. Returns the blocks' sums.
GPTQ_INLINE __m128i fill_record(const float* x, float per_unit, Record& record) {
  auto* multiplier = reinterpret_cast<__m128i*>(record.multiplier);
  const __m128 scaled = _mm_mul_ps(_mm_castsi128_ps(_mm_loadu_si128(multiplier)), _mm_set1_ps(per_unit));
  const __m128 raised = _mm_max_ps(_mm_ceil_ps(scaled), _mm_set1_ps(1.0f));
  const __m128 whole = _mm_min_ps(raised, _mm_set1_ps(static_cast<float>(largest_multiplier)));
  const __m128i numbers = _mm_cvtps_epi32(whole), twice = _mm_or_si128(numbers, _mm_slli_epi32(numbers, 16));
  const __m128 inverses = _mm_div_ps(_mm_set1_ps(127 * per_unit), whole);
  const __m256i first = pack_half(x, inverses), second = pack_half(x + 8, inverses);
  _mm_storeu_si128(multiplier, twice);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(record.q), first);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(record.q) + 1, second);
  return sum_blocks(first, second, twice);
}

int32_t add_lanes(__m128i v) {
  v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32(v, 0xb1)));
}

// The sums of record r from those of its blocks.
GPTQ_INLINE void store_sums(const Int8Activations& out, uint32_t i, uint32_t r, __m128i blocks) {
  if (out.sum_block == record_columns) {
    out.sum[uint64_t{r} * out.rows + i] = static_cast<float>(add_lanes(blocks));
    return;
  }
  alignas(16) float values[4];
  _mm_store_ps(values, _mm_cvtepi32_ps(blocks));
  for (uint32_t b = 0; b < 4; ++b) out.sum[(uint64_t{r} * 4 + b) * out.rows + i] = values[b];
}

}  // namespace

void pack_int8_avx2(const PackInt8Args& a) {
  constexpr float limit = static_cast<float>(largest_multiplier);
  alignas(32) float buffer[record_columns];
  for (uint32_t i = 0; i < a.m; ++i) {
    float largest = find_largest(a, i);
    if (largest < 1e-30f) largest = 0;
    const float per_unit = largest > 0 ? limit / largest : 0;
    a.out.scale[i] = largest / (127 * limit);
    for (uint32_t r = 0; r < a.out.k_padded / record_columns; ++r)
      store_sums(a.out, i, r, fill_record(load_columns(a, i, r * record_columns, buffer), per_unit, a.out.records[uint64_t{r} * a.out.rows + i]));
  }
}

}  // namespace gptq::kernels
