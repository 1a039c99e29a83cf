// SPDX-License-Identifier: Apache-2.0
// Constraints: what is generated matches as a whole, whoever generates beside, forked, saved and restored in its middle.
#include <cmath>
#include <cstring>
#include <regex>

#include "tests/api/fixture.h"

namespace gptq::test {
namespace {

gptq_sampling hot(uint64_t seed) {
  auto sampling = make<gptq_sampling>();
  sampling.temperature = 3;
  sampling.seed = seed;
  return sampling;
}

// A generation of the whole text, or as far as max_tokens.
struct Way {
  Way(const Constraint& constraint, uint64_t seed, uint32_t max_tokens = 0) : sampling(hot(seed)) {
    params.sampling = &sampling;
    params.max_tokens = max_tokens;
    params.constraint = constraint.get();
  }
  Way(const Way&) = delete;
  gptq_sampling sampling;
  gptq_generate_params params = make<gptq_generate_params>();
};

class Constrained : public testing::Test {
 protected:
  void begin(Session& session) {
    session.truncate(0);
    session.append("the sea", GPTQ_TEXT_ADD_BOS);
  }
  void begin(Session& session, const Way& way) {
    begin(session);
    session.start(way.params);
  }
  std::string text(const Constraint& constraint, uint64_t seed, int32_t* stop_reason = nullptr) {
    const Way way(constraint, seed);
    begin(c.session, way);
    finish(c.engine);
    if (stop_reason) *stop_reason = c.session.info().stop_reason;
    return c.session.read();
  }
  Chain c{text_model(), engine_of(0, 4)};
};

TEST_F(Constrained, OneOfTheChoices) {
  const std::vector<std::string> choices = {"north", "northwest", "a \"b\" [c]*", "\xe6\xbc\xa2\xe5\xad\x97", " led by a space"};
  const Constraint constraint(c.model, GPTQ_CONSTRAINT_CHOICE,
                              R"(["north", "northwest", "a \"b\" [c]*", "\u6f22\u5b57", " led by a space"])");
  std::vector<int> seen(choices.size());
  for (uint64_t seed = 0; seed < 60; ++seed) {
    int32_t stop_reason = 0;
    const std::string said = text(constraint, seed, &stop_reason);
    const auto which = std::find(choices.begin(), choices.end(), said);
    ASSERT_NE(which, choices.end()) << said;
    ++seen[static_cast<size_t>(which - choices.begin())];
    // North may go on; an end token is wanted there. After all others nothing can follow.
    EXPECT_EQ(stop_reason, said == "north" ? GPTQ_STOP_EOS : GPTQ_STOP_CONSTRAINT) << said;
  }
  for (size_t i = 0; i < choices.size(); ++i) EXPECT_GT(seen[i], 0) << choices[i];
}

TEST_F(Constrained, WholeMatchesOfAnExpression) {
  for (const char* pattern : {"[0-9]{3}-[0-9]{4}", "(yes|no|may be)[.!?]", "[a-c]+x(y|z)*", "x{0,3}(ab){2,}", "\\d+(\\.\\d{1,2})? \\w+"}) {
    const Constraint constraint(c.model, GPTQ_CONSTRAINT_REGEX, pattern);
    const std::regex expected(pattern);
    for (uint64_t seed = 0; seed < 10; ++seed) {
      int32_t stop_reason = 0;
      const std::string said = text(constraint, seed, &stop_reason);
      if (stop_reason == GPTQ_STOP_CONTEXT) continue;
      EXPECT_TRUE(std::regex_match(said, expected)) << pattern << ": " << said;
      EXPECT_TRUE(stop_reason == GPTQ_STOP_EOS || stop_reason == GPTQ_STOP_CONSTRAINT) << stop_reason;
    }
  }
}

constexpr const char* guard = R"({"type": "object", "properties": {"mood": {"enum": ["calm", "angry"]},
    "hits": {"type": "integer", "minimum": 3, "maximum": 17}, "armed": {"type": "boolean"}}, "required": ["mood", "hits"], "additionalProperties": false})";

