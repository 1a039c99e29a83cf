// SPDX-License-Identifier: Apache-2.0
// Activations to int8 in two passes over a token: the largest of every block, then its codes. Four columns in a row are of one block.
#include <arm_neon.h>

#include "kernels/common.h"

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

// The largest magnitude of a block, compared as integers, where NaN is largest.
uint32_t largest_of(const float* x, uint32_t block) {
  const float* first = x + block % 4 * 16 + block / 4 * 4;
  const auto bits = [&](uint32_t at) { return vreinterpretq_u32_f32(vabsq_f32(vld1q_f32(first + at))); };
  return vmaxvq_u32(vmaxq_u32(vmaxq_u32(bits(0), bits(8)), vmaxq_u32(bits(64), bits(72))));
}

// Codes and multipliers of a record. sums: multiplier * q of the 16-column pieces.
void fill_record(const float* x, float per_unit, Record& record, int32_t (&sums)[8]) {
  float inverse[8];
  for (uint32_t b = 0; b < 8; ++b) {
    const float scaled = __builtin_ceilf(float_from_bits(largest_of(x, b)) * per_unit), limit = static_cast<float>(largest_multiplier);
    const float whole = !(scaled >= 1) ? 1 : scaled > limit ? limit : scaled;
    record.multiplier[b][0] = record.multiplier[b][1] = static_cast<int16_t>(whole);
    inverse[b] = 127 * per_unit / whole;
  }
  memset(sums, 0, sizeof sums);
  for (uint32_t line = 0; line < 8; ++line) {  // 16 bytes of q: four columns of every piece of a tile
    const uint32_t tile = line / 4, t = line % 4;
    int16x4_t words[4];
    for (uint32_t c = 0; c < 4; ++c) {
      const uint32_t b = t % 2 * 4 + c;
      const int32x4_t q = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + tile * 64 + c * 16 + t * 4), inverse[b]));
      words[c] = vqmovn_s32(q);
      sums[tile * 4 + c] += record.multiplier[b][0] * vaddv_s16(words[c]);
    }
    vst1q_s8(record.q + line * 16, vcombine_s8(vqmovn_s16(vcombine_s16(words[0], words[1])), vqmovn_s16(vcombine_s16(words[2], words[3]))));
  }
}

// The sums of record r from those of its pieces.
void store_sums(const Int8Activations& out, uint32_t i, uint32_t r, const int32_t (&sums)[8]) {
  const uint32_t pieces = out.sum_block / 16, per_record = 8 / pieces, n_sums = (out.k_padded + out.sum_block - 1) / out.sum_block;
  for (uint32_t s = 0; s < per_record && r * per_record + s < n_sums; ++s) {
    int32_t sum = 0;
    for (uint32_t piece = s * pieces; piece < (s + 1) * pieces; ++piece) sum += sums[piece];
    out.sum[(uint64_t{r} * per_record + s) * out.rows + i] = static_cast<float>(sum);
  }
}

}  // namespace

void pack_int8_neon(const PackInt8Args& a) {
  constexpr float limit = static_cast<float>(largest_multiplier);
  float buffer[record_columns];
  const uint32_t records = n_records(a.out.k_padded);
  for (uint32_t i = 0; i < a.m; ++i) {
    uint32_t bits = 0;
    for (uint32_t r = 0; r < records; ++r) {
      const float* x = load_columns(a, i, r * record_columns, buffer);
      for (uint32_t b = 0; b < 8; ++b) {
        const uint32_t largest = largest_of(x, b);
        bits = largest > bits ? largest : bits;
      }
    }
    const float largest = float_from_bits(bits) < 1e-30f ? 0 : float_from_bits(bits), per_unit = largest > 0 ? limit / largest : 0;
    a.out.scale[i] = largest / (127 * limit);
    for (uint32_t r = 0; r < records; ++r) {
      int32_t sums[8];
      fill_record(load_columns(a, i, r * record_columns, buffer), per_unit, a.out.records[uint64_t{r} * a.out.rows + i], sums);
      store_sums(a.out, i, r, sums);
    }
  }
}

}  // namespace gptq::kernels
