// SPDX-License-Identifier: Apache-2.0
// The Hadamard transform of heads: the specification.
#include <math.h>

#include "kernels/kernels.h"

namespace gptq::kernels {
namespace {

// H[i][j] = +-1 / sqrt(n), the sign by the parity of the bits that i and j have in common.
void transform(float* x, uint32_t n) {
  double y[largest_head];
  for (uint32_t i = 0; i < n; ++i) {
    y[i] = 0;
    for (uint32_t j = 0; j < n; ++j) y[i] += __builtin_parity(i & j) ? -x[j] : x[j];
  }
  for (uint32_t i = 0; i < n; ++i) x[i] = static_cast<float>(y[i] / sqrt(n));
}

}  // namespace

void hadamard_ref(const HadamardArgs& a) {
  const uint32_t n = hadamard_size(a.head_dim);
  for (uint32_t i = 0; i < a.m; ++i)
    for (uint32_t head = 0; head < a.n_heads; ++head) {
      float* x = a.x + uint64_t{i} * a.x_stride + uint64_t{head} * a.head_dim;
      for (uint32_t block = 0; block < a.head_dim; block += n) transform(x + block, n);
      for (uint32_t j = 0; n < a.head_dim && j < n; ++j) {
        double sum = 0;
        for (uint32_t d = j; d < a.head_dim; d += n) sum += x[d];
        for (uint32_t d = j; d < a.head_dim; d += n) x[d] = static_cast<float>(x[d] - 2.0 * n / a.head_dim * sum);
      }
    }
}

}  // namespace gptq::kernels