// Of the schema's own words; that any text it does not allow is refused, the suite of JSON Schema says.
TEST_F(Constrained, JsonThatTheSchemaAllows) {
  const Constraint constraint(c.model, GPTQ_CONSTRAINT_JSON_SCHEMA, guard);
  const std::regex escape("\\\\u00(..)"), hits("\"hits\"\\s*:\\s*([^\\s,}]+)"), mood("\"mood\"\\s*:\\s*\"(calm|angry)\"");
  int ended = 0;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    int32_t stop_reason = 0;
    const std::string said = text(constraint, seed, &stop_reason);
    // Spaces are allowed without end.
    if (stop_reason == GPTQ_STOP_CONTEXT) continue;
    ++ended;
    EXPECT_EQ(stop_reason, GPTQ_STOP_CONSTRAINT) << said;
    EXPECT_TRUE(said.starts_with('{') && said.ends_with('}')) << said;
    std::string plain = said;
    for (std::smatch found; std::regex_search(plain, found, escape);)
      plain.replace(static_cast<size_t>(found.position()), 6, 1, static_cast<char>(std::stoi(found[1], nullptr, 16)));
    std::smatch found;
    EXPECT_TRUE(std::regex_search(plain, mood)) << said;
    ASSERT_TRUE(std::regex_search(plain, found, hits)) << said;
    const double n = std::stod(found[1]);
    EXPECT_TRUE(n >= 3 && n <= 17 && n == std::floor(n)) << said;
  }
  EXPECT_GT(ended, 0);
}

TEST_F(Constrained, CompactJsonIsWrittenOneWay) {
  const Constraint constraint(c.model, GPTQ_CONSTRAINT_JSON_COMPACT, guard);
  const std::regex expected(R"re(\{"mood":"(calm|angry)","hits":([3-9]|1[0-7])(,"armed":(true|false))?\})re");
  for (uint64_t seed = 0; seed < 100; ++seed) {
    int32_t stop_reason = 0;
    const std::string said = text(constraint, seed, &stop_reason);
    EXPECT_EQ(stop_reason, GPTQ_STOP_CONSTRAINT) << said;
    EXPECT_TRUE(std::regex_match(said, expected)) << said;
  }
}

TEST_F(Constrained, WhatTheGrammarDerives) {
  const Constraint constraint(c.model, GPTQ_CONSTRAINT_GRAMMAR, "root ::= \"(\" inner \")\" # balanced\ninner ::= root inner | [ab]");
  for (uint64_t seed = 0; seed < 20; ++seed) {
    int32_t stop_reason = 0;
    const std::string said = text(constraint, seed, &stop_reason);
    if (stop_reason != GPTQ_STOP_CONSTRAINT) continue;
    int depth = 0;
    for (const char ch : said) depth += ch == '(' ? 1 : ch == ')' ? -1 : 0;
    EXPECT_EQ(depth, 0) << said;
    EXPECT_EQ(said.find_first_not_of("()ab"), std::string::npos) << said;
  }
}

TEST_F(Constrained, LimitsCutIt) {
  const Constraint constraint(c.model, GPTQ_CONSTRAINT_REGEX, "[xyz]{200}");
  const Way way(constraint, 1, 5);
  begin(c.session, way);
  finish(c.engine);
  EXPECT_EQ(c.session.info().stop_reason, GPTQ_STOP_LENGTH);
  EXPECT_EQ(c.session.read().find_first_not_of("xyz"), std::string::npos);
}

