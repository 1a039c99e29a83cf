// SPDX-License-Identifier: Apache-2.0
// The Hadamard transform against its matrix in float64.
#include <bit>

#include "kernel_test.h"

namespace gptq::kernels {
namespace {

KERNEL_SUITE(hadamard, HadamardArgs);

std::vector<double> times_matrix(const std::vector<double>& x, size_t first, size_t n) {
  std::vector<double> y = x;
  for (size_t i = 0; i < n; ++i) {
    y[first + i] = 0;
    for (size_t j = 0; j < n; ++j) y[first + i] += (std::popcount(i & j) % 2 ? -1 : 1) * x[first + j] / std::sqrt(static_cast<double>(n));
  }
  return y;
}

constexpr uint32_t dims[] = {1, 2, 3, 4, 7, 8, 16, 20, 24, 32, 37, 40, 64, 80, 96, 100, 112, 128, 160, 192, 256, 512, 576};

TEST_P(hadamard, is_the_matrix_of_blocks_and_a_reflection) {
  for (const uint32_t dim : dims) {
    const uint32_t m = 1 + below(3), heads = 1 + below(4), stride = heads * dim + below(3), n = dim & ~(dim - 1);
    const std::vector<float> x = floats(size_t{m - 1} * stride + heads * dim);
    Guarded<float> y(x.size());
    memcpy(y.data(), x.data(), x.size() * sizeof(float));
    run({y.data(), m, stride, heads, dim});
    ASSERT_TRUE(y.intact());
    std::vector<float> between = x;  // what lies between rows stays
    for (uint32_t i = 0; i < m; ++i)
      for (uint32_t head = 0; head < heads; ++head) {
        const size_t at = size_t{i} * stride + head * dim;
        std::vector<double> expected(x.begin() + static_cast<std::ptrdiff_t>(at), x.begin() + static_cast<std::ptrdiff_t>(at + dim));
        for (uint32_t block = 0; block < dim; block += n) expected = times_matrix(expected, block, n);
        const std::vector<double> blocks = expected;
        for (uint32_t d = 0; n < dim && d < dim; ++d)
          for (uint32_t other = d % n; other < dim; other += n) expected[d] -= 2.0 * n / dim * blocks[other];
        for (uint32_t d = 0; d < dim; ++d) {
          EXPECT_NEAR(y[at + d], expected[d], 3e-6) << "dim " << dim << " element " << d;
          between[at + d] = y[at + d];
        }
      }
    EXPECT_EQ(memcmp(between.data(), y.data(), x.size() * sizeof(float)), 0) << dim;
  }
}

TEST_P(hadamard, keeps_products_and_is_its_own_inverse) {
  for (const uint32_t dim : dims) {
    const std::vector<float> x = floats(2 * dim);
    std::vector<float> y = x;
    run({y.data(), 1, 2 * dim, 2, dim});
    double before = 0, after = 0;
    for (uint32_t d = 0; d < dim; ++d) before += double{x[d]} * x[dim + d], after += double{y[d]} * y[dim + d];
    EXPECT_NEAR(after, before, 1e-6 * dim) << dim;
    run({y.data(), 1, 2 * dim, 2, dim});
    for (uint32_t d = 0; d < 2 * dim; ++d) EXPECT_NEAR(y[d], x[d], 3e-6) << dim;
  }
}

TEST_P(hadamard, spreads_what_is_large) {
  for (const auto& [dim, most] : {std::pair{64u, 0.126}, {128u, 0.0885}, {96u, 0.118}, {192u, 0.084}, {80u, 0.151}, {112u, 0.179}})
    for (uint32_t large = 0; large < dim; ++large) {
      std::vector<float> x(dim);
      x[large] = 1;
      run({x.data(), 1, dim, 1, dim});
      for (const float y : x) EXPECT_LE(std::fabs(y), most) << dim << " " << large;
    }
}

}  // namespace
}  // namespace gptq::kernels
