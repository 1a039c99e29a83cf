// SPDX-License-Identifier: Apache-2.0
// add_product against double, a by rows and by columns.
#include "kernel_test.h"

namespace gptq::kernels {
namespace {

KERNEL_SUITE(add_product, AddProductArgs);

TEST_P(add_product, matches_double) {
  for (const uint32_t m : {1u, 3u, 4u, 9u, 261u})
    for (const uint32_t n : {1u, 7u, 24u, 31u, 48u, 100u})
      for (const uint32_t k : {0u, 1u, 5u, 128u, 300u})
        for (const bool by_columns : {false, true}) {
          const uint64_t a_row = by_columns ? 1 : k + below(3), a_step = by_columns ? m + below(3) : 1, c_stride = n + below(3);
          const std::vector<float> a = floats((m - 1) * a_row + k * a_step + 1), b = floats(uint64_t{(n + 47) / 48} * 48 * k + 1), before = floats(m * c_stride);
          Guarded<float> c(before.size());
          memcpy(c.data(), before.data(), before.size() * sizeof(float));
          run({a.data(), b.data(), c.data(), a_row, a_step, c_stride, m, n, k});
          ASSERT_TRUE(c.intact());
          for (uint32_t i = 0; i < m; ++i)
            for (uint64_t j = 0; j < c_stride; ++j) {
              double expected = before[i * c_stride + j];
              for (uint64_t l = 0; j < n && l < k; ++l) expected += double{a[i * a_row + l * a_step]} * double{b[j / 48 * 48 * k + l * 48 + j % 48]};
              ASSERT_NEAR(c[i * c_stride + j], expected, 1e-5 * (1 + std::sqrt(k))) << m << " " << n << " " << k << " " << by_columns;
            }
        }
}

// A row's sums are the same alone and among others.
TEST_P(add_product, rows_are_independent) {
  const uint32_t m = 7, n = 50, k = 200;
  const std::vector<float> a = floats(m * k), b = floats(96 * k);
  std::vector<float> together(m * n), alone(m * n);
  run({a.data(), b.data(), together.data(), k, 1, n, m, n, k});
  for (uint32_t i = 0; i < m; ++i) run({a.data() + i * k, b.data(), alone.data() + i * n, k, 1, n, 1, n, k});
  EXPECT_EQ(together, alone);
}

}  // namespace
}  // namespace gptq::kernels
