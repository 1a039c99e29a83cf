// SPDX-License-Identifier: Apache-2.0
// Speculation: the tokens, the text and the end are those of plain decoding, whatever else happens.
#include <cctype>

#include "tests/api/outcome.h"

namespace gptq::test {
namespace {

gptq_engine_params params(uint32_t max_sessions, uint32_t ctx = 192) {
  auto params = engine_of(0, max_sessions);
  params.ctx_tokens = ctx;
  return params;
}

class Speculation : public testing::TestWithParam<std::string> {};

TEST_P(Speculation, SameTokensOfEveryFamily) {
  Tokens ids = prompts_of(GetParam()).at(0).ids;
  ids.resize(std::min<size_t>(ids.size(), 30));
  Chain c(converted(GetParam()), params(1), with_threads(2));
  for (const float temperature : {0.0f, 0.3f, 1.0f}) {
    const auto sampling = warm(temperature);
    std::vector<Outcome> outcomes;
    for (const uint32_t flags : {0, GPTQ_GEN_SPECULATE + 0}) {
      auto how = generation(60, flags | GPTQ_GEN_IGNORE_EOS);
      how.sampling = &sampling;
      c.session.truncate(0);
      c.session.append(repeated(ids));
      c.session.start(how);
      finish(c.engine, flags ? 1 : GPTQ_BUDGET_UNLIMITED);
      outcomes.push_back(outcome(c.session.get()));
    }
    EXPECT_EQ(outcomes[0], outcomes[1]) << temperature;
  }
}
INSTANTIATE_TEST_SUITE_P(Checkpoints, Speculation, testing::ValuesIn(family_folders()), [](const auto& info) {
  std::string name = name_of(info.param);
  std::replace_if(name.begin(), name.end(), [](unsigned char c) { return !std::isalnum(c); }, '_');
  return name;
});

// With and without, side by side: `set` says how.
template <class Set>
Guesses compare(const gptq_engine_params& p, const Tokens& prompt, Set set, uint32_t budget = GPTQ_BUDGET_UNLIMITED) {
  Guesses guesses;
  Chain c(text_model(), p, with_threads(2));
  for (uint64_t seed = 0; seed < 12; ++seed) {
    std::vector<Outcome> outcomes;
    for (const uint32_t flags : {0, GPTQ_GEN_SPECULATE + 0}) {
      auto sampling = warm(seed % 3 ? 0.7f : 0, seed);
      auto how = generation(70, flags);
      how.sampling = &sampling;
      set(c.model, how, sampling);
      c.session.truncate(0);
      c.session.append(prompt);
      c.session.start(how);
      finish(c.engine, budget);
      outcomes.push_back(outcome(c.session.get(), &guesses));
    }
    EXPECT_EQ(outcomes[0], outcomes[1]) << seed;
  }
  return guesses;
}

TEST(SpeculationWith, EveryKindOfEnd) {
  const Tokens prompt = repeated(some_tokens(25));
  static constexpr gptq_logit_bias same[] = {{40, 30}};  // the same token for ever: guesses are right
  const auto often = [](const Model&, gptq_generate_params&, gptq_sampling& sampling) { sampling.bias = same, sampling.n_bias = 1; };
  const Guesses right = compare(params(1), prompt, often);
  EXPECT_GT(right.right, 100u);
  for (uint32_t n = 1; n < 20; ++n)
    compare(params(1), prompt, [&](const Model& m, gptq_generate_params& how, gptq_sampling& sampling) {
      often(m, how, sampling);
      how.max_tokens = n;
    });
  for (uint32_t ctx = 70; ctx < 80; ++ctx) compare(params(1, ctx), prompt, often);  // the context's end
  static constexpr gptq_logit_bias likely[] = {{40, 6}};
  const Guesses any = compare(params(1), prompt, [](const Model&, gptq_generate_params&, gptq_sampling& sampling) { sampling.bias = likely, sampling.n_bias = 1; });
  EXPECT_GT(any.tried, any.right);
  // A stop string, and the end token, in the middle of what was guessed.
  compare(params(1), prompt, [&](const Model& m, gptq_generate_params& how, gptq_sampling& sampling) {
    often(m, how, sampling);
    static std::string stop;
    static gptq_string stops;
    const gptq_token token = same[0].token;
    char piece[64];
    size_t n = 0;
    check(gptq_detokenize(m.get(), &token, 1, 0, piece, sizeof piece, &n));
    stop.clear();
    for (int i = 0; i < 5; ++i) stop.append(piece, n);
    stops = {stop.data(), stop.size()};
    how.stop = &stops, how.n_stop = 1;
  });
}

TEST(SpeculationWith, AllOfTheSampler) {
  static constexpr gptq_logit_bias bias[] = {{40, 8}, {41, 8}};
  const Tokens prompt = repeated(some_tokens(25));
  for (const bool mirostat : {false, true})
    for (const bool repeats : {false, true}) {
      const Guesses guesses = compare(params(1), prompt, [&](const Model&, gptq_generate_params&, gptq_sampling& sampling) {
        sampling.temperature = 0.8f;
        sampling.bias = bias, sampling.n_bias = 2;
        if (repeats) sampling.repeat_penalty = 1.2f, sampling.dry_multiplier = 0.5f, sampling.frequency_penalty = 0.1f;
        sampling.top_n_sigma = 2;
        sampling.xtc_probability = 0.3f, sampling.xtc_threshold = 0.05f;
        if (mirostat) sampling.mirostat_tau = 3;
      });
      EXPECT_GT(guesses.tried, 0u);
    }
  compare(params(1), prompt, [&](const Model&, gptq_generate_params&, gptq_sampling& sampling) { sampling.top_k = 20; });
}

TEST(SpeculationWith, Constraints) {
  const Tokens prompt = repeated(some_tokens(25));
  for (const char* pattern : {"(abc){5,9}", "([0-9]+, )*end", "(x|yy)*z", "(the sea and the sky ){3,6}"}) {
    std::optional<Constraint> constraint;
    const Guesses guesses = compare(params(1), prompt, [&](const Model& m, gptq_generate_params& how, gptq_sampling&) {
      if (!constraint) constraint.emplace(m, GPTQ_CONSTRAINT_REGEX, pattern);
      how.constraint = constraint->get();
      how.flags &= ~uint32_t(GPTQ_GEN_IGNORE_EOS);
    });
    constraint.reset();
    EXPECT_GT(guesses.tried, 0u) << pattern;
  }
}

// What a constraint foresees is guessed unasked: what others than the longest tokens say, and other spaces than those before, only cost time.
TEST(SpeculationWith, WhatAConstraintForesees) {
  struct Source {
    int32_t kind;
    const char* text;
  };
  const Source sources[] = {
      {GPTQ_CONSTRAINT_JSON_SCHEMA, R"({"type": "object", "properties": {"the sea and the sky": {"enum": ["there it is", "where it was"]}, "another one": {"type": "boolean"},
        "here": {"type": "object", "properties": {"in the house": {"const": "nobody"}}, "required": ["in the house"], "additionalProperties": false}},
        "required": ["the sea and the sky", "another one", "here"], "additionalProperties": false})"},
      {GPTQ_CONSTRAINT_GRAMMAR, "root ::= item item item\nitem ::= \"the other one is \" (\"round\" | \"red\") \" and then \""},
      {GPTQ_CONSTRAINT_TAGS, R"({"tags": [{"begin": "e: the tool of ", "choice": ["anna", "otto"], "end": " is here"}], "triggers": ["e"]})"},
      {GPTQ_CONSTRAINT_CHOICE, R"(["nothing else is said here", "something else is heard there"])"},
  };
  for (const Source& source : sources) {
    std::vector<Outcome> plain;
    for (const bool foresees : {false, true}) {
      Guesses guesses;
      Chain c(text_model(), params(1), with_threads(2));
      const Constraint constraint(c.model, source.kind, source.text);
      for (uint64_t seed = 0; seed < 12; ++seed) {
        const auto sampling = warm(seed % 3 ? 0.7f : 0, seed);
        auto how = generation(100, foresees ? 0 : GPTQ_GEN_LOGITS);
        how.sampling = &sampling;
        how.constraint = constraint.get();
        c.session.truncate(0);
        c.session.append(some_tokens(25));
        c.session.start(how);
        std::vector<float> row(512);
        // A row of logits is read before the next token is computed: nothing is guessed.
        while (c.engine.step(seed % 2 ? 5 : GPTQ_BUDGET_UNLIMITED) == GPTQ_MORE || c.session.info().state == GPTQ_SESSION_RUNNING) {
          uint32_t first = 0, n = 0;
          if (!foresees) check(gptq_session_read_logits(c.session.get(), row.data(), row.size(), &first, &n));
        }
        const Outcome said = outcome(c.session.get(), &guesses);
        if (!foresees) plain.push_back(said);
        EXPECT_EQ(said, plain[seed]) << source.text << seed;
      }
      if (foresees) EXPECT_GT(guesses.right, 0u) << source.text;
      else EXPECT_EQ(guesses.tried, 0u);
    }
  }
}

