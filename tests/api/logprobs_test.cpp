// SPDX-License-Identifier: Apache-2.0
// Log-probabilities: against softmax in float64 of the logits, and the same whichever way the tokens came.
#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>
#include <span>

#include "tests/api/fixture.h"

namespace gptq::test {
namespace {

constexpr uint32_t n_best = 5;

gptq_engine_params params(uint32_t max_sessions, uint32_t logits_rows = 1, uint32_t batch_tokens = 32) {
  auto params = engine_of(0, max_sessions);
  params.ctx_tokens = 128;
  params.batch_tokens = batch_tokens;
  params.logits_rows = logits_rows;
  params.best_logprobs = n_best;
  return params;
}

struct Logprobs {
  std::vector<float> chosen;
  std::vector<gptq_token_logprob> best;
  explicit Logprobs(const gptq_session* s, uint32_t first, uint32_t n) : chosen(n), best(n * n_best) {
    check(gptq_session_logprobs(s, first, n, chosen.data(), best.data()));
  }
  bool operator==(const Logprobs& o) const {
    return std::equal(chosen.begin(), chosen.end(), o.chosen.begin(), o.chosen.end()) &&
           std::equal(best.begin(), best.end(), o.best.begin(), o.best.end(),
                      [](const auto& a, const auto& b) { return a.token == b.token && a.logprob == b.logprob; });
  }
};

double log_p(std::span<const float> logits, gptq_token token) {
  double sum = 0;
  const double most = *std::max_element(logits.begin(), logits.end());
  for (const float x : logits) sum += std::exp(x - most);
  return logits[static_cast<size_t>(token)] - most - std::log(sum);
}

class LogprobsOf : public testing::TestWithParam<std::string> {};

TEST_P(LogprobsOf, TheInputAsItsLogitsSay) {
  const Tokens ids = prompts_of(GetParam()).at(0).ids;
  const auto n = static_cast<uint32_t>(ids.size());
  Chain c(converted(GetParam()), params(2, 128), with_threads(2));
  c.session.append(ids);
  c.session.start(generation(0, GPTQ_GEN_PREFILL_ONLY | GPTQ_GEN_LOGPROBS));
  finish(c.engine, 50);
  const Logprobs got(c.session.get(), 0, n);
  EXPECT_TRUE(std::isnan(got.chosen[0]));
  Session other(c.engine);
  other.append(ids);
  other.start(generation(0, GPTQ_GEN_PREFILL_ONLY | GPTQ_GEN_LOGITS));
  finish(c.engine);
  const size_t n_vocab = c.model.info().n_vocab;
  std::vector<float> logits(n * n_vocab);
  uint32_t first = 0, rows = 0;
  check(gptq_session_read_logits(other.get(), logits.data(), logits.size(), &first, &rows));
  ASSERT_EQ(rows, n);
  for (uint32_t i = 1; i < n; ++i) {
    const std::span<const float> row(logits.data() + (i - 1) * n_vocab, n_vocab);
    ASSERT_NEAR(got.chosen[i], log_p(row, ids[i]), 2e-6 * (1 + std::fabs(got.chosen[i]))) << i;
    std::vector<gptq_token> order(n_vocab);
    for (size_t t = 0; t < n_vocab; ++t) order[t] = static_cast<gptq_token>(t);
    std::stable_sort(order.begin(), order.end(), [&](gptq_token a, gptq_token b) { return row[static_cast<size_t>(a)] > row[static_cast<size_t>(b)]; });
    for (uint32_t j = 0; j < n_best; ++j) {
      const gptq_token_logprob& best = got.best[i * n_best + j];
      ASSERT_EQ(best.token, order[j]) << i << " " << j;
      ASSERT_NEAR(best.logprob, log_p(row, best.token), 2e-6 * (1 + std::fabs(best.logprob)));
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Checkpoints, LogprobsOf, testing::ValuesIn(family_folders()), [](const auto& info) {
  std::string name = name_of(info.param);
  std::replace_if(name.begin(), name.end(), [](unsigned char c) { return !std::isalnum(c); }, '_');
  return name;
});

TEST(LogprobsOfText, GeneratedAsScoredAndWithSpeculation) {
  static constexpr gptq_logit_bias often[] = {{40, 9}};
  Chain c(text_model(), params(2, 1, 7), with_threads(2));
  const Tokens prompt = some_tokens(20);
  for (const float temperature : {0.0f, 1.0f}) {
    auto sampling = make<gptq_sampling>();
    sampling.temperature = temperature;
    sampling.repeat_penalty = 1.1f;
    sampling.bias = often, sampling.n_bias = 1;
    std::vector<Logprobs> all;
    Tokens tokens;
    for (const uint32_t flags : {0, GPTQ_GEN_SPECULATE + 0}) {
      auto how = generation(50, flags | GPTQ_GEN_IGNORE_EOS | GPTQ_GEN_LOGPROBS);
      how.sampling = &sampling;
      c.session.truncate(0);
      c.session.append(prompt);
      c.session.start(how);
      finish(c.engine);
      tokens = c.session.read_tokens();
      all.emplace_back(c.session.get(), 20, 50);
    }
    Tokens whole = prompt;
    whole.insert(whole.end(), tokens.begin(), tokens.end());
    c.session.truncate(0);
    c.session.append(whole);
    c.session.start(generation(0, GPTQ_GEN_PREFILL_ONLY | GPTQ_GEN_LOGPROBS));
    finish(c.engine);
    EXPECT_EQ(Logprobs(c.session.get(), 20, 50), all[0]);
    EXPECT_EQ(all[1], all[0]);
  }
}

TEST(LogprobsOfText, NothingWhereNothingWasAsked) {
  Chain c(text_model(), params(3));
  c.session.append(some_tokens(10));
  const auto none = [&](const gptq_session* s, uint32_t first, uint32_t n) {
    const Logprobs got(s, first, n);
    return std::all_of(got.chosen.begin(), got.chosen.end(), [](float x) { return std::isnan(x); }) &&
           std::all_of(got.best.begin(), got.best.end(), [](const auto& b) { return b.token == -1 && std::isnan(b.logprob); });
  };
  EXPECT_TRUE(none(c.session.get(), 0, 10));
  c.session.start(generation(5, GPTQ_GEN_IGNORE_EOS | GPTQ_GEN_LOGPROBS));
  finish(c.engine);
  EXPECT_TRUE(none(c.session.get(), 0, 10));
  const Logprobs five(c.session.get(), 10, 5);
  for (const float x : five.chosen) EXPECT_LT(x, 0);
  const Session fork = c.session.fork();
  EXPECT_EQ(Logprobs(fork.get(), 10, 5), five);
  c.session.truncate(12);
  c.session.append(some_tokens(3, 9));
  EXPECT_TRUE(none(c.session.get(), 12, 3));
  c.session.start(generation(2));
  finish(c.engine);
  EXPECT_TRUE(none(c.session.get(), 15, 2));
  float x;
  EXPECT_EQ(gptq_session_logprobs(c.session.get(), 16, 2, &x, nullptr), GPTQ_E_INVALID_ARGUMENT);
  EXPECT_EQ(gptq_session_logprobs(c.session.get(), 18, 0, &x, nullptr), GPTQ_E_INVALID_ARGUMENT);
  EXPECT_EQ(gptq_session_logprobs(c.session.get(), 17, 0, &x, nullptr), GPTQ_OK);
  EXPECT_EQ(gptq_session_logprobs(c.session.get(), 1, UINT32_MAX, &x, nullptr), GPTQ_E_INVALID_ARGUMENT);
  auto many = params(1);
  many.best_logprobs = 21;
  gptq_engine* engine = nullptr;
  EXPECT_EQ(gptq_engine_create(c.model.get(), &many, &engine, nullptr), GPTQ_E_INVALID_ARGUMENT);
}

TEST(Score, SumsOfTheTextsTokens) {
  const char* texts[] = {" the sea", " a castle with towers", "", " x", " and then"};
  std::vector<gptq_string> strings;
  for (const char* text : texts) strings.push_back({text, std::strlen(text)});
  for (const uint32_t sessions : {2u, 3u, 8u}) {
    Chain c(text_model(), params(sessions, 1, 16), with_threads(2));
    c.session.append("Once upon a time", GPTQ_TEXT_ADD_BOS);
    const uint32_t before = c.session.info().n_tokens;
    double sums[5];
    uint32_t counts[5];
    ASSERT_EQ(gptq_score(c.session.get(), strings.data(), 5, sums, counts, nullptr), GPTQ_OK);
    EXPECT_EQ(c.session.info().n_tokens, before);
    EXPECT_EQ(c.session.info().n_pending, 0u);
    EXPECT_EQ(sums[2], 0);
    EXPECT_EQ(counts[2], 0u);
    for (int i = 0; i < 5; ++i) {
      Session alone(c.engine);
      alone.append("Once upon a time", GPTQ_TEXT_ADD_BOS);
      if (texts[i][0]) alone.append(texts[i], 0);
      alone.start(generation(0, GPTQ_GEN_PREFILL_ONLY | GPTQ_GEN_LOGPROBS));
      finish(c.engine);
      const Logprobs got(alone.get(), before, alone.info().n_tokens - before);
      double sum = 0;
      for (const float x : got.chosen) sum += double{x};
      EXPECT_EQ(sums[i], sum) << texts[i];
      EXPECT_EQ(counts[i], got.chosen.size());
    }
    EXPECT_EQ(gptq_score(c.session.get(), nullptr, 0, nullptr, nullptr, nullptr), GPTQ_OK);
  }
}

TEST(Score, RefusesWhatItCannotDo) {
  const gptq_string text{" the sea", 8};
  double sum;
  Chain one(text_model(), params(1));
  EXPECT_EQ(gptq_score(one.session.get(), &text, 1, &sum, nullptr, nullptr), GPTQ_E_INVALID_STATE);
  one.session.append(some_tokens(3));
  EXPECT_EQ(gptq_score(one.session.get(), &text, 1, &sum, nullptr, nullptr), GPTQ_E_INVALID_STATE) << "no slot";
  Chain c(text_model(), params(2));
  c.session.append(some_tokens(127));
  EXPECT_EQ(gptq_score(c.session.get(), &text, 1, &sum, nullptr, nullptr), GPTQ_E_CONTEXT_FULL);
  Session free(c.engine);  // the fork's slot is free again
  c.session.start(generation(1));
  EXPECT_EQ(gptq_score(c.session.get(), &text, 1, &sum, nullptr, nullptr), GPTQ_E_INVALID_STATE) << "running";
  finish(c.engine);
  EXPECT_EQ(gptq_score(nullptr, &text, 1, &sum, nullptr, nullptr), GPTQ_E_INVALID_ARGUMENT);
}

}  // namespace
}  // namespace gptq::test
