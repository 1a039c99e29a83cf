// SPDX-License-Identifier: Apache-2.0
// Every family of models: a small checkpoint of each, imported and run, against transformers in float32.
#include <algorithm>
#include <array>
#include <cmath>

#include "tests/api/fixture.h"

namespace gptq::test {
namespace {

constexpr double logits_tolerance = 2e-3;  // of the range of the reference's logits
constexpr double top_share = 0.995, least_gap = 1e-3, kl_int8_max = 0.05;

class Families : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const auto all = family_folders();
    const auto place = std::find(all.begin(), all.end(), GetParam()) - all.begin();
    if (is_left_out(static_cast<uint32_t>(place), 8)) GTEST_SKIP() << "one family of eight is enough under a sanitizer";
    prompts_ = prompts_of(GetParam());
    ASSERT_FALSE(prompts_.empty());
  }
  Chain chain(uint32_t flags, uint32_t batch_tokens = 0, uint32_t max_sessions = 1) const {
    auto params = engine_of(flags, max_sessions);
    params.logits_rows = 64;
    params.ctx_tokens = 128;
    params.batch_tokens = batch_tokens;
    return Chain(converted(GetParam()), params, with_threads(2));
  }
  std::vector<Prompt> prompts_;
};

TEST_P(Families, ExactLogits) {
  Chain c = chain(GPTQ_ENGINE_EXACT);
  const size_t n_vocab = c.model.info().n_vocab;
  size_t rows = 0, same_top = 0;
  for (const Prompt& prompt : prompts_) {
    c.session.truncate(0);
    const std::vector<float> all = all_logits(c.model, c.engine, c.session, prompt.ids);
    ASSERT_LE(prompt.logits.size(), all.size());
    const float* found = all.data() + (all.size() - prompt.logits.size());
    const auto [low, high] = std::minmax_element(prompt.logits.begin(), prompt.logits.end());
    double worst = 0;
    for (size_t i = 0; i < prompt.logits.size(); ++i) {
      ASSERT_TRUE(std::isfinite(found[i]));
      worst = std::max(worst, std::abs(double(found[i]) - prompt.logits[i]));
    }
    EXPECT_LE(worst, logits_tolerance * (*high - *low));
    for (size_t at = 0; at < prompt.logits.size(); at += n_vocab, ++rows)
      same_top += top(found + at, n_vocab) == top(prompt.logits.data() + at, n_vocab);
  }
  ASSERT_GT(rows, 0u);
  EXPECT_GE(static_cast<double>(same_top), top_share * static_cast<double>(rows));
}

TEST_P(Families, ExactGreedyTokens) {
  Chain c = chain(GPTQ_ENGINE_EXACT, 0, 1 + static_cast<uint32_t>(prompts_.size()));
  std::vector<Session> sessions;
  for (const Prompt& prompt : prompts_) {
    sessions.emplace_back(c.engine);
    sessions.back().append(prompt.ids);
    sessions.back().start(generation(static_cast<uint32_t>(prompt.greedy.size())));
  }
  finish(c.engine);
  for (size_t i = 0; i < prompts_.size(); ++i) {
    const Tokens found = sessions[i].read_tokens();
    EXPECT_EQ(found.size(), prompts_[i].greedy.size());
    if (prompts_[i].smallest_gap <= least_gap) continue;
    EXPECT_EQ(found, prompts_[i].greedy) << "prompt " << i;
  }
}

// The same bits in one piece, in pieces of 7, and a token at a time as when decoding.
TEST_P(Families, ChunksDoNotMatter) {
  for (const uint32_t flags : {uint32_t{GPTQ_ENGINE_EXACT}, 0u}) {
    Chain whole = chain(flags, 64), pieces = chain(flags, 7), single = chain(flags, 1);
    for (const Prompt& prompt : prompts_) {
      std::vector<float> found[3];
      for (size_t i = 0; i < 3; ++i) {
        Chain& c = *std::array{&whole, &pieces, &single}[i];
        c.session.truncate(0);
        found[i] = all_logits(c.model, c.engine, c.session, prompt.ids);
      }
      EXPECT_EQ(found[1], found[0]) << "flags " << flags;
      EXPECT_EQ(found[2], found[0]) << "flags " << flags;
    }
  }
}

TEST_P(Families, Int8IsNearExact) {
  Chain exact = chain(GPTQ_ENGINE_EXACT), int8 = chain(0);
  const size_t n_vocab = exact.model.info().n_vocab;
  double sum = 0;
  size_t rows = 0;
  for (const Prompt& prompt : prompts_) {
    const auto logits = [&](Chain& c) {
      c.session.truncate(0);
      return all_logits(c.model, c.engine, c.session, prompt.ids);
    };
    const std::vector<float> truth = logits(exact), found = logits(int8);
    for (size_t at = 0; at < truth.size(); at += n_vocab, ++rows)
      sum += kl(truth.data() + at, found.data() + at, n_vocab);
  }
  const double mean = sum / static_cast<double>(rows);
  RecordProperty("kl_int8", std::to_string(mean));
  ASSERT_TRUE(std::isfinite(mean));
  EXPECT_LE(mean, kl_int8_max);
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, Families, testing::ValuesIn(family_folders()), [](const auto& info) {
  std::string name = name_of(info.param);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

}  // namespace
}  // namespace gptq::test
