// SPDX-License-Identifier: Apache-2.0
// Greedy sampling: the first of the largest logits, whatever their signs.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>

#include "engine/sampler.h"

namespace gptq::engine {
namespace {

int32_t pick(const std::vector<float>& logits) {
  std::vector<Candidate> scratch(logits.size());
  Random random;
  return engine::sample(logits, {}, {}, random, scratch.data());
}

TEST(Sampler, greedy_is_the_first_of_the_largest) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    std::vector<float> logits(1 + random() % 70);
    for (float& x : logits) x = static_cast<float>(static_cast<int>(random() % 9) - (round % 3) * 4) * 0.25f;  // many are equal
    EXPECT_EQ(pick(logits), std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
  EXPECT_EQ(pick({-1, -0.0f, 0.0f}), 1);
  EXPECT_EQ(pick({-2, 0.0f, -0.0f}), 1);
  EXPECT_EQ(pick({-std::numeric_limits<float>::max(), -1e-45f, -3}), 1);
}

TEST(Sampler, greedy_as_with_a_penalty_that_does_nothing) {
  std::mt19937 random(2);
  std::vector<float> logits(5000);
  for (float& x : logits) x = std::uniform_real_distribution<float>(-9, -1)(random);
  std::vector<Candidate> scratch(logits.size());
  Random unused;
  const Sampling penalty{.repeat_penalty = 2};
  EXPECT_EQ(pick(logits), engine::sample(logits, {}, penalty, unused, scratch.data()));
}

TEST(Sampler, refuses_what_is_not_finite) {
  for (const float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()})
    for (const size_t at : {0u, 17u, 99u}) {
      std::vector<float> logits(100, 1.0f);
      logits[at] = bad;
      EXPECT_EQ(pick(logits), -1);
    }
}

}  // namespace
}  // namespace gptq::engine