TEST(SpeculationWith, Budgets) {
  const Tokens prompt = repeated(some_tokens(25));
  static constexpr gptq_logit_bias likely[] = {{40, 6}};
  for (const uint32_t budget : {1u, 30u, 200u})
    compare(params(1), prompt, [](const Model&, gptq_generate_params&, gptq_sampling& sampling) { sampling.bias = likely, sampling.n_bias = 1; }, budget);
}

// Several sessions in one batch, some with guesses; forks and saves at every place; too few pages.
TEST(SpeculationWith, Company) {
  const Tokens prompt = repeated(some_tokens(25));
  static constexpr gptq_logit_bias same[] = {{40, 6}};
  const auto start = [&](Session& s, uint32_t i, uint32_t flags) {
    auto sampling = warm(i % 2 ? 0.7f : 0, i);
    sampling.bias = same, sampling.n_bias = 1;
    auto how = generation(40, flags | GPTQ_GEN_IGNORE_EOS);
    how.sampling = &sampling;
    s.append(prompt);
    s.start(how);
  };
  std::vector<Outcome> expected;
  for (uint32_t i = 0; i < 4; ++i) {
    Chain alone(text_model(), params(1), with_threads(1));
    start(alone.session, i, 0);
    finish(alone.engine);
    expected.push_back(outcome(alone.session.get()));
  }
  Guesses guesses;
  for (uint32_t steps = 0; steps < 160; steps += 9) {
    const Runtime runtime(with_threads(2));
    const Model model(runtime, text_model());
    Engine engine(model, params(6));
    const Engine other(model, params(1));
    std::vector<Session> sessions;
    for (uint32_t i = 0; i < 4; ++i) {
      sessions.emplace_back(engine);
      start(sessions.back(), i, i == 3 ? 0 : GPTQ_GEN_SPECULATE);
    }
    for (uint32_t i = 0; i < steps; ++i) engine.step(1, nullptr);
    const Session fork = sessions[1].fork();
    std::vector<char> bytes;
    sessions[2].save(GPTQ_SAVE_FULL, [&](const char* from, size_t n) { return bytes.insert(bytes.end(), from, from + n), true; });
    gptq_session* restored = nullptr;
    ASSERT_GE(gptq_session_restore(other.get(), bytes.data(), bytes.size(), &restored, nullptr), 0);
    finish(engine);
    finish(other);
    EXPECT_EQ(outcome(fork.get(), &guesses), expected[1]) << steps;
    EXPECT_EQ(outcome(restored, &guesses), expected[2]) << steps;
    for (uint32_t i = 0; i < 4; ++i) EXPECT_EQ(outcome(sessions[i].get(), &guesses), expected[i]) << steps << " " << i;
    gptq_session_destroy(restored);
  }
  EXPECT_GT(guesses.right, 0u);
  EXPECT_GT(guesses.tried, guesses.right);
}

}  // namespace
}  // namespace gptq::test