// Several sessions in one batch, some with the same constraint, one with none: each as if it were alone.
TEST_F(Constrained, SessionsDoNotMix) {
  const Constraint digits(c.model, GPTQ_CONSTRAINT_REGEX, "[0-9]{12}"), letters(c.model, GPTQ_CONSTRAINT_CHOICE, R"(["abcabcabcabc", "bcdbcdbcd"])");
  const Way ways[] = {{digits, 1}, {digits, 2}, {letters, 3}};
  std::vector<std::string> alone;
  for (const Way& way : ways) {
    begin(c.session, way);
    finish(c.engine);
    alone.push_back(c.session.read());
  }
  Session second(c.engine), third(c.engine), fourth(c.engine);
  Session* sessions[] = {&c.session, &second, &third};
  for (int i = 0; i < 3; ++i) begin(*sessions[i], ways[i]);
  begin(fourth);
  fourth.start(generation(20));
  finish(c.engine);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(sessions[i]->read(), alone[static_cast<size_t>(i)]);
  EXPECT_EQ(fourth.info().n_generated, 20u);
}

// In every place of a generation: a fork, and a save restored in another engine, say the same; also when the constraint's handle is gone.
TEST_F(Constrained, ForksAndSavesGoOn) {
  Chain other(text_model(), engine_of(0, 2), with_threads(2));
  const std::pair<int32_t, const char*> sources[] = {
      {GPTQ_CONSTRAINT_REGEX, "(say|do) [a-z]{4,12}, (\\d{2}|never)!"},
      {GPTQ_CONSTRAINT_JSON_COMPACT, R"({"properties": {"say": {"type": "string", "maxLength": 9}, "do": {"enum": ["run", "rest"]}},
        "required": ["do"], "additionalProperties": false, "type": "object"})"}};
  for (int i = 0; i < 48; ++i) {
    const int steps = i / 2;
    const auto [kind, source] = sources[i % 2];
    auto constraint = std::make_unique<Constraint>(c.model, kind, source);
    const Way way(*constraint, 5);
    begin(c.session, way);
    for (int step = 0; step < steps; ++step) c.engine.step(1, nullptr);
    Session fork = c.session.fork();
    size_t n = 0;
    gptq_session_save(c.session.get(), GPTQ_SAVE_REPLAY, nullptr, 0, &n, nullptr);
    Bytes bytes(n);
    check(gptq_session_save(c.session.get(), GPTQ_SAVE_REPLAY, bytes.data(), n, &n, nullptr));
    EXPECT_LE(n, 4 * c.session.info().n_tokens + 1024);
    constraint.reset();
    gptq_session* restored = nullptr;
    check(gptq_session_restore(other.engine.get(), bytes.data(), n, &restored, nullptr));
    finish(other.engine, 50);
    finish(c.engine);
    char text[256];
    check(gptq_session_read(restored, text, sizeof text, &n));
    auto info = make<gptq_session_info>();
    check(gptq_session_info_get(restored, &info));
    const std::string said = c.session.read();
    EXPECT_EQ(std::string(text, n), said);
    EXPECT_EQ(fork.read(), said);
    EXPECT_EQ(info.stop_reason, GPTQ_STOP_CONSTRAINT);
    gptq_session_destroy(restored);
  }
}

TEST(NoAllocation, WhileConstrained) {
  Host host;
  Chain c(text_model(), engine_of(0, 2), host.desc(2));
  const Constraint constraint(c.model, GPTQ_CONSTRAINT_REGEX, "([a-z]{3,9} ){4}[0-9]+\\.");
  const Way way(constraint, 3, 80);
  c.session.append("the sea", GPTQ_TEXT_ADD_BOS);
  const uint64_t host_before = host.calls, heap_before = heap_calls();
  c.session.start(way.params);
  for (int i = 0; i < 9; ++i) check(gptq_engine_step(c.engine.get(), 1, nullptr));
  gptq_session* fork = nullptr;
  check(gptq_session_fork(c.session.get(), &fork, nullptr));
  while (gptq_engine_step(c.engine.get(), 100, nullptr) == GPTQ_MORE) {}
  gptq_session_destroy(fork);
  const uint64_t host_calls = host.calls - host_before, heap = heap_calls() - heap_before;
  EXPECT_EQ(host_calls, 0u);
  EXPECT_EQ(heap, 0u);
  EXPECT_GT(c.session.info().n_generated, 10u);
}

