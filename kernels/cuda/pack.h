// SPDX-License-Identifier: Apache-2.0
// Activations as the B operand of mma: a token's values times a power of two, each split into a float16 and the float16 of 2^11 times
// what is left (22 bits together). 64 columns are 32 words; word 8t + 2c + p holds columns 16c + 4t + p and p + 2.
#pragma once
#include "kernels/cuda/matmul.h"

namespace gptq::cuda {

constexpr uint32_t packed_bytes = 128;  // of a token's tile: 64 float16
constexpr float low_unit = 0x1p-11f;

GPTQ_DEVICE float power_of_two(int exponent) { return float_of_bits(static_cast<uint32_t>(exponent + 127) << 23); }

// 2^result times the largest value lies in [2^13, 2^14): float16 holds it, and a low half too.
GPTQ_DEVICE int scale_exponent(float largest) {
  const int exponent = 140 - static_cast<int>(bits_of_float(largest) >> 23);
  return exponent > 100 ? 100 : exponent < -100 ? -100 : exponent;
}

// Tokens that lie side by side swap halves of 16 bytes, so that a warp's 16-byte loads meet all banks.
GPTQ_DEVICE uint32_t packed_word(uint32_t word, uint32_t token) { return word ^ token % 2 * 4; }

// What the weights of a column are multiplied with, but for the norm's 1 / rms, which factors out; adds x^2.
GPTQ_DEVICE float input_value(const Job& job, uint32_t token, uint32_t column, float& squares) {
  if (job.perm) column = static_cast<uint32_t>(job.perm[column]);
  if (column >= job.k) return 0.0f;  // padding, -1 among it
  const uint64_t at = uint64_t{token} * job.k + column;
  const float x = job.input.x[at];
  squares = fused(x, x, squares);
  const float v = job.input.up ? silu(x) * job.input.up[at] : x;
  return job.input.norm ? v * job.input.norm[column] : v;
}

struct Split {
  uint32_t high, low;          // pairs of float16
  float high_sum, low_sum;     // of what they hold
};

GPTQ_DEVICE Split split_pair(float a, float b) {
  Split s;
  s.high = half2_bits(a, b);
  const float high_a = half_low(s.high), high_b = half_high(s.high);
  s.low = half2_bits((a - high_a) * 2048.0f, (b - high_b) * 2048.0f);
  s.high_sum = high_a + high_b;
  s.low_sum = half_low(s.low) + half_high(s.low);
  return s;
}

}  // namespace gptq::cuda
