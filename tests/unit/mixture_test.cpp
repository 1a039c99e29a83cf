// SPDX-License-Identifier: Apache-2.0
// A budget of bytes among parts: against every combination there is.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "quantize/mixture.h"
#include "quantize/nearest.h"
#include "tests/seed.h"

namespace gptq::test {
namespace {

using quantize::Choice;
using Parts = std::vector<std::vector<Choice>>;

struct Sum {
  uint64_t bytes = 0;
  double cost = 0;
};

Sum sum_of(const Parts& parts, const std::vector<uint32_t>& taken) {
  Sum sum;
  for (size_t i = 0; i < parts.size(); ++i) sum.bytes += parts[i][taken[i]].bytes, sum.cost += parts[i][taken[i]].cost;
  return sum;
}

// The smallest cost of all combinations that fit; infinite where none does.
double least_cost(const Parts& parts, uint64_t bytes_max) {
  double least = INFINITY;
  std::vector<uint32_t> taken(parts.size());
  for (;;) {
    const Sum sum = sum_of(parts, taken);
    if (sum.bytes <= bytes_max) least = std::min(least, sum.cost);
    size_t i = 0;
    while (i < parts.size() && ++taken[i] == parts[i].size()) taken[i++] = 0;
    if (i == parts.size()) return least;
  }
}

// As matrices are: twice the bytes, a fifth of the error, and none of two parts alike.
Parts random_parts(std::mt19937& random, size_t n) {
  std::uniform_real_distribution<double> unit(0.1, 1);
  Parts parts(n);
  for (auto& choices : parts) {
    const double size = 1000 * unit(random), cost = std::exp(4 * unit(random));
    for (const double bits : {2.0, 3.0, 4.0, 8.0}) choices.push_back({static_cast<uint64_t>(size * bits), cost * std::pow(4.5, -bits) * unit(random)});
  }
  return parts;
}

TEST(Mixture, IsNearTheBestOfAllCombinations) {
  std::mt19937 random(seed(3));
  double worst = 1;
  for (int round = 0; round < 200; ++round) {
    const Parts parts = random_parts(random, 6);
    uint64_t least = 0, most = 0;
    for (const auto& choices : parts) least += choices.front().bytes, most += choices.back().bytes;
    const uint64_t budget = least + (most - least) * static_cast<uint64_t>(round) / 200;
    const std::vector<uint32_t> taken = quantize::allocate(parts, budget);
    ASSERT_EQ(taken.size(), parts.size());
    const Sum sum = sum_of(parts, taken);
    EXPECT_LE(sum.bytes, budget);
    const double best = least_cost(parts, budget);
    EXPECT_GE(sum.cost, best * (1 - 1e-12));
    worst = std::max(worst, sum.cost / best);
  }
  EXPECT_LT(worst, 3);  // six parts are few: the last step that does not fit counts for much
}

TEST(Mixture, NearerTheBestTheMorePartsThereAre) {
  std::mt19937 random(seed(4));
  // Of parts that are all alike in price the best is known: the cheapest steps first.
  Parts parts(300);
  for (auto& choices : parts) choices = {{100, 8}, {200, 2}, {300, 1}};
  const std::vector<uint32_t> taken = quantize::allocate(parts, 300 * 150);
  const Sum sum = sum_of(parts, taken);
  EXPECT_EQ(sum.bytes, 300u * 150);
  EXPECT_DOUBLE_EQ(sum.cost, 150 * 8 + 150 * 2);
}

TEST(Mixture, BudgetsAtTheirEnds) {
  const Parts parts = {{{10, 5}, {20, 1}}, {{30, 2}, {7, 9}}};
  EXPECT_TRUE(quantize::allocate(parts, 16).empty());
  EXPECT_EQ(quantize::allocate(parts, 17), (std::vector<uint32_t>{0, 1}));
  EXPECT_EQ(quantize::allocate(parts, 49), (std::vector<uint32_t>{1, 1}));  // the cheaper step first, and then the other does not fit
  EXPECT_EQ(quantize::allocate(parts, 50), (std::vector<uint32_t>{1, 0}));
  EXPECT_EQ(quantize::allocate(parts, UINT64_MAX), (std::vector<uint32_t>{1, 0}));
}

TEST(Mixture, CostsOfNothing) {
  const Parts parts = {{{10, 0}, {20, 0}, {5, 0}}, {{30, 2}, {7, 9}}};
  EXPECT_EQ(quantize::allocate(parts, 1000), (std::vector<uint32_t>{2, 0}));  // no bytes for what gains nothing
}

TEST(Mixture, NearestErrorsAreThoseOfTheRoundedMatrix) {
  constexpr uint32_t n = 20, k = 100;
  base::Pool pool(2, nullptr, nullptr, std::pmr::get_default_resource());
  const kernels::Kernels kernels = kernels::select_kernels(0);
  std::mt19937 random(seed(5));
  std::normal_distribution<float> normal;
  std::vector<float> values(size_t{n} * k);
  for (float& value : values) value = normal(random);
  const kernels::Matrix w{kernels::Kind::f32, false, n, k, k, 0, values.data(), nullptr, nullptr, nullptr};
  std::vector<quantize::ModuleOptions> settings;
  for (const uint32_t bits : {2u, 3u, 4u, 8u})
    for (const int32_t group : {32, -1}) settings.push_back({.bits = bits, .group_size = group});
  const std::vector<double> errors = quantize::nearest_errors(w, settings, kernels, pool, std::pmr::get_default_resource());
  for (size_t i = 0; i < settings.size(); ++i) {
    const base::Buffer rounded = quantize::round_to_nearest(w, settings[i], kernels, pool, std::pmr::get_default_resource());
    const auto* floats = reinterpret_cast<const float*>(rounded.data());
    double error = 0;
    std::vector<float> levels;
    for (uint32_t column = 0; column < 32; ++column) levels.push_back(floats[column]);
    for (size_t at = 0; at < values.size(); ++at) error += std::pow(double(floats[at]) - double(values[at]), 2);
    EXPECT_NEAR(errors[i], error, 1e-5 * error);
    if (i >= 2) {
      EXPECT_LT(errors[i], errors[i - 2]) << "a bit more";
    }
    if (i % 2) {
      EXPECT_GT(errors[i], errors[i - 1]) << "a scale for more of them";
    }
    std::sort(levels.begin(), levels.end());
    EXPECT_LE(std::unique(levels.begin(), levels.end()) - levels.begin(), 1 << settings[i].bits);
  }
}

}  // namespace
}  // namespace gptq::test
