// SPDX-License-Identifier: Apache-2.0
// Activations to int8 in two passes over a token: the largest of every block of 16 columns, then its codes.
#include <arm_neon.h>

#include "kernels/common.h"

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

// The largest magnitude of 16 columns, compared as integers, where NaN is largest.
uint32_t largest_of(const float* x) {
  const auto bits = [&](uint32_t at) { return vreinterpretq_u32_f32(vabsq_f32(vld1q_f32(x + at))); };
  return vmaxvq_u32(vmaxq_u32(vmaxq_u32(bits(0), bits(4)), vmaxq_u32(bits(8), bits(12))));
}

// Codes and multipliers of a record. sums: multiplier * q of the blocks.
void fill_record(const float* x, float per_unit, Record& record, int32_t (&sums)[4]) {
  int16x4_t words[4][4];  // [t][block]
  for (uint32_t b = 0; b < 4; ++b) {
    const float scaled = __builtin_ceilf(float_from_bits(largest_of(x + b * 16)) * per_unit), limit = static_cast<float>(largest_multiplier);
    const float whole = !(scaled >= 1) ? 1 : scaled > limit ? limit : scaled, inverse = 127 * per_unit / whole;
    record.multiplier[b][0] = record.multiplier[b][1] = static_cast<int16_t>(whole);
    sums[b] = 0;
    for (uint32_t t = 0; t < 4; ++t) {
      words[t][b] = vqmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + b * 16 + t * 4), inverse)));
      sums[b] += record.multiplier[b][0] * vaddv_s16(words[t][b]);
    }
  }
  for (uint32_t t = 0; t < 4; ++t)
    vst1q_s8(record.q + t * 16, vcombine_s8(vqmovn_s16(vcombine_s16(words[t][0], words[t][1])), vqmovn_s16(vcombine_s16(words[t][2], words[t][3]))));
}

// The sums of record r from those of its blocks.
void store_sums(const Int8Activations& out, uint32_t i, uint32_t r, const int32_t (&sums)[4]) {
  if (out.sum_block == record_columns) {
    out.sum[uint64_t{r} * out.rows + i] = static_cast<float>(sums[0] + sums[1] + sums[2] + sums[3]);
    return;
  }
  for (uint32_t b = 0; b < 4; ++b) out.sum[(uint64_t{r} * 4 + b) * out.rows + i] = static_cast<float>(sums[b]);
}

}  // namespace

void pack_int8_neon(const PackInt8Args& a) {
  constexpr float limit = static_cast<float>(largest_multiplier);
  float buffer[record_columns];
  const uint32_t records = a.out.k_padded / record_columns;
  for (uint32_t i = 0; i < a.m; ++i) {
    uint32_t bits = 0;
    for (uint32_t r = 0; r < records; ++r) {
      const float* x = load_columns(a, i, r * record_columns, buffer);
      for (uint32_t b = 0; b < 4; ++b) {
        const uint32_t largest = largest_of(x + b * 16);
        bits = largest > bits ? largest : bits;
      }
    }
    const float largest = float_from_bits(bits) < 1e-30f ? 0 : float_from_bits(bits), per_unit = largest > 0 ? limit / largest : 0;
    a.out.scale[i] = largest / (127 * limit);
    for (uint32_t r = 0; r < records; ++r) {
      int32_t sums[4];
      fill_record(load_columns(a, i, r * record_columns, buffer), per_unit, a.out.records[uint64_t{r} * a.out.rows + i], sums);
      store_sums(a.out, i, r, sums);
    }
  }
}

}  // namespace gptq::kernels
