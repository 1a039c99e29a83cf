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

TEST_P(hadamard, is_the_matrix_on_the_first_and_the_last_elements) {
  for (const uint32_t dim : dims)
    for (const bool inverse : {false, true}) {
      const uint32_t m = 1 + below(3), heads = 1 + below(4), stride = heads * dim + below(3), n = std::bit_floor(dim);
      const std::vector<float> x = floats(size_t{m - 1} * stride + heads * dim);
      Guarded<float> y(x.size());
      memcpy(y.data(), x.data(), x.size() * sizeof(float));
      run({y.data(), m, stride, heads, dim, inverse});
      ASSERT_TRUE(y.intact());
      std::vector<float> between = x;  // what lies between rows stays
      for (uint32_t i = 0; i < m; ++i)
        for (uint32_t head = 0; head < heads; ++head) {
          const size_t at = size_t{i} * stride + head * dim;
          std::vector<double> expected(x.begin() + static_cast<std::ptrdiff_t>(at), x.begin() + static_cast<std::ptrdiff_t>(at + dim));
          expected = times_matrix(expected, inverse ? dim - n : 0, n);
          if (n < dim) expected = times_matrix(expected, inverse ? 0 : dim - n, n);
          for (uint32_t d = 0; d < dim; ++d) {
            EXPECT_NEAR(y[at + d], expected[d], 2e-6) << "dim " << dim << " element " << d << (inverse ? " back" : "");
            between[at + d] = y[at + d];
          }
        }
      EXPECT_EQ(memcmp(between.data(), y.data(), x.size() * sizeof(float)), 0) << dim;
    }
}

TEST_P(hadamard, keeps_products_and_comes_back) {
  for (const uint32_t dim : dims) {
    const std::vector<float> x = floats(2 * dim);
    std::vector<float> y = x;
    run({y.data(), 1, 2 * dim, 2, dim, false});
    double before = 0, after = 0;
    for (uint32_t d = 0; d < dim; ++d) before += double{x[d]} * x[dim + d], after += double{y[d]} * y[dim + d];
    EXPECT_NEAR(after, before, 1e-6 * dim) << dim;
    run({y.data(), 1, 2 * dim, 2, dim, true});
    for (uint32_t d = 0; d < 2 * dim; ++d) EXPECT_NEAR(y[d], x[d], 2e-6) << dim;
  }
}

// One large element is spread over all: over every one of the largest power of two at least.
TEST_P(hadamard, spreads_what_is_large) {
  for (const uint32_t dim : {64u, 80u, 96u, 128u})
    for (uint32_t large = 0; large < dim; ++large) {
      std::vector<float> x(dim);
      x[large] = 1;
      run({x.data(), 1, dim, 1, dim, false});
      for (const float y : x) EXPECT_LE(std::fabs(y), 1.001f / std::sqrt(static_cast<float>(std::bit_floor(dim) / 2))) << dim << " " << large;
    }
}

}  // namespace
}  // namespace gptq::kernels
