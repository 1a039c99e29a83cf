// SPDX-License-Identifier: Apache-2.0
// elementwise against float64.
#include <algorithm>

#include "kernel_test.h"

namespace gptq::kernels {
namespace {

KERNEL_SUITE(elementwise, ElementwiseArgs);

constexpr Elementwise kinds[] = {Elementwise::scale, Elementwise::clamp, Elementwise::softcap, Elementwise::gate, Elementwise::add_scaled};

double expected(Elementwise kind, double x, double y, double factor) {
  switch (kind) {
    case Elementwise::scale: return x * factor;
    case Elementwise::clamp: return std::min(std::max(x, -factor), factor);
    case Elementwise::softcap: return factor * std::tanh(x / factor);
    case Elementwise::gate: return x / (1 + std::exp(-y));
    case Elementwise::add_scaled: return x + factor * y;
  }
  return 0;
}

TEST_P(elementwise, matches_float64) {
  for (const Elementwise kind : kinds)
    for (const uint64_t count : {0ull, 1ull, 7ull, 8ull, 9ull, 16ull, 17ull, 1000ull, 100003ull}) {
      const std::vector<float> before = floats(count, count < 100 ? 5 : 110), y = floats(count, count < 100 ? 5 : 110);
      const float factor = kind == Elementwise::add_scaled ? -0.3f : 30;
      const bool two = kind >= Elementwise::gate;
      const bool in_place = count % 2;
      Guarded<float> x(count);
      if (in_place) std::copy(before.begin(), before.end(), x.data());
      run({kind, in_place ? x.data() : before.data(), two ? y.data() : nullptr, x.data(), count, factor});
      ASSERT_TRUE(x.intact());
      for (uint64_t j = 0; j < count; ++j) {
        const double wanted = expected(kind, before[j], two ? y[j] : 0, factor);
        const double size = kind == Elementwise::add_scaled ? std::fabs(double{before[j]}) + std::fabs(factor * y[j]) : std::fabs(wanted);
        ASSERT_NEAR(x[j], wanted, 5e-7 * size + 1e-36) << "kind " << int(kind) << " x " << before[j] << " y " << y[j];
      }
    }
}

TEST_P(elementwise, nan_stays_and_far_values_are_their_limits) {
  const std::vector<float> before = {std::nanf(""), 1e30f, -1e30f, 0, 1e-30f}, y = {1, 1, 1, 1, 1};
  for (const Elementwise kind : kinds) {
    std::vector<float> x = before;
    run({kind, x.data(), y.data(), x.data(), x.size(), 50});
    EXPECT_TRUE(std::isnan(x[0])) << int(kind);
    if (kind == Elementwise::clamp || kind == Elementwise::softcap) {
      EXPECT_EQ(x[1], 50) << int(kind);
      EXPECT_EQ(x[2], -50) << int(kind);
      EXPECT_EQ(x[3], 0) << int(kind);
      EXPECT_FLOAT_EQ(x[4], 1e-30f) << int(kind);
    }
  }
  std::vector<float> x(4, 2);
  const std::vector<float> gates = {std::nanf(""), 200, -200, 0};
  run({Elementwise::gate, x.data(), gates.data(), x.data(), 4, 0});
  EXPECT_TRUE(std::isnan(x[0]));
  EXPECT_EQ(x[1], 2);
  EXPECT_NEAR(x[2], 0, 1e-30);
  EXPECT_EQ(x[3], 1);
}

}  // namespace
}  // namespace gptq::kernels
