// SPDX-License-Identifier: Apache-2.0
// rms_norm and layer_norm against float64.
#include "kernel_test.h"

namespace gptq::kernels {
namespace {

KERNEL_SUITE(rms_norm, RmsNormArgs);
KERNEL_SUITE(layer_norm, LayerNormArgs);

constexpr uint32_t sizes[] = {1, 7, 8, 15, 16, 37, 64, 576, 2048};

TEST_P(rms_norm, matches_float64) {
  for (const uint32_t n : sizes)
    for (const int way : {0, 1, 2, 3}) {
      const bool in_place = way & 1, weighted = way & 2;
      const uint32_t rows = 1 + below(4);
      const float eps = 1e-5f;
      const std::vector<float> x = floats(size_t{rows} * n, std::exp(uniform(-7, 7))), weight = floats(n, 3);
      Guarded<float> y(x.size());
      if (in_place) memcpy(y.data(), x.data(), x.size() * sizeof(float));
      run({in_place ? y.data() : x.data(), weighted ? weight.data() : nullptr, y.data(), rows, n, eps});
      ASSERT_TRUE(y.intact());
      for (uint32_t row = 0; row < rows; ++row) {
        double squares = 0;
        for (uint32_t j = 0; j < n; ++j) squares += std::pow(double{x[row * n + j]}, 2);
        for (uint32_t j = 0; j < n; ++j) {
          const double expected = x[row * n + j] / std::sqrt(squares / n + eps) * (weighted ? weight[j] : 1);
          EXPECT_NEAR(y[row * n + j], expected, 2e-6 * std::fabs(expected)) << "n " << n;
        }
      }
    }
}

TEST_P(layer_norm, matches_float64) {
  for (const uint32_t n : sizes)
    for (int way = 0; way < 8; ++way) {
      const bool in_place = way & 1;
      const uint32_t rows = 1 + below(4);
      const float eps = 1e-5f, size = std::exp(uniform(-5, 5)), shift = size * uniform(-3, 3);
      std::vector<float> x = floats(size_t{rows} * n, size);
      const std::vector<float> weight = floats(n, 3), bias = floats(n, 2);
      for (float& v : x) v += shift;
      Guarded<float> y(x.size());
      if (in_place) memcpy(y.data(), x.data(), x.size() * sizeof(float));
      run({.x = in_place ? y.data() : x.data(),
           .weight = way & 2 ? weight.data() : nullptr,
           .bias = way & 4 ? bias.data() : nullptr,
           .y = y.data(),
           .rows = rows,
           .n = n,
           .eps = eps});
      ASSERT_TRUE(y.intact());
      for (uint32_t row = 0; row < rows; ++row) {
        double sum = 0, squares = 0;
        for (uint32_t j = 0; j < n; ++j) sum += x[row * n + j];
        for (uint32_t j = 0; j < n; ++j) squares += std::pow(x[row * n + j] - sum / n, 2);
        for (uint32_t j = 0; j < n; ++j) {
          double expected = (x[row * n + j] - sum / n) / std::sqrt(squares / n + eps);
          if (way & 2) expected *= weight[j];
          if (way & 4) expected += bias[j];
          EXPECT_NEAR(y[row * n + j], expected, 1e-5) << "n " << n << " way " << way;
        }
      }
    }
}

}  // namespace
}  // namespace gptq::kernels