struct Refusal {
  int32_t kind;
  const char* source;
  uint64_t offset;
  const char* message;
};
class Refused : public testing::TestWithParam<Refusal> {};

TEST_P(Refused, WithItsPlace) {
  const Refusal& r = GetParam();
  const Chain c(text_model());
  gptq_constraint* constraint = nullptr;
  auto err = make<gptq_error>();
  EXPECT_EQ(gptq_constraint_compile(c.model.get(), r.kind, r.source, GPTQ_NTS, &constraint, &err), GPTQ_E_INVALID_ARGUMENT);
  EXPECT_EQ(constraint, nullptr);
  EXPECT_EQ(err.offset, r.offset);
  EXPECT_NE(std::strstr(err.message, r.message), nullptr) << err.message;
}

constexpr uint64_t nowhere = 0;
INSTANTIATE_TEST_SUITE_P(Sources, Refused,
                         testing::Values(Refusal{GPTQ_CONSTRAINT_REGEX, "abc(d", 5, "open group at 5"},
                                         Refusal{GPTQ_CONSTRAINT_REGEX, "ab)", 2, "unmatched ) at 2"},
                                         Refusal{GPTQ_CONSTRAINT_REGEX, "a{3,1}", 6, "wrong {m,n}"},
                                         Refusal{GPTQ_CONSTRAINT_REGEX, "\\q", 1, "escape"},
                                         Refusal{GPTQ_CONSTRAINT_REGEX, "a{300000}", 7, "nodes"},
                                         Refusal{GPTQ_CONSTRAINT_CHOICE, "[\"a\", 1]", nowhere, "/1"},
                                         Refusal{GPTQ_CONSTRAINT_CHOICE, "[]", nowhere, "array"},
                                         Refusal{GPTQ_CONSTRAINT_JSON_SCHEMA, R"({"properties": {"a": {"$ref": "http://x/y"}}})", nowhere, "/properties/a/$ref"},
                                         Refusal{GPTQ_CONSTRAINT_JSON_SCHEMA, R"j({"items": {"pattern": "(?=a)"}})j", 2, "/items/pattern"},
                                         Refusal{GPTQ_CONSTRAINT_JSON_COMPACT, R"({"required": [1]})", nowhere, "/required"},
                                         Refusal{GPTQ_CONSTRAINT_GRAMMAR, "root ::= a", 10, "no rule 'a'"},
                                         Refusal{GPTQ_CONSTRAINT_GRAMMAR, "root ::= root \"a\" | \"b\"", nowhere, "calls itself"},
                                         Refusal{99, "a", nowhere, "kind"}));

TEST_F(Constrained, MisuseIsRefused) {
  const Constraint constraint(c.model, GPTQ_CONSTRAINT_REGEX, "a+");
  Way way(constraint, 1, 4);
  begin(c.session);
  way.params.flags = GPTQ_GEN_IGNORE_EOS;
  EXPECT_EQ(gptq_session_start(c.session.get(), &way.params, nullptr), GPTQ_E_INVALID_ARGUMENT);
  way.params.flags = 0;
  Chain other(text_model());
  other.session.append("the sea", GPTQ_TEXT_ADD_BOS);
  EXPECT_EQ(gptq_session_start(other.session.get(), &way.params, nullptr), GPTQ_E_INVALID_ARGUMENT);
  EXPECT_EQ(gptq_constraint_compile(nullptr, GPTQ_CONSTRAINT_REGEX, "a", 1, nullptr, nullptr), GPTQ_E_INVALID_ARGUMENT);
  gptq_constraint_destroy(nullptr);
  const Runtime runtime;
  const Model no_text(runtime, tiny_model());
  gptq_constraint* made = nullptr;
  auto err = make<gptq_error>();
  EXPECT_EQ(gptq_constraint_compile(no_text.get(), GPTQ_CONSTRAINT_REGEX, "a", 1, &made, &err), GPTQ_E_TEXT);
  EXPECT_NE(std::strstr(err.message, "no tokenizer"), nullptr) << err.message;
}

}  // namespace
}  // namespace gptq::test
