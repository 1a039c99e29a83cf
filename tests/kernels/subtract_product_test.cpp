// SPDX-License-Identifier: Apache-2.0
// subtract_product against long double.
#include "kernel_test.h"
#include "tests/seed.h"

namespace gptq::kernels {
namespace {

KERNEL_SUITE(subtract_product, SubtractProductArgs);

std::vector<double> doubles(size_t n) {
  static std::mt19937 random{test::seed(12345)};
  std::vector<double> out(n);
  for (double& d : out) d = std::uniform_real_distribution<double>(-1, 1)(random);
  return out;
}

TEST_P(subtract_product, matches_long_double) {
  for (const uint32_t m : {1u, 3u, 4u, 9u})
    for (const uint32_t n : {1u, 7u, 8u, 16u, 37u})
      for (const uint32_t k : {0u, 1u, 5u, 64u, 300u}) {
        const uint64_t a_stride = k + below(3), b_stride = n + below(3), c_stride = n + below(3);
        const std::vector<double> a = doubles(m * a_stride + 1), b = doubles(k * b_stride + 1), before = doubles(m * c_stride);
        Guarded<double> c(before.size());
        memcpy(c.data(), before.data(), before.size() * sizeof(double));
        run({a.data(), b.data(), c.data(), a_stride, b_stride, c_stride, m, n, k});
        ASSERT_TRUE(c.intact());
        for (uint32_t i = 0; i < m; ++i)
          for (uint64_t j = 0; j < c_stride; ++j) {
            long double expected = before[i * c_stride + j];
            for (uint32_t l = 0; j < n && l < k; ++l) expected -= static_cast<long double>(a[i * a_stride + l]) * b[l * b_stride + j];
            ASSERT_NEAR(c[i * c_stride + j], static_cast<double>(expected), 1e-13) << m << " " << n << " " << k;
          }
      }
}

}  // namespace
}  // namespace gptq::kernels
