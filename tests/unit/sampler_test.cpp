// SPDX-License-Identifier: Apache-2.0
// Greedy sampling: the first of the largest logits, whatever their signs.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <set>

#include "engine/sampler.h"
#include "tests/seed.h"
#include "tests/unit/sampler_room.h"

namespace gptq::engine {
namespace {

int32_t pick(const std::vector<float>& logits) {
  SamplerRoom scratch(logits.size());
  Random random;
  return engine::sample(logits, {}, {}, random, scratch.data());
}

TEST(Sampler, greedy_is_the_first_of_the_largest) {
  std::mt19937 random(test::seed(1));
  for (int round = 0; round < 300; ++round) {
    std::vector<float> logits(1 + random() % 70);
    for (float& x : logits) x = static_cast<float>(static_cast<int>(random() % 9) - (round % 3) * 4) * 0.25f;  // many are equal
    EXPECT_EQ(pick(logits), std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
  EXPECT_EQ(pick({-1, -0.0f, 0.0f}), 1);
  EXPECT_EQ(pick({-2, 0.0f, -0.0f}), 1);
  EXPECT_EQ(pick({-std::numeric_limits<float>::max(), -1e-45f, -3}), 1);
}

// Sampling written out in float64. margin: how near a decision was to going the other way.
struct Chosen {
  int32_t token = -1;
  double margin = HUGE_VAL;
  void near(double difference) { margin = std::min(margin, std::fabs(difference)); }
};

Chosen written_out(const std::vector<float>& logits, std::span<const int32_t> history, const Sampling& s, double u) {
  Chosen out;
  std::vector<double> x(logits.begin(), logits.end());
  if (s.penalty_window && history.size() > s.penalty_window) history = history.last(s.penalty_window);
  if (s.repeat_penalty != 0 && s.repeat_penalty != 1)
    for (const int32_t token : std::set<int32_t>(history.begin(), history.end())) {
      double& logit = x[static_cast<size_t>(token)];
      logit = logit > 0 ? logit / s.repeat_penalty : logit * s.repeat_penalty;
    }
  std::vector<size_t> best(x.size());
  std::iota(best.begin(), best.end(), 0);
  std::stable_sort(best.begin(), best.end(), [&](size_t a, size_t b) { return x[a] > x[b]; });
  if (s.temperature == 0) {
    out.token = static_cast<int32_t>(best[0]);
    if (x.size() > 1) out.near(x[best[0]] - x[best[1]]);
    return out;
  }
  const auto weight = [&](size_t token) { return std::exp((x[token] - x[best[0]]) / s.temperature); };
  const auto sum = [&](const std::vector<size_t>& tokens) {
    double total = 0;
    for (const size_t token : tokens) total += weight(token);
    return total;
  };
  std::vector<size_t> kept(x.size());
  std::iota(kept.begin(), kept.end(), 0);
  if (s.top_k > 0 && static_cast<size_t>(s.top_k) < x.size()) {
    kept.assign(best.begin(), best.begin() + s.top_k);
    out.near(x[best[static_cast<size_t>(s.top_k) - 1]] - x[best[static_cast<size_t>(s.top_k)]]);
  }
  if (s.top_p > 0 && s.top_p < 1) {
    const double total = sum(kept);
    kept.assign(best.begin(), best.begin() + static_cast<ptrdiff_t>(kept.size()));
    double held = 0;
    size_t n = 0;
    while (held < s.top_p * total && n < kept.size()) held += weight(kept[n++]), out.near(held / total - s.top_p);
    kept.resize(n);
  }
  if (s.min_p > 0) {
    for (const size_t token : kept) out.near(weight(token) - s.min_p);
    std::erase_if(kept, [&](size_t token) { return weight(token) < s.min_p; });
  }
  const double total = sum(kept);
  double left = u * total;
  for (const size_t token : kept) {
    left -= weight(token);
    out.near(left / total);
    if (out.token < 0 && left < 0) out.token = static_cast<int32_t>(token);
  }
  return out;
}

struct Row {
  std::vector<float> logits;
  std::vector<int32_t> history;
};

// 1,000 random rows; settings(random) makes each one's. Rows where float32 may decide otherwise than float64 are left out.
void compare_with_written_out(uint32_t seed, const std::function<Sampling(std::mt19937&, uint32_t)>& settings, uint32_t n_rows = 1000,
                              uint32_t most_logits = 900) {
  std::mt19937 random(test::seed(seed));
  uint32_t compared = 0, differ_from_best = 0;
  for (uint32_t number = 0; number < n_rows; ++number) {
    Row row{std::vector<float>(2 + random() % most_logits), std::vector<int32_t>(random() % 40)};
    const auto n = static_cast<uint32_t>(row.logits.size());
    for (float& logit : row.logits) logit = std::normal_distribution<float>(0, number % 2 ? 3.0f : 1.0f)(random);
    for (int32_t& token : row.history) {  // the likeliest tokens among them, some of them often
      const auto best = std::max_element(row.logits.begin(), row.logits.end()) - row.logits.begin();
      token = random() % 3 ? static_cast<int32_t>(random() % n) : static_cast<int32_t>(best);
    }
    const Sampling sampling = settings(random, n);
    Random draws(random()), same = draws;
    const Chosen expected = written_out(row.logits, row.history, sampling, sampling.temperature > 0 ? same.uniform() : 0);
    SamplerRoom scratch(n);
    const int32_t token = engine::sample(row.logits, row.history, sampling, draws, scratch.data());
    if (expected.margin < (most_logits > 1000 ? 1e-8 : 1e-6)) continue;  // of many, one weighs no more
    ++compared;
    differ_from_best += token != pick(row.logits);
    ASSERT_EQ(token, expected.token) << "row " << number << " of " << n;
  }
  EXPECT_GT(compared, n_rows * 4 / 5);
  EXPECT_GT(differ_from_best, n_rows / 20);  // the setting does something
}

float part(std::mt19937& random) { return std::uniform_real_distribution<float>(0.01f, 0.99f)(random); }
float warmth(std::mt19937& random) { return std::uniform_real_distribution<float>(0.2f, 2.5f)(random); }

TEST(Sampler, temperature_as_written_out) {
  compare_with_written_out(11, [](std::mt19937& random, uint32_t) { return Sampling{.temperature = warmth(random)}; });
}
TEST(Sampler, top_k_as_written_out) {
  compare_with_written_out(12, [](std::mt19937& random, uint32_t n) {
    return Sampling{.temperature = warmth(random), .top_k = static_cast<int32_t>(1 + random() % (random() % 2 ? 10 : n + 5))};
  });
}
TEST(Sampler, top_p_as_written_out) {
  compare_with_written_out(13, [](std::mt19937& random, uint32_t) {
    return Sampling{.temperature = warmth(random), .top_p = part(random)};
  });
}
TEST(Sampler, min_p_as_written_out) {
  compare_with_written_out(14, [](std::mt19937& random, uint32_t) {
    return Sampling{.temperature = warmth(random), .min_p = part(random)};
  });
}
TEST(Sampler, repeat_penalty_as_written_out) {
  for (const float temperature : {0.0f, 0.7f})
    compare_with_written_out(15, [&](std::mt19937& random, uint32_t) {
      return Sampling{.temperature = temperature, .repeat_penalty = std::uniform_real_distribution<float>(0.4f, 2.5f)(random)};
    });
}
TEST(Sampler, penalty_window_as_written_out) {
  for (const float temperature : {0.0f, 0.7f})
    compare_with_written_out(16, [&](std::mt19937& random, uint32_t) {
      const auto window = static_cast<uint32_t>(random() % 12);
      return Sampling{.temperature = temperature, .repeat_penalty = 1.0f + part(random), .penalty_window = window};
    });
}
TEST(Sampler, all_together_as_written_out) {
  compare_with_written_out(17, [](std::mt19937& random, uint32_t n) {
    return Sampling{.temperature = warmth(random), .top_p = part(random), .min_p = part(random) / 4, .repeat_penalty = 1.0f + part(random),
                    .top_k = static_cast<int32_t>(1 + random() % n), .penalty_window = static_cast<uint32_t>(random() % 50)};
  });
}

TEST(Sampler, large_vocabularies_as_written_out) {
  const auto with = [](float top_p, float min_p, int32_t top_k) {
    return [=](std::mt19937& random, uint32_t) { return Sampling{.temperature = warmth(random), .top_p = top_p, .min_p = min_p, .top_k = top_k}; };
  };
  compare_with_written_out(18, with(0, 0, 0), 8, 150000);
  compare_with_written_out(19, with(0.95f, 0, 0), 8, 150000);
  compare_with_written_out(20, with(0.5f, 0.001f, 0), 8, 150000);
  compare_with_written_out(21, with(0.9f, 0, 64), 8, 150000);
}

// Kept tokens and their probabilities, written out in float64; ties go to the lower token.
std::vector<double> probabilities(const std::vector<float>& logits, const Sampling& s) {
  std::vector<size_t> best(logits.size());
  std::iota(best.begin(), best.end(), 0);
  std::stable_sort(best.begin(), best.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  if (s.top_k > 0) best.resize(std::min<size_t>(best.size(), static_cast<size_t>(s.top_k)));
  std::vector<double> p(logits.size());
  double total = 0, held = 0, left = 0;
  for (const size_t i : best) total += p[i] = std::exp((double{logits[i]} - logits[best[0]]) / s.temperature);
  for (const size_t i : best) {
    if ((s.top_p > 0 && held >= s.top_p * total) || p[i] < s.min_p) p[i] = 0;
    left += p[i];
    held += p[i];
  }
  for (double& x : p) x /= left;
  return p;
}

// Only kept tokens come, each as often as it should: within 5 standard deviations.
void expect_drawn_as_written_out(const std::vector<float>& logits, const Sampling& sampling, uint64_t seed) {
  constexpr int draws = 2000;
  const std::vector<double> expected = probabilities(logits, sampling);
  std::vector<int> drawn(logits.size());
  SamplerRoom scratch(logits.size());
  Random random(seed);
  for (int i = 0; i < draws; ++i) {
    const int32_t token = engine::sample(logits, {}, sampling, random, scratch.data());
    ASSERT_TRUE(token >= 0 && static_cast<size_t>(token) < logits.size());
    ++drawn[static_cast<size_t>(token)];
  }
  for (size_t i = 0; i < drawn.size(); ++i) {
    const double mean = draws * expected[i];
    EXPECT_NEAR(drawn[i], mean, 5 * std::sqrt(mean * (1 - expected[i])) + (mean > 0 ? 2 : 0)) << "token " << i << " of " << drawn.size();
  }
}

TEST(Sampler, draws_with_the_probabilities_that_are_written_out) {
  std::mt19937 random(test::seed(21));
  for (uint64_t row = 0; row < 200; ++row) {
    std::vector<float> logits(1 + random() % 12);
    for (float& x : logits) x = row % 2 ? std::normal_distribution<float>(0, 2)(random) : static_cast<float>(random() % 3);  // or ties
    const Sampling sampling{.temperature = warmth(random), .top_p = random() % 2 ? 0.613f : 0, .min_p = random() % 2 ? 0.0917f : 0,
                            .top_k = static_cast<int32_t>(random() % 14)};
    expect_drawn_as_written_out(logits, sampling, row);
  }
}
TEST(Sampler, equal_logits_are_equally_likely) {
  for (const float value : {0.0f, -7.5f, 3e38f, -3e38f, 1e-45f})
    for (const Sampling& sampling : {Sampling{.temperature = 0.7f}, Sampling{.temperature = 1, .top_p = 0.55f}, Sampling{.temperature = 1, .min_p = 1},
                                     Sampling{.temperature = 1, .top_k = 3}})
      expect_drawn_as_written_out(std::vector<float>(10, value), sampling, 5);
}
TEST(Sampler, extreme_temperatures_and_logits) {
  const float most = std::numeric_limits<float>::max(), least = std::numeric_limits<float>::denorm_min();
  const std::vector<float> far{-most, most, -most, 0}, near{1, 1.0000001f, 0.5f, -1000};
  for (const float temperature : {least, 1e-30f, 1e-3f, 1.0f, 1000.0f})
    for (const float top_p : {0.0f, least, 0.9f, 1.0f})
      for (const float min_p : {0.0f, least, 1.0f}) {
        const Sampling sampling{.temperature = temperature, .top_p = top_p, .min_p = min_p};
        expect_drawn_as_written_out(far, sampling, 6);
        expect_drawn_as_written_out({-3.0f}, sampling, 7);
        if (min_p < 1 && (top_p == 0 || top_p == 1)) expect_drawn_as_written_out(near, sampling, 8);
      }
}
// A penalty that would make a logit infinite makes it the largest there is.
TEST(Sampler, a_penalty_that_overflows) {
  const float most = std::numeric_limits<float>::max();
  const std::vector<int32_t> history{1, 2, 2};
  for (const float temperature : {0.0f, 1.0f})
    for (const float top_p : {0.0f, 0.5f}) {
      SamplerRoom scratch(4);
      Random random(9);
      const Sampling sampling{.temperature = temperature, .top_p = top_p, .repeat_penalty = 1e-3f};
      for (int i = 0; i < 100; ++i) EXPECT_EQ(engine::sample(std::vector<float>{1, most, -1, 0}, history, sampling, random, scratch.data()), 1);
      const Sampling low{.temperature = temperature, .repeat_penalty = 1000};
      int last = 0;
      for (int i = 0; i < 100; ++i) last += engine::sample(std::vector<float>{-most, -most}, std::vector<int32_t>{0, 1}, low, random, scratch.data());
      EXPECT_LT(last, 80);
      EXPECT_GE(last, temperature > 0 ? 20 : 0);  // equally likely
    }
}

// What a device gives: the best logits in their order, at least as many as are asked for.
std::vector<Candidate> best_of(const std::vector<float>& logits, size_t n) {
  std::vector<Candidate> all;
  for (size_t i = 0; i < logits.size(); ++i) all.push_back({logits[i], static_cast<int32_t>(i)});
  std::stable_sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) { return a.logit > b.logit; });
  all.resize(n);
  return all;
}

// Few and many of them, with equal ones among them.
TEST(Sampler, finds_the_best) {
  std::mt19937 random(test::seed(5));
  for (int round = 0; round < 1000; ++round) {
    std::vector<float> logits(1 + random() % 3000);
    for (float& x : logits) x = round % 2 ? std::normal_distribution<float>(0, 4)(random) : static_cast<float>(random() % 50) - 25;
    const size_t n = 1 + random() % (round % 3 ? 40 : logits.size() + 5);
    SamplerRoom scratch(logits.size());
    const auto expected = best_of(logits, std::min(n, logits.size()));
    const auto found = engine::best_of(logits, n, scratch.candidates.data());
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) ASSERT_EQ(found[i].token, expected[i].token) << round << ", " << i;
    for (const Candidate& c : found) ASSERT_EQ(c.logit, logits[static_cast<size_t>(c.token)]);
  }
}

TEST(Sampler, from_the_best_as_from_all) {
  std::mt19937 random(test::seed(4));
  for (int round = 0; round < 3000; ++round) {
    std::vector<float> logits(2 + random() % 700);
    for (float& x : logits) x = round % 3 ? std::normal_distribution<float>(0, 4)(random) : static_cast<float>(random() % 5) - 2;
    Sampling sampling{.temperature = round % 7 ? 0.3f * static_cast<float>(1 + random() % 9) : 0, .top_k = static_cast<int32_t>(random() % 300)};
    if (random() % 2) sampling.top_p = 0.1f * static_cast<float>(random() % 10);
    if (random() % 2) sampling.min_p = 0.03f * static_cast<float>(random() % 40);
    const auto n = static_cast<uint32_t>(logits.size()), wanted = sampling.candidates(n);
    if (!wanted) continue;
    SamplerRoom scratch(logits.size());
    Random one(static_cast<uint64_t>(round)), other = one;
    const auto best = best_of(logits, std::min<size_t>(n, wanted + random() % 3));
    ASSERT_EQ(engine::sample_best(best, n, sampling, one, scratch.candidates.data()), engine::sample(logits, {}, sampling, other, scratch.data())) << round;
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
