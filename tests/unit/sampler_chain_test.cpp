// SPDX-License-Identifier: Apache-2.0
// The whole chain of sampling, against the same written out in float64.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <random>

#include "engine/sampler.h"
#include "tests/seed.h"
#include "tests/unit/sampler_room.h"

namespace gptq::engine {
namespace {

// Probabilities of the tokens that may come. margin: how near a decision was to going the other way.
struct Expected {
  std::map<int32_t, double> p;
  double margin = HUGE_VAL;
  void near(double difference) { margin = std::min(margin, std::fabs(difference)); }
};

using Logits = std::vector<std::pair<double, int32_t>>;  // the best first

std::map<int32_t, double> softmax(const Logits& x, double temperature) {
  double sum = 0;
  std::map<int32_t, double> p;
  for (const auto& [logit, token] : x) sum += std::exp((logit - x[0].first) / temperature);
  for (const auto& [logit, token] : x) p[token] = std::exp((logit - x[0].first) / temperature) / sum;
  return p;
}

double entropy(const std::map<int32_t, double>& p) {
  double sum = 0;
  for (const auto& [token, share] : p) sum -= share > 0 ? share * std::log(share) : 0;
  return sum;
}

std::vector<int32_t> window(const std::vector<int32_t>& history, uint32_t n) {
  return n && history.size() > n ? std::vector<int32_t>(history.end() - n, history.end()) : history;
}

void penalties(std::vector<double>& x, const std::vector<int32_t>& history, const Sampling& s) {
  std::map<int32_t, int> count;
  for (const int32_t token : window(history, s.penalty_window)) ++count[token];
  for (const auto& [token, n] : count) {
    double& logit = x[static_cast<size_t>(token)];
    if (s.repeat_penalty != 0) logit = logit > 0 ? logit / s.repeat_penalty : logit * s.repeat_penalty;
    logit -= n * double{s.frequency_penalty} + s.presence_penalty;
  }
}

void dry(std::vector<double>& x, const std::vector<int32_t>& all, const Sampling& s, uint32_t unbroken) {
  if (s.dry_multiplier == 0) return;
  const std::vector<int32_t> h = window(all, s.dry_window);
  std::map<int32_t, size_t> longest;
  for (size_t next = 1; next < h.size(); ++next) {
    size_t n = 0;
    while (n < next && n < unbroken && h[next - 1 - n] == h[h.size() - 1 - n]) ++n;
    if (n > 0) longest[h[next]] = std::max(longest[h[next]], n);
  }
  for (const auto& [token, n] : longest)
    if (n >= s.dry_allowed_length)
      x[static_cast<size_t>(token)] -= s.dry_multiplier * std::pow(double{s.dry_base}, static_cast<double>(n) - s.dry_allowed_length);
}

// The most likely first until they hold p.
void keep_share(Expected& out, Logits& x, double wanted, const std::map<int32_t, double>& p, bool strictly) {
  double held = 0;
  size_t n = 0;
  while (n < x.size() && (strictly ? held <= wanted : held < wanted)) {
    held += p.at(x[n++].second);
    out.near(held - wanted);
  }
  x.resize(n);
}

Expected written_out(const std::vector<float>& logits, const std::vector<int32_t>& history, const Sampling& s, bool top_choices_go, double mu = 0,
                     uint32_t unbroken = UINT32_MAX) {
  Expected out;
  std::vector<double> all(logits.begin(), logits.end());
  for (const LogitBias& b : s.bias) all[static_cast<size_t>(b.token)] += b.bias;
  penalties(all, history, s);
  dry(all, history, s, unbroken);
  Logits x;
  for (size_t i = 0; i < all.size(); ++i) x.push_back({all[i], static_cast<int32_t>(i)});
  const auto best_first = [](const auto& a, const auto& b) { return a.first != b.first ? a.first > b.first : a.second < b.second; };
  std::sort(x.begin(), x.end(), best_first);
  if (s.temperature == 0) {
    if (x.size() > 1) out.near(x[0].first - x[1].first);
    out.p[x[0].second] = 1;
    return out;
  }
  if (s.top_n_sigma > 0) {
    double mean = 0, square = 0;
    for (const auto& [logit, token] : x) mean += logit / static_cast<double>(x.size());
    for (const auto& [logit, token] : x) square += (logit - mean) * (logit - mean) / static_cast<double>(x.size());
    const double least = x[0].first - s.top_n_sigma * std::sqrt(square);
    for (const auto& [logit, token] : x) out.near(logit - least);
    std::erase_if(x, [&](const auto& c) { return c.first < least; });
  }
  if (s.top_k > 0 && static_cast<size_t>(s.top_k) < x.size()) {
    out.near(x[static_cast<size_t>(s.top_k)].first - x[static_cast<size_t>(s.top_k) - 1].first);
    x.resize(static_cast<size_t>(s.top_k));
  }
  double temperature = s.temperature;
  if (s.temperature_range > 0 && x.size() > 1) {
    const double share = entropy(softmax(x, 1)) / std::log(static_cast<double>(x.size()));
    const double least = std::max(0.0, double{s.temperature} - s.temperature_range), most = double{s.temperature} + s.temperature_range;
    temperature = least + (most - least) * std::pow(share, s.temperature_exponent);
  }
  if (s.mirostat_tau > 0) {
    const auto p = softmax(x, temperature);
    for (const auto& [token, share] : p) out.near(std::log2(share) + mu);
    const auto top = x[0];
    std::erase_if(x, [&](const auto& c) { return -std::log2(p.at(c.second)) > mu; });
    if (x.empty()) x.push_back(top);
    out.p = softmax(x, temperature);
    return out;
  }
  if (s.typical_p > 0) {
    const auto p = softmax(x, temperature);
    const double e = entropy(p);
    const auto distance = [&](const auto& c) { return std::fabs(-std::log(p.at(c.second)) - e); };
    std::sort(x.begin(), x.end(), [&](const auto& a, const auto& b) { return distance(a) < distance(b); });
    for (size_t i = 1; i < x.size(); ++i) out.near(distance(x[i]) - distance(x[i - 1]));
    keep_share(out, x, s.typical_p, p, true);
    std::sort(x.begin(), x.end(), best_first);
  }
  if (s.top_p > 0) keep_share(out, x, s.top_p, softmax(x, temperature), false);
  if (s.min_p > 0) {
    const auto p = softmax(x, temperature);
    const double most = p.at(x[0].second);
    for (const auto& [token, share] : p) out.near(share / most - s.min_p);
    std::erase_if(x, [&](const auto& c) { return p.at(c.second) < s.min_p * most; });
  }
  if (top_choices_go) {
    const auto p = softmax(x, temperature);
    size_t likely = 0;
    for (const auto& [logit, token] : x) {
      out.near(p.at(token) - s.xtc_threshold);
      likely += p.at(token) >= s.xtc_threshold;
    }
    if (likely > 1) x.erase(x.begin(), x.begin() + static_cast<ptrdiff_t>(likely) - 1);
  }
  out.p = softmax(x, temperature);
  return out;
}

// Whether something of probability p can come k times of n: the chance of so much or more is below 1e-10 otherwise (Chernoff's bound).
bool plausible(double k, double n, double p) {
  const auto part = [](double share, double of) { return share > 0 ? share * std::log(share / of) : 0; };
  return n * (part(k / n, p) + part(1 - k / n, 1 - p)) < 23.1;
}

// 1,000 random rows, 1,000 draws of each: only tokens that may come, as often as they should.
void compare(uint32_t seed, const std::function<Sampling(std::mt19937&)>& settings, bool top_choices_go = false, bool breaks = false) {
  std::mt19937 random(test::seed(seed));
  uint32_t compared = 0, differ = 0;
  for (int row = 0; row < 1000; ++row) {
    std::vector<float> logits(40 + random() % 60);
    std::vector<int32_t> history(random() % 60);
    for (float& x : logits) x = std::normal_distribution<float>(0, row % 2 ? 2.5f : 1)(random);
    for (int32_t& token : history) token = static_cast<int32_t>(random() % 3);  // repeats
    for (float& x : std::span(logits).first(3)) x += 3;
    const Sampling s = settings(random);
    const uint32_t unbroken = breaks && row % 3 ? random() % 6 : UINT32_MAX;
    const Expected expected = written_out(logits, history, s, top_choices_go, 0, unbroken);
    if (expected.margin < 1e-5) continue;
    ++compared;
    differ += expected.p != written_out(logits, history, {.temperature = s.temperature}, false).p;
    std::map<int32_t, int> drawn;
    SamplerRoom scratch(logits.size());
    Random draws(static_cast<uint64_t>(row));
    const int n = s.temperature > 0 ? 1000 : 1;
    for (int i = 0; i < n; ++i) ++drawn[engine::sample(logits, history, s, draws, scratch.data(), {}, nullptr, unbroken)];
    for (const auto& [token, times] : drawn) ASSERT_TRUE(expected.p.count(token)) << "row " << row << " token " << token;
    for (const auto& [token, p] : expected.p)
      ASSERT_TRUE(plausible(drawn[token], n, p)) << "row " << row << " token " << token << ": " << drawn[token] << " for " << n * p;
  }
  EXPECT_GT(compared, 700u);
  EXPECT_GT(differ, 300u);  // the setting does something
}

float between(std::mt19937& random, float least, float most) { return std::uniform_real_distribution<float>(least, most)(random); }
float warmth(std::mt19937& random) { return random() % 4 ? between(random, 0.3f, 2) : 0; }
float warm(std::mt19937& random) { return between(random, 0.3f, 2); }

TEST(SamplerChain, logit_bias) {
  static constexpr LogitBias bias[] = {{1, -3}, {39, 4}, {7, 100}, {8, 99}};
  compare(31, [](std::mt19937& random) { return Sampling{.temperature = warmth(random), .bias = std::span(bias).first(1 + random() % 4)}; });
}
TEST(SamplerChain, frequency_and_presence) {
  compare(32, [](std::mt19937& random) {
    return Sampling{.temperature = warmth(random), .repeat_penalty = random() % 2 ? 1.3f : 0, .penalty_window = static_cast<uint32_t>(random() % 30),
                    .frequency_penalty = between(random, -0.2f, 0.5f), .presence_penalty = between(random, -1, 2)};
  });
}
TEST(SamplerChain, dry) {
  compare(33, [](std::mt19937& random) {
    return Sampling{.temperature = warmth(random), .dry_multiplier = between(random, 0.2f, 2), .dry_base = between(random, 1, 2.5f),
                    .dry_allowed_length = static_cast<uint32_t>(1 + random() % 3), .dry_window = static_cast<uint32_t>(random() % 50)};
  }, false, true);
}
TEST(SamplerChain, top_n_sigma) {
  compare(34, [](std::mt19937& random) { return Sampling{.temperature = warm(random), .top_n_sigma = between(random, 0.1f, 3)}; });
}
TEST(SamplerChain, typical) {
  compare(35, [](std::mt19937& random) { return Sampling{.temperature = warm(random), .typical_p = between(random, 0.05f, 0.99f)}; });
}
TEST(SamplerChain, dynamic_temperature) {
  compare(36, [](std::mt19937& random) {
    const float temperature = warm(random);
    return Sampling{.temperature = temperature, .temperature_range = between(random, 0.1f, temperature * 0.8f + 0.1f),
                    .temperature_exponent = between(random, 0.5f, 2)};
  });
}
TEST(SamplerChain, xtc) {
  compare(37, [](std::mt19937& random) {
    return Sampling{.temperature = warm(random), .xtc_probability = 1, .xtc_threshold = between(random, 0.02f, 0.25f)};
  }, true);
}
TEST(SamplerChain, all_together) {
  static constexpr LogitBias bias[] = {{1, -3}, {39, 4}};
  compare(38, [](std::mt19937& random) {
    return Sampling{.temperature = warm(random), .top_p = between(random, 0.6f, 0.99f), .min_p = between(random, 0.001f, 0.05f), .repeat_penalty = 1.1f,
                    .top_k = static_cast<int32_t>(5 + random() % 40), .frequency_penalty = 0.05f, .presence_penalty = 0.3f, .dry_multiplier = 0.8f,
                    .top_n_sigma = between(random, 1, 3), .typical_p = between(random, 0.5f, 0.99f), .temperature_range = 0.2f,
                    .xtc_probability = 1, .xtc_threshold = 0.1f, .bias = bias};
  }, true);
}
TEST(SamplerChain, xtc_as_often_as_it_says) {
  const std::vector<float> logits{2, 1.9f, -1};
  const Sampling s{.temperature = 1, .xtc_probability = 0.25f, .xtc_threshold = 0.1f};
  Random random(3);
  int first = 0;
  SamplerRoom scratch(3);
  for (int i = 0; i < 20000; ++i) first += engine::sample(logits, {}, s, random, scratch.data()) == 0;
  EXPECT_NEAR(first, 20000 * 0.75 / (1 + std::exp(-0.1) + std::exp(-3.0)), 400);
}

TEST(SamplerChain, mirostat) {
  std::mt19937 random(test::seed(39));
  uint32_t compared = 0, cut = 0;
  for (int row = 0; row < 1000; ++row) {
    std::vector<float> logits(2 + random() % 90);
    for (float& x : logits) x = std::normal_distribution<float>(0, 2)(random);
    const Sampling s{.temperature = warm(random), .mirostat_tau = between(random, 0.5f, 6), .mirostat_eta = between(random, 0.01f, 1)};
    float mu = 2 * s.mirostat_tau;
    Random draws(static_cast<uint64_t>(row));
    SamplerRoom scratch(logits.size());
    for (int i = 0; i < 20; ++i) {
      const float before = mu;
      const Expected expected = written_out(logits, {}, s, false, before);
      const int32_t token = engine::sample(logits, {}, s, draws, scratch.data(), {}, &mu);
      if (expected.margin < 1e-5) continue;
      ++compared;
      cut += expected.p.size() < logits.size();
      ASSERT_TRUE(expected.p.count(token));
      ASSERT_NEAR(mu, before - s.mirostat_eta * (-std::log2(expected.p.at(token)) - s.mirostat_tau), 1e-4);
    }
  }
  EXPECT_GT(compared, 15000u);
  EXPECT_GT(cut, 5000u);
}

// Whatever the settings, a token comes.
TEST(SamplerChain, never_empty) {
  std::mt19937 random(test::seed(40));
  const float most = std::numeric_limits<float>::max();
  for (const auto& logits : {std::vector<float>{0}, std::vector<float>(9, 1.0f), std::vector<float>{-most, most, 0}, std::vector<float>(5, -most)})
    for (int round = 0; round < 500; ++round) {
      const auto any = [&](std::initializer_list<float> values) { return values.begin()[random() % values.size()]; };
      const std::vector<int32_t> history(random() % 9, static_cast<int32_t>(random() % logits.size()));
      const Sampling s{.temperature = any({0, 1e-45f, 1, 1000}), .top_p = any({0, 1e-45f, 0.5f}), .min_p = any({0, 1}), .repeat_penalty = any({0, 1e-3f, 1000}),
                       .top_k = static_cast<int32_t>(random() % 2), .frequency_penalty = any({0, -100, 100}), .presence_penalty = any({0, most}),
                       .dry_multiplier = any({0, 1, 1e30f}), .dry_base = any({1, 4}), .dry_allowed_length = static_cast<uint32_t>(random() % 3),
                       .top_n_sigma = any({0, 1e-30f, 1}), .typical_p = any({0, 1e-45f, 0.9f}), .temperature_range = any({0, 1, 1000}),
                       .xtc_probability = any({0, 1}), .xtc_threshold = any({0, 0.1f, 0.5f}), .mirostat_tau = any({0, 1e-3f, 5}), .mirostat_eta = 1};
      float mu = 2 * s.mirostat_tau;
      Random draws(static_cast<uint64_t>(round));
      SamplerRoom scratch(logits.size());
      for (int i = 0; i < 5; ++i) {
        const int32_t token = engine::sample(logits, history, s, draws, scratch.data(), {}, &mu);
        ASSERT_TRUE(token >= 0 && static_cast<size_t>(token) < logits.size()) << token;
        ASSERT_TRUE(std::isfinite(mu));
      }
    }
}

}  // namespace
}  // namespace gptq::engine
