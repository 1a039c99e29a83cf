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

// What a device gives: the best logits in their order, at least as many as are asked for.
std::vector<Candidate> best_of(const std::vector<float>& logits, size_t n) {
  std::vector<Candidate> all;
  for (size_t i = 0; i < logits.size(); ++i) all.push_back({logits[i], static_cast<int32_t>(i)});
  std::stable_sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) { return a.logit > b.logit; });
  all.resize(n);
  return all;
}

TEST(Sampler, from_the_best_as_from_all) {
  std::mt19937 random(4);
  for (int round = 0; round < 3000; ++round) {
    std::vector<float> logits(2 + random() % 700);
    for (float& x : logits) x = round % 3 ? std::normal_distribution<float>(0, 4)(random) : static_cast<float>(random() % 5) - 2;
    Sampling sampling{.temperature = round % 7 ? 0.3f * static_cast<float>(1 + random() % 9) : 0, .top_k = static_cast<int32_t>(random() % 300)};
    if (random() % 2) sampling.top_p = 0.1f * static_cast<float>(random() % 10);
    if (random() % 2) sampling.min_p = 0.03f * static_cast<float>(random() % 40);
    const auto n = static_cast<uint32_t>(logits.size()), wanted = sampling.candidates(n);
    if (!wanted) continue;
    std::vector<Candidate> scratch(logits.size());
    Random one(static_cast<uint64_t>(round)), other = one;
    const auto best = best_of(logits, std::min<size_t>(n, wanted + random() % 3));
    ASSERT_EQ(engine::sample_best(best, n, sampling, one, scratch.data()), engine::sample(logits, {}, sampling, other, scratch.data())) << round;
    ASSERT_EQ(one.uniform(), other.uniform()) << "as many random numbers are drawn";
  }
}

TEST(Sampler, asks_for_all_where_it_looks_at_all) {
  EXPECT_EQ((Sampling{.temperature = 1}).candidates(100), 0u);
  EXPECT_EQ((Sampling{.temperature = 1, .top_k = 100}).candidates(100), 0u);
  EXPECT_EQ((Sampling{.temperature = 1, .top_k = 99}).candidates(100), 99u);
  EXPECT_EQ((Sampling{.temperature = 1, .repeat_penalty = 1.1f, .top_k = 5}).candidates(100), 0u);
  EXPECT_EQ((Sampling{.repeat_penalty = 1.1f}).candidates(100), 0u);
  EXPECT_EQ((Sampling{.repeat_penalty = 1, .top_k = 5}).candidates(100), 1u);
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
