// SPDX-License-Identifier: Apache-2.0
// Activations to int8: the specification.
#include <math.h>

#include "kernels/layout.h"

namespace gptq::kernels {
namespace {

float input(const PackInt8Args& a, uint32_t i, uint32_t column) {
  const int64_t from = a.perm ? a.perm[column] : column < a.k ? int64_t{column} : -1;
  return from < 0 ? 0.0f : a.x[uint64_t{i} * a.k + static_cast<uint64_t>(from)];
}

// NaN wins, so that it reaches the outputs.
void take_larger(float& max, float x) {
  if (!(fabsf(x) <= max) && !isnan(max)) max = fabsf(x);
}

// Quantizes 64 columns from begin on.
void fill_record(const PackInt8Args& a, uint32_t i, uint32_t begin, float largest, Record& record) {
  float max[4] = {};
  for (uint32_t column = begin; column < begin + record_columns; ++column) take_larger(max[column % 64 / 16], input(a, i, column));
  const float per_unit = largest > 0 ? static_cast<float>(largest_multiplier) / largest : 0;
  for (uint32_t b = 0; b < 4; ++b) {
    const float multiplier = ceilf(max[b] * per_unit);
    const float limit = static_cast<float>(largest_multiplier);
    record.multiplier[b][0] = static_cast<int16_t>(!(multiplier >= 1) ? 1 : multiplier > limit ? limit : multiplier);
    record.multiplier[b][1] = record.multiplier[b][0];
  }
  for (uint32_t column = begin; column < begin + record_columns; ++column) {
    const float inverse = 127 * per_unit / record.multiplier[column % 64 / 16][0];
    const float q = nearbyintf(input(a, i, column) * inverse);
    record.q[line_byte(column % 64)] = isfinite(q) ? static_cast<int8_t>(q) : 0;
  }
}

}  // namespace

void pack_int8_ref(const PackInt8Args& a) {
  const Int8Activations& out = a.out;
  for (uint32_t i = 0; i < a.m; ++i) {
    float largest = 0;
    for (uint32_t column = 0; column < out.k_padded; ++column) take_larger(largest, input(a, i, column));
    if (largest < 1e-30f) largest = 0;
    out.scale[i] = largest / (127 * static_cast<float>(largest_multiplier));
    for (uint32_t r = 0; r < out.k_padded / record_columns; ++r)
      fill_record(a, i, r * record_columns, largest, out.records[uint64_t{r} * out.rows + i]);
    for (uint32_t begin = 0; begin < out.k_padded; begin += out.sum_block) {
      int32_t sum = 0;
      for (uint32_t column = begin; column < begin + out.sum_block; ++column) {
        const Record& record = out.records[uint64_t{column} / record_columns * out.rows + i];
        sum += record.multiplier[column % 64 / 16][0] * record.q[line_byte(column % 64)];
      }
      out.sum[uint64_t{begin} / out.sum_block * out.rows + i] = static_cast<float>(sum);
    }
  }
}

}  // namespace gptq::kernels
