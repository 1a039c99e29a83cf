// SPDX-License-Identifier: Apache-2.0
// Which experts a row goes to, by every family's rule, against the rule as its own code has it, in float64.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <random>

#include "engine/route.h"
#include "tests/seed.h"

namespace gptq::engine {
namespace {

using model::Experts, model::GroupScore, model::Score;
using Values = std::vector<double>;

struct Choice {
  std::vector<int32_t> experts;
  Values weights;
};

Choice chosen(const Experts& rule, const std::vector<float>& logits, const std::vector<float>& bias = {}) {
  std::vector<int32_t> experts(rule.n_active);
  std::vector<float> weights(rule.n_active), scratch(3 * size_t{rule.n});
  choose_experts(rule, logits.data(), bias.empty() ? nullptr : bias.data(), 1, experts.data(), weights.data(), scratch.data());
  return {experts, {weights.begin(), weights.end()}};
}

// Indices of the k largest, the first of equals first.
std::vector<int32_t> top(const Values& x, size_t k) {
  std::vector<int32_t> order(x.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return x[size_t(a)] > x[size_t(b)]; });
  order.resize(k);
  return order;
}

Values softmax(Values x) {
  const double most = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (double& v : x) sum += v = std::exp(v - most);
  for (double& v : x) v /= sum;
  return x;
}

Values sigmoids(Values x) {
  for (double& v : x) v = 1 / (1 + std::exp(-v));
  return x;
}

Values at(const Values& x, const std::vector<int32_t>& indices) {
  Values y;
  for (const int32_t i : indices) y.push_back(x[size_t(i)]);
  return y;
}

double sum_of(const Values& x) { return std::accumulate(x.begin(), x.end(), 0.0); }

Values times(Values x, double factor) {
  for (double& v : x) v *= factor;
  return x;
}

Values plus(Values x, const std::vector<float>& bias) {
  for (size_t i = 0; i < x.size(); ++i) x[i] += bias[i];
  return x;
}

// What is left of `rank` after only the best groups were kept; a group's score is the sum of its `best` largest.
Values grouped(Values rank, size_t groups, size_t kept, size_t best) {
  const size_t size = rank.size() / groups;
  Values scores;
  for (size_t g = 0; g < groups; ++g) {
    const Values part(rank.begin() + ptrdiff_t(g * size), rank.begin() + ptrdiff_t((g + 1) * size));
    scores.push_back(sum_of(at(part, top(part, best))));
  }
  const std::vector<int32_t> keep = top(scores, kept);
  for (size_t i = 0; i < rank.size(); ++i)
    if (std::find(keep.begin(), keep.end(), int32_t(i / size)) == keep.end()) rank[i] = -INFINITY;
  return rank;
}

// A family's rule twice: as data, and written out.
struct Family {
  const char* name;
  Experts rule;
  std::function<Choice(const Values& logits, const std::vector<float>& bias)> reference;
};

std::vector<Family> families() {
  const auto of = [](std::vector<int32_t> experts, Values weights) { return Choice{std::move(experts), std::move(weights)}; };
  return {
      {"mixtral",
       {.n = 8, .n_active = 2, .score = Score::softmax, .normalize = true},
       [=](const Values& l, auto&) {
         const Values p = softmax(l);
         const auto e = top(p, 2);
         return of(e, times(at(p, e), 1 / sum_of(at(p, e))));
       }},
      {"qwen2_moe",
       {.n = 60, .n_active = 4, .score = Score::softmax},
       [=](const Values& l, auto&) {
         const Values p = softmax(l);
         return of(top(p, 4), at(p, top(p, 4)));
       }},
      {"qwen3_moe",
       {.n = 128, .n_active = 8, .score = Score::softmax, .normalize = true},
       [=](const Values& l, auto&) { return of(top(l, 8), softmax(at(l, top(l, 8)))); }},
      {"gpt_oss",
       {.n = 32, .n_active = 4, .score = Score::softmax_of_chosen},
       [=](const Values& l, auto&) { return of(top(l, 4), softmax(at(l, top(l, 4)))); }},
      {"deepseek_v2",
       {.n = 160, .n_active = 6, .groups = 8, .groups_kept = 3, .score = Score::softmax, .group_score = GroupScore::largest, .scale = 16},
       [=](const Values& l, auto&) {
         const Values p = softmax(l);
         const auto e = top(grouped(p, 8, 3, 1), 6);
         return of(e, times(at(p, e), 16));
       }},
      {"deepseek_v3",
       {.n = 256,
        .n_active = 8,
        .groups = 8,
        .groups_kept = 4,
        .score = Score::sigmoid,
        .group_score = GroupScore::two_largest,
        .normalize = true,
        .choice_bias = true,
        .epsilon = 1e-20f,
        .scale = 2.5f},
       [=](const Values& l, const std::vector<float>& bias) {
         const Values s = sigmoids(l);
         const auto e = top(grouped(plus(s, bias), 8, 4, 2), 8);
         return of(e, times(at(s, e), 2.5 / (sum_of(at(s, e)) + 1e-20)));
       }},
      {"lfm2_moe",
       {.n = 32, .n_active = 4, .score = Score::sigmoid, .normalize = true, .choice_bias = true, .epsilon = 1e-6f, .scale = 1.5f},
       [=](const Values& l, const std::vector<float>& bias) {
         const Values s = sigmoids(l);
         const auto e = top(plus(s, bias), 4);
         return of(e, times(at(s, e), 1.5 / (sum_of(at(s, e)) + 1e-6)));
       }},
      {"ernie4_5_moe",
       {.n = 64, .n_active = 6, .score = Score::softmax, .normalize = true, .choice_bias = true, .least_sum = 0.3f},
       [=](const Values& l, const std::vector<float>& bias) {
         const Values p = softmax(l);
         const auto e = top(plus(p, bias), 6);
         return of(e, times(at(p, e), 1 / std::max(sum_of(at(p, e)), double{0.3f})));
       }},
      {"llama4",
       {.n = 128, .n_active = 1, .score = Score::sigmoid, .weigh_input = true},
       [=](const Values& l, auto&) { return of(top(l, 1), sigmoids(at(l, top(l, 1)))); }},
      {"phimoe", {.n = 16, .n_active = 2, .score = Score::sparsemixer, .jitter = 0.01f}, [=](const Values& l, auto&) {
         const auto e = top(l, 2);
         const auto weight = [&](size_t round) {
           const double most = l[size_t(e[round])];
           double sum = 0;
           for (size_t i = 0; i < l.size(); ++i)
             if ((round == 0 || int32_t(i) != e[0]) && (most - l[i]) / std::max(std::fabs(l[i]), most) <= 2 * double{0.01f})
               sum += std::exp(l[i] - most);
           return 1 / sum;
         };
         return of(e, {weight(0), weight(1)});
       }}};
}

// Distinct numbers in any order, so that rounding decides nothing.
std::vector<float> spread(std::mt19937& random, size_t n, float step) {
  std::vector<float> x(n);
  for (size_t i = 0; i < n; ++i) x[i] = step * (static_cast<float>(i) - 0.5f * static_cast<float>(n));
  std::shuffle(x.begin(), x.end(), random);
  return x;
}

TEST(Route, every_familys_rule) {
  std::mt19937 random(test::seed(1));
  for (const Family& family : families()) {
    int biased_otherwise = 0;
    for (int row = 0; row < 200; ++row) {
      const uint32_t n = family.rule.n;
      const std::vector<float> logits = spread(random, n, 1.0f / static_cast<float>(16 + random() % 64));
      const std::vector<float> bias = family.rule.choice_bias ? spread(random, n, 0.011f / static_cast<float>(n)) : std::vector<float>();
      const Values l(logits.begin(), logits.end());
      const Choice wanted = family.reference(l, bias), got = chosen(family.rule, logits, bias);
      ASSERT_EQ(got.experts, wanted.experts) << family.name << " row " << row;
      for (size_t k = 0; k < wanted.weights.size(); ++k)
        ASSERT_NEAR(got.weights[k], wanted.weights[k], 2e-6 * wanted.weights[k]) << family.name << " row " << row;
      biased_otherwise += family.rule.choice_bias && wanted.experts != family.reference(l, std::vector<float>(n, 0)).experts;
    }
    EXPECT_EQ(biased_otherwise > 0, family.rule.choice_bias) << family.name << ": the bias decided " << biased_otherwise;
  }
}

TEST(Route, of_equals_the_lowest) {
  for (const Family& family : families()) {
    const std::vector<float> equal(family.rule.n, 0.75f), bias(family.rule.n, 0.0f);
    const std::vector<int32_t> experts = chosen(family.rule, equal, bias).experts;
    for (uint32_t k = 0; k < family.rule.n_active; ++k) EXPECT_EQ(experts[k], static_cast<int32_t>(k)) << family.name;
  }
}

TEST(Route, rows_are_apart) {
  std::mt19937 random(test::seed(2));
  for (const Family& family : families()) {
    const Experts& rule = family.rule;
    constexpr uint32_t rows = 7;
    std::vector<float> logits;
    for (uint32_t row = 0; row < rows; ++row) {
      const std::vector<float> one = spread(random, rule.n, 0.05f);
      logits.insert(logits.end(), one.begin(), one.end());
    }
    std::vector<int32_t> experts(rows * rule.n_active);
    std::vector<float> weights(experts.size()), scratch(3 * size_t{rule.n});
    choose_experts(rule, logits.data(), nullptr, rows, experts.data(), weights.data(), scratch.data());
    for (uint32_t row = 0; row < rows; ++row) {
      const Choice one = chosen(rule, {logits.begin() + row * rule.n, logits.begin() + (row + 1) * rule.n});
      for (uint32_t k = 0; k < rule.n_active; ++k) {
        EXPECT_EQ(experts[row * rule.n_active + k], one.experts[k]) << family.name;
        EXPECT_EQ(weights[row * rule.n_active + k], one.weights[k]) << family.name;
      }
    }
  }
}

// The three best experts lie in different groups, of which two are kept: by their largest 0 and 2, by two largest 1 and 2.
TEST(Route, groups_by_their_largest_or_two_largest) {
  const std::vector<float> logits = {5, -9, -9, 4, 4, -9, 4.5f, 4.25f, -9};
  Experts rule = {.n = 9, .n_active = 3, .groups = 3, .groups_kept = 2, .score = Score::sigmoid, .group_score = GroupScore::largest};
  EXPECT_EQ(chosen(rule, logits).experts, (std::vector<int32_t>{0, 6, 7}));
  rule.group_score = GroupScore::two_largest;
  EXPECT_EQ(chosen(rule, logits).experts, (std::vector<int32_t>{6, 7, 3}));
}

// Far logits underflow to scores of 0: still as many different experts as were asked for, and nothing is divided by 0 where an epsilon
// or a least sum is given.
TEST(Route, scores_of_zero) {
  std::vector<float> logits(16, -200.0f);
  logits[5] = 200;
  const Choice soft = chosen({.n = 16, .n_active = 4, .score = Score::softmax, .normalize = true}, logits);
  EXPECT_EQ(soft.experts, (std::vector<int32_t>{5, 0, 1, 2}));
  EXPECT_EQ(soft.weights, (Values{1, 0, 0, 0}));
  logits[5] = -200;
  const Choice none = chosen({.n = 16, .n_active = 2, .score = Score::sigmoid, .normalize = true, .epsilon = 1e-20f}, logits);
  EXPECT_EQ(none.experts, (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(none.weights, (Values{0, 0}));
}

}  // namespace
}  // namespace gptq::engine
