// SPDX-License-Identifier: Apache-2.0
// Causal depthwise convolution: the specification.
#include <math.h>

#include "kernels/kernels.h"

namespace gptq::kernels {
namespace {

void convolve_channel(const ConvolveArgs& a, uint64_t c) {
  const uint32_t past = a.kernel - 1;
  float seen[largest_convolution];  // the last `kernel` inputs, oldest first
  for (uint64_t j = 0; j < past; ++j) seen[j] = a.state ? a.state[j * a.n + c] : 0;
  for (uint64_t i = 0; i < a.m; ++i) {
    seen[past] = a.x[i * a.stride + c] * (a.before ? a.before[i * a.stride + c] : 1);
    double sum = 0;
    for (uint32_t j = 0; j < a.kernel; ++j) sum += static_cast<double>(a.weight[c * a.kernel + j]) * seen[j];
    if (a.silu) sum /= 1 + exp(-sum);
    a.out[i * a.out_stride + c] = static_cast<float>(sum * (a.after ? a.after[i * a.stride + c] : 1));
    for (uint32_t j = 0; j < past; ++j) seen[j] = seen[j + 1];
  }
  for (uint64_t j = 0; j < past; ++j) a.next_state[j * a.n + c] = seen[j];
}

}  // namespace

void convolve_ref(const ConvolveArgs& a) {
  for (uint32_t c = a.first_channel; c < a.last_channel; ++c) convolve_channel(a, c);
}

}  // namespace gptq::kernels
