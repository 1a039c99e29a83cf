// SPDX-License-Identifier: Apache-2.0
// rope against float64.
#include "kernel_test.h"

namespace gptq::kernels {
namespace {

KERNEL_SUITE(rope, RopeArgs);

TEST_P(rope, rotates_pairs_and_leaves_the_rest) {
  for (const uint32_t head_dim : {2u, 8u, 24u, 37u, 64u, 80u, 128u})
    for (const uint32_t dim : {head_dim / 2 * 2, head_dim / 4 * 2}) {
      const uint32_t m = 1 + below(4), heads = 1 + below(5), stride = heads * head_dim + below(3), half = dim / 2;
      const std::vector<float> x = floats(size_t{m - 1} * stride + heads * head_dim);
      const std::vector<float> cos = floats(size_t{m} * half), sin = floats(size_t{m} * half);
      Guarded<float> y(x.size());
      memcpy(y.data(), x.data(), x.size() * sizeof(float));
      run({y.data(), cos.data(), sin.data(), m, stride, heads, head_dim, dim});
      ASSERT_TRUE(y.intact());
      std::vector<double> expected(x.begin(), x.end());
      for (uint32_t i = 0; i < m; ++i)
        for (uint32_t head = 0; head < heads; ++head)
          for (uint32_t j = 0; j < half; ++j) {
            const size_t low = size_t{i} * stride + head * head_dim + j, high = low + half;
            const double c = cos[i * half + j], s = sin[i * half + j];
            expected[low] = x[low] * c - x[high] * s;
            expected[high] = x[high] * c + x[low] * s;
          }
      for (size_t at = 0; at < x.size(); ++at) EXPECT_NEAR(y[at], expected[at], 3e-7) << "head_dim " << head_dim << " dim " << dim;
    }
}

}  // namespace
}  // namespace gptq::kernels
