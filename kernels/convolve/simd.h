// SPDX-License-Identifier: Apache-2.0
// Causal depthwise convolution, a vector of channels at a time, for any vector width.
#pragma once
#include "kernels/vector_math.h"

namespace gptq::kernels {
namespace {

// The first count channels from c on, count at most lanes.
template <uint32_t kernel>
GPTQ_INLINE void convolve_channels(const ConvolveArgs& a, uint64_t c, uint32_t count) {
  const auto get = [=](const float* p) { return count == lanes ? load(p) : load_part(p, count); };
  const auto put = [=](float* p, Floats v) { count == lanes ? store(p, v) : store_part(p, v, count); };
  constexpr uint32_t past = kernel - 1;
  float across[kernel][lanes] = {};
  for (uint32_t lane = 0; lane < count; ++lane)
    for (uint32_t j = 0; j < kernel; ++j) across[j][lane] = a.weight[(c + lane) * kernel + j];
  Floats weight[kernel], seen[kernel];  // the last `kernel` inputs, oldest first
#pragma GCC unroll 8
  for (uint32_t j = 0; j < kernel; ++j) weight[j] = load(across[j]);
#pragma GCC unroll 8
  for (uint32_t j = 0; j < past; ++j) seen[j] = a.state ? get(a.state + uint64_t{j} * a.n + c) : all(0);
  for (uint64_t i = 0; i < a.m; ++i) {
    const uint64_t at = i * a.stride + c;
    seen[past] = get(a.x + at);
    if (a.before) seen[past] = multiply(seen[past], get(a.before + at));
    Floats sum = multiply(weight[0], seen[0]);
#pragma GCC unroll 8
    for (uint32_t j = 1; j < kernel; ++j) sum = fma(weight[j], seen[j], sum);
    if (a.silu) sum = silu_of(sum);
    if (a.after) sum = multiply(sum, get(a.after + at));
    put(a.out + i * a.out_stride + c, sum);
#pragma GCC unroll 8
    for (uint32_t j = 0; j < past; ++j) seen[j] = seen[j + 1];
  }
#pragma GCC unroll 8
  for (uint32_t j = 0; j < past; ++j) put(a.next_state + uint64_t{j} * a.n + c, seen[j]);
}

template <uint32_t kernel>
GPTQ_INLINE void convolve_range(const ConvolveArgs& a) {
  uint64_t c = a.first_channel;
  for (; c + lanes <= a.last_channel; c += lanes) convolve_channels<kernel>(a, c, lanes);
  if (c < a.last_channel) convolve_channels<kernel>(a, c, static_cast<uint32_t>(a.last_channel - c));
}

GPTQ_INLINE void convolve(const ConvolveArgs& a) {
  switch (a.kernel) {
    case 1: return convolve_range<1>(a);
    case 2: return convolve_range<2>(a);
    case 3: return convolve_range<3>(a);
    case 4: return convolve_range<4>(a);
    case 5: return convolve_range<5>(a);
    case 6: return convolve_range<6>(a);
    case 7: return convolve_range<7>(a);
    default: return convolve_range<8>(a);
  }
}

}  // namespace
}  // namespace gptq::kernels
