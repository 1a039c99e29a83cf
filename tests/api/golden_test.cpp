// SPDX-License-Identifier: Apache-2.0
// Every reference checkpoint, converted and run: logits, greedy tokens and text against transformers in float32.
#include <algorithm>
#include <cmath>

#include "tests/api/fixture.h"

namespace gptq::test {
namespace {

constexpr double logits_tolerance = 1e-4;  // of the range of the reference's logits
constexpr double kl_trained = 0.005, kl_random = 0.05;

class Golden : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
#ifdef GPTQ_SANITIZED
    if (name_of(GetParam()).starts_with("smollm2")) GTEST_SKIP() << "too slow under a sanitizer";
#endif
    prompts_ = prompts_of(GetParam());
    ASSERT_FALSE(prompts_.empty());
  }
  Chain chain(uint32_t flags, uint32_t max_sessions = 1) const {
    auto params = engine_of(flags, max_sessions);
    params.logits_rows = 16;
    params.ctx_tokens = 256;
    return Chain(converted(GetParam()), params, with_threads(2));
  }
  std::vector<Prompt> prompts_;
};

TEST_P(Golden, ExactLogits) {
  Chain c = chain(GPTQ_ENGINE_EXACT);
  const size_t n_vocab = c.model.info().n_vocab;
  for (const Prompt& prompt : prompts_) {
    Session& session = c.session;
    session.truncate(0);
    const std::vector<float> all = all_logits(c.model, c.engine, session, prompt.ids);
    ASSERT_LE(prompt.logits.size(), all.size());
    const float* found = all.data() + (all.size() - prompt.logits.size());
    const auto [low, high] = std::minmax_element(prompt.logits.begin(), prompt.logits.end());
    double worst = 0;
    for (size_t i = 0; i < prompt.logits.size(); ++i) worst = std::max(worst, std::abs(double(found[i]) - prompt.logits[i]));
    EXPECT_LE(worst, logits_tolerance * (*high - *low));
    for (size_t row = 0; row < prompt.logits.size() / n_vocab; ++row)
      EXPECT_EQ(top(found + row * n_vocab, n_vocab), top(prompt.logits.data() + row * n_vocab, n_vocab)) << "row " << row;
  }
}

TEST_P(Golden, ExactGreedyTokens) {
  Chain c = chain(GPTQ_ENGINE_EXACT, 1 + static_cast<uint32_t>(prompts_.size()));
  std::vector<Session> sessions;
  for (const Prompt& prompt : prompts_) {
    sessions.emplace_back(c.engine);
    sessions.back().append(prompt.ids);
    sessions.back().start(generation(static_cast<uint32_t>(prompt.greedy.size())));
  }
  finish(c.engine);
  for (size_t i = 0; i < prompts_.size(); ++i) EXPECT_EQ(sessions[i].read_tokens(), prompts_[i].greedy) << "prompt " << i;
}

TEST_P(Golden, TextToIds) {
  if (std::all_of(prompts_.begin(), prompts_.end(), [](const Prompt& prompt) { return prompt.text.empty(); }))
    GTEST_SKIP() << "this checkpoint has token ids only";
  Chain c = chain(0);
  for (const Prompt& prompt : prompts_) {
    if (prompt.text.empty()) continue;
    EXPECT_EQ(c.model.tokenize(prompt.text, GPTQ_TEXT_ADD_BOS | GPTQ_TEXT_PARSE_SPECIAL), prompt.ids) << prompt.text;
  }
}

// By hand, for the tokenizer of fixture.cpp: 3 special tokens, 256 bytes, " a..z" from 259 on, from 286 on each of them with each of
// "aeiouhnrt", merged in that order.
TEST(Text, IdsByHand) {
  Chain c(text_model());
  const auto ids = [&](std::string_view text, uint32_t flags = 0) { return c.model.tokenize(text, flags); };
  EXPECT_EQ(ids("the sea"), (Tokens{294, 359, 259, 278, 331}));  // " t" "he" " " "s" "ea"
  EXPECT_EQ(ids("the sea", GPTQ_TEXT_ADD_BOS), (Tokens{1, 294, 359, 259, 278, 331}));
  EXPECT_EQ(ids("a\xE2\x82\xAC"), (Tokens{286, 3 + 0xE2, 3 + 0x82, 3 + 0xAC}));  // " a" and bytes
  EXPECT_EQ(ids("the</s>", GPTQ_TEXT_PARSE_SPECIAL), (Tokens{294, 359, 2}));
  EXPECT_EQ(ids("the</s>"), (Tokens{294, 359, 3 + '<', 3 + '/', 278, 3 + '>'}));
  EXPECT_EQ(c.model.detokenize({1, 294, 359, 259, 278, 331, 2}), "the sea");
}

TEST_P(Golden, Int8AndBf16AreNearExact) {
  Chain exact = chain(GPTQ_ENGINE_EXACT), int8 = chain(0), bf16 = chain(GPTQ_ENGINE_BF16);
  const size_t n_vocab = exact.model.info().n_vocab;
  double int8_sum = 0, bf16_sum = 0;
  size_t rows = 0;
  for (const Prompt& prompt : prompts_) {
    const auto logits = [&](Chain& c) {
      c.session.truncate(0);
      return all_logits(c.model, c.engine, c.session, prompt.ids);
    };
    const std::vector<float> truth = logits(exact), from_int8 = logits(int8), from_bf16 = logits(bf16);
    for (size_t at = 0; at < prompt.ids.size() * n_vocab; at += n_vocab, ++rows) {
      int8_sum += kl(truth.data() + at, from_int8.data() + at, n_vocab);
      bf16_sum += kl(truth.data() + at, from_bf16.data() + at, n_vocab);
    }
  }
  const double n = static_cast<double>(rows);
  RecordProperty("kl_int8", std::to_string(int8_sum / n));
  RecordProperty("kl_bf16", std::to_string(bf16_sum / n));
  const bool random = name_of(GetParam()).starts_with("random");
  EXPECT_LE(int8_sum / n, random ? kl_random : kl_trained);
  EXPECT_LE(bf16_sum / n, (random ? kl_random : kl_trained) / 4);
  EXPECT_GT(bf16_sum, 0);
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, Golden, testing::ValuesIn(checkpoint_folders()), [](const auto& info) {
  std::string name = name_of(info.param);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

}  // namespace
}  // namespace gptq::test
