// SPDX-License-Identifier: Apache-2.0
// Activations to int8 in two passes over a token: the largest of every block, then its codes. A vector of eight columns belongs to
// two blocks, four columns each, so that the blocks' values are lanes 0..3 (first four columns) and 4..7 of one vector.
#include "kernels/x86.h"

namespace gptq::kernels {
namespace {

// 128 columns of token i from column begin on; buffer is used where they do not lie in x as they are.
const float* load_columns(const PackInt8Args& a, uint32_t i, uint32_t begin, float* buffer) {
  const float* x = a.x + uint64_t{i} * a.k;
  if (!a.perm && begin + record_columns <= a.k) return x + begin;
  for (uint32_t j = 0; j < record_columns; ++j) {
    const uint32_t column = begin + j;
    const int64_t from = column >= a.out.k_padded ? -1 : a.perm ? a.perm[column] : column < a.k ? int64_t{column} : -1;
    buffer[j] = from < 0 ? 0.0f : x[from];
  }
  return buffer;
}

GPTQ_INLINE __m256i max_magnitude(__m256i max, const float* x) {
  return _mm256_max_epi32(max, _mm256_and_si256(_mm256_castps_si256(_mm256_loadu_ps(x)), _mm256_set1_epi32(0x7fffffff)));
}

// The largest magnitude of each block, compared as integers, where NaN is largest.
__m256i largest_of_blocks(const float* x) {
  __m256i max[4];
  for (int c = 0; c < 4; ++c) {
    max[c] = _mm256_setzero_si256();
    for (int at = 0; at < 128; at += 64) max[c] = max_magnitude(max_magnitude(max[c], x + at + 16 * c), x + at + 16 * c + 8);
  }
  const __m256i first = _mm256_max_epi32(_mm256_unpacklo_epi32(max[0], max[1]), _mm256_unpackhi_epi32(max[0], max[1]));
  const __m256i second = _mm256_max_epi32(_mm256_unpacklo_epi32(max[2], max[3]), _mm256_unpackhi_epi32(max[2], max[3]));
  return _mm256_max_epi32(_mm256_unpacklo_epi64(first, second), _mm256_unpackhi_epi64(first, second));
}

// First pass: the blocks' largest into the records' multipliers; returns the token's.
float find_largest(const PackInt8Args& a, uint32_t i) {
  alignas(32) float buffer[record_columns];
  __m256i largest = _mm256_setzero_si256();
  for (uint32_t r = 0; r < n_records(a.out.k_padded); ++r) {
    const __m256i blocks = largest_of_blocks(load_columns(a, i, r * record_columns, buffer));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(a.out.records[uint64_t{r} * a.out.rows + i].multiplier), blocks);
    largest = _mm256_max_epi32(largest, blocks);
  }
  __m128i half = _mm_max_epi32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
  half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0x4e));
  return float_from_bits(static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_max_epi32(half, _mm_shuffle_epi32(half, 0xb1)))));
}

// Half a line: its columns come from every second 8 of the 64. inverse[c]: of the two blocks of piece c.
GPTQ_INLINE __m256i pack_half(const float* x, const __m256 (&inverse)[4]) {
  __m256i q[4];
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) q[c] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 16 * c), inverse[c]));
  return _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
}

// Multiplier * q, summed over the blocks of each 16-column piece of a line.
GPTQ_INLINE __m128i sum_pieces(__m256i first, __m256i second, __m256i multipliers) {
  const __m256i ones = _mm256_set1_epi8(1);
  const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(ones, first), _mm256_maddubs_epi16(ones, second));
  const __m256i sums = _mm256_madd_epi16(pairs, multipliers);
  return _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
}

// Codes and multipliers of a record; its largest lie where the multipliers belong. sums: of the pieces of each tile.
void fill_record(const float* x, float per_unit, Record& record, __m128i (&sums)[2]) {
  auto* multiplier = reinterpret_cast<__m256i*>(record.multiplier);
  const __m256 scaled = _mm256_mul_ps(_mm256_castsi256_ps(_mm256_loadu_si256(multiplier)), _mm256_set1_ps(per_unit));
  const __m256 raised = _mm256_max_ps(_mm256_ceil_ps(scaled), _mm256_set1_ps(1.0f));
  const __m256 whole = _mm256_min_ps(raised, _mm256_set1_ps(static_cast<float>(largest_multiplier)));
  const __m256i numbers = _mm256_cvtps_epi32(whole), twice = _mm256_or_si256(numbers, _mm256_slli_epi32(numbers, 16));
  const __m256 inverses = _mm256_div_ps(_mm256_set1_ps(127 * per_unit), whole);
  const __m256 inverse[4] = {_mm256_permute_ps(inverses, 0x00), _mm256_permute_ps(inverses, 0x55), _mm256_permute_ps(inverses, 0xaa),
                             _mm256_permute_ps(inverses, 0xff)};
  _mm256_storeu_si256(multiplier, twice);
  auto* q = reinterpret_cast<__m256i*>(record.q);
  for (int tile = 0; tile < 2; ++tile) {
    const __m256i first = pack_half(x + tile * 64, inverse), second = pack_half(x + tile * 64 + 8, inverse);
    _mm256_storeu_si256(q + tile * 2, first);
    _mm256_storeu_si256(q + tile * 2 + 1, second);
    sums[tile] = sum_pieces(first, second, twice);
  }
}

int32_t add_lanes(__m128i v) {
  v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32(v, 0xb1)));
}

// The sums of record r from those of its pieces.
void store_sums(const Int8Activations& out, uint32_t i, uint32_t r, const __m128i (&sums)[2]) {
  const uint32_t per_record = record_columns / out.sum_block, n_sums = (out.k_padded + out.sum_block - 1) / out.sum_block;
  alignas(16) int32_t values[8];
  if (per_record == 8) {
    _mm_store_si128(reinterpret_cast<__m128i*>(values), sums[0]);
    _mm_store_si128(reinterpret_cast<__m128i*>(values + 4), sums[1]);
  } else {
    values[0] = add_lanes(sums[0]);
    values[1] = add_lanes(sums[1]);
    if (per_record == 1) values[0] += values[1];
  }
  for (uint32_t s = 0; s < per_record && r * per_record + s < n_sums; ++s)
    out.sum[(uint64_t{r} * per_record + s) * out.rows + i] = static_cast<float>(values[s]);
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
    for (uint32_t r = 0; r < n_records(a.out.k_padded); ++r) {
      __m128i sums[2];
      fill_record(load_columns(a, i, r * record_columns, buffer), per_unit, a.out.records[uint64_t{r} * a.out.rows + i], sums);
      store_sums(a.out, i, r, sums);
    }
  }
}

}  // namespace gptq::kernels
