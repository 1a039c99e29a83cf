// SPDX-License-Identifier: Apache-2.0
// activate against float64.
#include <algorithm>

#include "kernel_test.h"

namespace gptq::kernels {
namespace {

KERNEL_SUITE(activate, ActivateArgs);

constexpr XieluParameters xielu = {.positive = 0.8f, .negative = 1.3f, .beta = 0.5f, .eps = -1e-6f};
constexpr uint64_t counts[] = {0, 1, 7, 8, 9, 16, 17, 1000, 100003};

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

double activated(Activation act, double x) {
  switch (act) {
    case Activation::silu: return x * sigmoid(x);
    case Activation::gelu: return x / 2 * std::erfc(-x / std::sqrt(2));
    case Activation::gelu_tanh: return x * sigmoid(2 * std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x));
    case Activation::relu: return std::max(x, 0.0);
    case Activation::relu2: return std::pow(std::max(x, 0.0), 2);
    case Activation::swiglu_clamped: return std::min(x, 7.0) * sigmoid(1.702 * std::min(x, 7.0));
    case Activation::xielu: {
      const double low = std::expm1(std::min(x, double{xielu.eps})) - x;
      return double{xielu.beta} * x + (x > 0 ? xielu.positive * x * x : xielu.negative * low);
    }
  }
  return 0;
}

// Of e^-large the last digits are lost with those of its exponent; xielu is a sum.
double allowed(Activation act, double x, double y) {
  const double size = std::fabs(x), cubic = 1.6 * size + 0.0714 * size * size * size;
  const double exponent = act == Activation::gelu ? x * x : act == Activation::gelu_tanh ? cubic : act == Activation::swiglu_clamped ? size : 0;
  return (4e-7 + 1.5e-7 * exponent) * std::fabs(y) + (act == Activation::xielu ? 2e-7 * std::fabs(x) : 0);
}

TEST_P(activate, gated_matches_float64) {
  for (const Activation act : {Activation::silu, Activation::gelu, Activation::gelu_tanh, Activation::relu, Activation::relu2,
                               Activation::swiglu_clamped})
    for (const uint64_t count : counts) {
      const bool clamped = act == Activation::swiglu_clamped;
      const std::vector<float> gate = floats(count, count < 100 ? 5 : 110), up = floats(count, clamped ? 12 : 1);
      Guarded<float> out(count);
      run({act, gate.data(), up.data(), out.data(), count, {}});
      ASSERT_TRUE(out.intact());
      for (uint64_t j = 0; j < count; ++j) {
        const double y = activated(act, gate[j]), times = clamped ? std::clamp(up[j], -7.0f, 7.0f) + 1.0 : up[j];
        ASSERT_NEAR(out[j], y * times, allowed(act, gate[j], y) * std::fabs(times) + 1e-35)
            << "kind " << int(act) << " gate " << gate[j] << " up " << up[j];
      }
    }
}

TEST_P(activate, alone_matches_float64) {
  for (const Activation act : {Activation::silu, Activation::gelu, Activation::gelu_tanh, Activation::relu, Activation::relu2,
                               Activation::xielu})
    for (const uint64_t count : counts)
      for (const bool in_place : {false, true}) {
        const std::vector<float> up = floats(count, count % 2 ? 5 : count < 100 ? 0.01f : 110);
        Guarded<float> out(count);
        if (in_place) std::copy(up.begin(), up.end(), out.data());
        run({act, nullptr, in_place ? out.data() : up.data(), out.data(), count, xielu});
        ASSERT_TRUE(out.intact());
        for (uint64_t j = 0; j < count; ++j) {
          const double y = activated(act, up[j]);
          ASSERT_NEAR(out[j], y, allowed(act, up[j], y) + 1e-35) << "kind " << int(act) << " of " << up[j];
        }
      }
}

TEST_P(activate, nan_and_infinity_stay) {
  const std::vector<float> gate = {std::nanf(""), HUGE_VALF, 200, -200, 0, 88.7f, -88.7f, -103.9f}, up(8, 1.0f);
  std::vector<float> out(8);
  run({Activation::silu, gate.data(), up.data(), out.data(), 8, {}});
  EXPECT_TRUE(std::isnan(out[0]));
  EXPECT_EQ(out[1], HUGE_VALF);
  EXPECT_EQ(out[2], 200);
  EXPECT_EQ(out[3], 0);
  EXPECT_EQ(out[4], 0);
  EXPECT_FLOAT_EQ(out[5], 88.7f);
  EXPECT_NEAR(out[6], 0, 1e-35);
  EXPECT_NEAR(out[7], 0, 1e-35);
}

TEST_P(activate, of_every_kind_nan_stays_and_far_values_are_their_limits) {
  const std::vector<float> up = {std::nanf(""), 1e30f, -1e30f, 0, 1e15f, -1e15f, 300, -300};
  std::vector<float> out(up.size());
  for (const Activation act : {Activation::silu, Activation::gelu, Activation::gelu_tanh, Activation::relu, Activation::xielu}) {
    const XieluParameters plain = {.positive = 0, .negative = 1, .beta = 1, .eps = -1e-6f};  // x, or e^x - 1
    run({act, nullptr, up.data(), out.data(), up.size(), plain});
    const double low = act == Activation::xielu ? -1 : 0;
    EXPECT_TRUE(std::isnan(out[0])) << int(act);
    for (const size_t j : {1, 4, 6}) EXPECT_EQ(out[j], up[j]) << int(act);
    for (const size_t j : {2, 5}) EXPECT_NEAR(out[j], low, act == Activation::xielu ? HUGE_VAL : 0) << int(act);  // lost in a sum
    EXPECT_NEAR(out[3], 0, 2e-6) << int(act);
    EXPECT_NEAR(out[7], low, 1e-4) << int(act);
  }
  const std::vector<float> ones(up.size(), 1);
  run({Activation::swiglu_clamped, up.data(), ones.data(), out.data(), up.size(), {}});
  EXPECT_TRUE(std::isnan(out[0]));
  for (const size_t j : {1, 4, 6}) EXPECT_FLOAT_EQ(out[j], static_cast<float>(2 * 7 * sigmoid(1.702 * 7)));
}

}  // namespace
}  // namespace gptq::kernels
