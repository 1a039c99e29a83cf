// SPDX-License-Identifier: Apache-2.0
// rms_norm, rope and silu_mul against float64.
#include "kernel_test.h"

namespace gptq::kernels {
namespace {

KERNEL_SUITE(rms_norm, RmsNormArgs);
KERNEL_SUITE(rope, RopeArgs);
KERNEL_SUITE(silu_mul, SiluMulArgs);

TEST_P(rms_norm, matches_float64) {
  for (const uint32_t n : {1u, 7u, 8u, 37u, 64u, 576u, 2048u})
    for (const bool in_place : {false, true}) {
      const uint32_t rows = 1 + below(4);
      const float eps = 1e-5f;
      const std::vector<float> x = floats(size_t{rows} * n, std::exp(uniform(-7, 7))), weight = floats(n, 3);
      Guarded<float> y(x.size());
      if (in_place) memcpy(y.data(), x.data(), x.size() * sizeof(float));
      run({in_place ? y.data() : x.data(), weight.data(), y.data(), rows, n, eps});
      ASSERT_TRUE(y.intact());
      for (uint32_t row = 0; row < rows; ++row) {
        double squares = 0;
        for (uint32_t j = 0; j < n; ++j) squares += std::pow(double{x[row * n + j]}, 2);
        for (uint32_t j = 0; j < n; ++j) {
          const double expected = x[row * n + j] / std::sqrt(squares / n + eps) * weight[j];
          EXPECT_NEAR(y[row * n + j], expected, 2e-6 * std::fabs(expected)) << "n " << n;
        }
      }
    }
}

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

TEST_P(silu_mul, matches_float64) {
  for (const uint64_t count : {0ull, 1ull, 7ull, 8ull, 9ull, 1000ull, 100003ull}) {
    std::vector<float> gate = floats(count, count < 100 ? 5 : 110), up = floats(count);
    Guarded<float> out(count);
    run({gate.data(), up.data(), out.data(), count});
    ASSERT_TRUE(out.intact());
    for (uint64_t j = 0; j < count; ++j) {
      const double expected = gate[j] / (1 + std::exp(-double{gate[j]})) * up[j];
      ASSERT_NEAR(out[j], expected, 4e-7 * std::fabs(expected) + 1e-36) << "gate " << gate[j];
    }
  }
}

TEST_P(silu_mul, nan_and_infinity_stay) {
  std::vector<float> gate = {std::nanf(""), HUGE_VALF, 200, -200, 0, 88.7f, -88.7f, -103.9f}, up(8, 1.0f), out(8);
  run({gate.data(), up.data(), out.data(), 8});
  EXPECT_TRUE(std::isnan(out[0]));
  EXPECT_EQ(out[1], HUGE_VALF);
  EXPECT_EQ(out[2], 200);
  EXPECT_EQ(out[3], 0);
  EXPECT_EQ(out[4], 0);
  EXPECT_FLOAT_EQ(out[5], 88.7f);
  EXPECT_NEAR(out[6], 0, 1e-35);
  EXPECT_NEAR(out[7], 0, 1e-35);
}

}  // namespace
}  // namespace gptq::kernels
