// SPDX-License-Identifier: Apache-2.0
// Tags in free text: free means what is sampled without a constraint, what follows a trigger is a tag; and they go on in forks, saves, speculation and small budgets.
#include <regex>

#include "tests/api/fixture.h"

namespace gptq::test {
namespace {

// Both begins stand for letters that the model often says; what follows is rare enough to be its rules' doing.
const char* const often = R"j({"tags": [{"begin": "a", "regex": "[0-9]{3}|none", "end": ";"},
  {"begin": "th", "json_schema": {"type": "array", "items": {"enum": [1, 22, "x"]}, "minItems": 1, "maxItems": 3}, "end": "<unk>"}]})j";
const std::regex a_tag("^a([0-9]{3}|none);"), th_tag("^th\\[(\\s*([0-9.eE+-]+|\"[^\"]*\")\\s*,?)+\\](<unk>)?");

gptq_sampling warm(float temperature, uint64_t seed) {
  auto sampling = make<gptq_sampling>();
  sampling.temperature = temperature;
  sampling.seed = seed;
  return sampling;
}

class Tagged : public testing::Test {
 protected:
  Tokens tokens(Session& session, gptq_constraint* constraint, const gptq_sampling& sampling, uint32_t flags = 0, uint32_t n = 120) {
    auto how = generation(n, flags);
    how.sampling = &sampling;
    how.constraint = constraint;
    session.truncate(0);
    session.append("the sea", GPTQ_TEXT_ADD_BOS);
    session.start(how);
    finish(c.engine);
    said = session.read();
    stop_reason = session.info().stop_reason;
    return session.read_tokens();
  }
  Chain c{text_model(), engine_of(0, 4), with_threads(2)};
  std::string said;
  int32_t stop_reason = 0;
};

TEST_F(Tagged, FreeTextIsThatWithoutAConstraint) {
  const Constraint constraint(c.model, GPTQ_CONSTRAINT_TAGS, R"j({"tags": [{"begin": "\u0001\u0002<call>", "json_schema": {}}]})j");
  int differ = 0;
  Tokens first;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const auto sampling = warm(seed % 4 ? 1.5f : 0, seed);
    const Tokens free = tokens(c.session, nullptr, sampling);
    EXPECT_EQ(tokens(c.session, constraint.get(), sampling), free) << seed;
    if (seed == 0) first = free;
    differ += free != first;
  }
  EXPECT_GT(differ, 10);
}

// What is cut by max_tokens is not looked at.
TEST_F(Tagged, ATriggerIsFollowedByItsTag) {
  const Constraint constraint(c.model, GPTQ_CONSTRAINT_TAGS, often);
  int a_tags = 0, th_tags = 0;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const auto sampling = warm(1, seed);
    tokens(c.session, constraint.get(), sampling, 0, 200);
    for (size_t at = 0; at < said.size();) {
      const std::string rest = said.substr(at);
      std::smatch found;
      if (rest.starts_with('a')) {
        if (!std::regex_search(rest, found, a_tag)) {
          EXPECT_LT(rest.size(), 7u) << said;
          EXPECT_NE(stop_reason, GPTQ_STOP_EOS);
          break;
        }
        ++a_tags;
      } else if (rest.starts_with("th")) {
        if (!std::regex_search(rest, found, th_tag)) {
          EXPECT_NE(stop_reason, GPTQ_STOP_EOS) << said;
          break;
        }
        ++th_tags;
      }
      at += found.empty() ? 1 : static_cast<size_t>(found.length());
    }
  }
  EXPECT_GT(a_tags, 20);
  EXPECT_GT(th_tags, 5);
}

// The special token has no text, but begins the tag; the end token may not come within it, nor any special token.
TEST_F(Tagged, SpecialTokensBeginTags) {
  const Constraint constraint(c.model, GPTQ_CONSTRAINT_TAGS,
                              R"j({"tags": [{"begin": "<s>x", "regex": "[b-d]{5}"}], "at_least_one": true, "triggers": ["<s>"]})j");
  constexpr gptq_token bos = 1, eos = 2;
  static constexpr gptq_logit_bias likely[] = {{bos, 200}, {eos, 300}};
  for (uint64_t seed = 0; seed < 5; ++seed) {
    auto sampling = warm(1, seed);
    sampling.bias = likely, sampling.n_bias = 2;
    const Tokens ids = tokens(c.session, constraint.get(), sampling);
    EXPECT_EQ(ids[0], bos);
    EXPECT_TRUE(std::regex_match(said, std::regex("x[b-d]{5}"))) << said;
    EXPECT_EQ(stop_reason, GPTQ_STOP_CONSTRAINT);
  }
}

TEST_F(Tagged, ForksSavesSpeculationAndBudgetsGoOn) {
  Chain other(text_model(), engine_of(0, 2));
  const Constraint constraint(c.model, GPTQ_CONSTRAINT_TAGS, often);
  for (uint64_t seed = 0; seed < 6; ++seed) {
    const auto sampling = warm(1, seed);
    const Tokens expected = tokens(c.session, constraint.get(), sampling);
    const std::string text = said;
    EXPECT_EQ(tokens(c.session, constraint.get(), sampling, GPTQ_GEN_SPECULATE), expected);
    auto how = generation(120, seed % 2 ? GPTQ_GEN_SPECULATE : 0);
    how.sampling = &sampling;
    how.constraint = constraint.get();
    for (const int steps : {0, 30, 77, 200, 311}) {
      Session session(c.engine);
      session.append("the sea", GPTQ_TEXT_ADD_BOS);
      session.start(how);
      for (int i = 0; i < steps; ++i) c.engine.step(1, nullptr);
      const Session fork = session.fork();
      for (const int32_t kind : {GPTQ_SAVE_REPLAY, GPTQ_SAVE_FULL}) {
        Session restored(other.engine, session.save(kind));
        finish(other.engine, 20);
        EXPECT_EQ(restored.read(), text) << steps;
      }
      finish(c.engine, 3);
      EXPECT_EQ(session.read(), text) << steps;
      size_t n = 0;
      char buffer[2048];
      check(gptq_session_read(fork.get(), buffer, sizeof buffer, &n));
      EXPECT_EQ(std::string(buffer, n), text) << steps;
      session.truncate(0);
    }
  }
}

}  // namespace
}  // namespace gptq::test
