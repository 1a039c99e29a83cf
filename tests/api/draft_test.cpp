// SPDX-License-Identifier: Apache-2.0
// Draft models: whatever they say, the tokens, the text, the log-probabilities and the end are those of plain decoding. The engine's model is eleven
// times its draft, which is right where it is the same without the layers that do nothing.
#include <array>
#include <functional>

#include "tests/api/lora_fixture.h"
#include "tests/api/outcome.h"

namespace gptq::test {
namespace {

gptq_engine_params params(uint32_t max_sessions = 1, uint32_t ctx = 192) {
  auto params = engine_of(0, max_sessions);
  params.ctx_tokens = ctx;
  params.best_logprobs = 3;
  return params;
}

// An engine of the deep model, with a draft or without.
struct Pair {
  explicit Pair(const std::string& draft_path, const gptq_engine_params& p = params(), const gptq_runtime_desc& desc = with_threads(2))
      : runtime(desc), model(runtime, deep_model()), engine(model, p) {
    if (draft_path.empty()) return;
    draft.emplace(runtime, draft_path);
    engine.set_draft(&*draft);
  }
  Runtime runtime;
  Model model;
  Engine engine;
  std::optional<Model> draft;
};

using Set = std::function<void(const Model&, gptq_generate_params&, gptq_sampling&)>;

// What the session generates, with its log-probabilities where they are asked for.
struct Said : Outcome {
  std::vector<float> logprobs;
  bool operator==(const Said& other) const {
    const bool same = logprobs.size() == other.logprobs.size() && !std::memcmp(logprobs.data(), other.logprobs.data(), logprobs.size() * sizeof(float));
    return same && Outcome::operator==(other);
  }
};
Said said_by(const Session& session, Guesses* guesses = nullptr) {
  Said said{outcome(session.get(), guesses), std::vector<float>(session.info().n_tokens)};
  std::vector<gptq_token_logprob> best(said.logprobs.size() * 3);
  check(gptq_session_logprobs(session.get(), 0, session.info().n_tokens, said.logprobs.data(), best.data()));
  for (const gptq_token_logprob& b : best) said.logprobs.push_back(b.logprob), said.logprobs.push_back(static_cast<float>(b.token));
  return said;
}

void start(const Model& model, Session& session, uint64_t seed, uint32_t flags, const Set& set, uint32_t n = 60) {
  auto sampling = warm(seed % 3 ? 0.8f : 0, seed);
  auto how = generation(n, flags);
  how.sampling = &sampling;
  if (set) set(model, how, sampling);
  session.start(how);
}

// The same generations without and with the draft, whose guesses are counted.
Guesses compare(const std::string& draft, const Set& set = nullptr, uint32_t budget = GPTQ_BUDGET_UNLIMITED, const gptq_engine_params& p = params()) {
  Guesses guesses;
  Pair plain("", p), drafting(draft, p);
  Session a(plain.engine), b(drafting.engine);
  for (uint64_t seed = 0; seed < 4; ++seed) {
    const Tokens prompt = some_tokens(20 + static_cast<uint32_t>(seed), static_cast<uint32_t>(seed) + 1);
    for (Session* s : {&a, &b}) s->truncate(0), s->append(prompt);
    start(plain.model, a, seed, 0, set);
    start(drafting.model, b, seed, GPTQ_GEN_SPECULATE, set);
    finish(plain.engine);
    finish(drafting.engine, budget);
    EXPECT_TRUE(said_by(a) == said_by(b, &guesses)) << seed;
  }
  return guesses;
}

TEST(Draft, TheSameModelIsRight) {
  const Guesses guesses = compare(text_model());
  EXPECT_GT(guesses.right, 40u);
  EXPECT_GT(guesses.right * 10, guesses.tried * 9);
}

TEST(Draft, AnotherModelIsWrongAndSoonNotAsked) {
  const auto long_and_warm = [](const Model&, gptq_generate_params& how, gptq_sampling& sampling) {
    how.max_tokens = 160;
    sampling.temperature = 2, sampling.top_p = 0;
  };
  const Guesses lookup = compare("", long_and_warm), guesses = compare(dense_model(), long_and_warm);
  EXPECT_GT(guesses.tried, lookup.tried);
  EXPECT_LT(guesses.tried, lookup.tried + 400);  // of 640 tokens with some 5 guesses each, were it asked for all
  EXPECT_LT(guesses.right, guesses.tried / 2);
}

TEST(Draft, AllOfTheSampler) {
  static constexpr gptq_logit_bias bias[] = {{40, 4}, {511, 3}};
  for (const int which : {0, 1, 2, 3, 4}) {
    const Guesses guesses = compare(text_model(), [&](const Model&, gptq_generate_params& how, gptq_sampling& sampling) {
      if (which == 0) sampling.repeat_penalty = 1.2f, sampling.dry_multiplier = 0.5f, sampling.frequency_penalty = 0.1f;
      if (which == 1) sampling.mirostat_tau = 3;
      if (which == 2) sampling.bias = bias, sampling.n_bias = 2, sampling.xtc_probability = 0.3f, sampling.top_n_sigma = 2;
      if (which == 3) sampling.top_k = 20, sampling.min_p = 0.05f;
      if (which == 4) how.flags |= GPTQ_GEN_LOGPROBS | GPTQ_GEN_IGNORE_EOS;
    });
    EXPECT_GT(guesses.right, 20u) << which;
    EXPECT_GT(guesses.right * 10, guesses.tried * 8) << which;  // it samples with the session's own random numbers
  }
}

TEST(Draft, EveryEnd) {
  for (const uint32_t n : {1u, 2u, 3u, 5u, 8u, 13u}) compare(text_model(), [&](const Model&, gptq_generate_params& how, gptq_sampling&) { how.max_tokens = n; });
  for (uint32_t ctx = 60; ctx < 63; ++ctx) compare(text_model(), nullptr, GPTQ_BUDGET_UNLIMITED, params(1, ctx));
  // An end token that is likely, and a stop string of what is.
  static constexpr gptq_logit_bias end[] = {{2, 6}};
  compare(text_model(), [](const Model&, gptq_generate_params&, gptq_sampling& sampling) { sampling.bias = end, sampling.n_bias = 1; });
  static constexpr gptq_string stop[] = {{"e", 1}, {" a", 2}};
  compare(text_model(), [](const Model&, gptq_generate_params& how, gptq_sampling&) { how.stop = stop, how.n_stop = 2; });
}

TEST(Draft, ConstraintsAndBans) {
  Pair a("", params()), b(text_model(), params());
  uint32_t tried = 0;
  for (const char* pattern : {"([a-z ]{3} [0-9]+, )*end", "(x|yy|[a-m]{2})*z", "[a-z ]{40,50}"}) {
    const Constraint ours(a.model, GPTQ_CONSTRAINT_REGEX, pattern), theirs(b.model, GPTQ_CONSTRAINT_REGEX, pattern);
    for (uint64_t seed = 0; seed < cases_here(6, 2); ++seed) {
      Session plain(a.engine), drafting(b.engine);
      Guesses guesses;
      for (Session* s : {&plain, &drafting}) s->append(some_tokens(20));
      const auto with = [](const Constraint& c) { return [&c](const Model&, gptq_generate_params& how, gptq_sampling&) { how.constraint = c.get(); }; };
      start(a.model, plain, seed, 0, with(ours));
      start(b.model, drafting, seed, GPTQ_GEN_SPECULATE, with(theirs));
      finish(a.engine);
      finish(b.engine);
      EXPECT_TRUE(said_by(plain) == said_by(drafting, &guesses)) << pattern << seed;
      tried += guesses.tried;
    }
  }
  EXPECT_GT(tried, 0u);
  const char* const phrases = R"(["e", "th", "a b", "o"])";
  const Constraint ours(a.model, GPTQ_CONSTRAINT_BANNED, phrases), theirs(b.model, GPTQ_CONSTRAINT_BANNED, phrases);
  for (uint64_t seed = 0; seed < cases_here(6, 2); ++seed) {
    Session plain(a.engine), drafting(b.engine);
    for (Session* s : {&plain, &drafting}) s->append(some_tokens(20));
    const auto with = [](const Constraint& c) { return [&c](const Model&, gptq_generate_params& how, gptq_sampling&) { how.banned = c.get(); }; };
    start(a.model, plain, seed, 0, with(ours));
    start(b.model, drafting, seed, GPTQ_GEN_SPECULATE, with(theirs));
    finish(a.engine);
    finish(b.engine, seed % 2 ? 20 : GPTQ_BUDGET_UNLIMITED);
    EXPECT_TRUE(said_by(plain) == said_by(drafting)) << seed;
  }
}

TEST(Draft, Budgets) {
  for (const uint32_t budget : {1u, 100u, 1000u, 5000u}) compare(text_model(), nullptr, budget);
}

// A step does not last longer for drafts. Its budget is a few layers of this machine and build, so that there is time for guesses.
TEST(Draft, StepsKeepNearTheirBudget) {
  Pair pair(text_model(), params(2), with_threads(1));
  Session session(pair.engine), plain(pair.engine);
  auto info = make<gptq_step_info>();
  plain.append(some_tokens(1));
  start(pair.model, plain, 1, GPTQ_GEN_IGNORE_EOS, nullptr, 20);
  std::vector<uint32_t> quanta;
  while (pair.engine.step(1, &info) == GPTQ_MORE) quanta.push_back(info.used_us);
  std::nth_element(quanta.begin(), quanta.begin() + static_cast<ptrdiff_t>(quanta.size() / 2), quanta.end());
  const uint32_t budget = std::max(300u, 10 * quanta[quanta.size() / 2]);
  uint32_t steps = 0, over = 0, guessed = 0;
  for (int i = 0; i < 5 && guessed == 0; ++i) {  // where others take the core just as a draft is measured, none pays for a while
    session.truncate(0);
    session.append(some_tokens(100));
    start(pair.model, session, 1, GPTQ_GEN_SPECULATE | GPTQ_GEN_IGNORE_EOS, nullptr, 80);
    for (double before = thread_us(); pair.engine.step(budget, &info) == GPTQ_MORE; before = thread_us()) {
      ++steps;
      over += thread_us() - before > 2 * budget;
      ASSERT_GE(info.quanta, 1u);
    }
    guessed = session.info().n_guessed_right;
  }
  EXPECT_GT(guessed, 0u) << "budget " << budget << " steps " << steps << " tried " << session.info().n_guessed;
  EXPECT_GT(steps, 10u);
  EXPECT_LE(over, steps / 4 + 2) << "of " << steps << " budget " << budget;
}

// Several sessions in one batch, with and without guesses; forks and saves at every place; cancelling and going back.
TEST(Draft, Company) {
  const auto begin = [&](const Model& model, Session& s, uint32_t i, uint32_t flags) {
    s.append(some_tokens(30 + i, i + 1));
    start(model, s, i, flags | GPTQ_GEN_IGNORE_EOS, nullptr, 40);
  };
  std::vector<Said> expected;
  for (uint32_t i = 0; i < 4; ++i) {
    Pair alone("", params(1), with_threads(1));
    Session s(alone.engine);
    begin(alone.model, s, i, 0);
    finish(alone.engine);
    expected.push_back(said_by(s));
  }
  Guesses guesses;
  for (uint32_t steps = 0; steps < 300; steps += 37) {
    Pair pair(text_model(), params(7));
    const Engine other(pair.model, params(1));
    std::vector<Session> sessions;
    for (uint32_t i = 0; i < 4; ++i) {
      sessions.emplace_back(pair.engine);
      begin(pair.model, sessions.back(), i, i == 3 ? 0 : GPTQ_GEN_SPECULATE | (i == 2 ? GPTQ_GEN_BACKGROUND : 0));
    }
    for (uint32_t i = 0; i < steps; ++i) pair.engine.step(60, nullptr);  // some layers for the rows of some guesses
    const Session fork = sessions[1].fork();
    Session cut = sessions[0].fork();
    const std::string saved = sessions[1].save(GPTQ_SAVE_FULL);
    const Session restored(other, saved);
    finish(other);
    EXPECT_EQ(outcome(restored.get()).tokens, expected[1].tokens);
    cut.cancel();
    pair.engine.step(1, nullptr);
    EXPECT_NE(cut.info().state, GPTQ_SESSION_RUNNING);
    if (steps % 2) pair.engine.set_draft(nullptr);
    cut.truncate(30);
    start(pair.model, cut, 0, GPTQ_GEN_SPECULATE | GPTQ_GEN_IGNORE_EOS, nullptr, 40);
    finish(pair.engine);
    EXPECT_EQ(outcome(cut.get(), &guesses).tokens, expected[0].tokens) << steps;
    EXPECT_EQ(outcome(fork.get(), &guesses), expected[1]) << steps;
    for (uint32_t i = 0; i < 4; ++i) EXPECT_EQ(outcome(sessions[i].get(), &guesses), expected[i]) << steps << " " << i;
    const Session again(pair.engine, saved);  // into an engine with a draft
    finish(pair.engine);
    EXPECT_EQ(outcome(again.get(), &guesses).tokens, expected[1].tokens);
  }
  EXPECT_GT(guesses.right, 100u);
}

// A mirror of a long input is made while the session goes on, a chunk beside each of its tokens; others do not wait for it.
TEST(Draft, CatchesUpWithLongInputs) {
  auto p = params(2, 256);
  p.batch_tokens = 32;
  Pair plain("", p), pair(text_model(), p);
  Said expected[2];
  for (Pair* each : {&plain, &pair}) {
    Session longer(each->engine), shorter(each->engine);
    longer.append(some_tokens(180)), shorter.append(some_tokens(10, 2));
    start(each->model, shorter, 4, GPTQ_GEN_SPECULATE | GPTQ_GEN_IGNORE_EOS, nullptr, 60);
    start(each->model, longer, 3, GPTQ_GEN_SPECULATE | GPTQ_GEN_IGNORE_EOS, nullptr, 60);
    finish(each->engine);
    if (each == &plain) expected[0] = said_by(longer), expected[1] = said_by(shorter);
    else {
      EXPECT_GT(longer.info().n_guessed_right, 10u);
      EXPECT_TRUE(said_by(longer) == expected[0]);
      EXPECT_TRUE(said_by(shorter) == expected[1]);
    }
  }
}

// One whose mirror is far behind holds nobody up: the other gets a token beside each chunk of it.
TEST(Draft, NobodyWaitsForALongInput) {
  Pair pair(text_model(), params(2, 1024));
  auto small = engine_of(0, 2);
  small.batch_tokens = 16;
  pair.engine.set_draft(&*pair.draft, small);
  Session longer(pair.engine), shorter(pair.engine);
  longer.append(some_tokens(800)), shorter.append(some_tokens(10, 2));
  start(pair.model, shorter, 4, GPTQ_GEN_IGNORE_EOS, nullptr, 200);
  while (shorter.info().n_generated == 0) pair.engine.step(1, nullptr);
  start(pair.model, longer, 3, GPTQ_GEN_SPECULATE | GPTQ_GEN_IGNORE_EOS, nullptr, 200);
  uint32_t most = 0, since = 0, before = 0;
  auto info = make<gptq_step_info>();
  while (shorter.info().state == GPTQ_SESSION_RUNNING && pair.engine.step(1500, &info) == GPTQ_MORE) {
    since = shorter.info().n_generated > before ? 0 : since + info.quanta;
    before = shorter.info().n_generated;
    if (longer.info().n_generated) most = std::max(most, since);
  }
  finish(pair.engine);
  EXPECT_GT(longer.info().n_guessed, 0u);
  // A batch of the engine's model has 35 quanta, 15 guesses have 60, a chunk of the draft has 3; all 50 chunks of it have 150.
  EXPECT_LT(most, 125u);
}

// Where the arena holds just one session, up to its last token.
TEST(Draft, SmallArenas) {
  for (const uint32_t ctx : {64u, 128u}) {
    auto p = params(1, ctx);
    p.page_tokens = 64;
    Pair pair(text_model(), p);
    Session s(pair.engine);
    s.append(some_tokens(ctx - 40));
    start(pair.model, s, 3, GPTQ_GEN_SPECULATE | GPTQ_GEN_IGNORE_EOS, nullptr, 38);
    finish(pair.engine);
    EXPECT_GT(s.info().n_guessed_right, 15u) << ctx;
  }
}

// Whoever leaves in the middle of a draft: every step comes back.
TEST(Draft, SomebodyLeavesAtEveryPlace) {
  for (uint32_t steps = 0; steps < 60; steps += cases_here(1, 5)) {
    Pair pair(text_model(), params(3));
    std::vector<Session> sessions;
    for (uint32_t i = 0; i < 3; ++i) {
      sessions.emplace_back(pair.engine).append(some_tokens(12 + i, i + 1));
      start(pair.model, sessions.back(), i + 3, GPTQ_GEN_SPECULATE | GPTQ_GEN_IGNORE_EOS, nullptr, 40);
    }
    for (uint32_t i = 0; i < 20 + steps; ++i) pair.engine.step(i % 3 ? 20 : 200, nullptr);
    if (steps % 2) sessions[steps % 3].cancel();
    else sessions.erase(sessions.begin() + steps % 3);
    for (uint32_t i = 0; i < 10; ++i) pair.engine.step(1, nullptr);
    finish(pair.engine);
    for (const Session& s : sessions) EXPECT_NE(s.info().state, GPTQ_SESSION_RUNNING);
  }
}

// A conversation goes on; the adapter changes the engine's model alone.
TEST(Draft, ChatsAndAdapters) {
  Pair plain("", params(1, 256)), pair(text_model(), params(1, 256));
  const Lora lora(deep_model());
  std::vector<std::string> texts[2];
  for (Pair* each : {&plain, &pair}) {
    const Adapter adapter(each->model, lora.path());
    Session session(each->engine);
    std::vector<std::string>& out = texts[each == &pair];
    std::vector<Message> turns;
    for (const char* line : {"tell me of the sea", "and of the land", "and no more"}) {
      turns.push_back({"user", line});
      session.set_chat(turns);
      start(each->model, session, 2, GPTQ_GEN_SPECULATE, nullptr, 30);
      finish(each->engine);
      session.set_adapter(turns.size() < 4 ? &adapter : nullptr, 0.7f);
      out.push_back(session.read());
      turns.push_back({"bot", "so it is"});
    }
  }
  EXPECT_EQ(texts[0], texts[1]);
}

TEST(Draft, WithAnotherVocabularyIsRefused) {
  Pair pair("");
  auto error = make<gptq_error>();
  const Model tiny(pair.runtime, tiny_model());
  EXPECT_EQ(gptq_engine_set_draft(pair.engine.get(), tiny.get(), nullptr, &error), GPTQ_E_INVALID_ARGUMENT);
  EXPECT_NE(std::string(error.message).find("tokens"), std::string::npos) << error.message;
  Runtime elsewhere;
  const Model far(elsewhere, text_model());
  EXPECT_EQ(gptq_engine_set_draft(pair.engine.get(), far.get(), nullptr, &error), GPTQ_E_INVALID_ARGUMENT);
  EXPECT_NE(std::string(error.message).find("runtime"), std::string::npos) << error.message;
  const Model draft(pair.runtime, text_model());
  EXPECT_EQ(gptq_engine_set_draft(nullptr, draft.get(), nullptr, &error), GPTQ_E_INVALID_ARGUMENT);
  auto p = make<gptq_engine_params>();
  p.max_sessions = 3;
  EXPECT_EQ(gptq_engine_set_draft(pair.engine.get(), draft.get(), &p, &error), GPTQ_E_INVALID_ARGUMENT);
  p = make<gptq_engine_params>();
  p.ctx_tokens = 193;
  EXPECT_EQ(gptq_engine_set_draft(pair.engine.get(), draft.get(), &p, &error), GPTQ_E_INVALID_ARGUMENT);
  EXPECT_EQ(gptq_engine_set_draft(pair.engine.get(), nullptr, nullptr, &error), GPTQ_OK);
  for (const std::string& folder : family_folders())
    if (name_of(folder).find("lfm2") != std::string::npos || name_of(folder).find("qwen3-next") != std::string::npos) {
      const Model recurrent(pair.runtime, converted(folder));
      const Engine engine(recurrent, params());
      EXPECT_EQ(gptq_engine_set_draft(engine.get(), recurrent.get(), nullptr, &error), GPTQ_E_UNSUPPORTED) << folder;
      break;
    }
}

// A draft that fails, or has no place: no guesses, and no error.
TEST(Draft, WhatFailsIsNoError) {
  Pair plain("");
  const auto sick = [](const Model&, gptq_generate_params&, gptq_sampling& sampling) {
    static constexpr gptq_logit_bias often[] = {{sick_token, 5}};
    sampling.bias = often, sampling.n_bias = 1;
  };
  compare(sick_model(), sick);
  compare(overflowing_model());
  for (const uint32_t pages : {1u, 2u, 3u, 5u}) {
    Pair pair("", params(3));
    const Model draft(pair.runtime, text_model());
    auto p = make<gptq_engine_params>();
    p.page_tokens = 16;
    p.kv_bytes = pages * 16 * draft.info().kv_bytes_per_token;
    pair.engine.set_draft(&draft, p);
    std::vector<Session> sessions;
    for (uint32_t i = 0; i < 3; ++i) {
      sessions.emplace_back(pair.engine);
      sessions.back().append(some_tokens(10 + i, i));
      start(pair.model, sessions.back(), i, GPTQ_GEN_SPECULATE | GPTQ_GEN_IGNORE_EOS, nullptr);
    }
    finish(pair.engine);
    for (uint32_t i = 0; i < 3; ++i) {
      Session alone(plain.engine);
      alone.append(some_tokens(10 + i, i));
      start(plain.model, alone, i, GPTQ_GEN_IGNORE_EOS, nullptr);
      finish(plain.engine);
      EXPECT_EQ(outcome(alone.get()), outcome(sessions[i].get())) << pages;
    }
  }
  // A shorter context: guesses up to its end.
  Pair pair("");
  const Model draft(pair.runtime, text_model());
  auto p = make<gptq_engine_params>();
  p.ctx_tokens = 50;
  pair.engine.set_draft(&draft, p);
  Session session(pair.engine), alone(plain.engine);
  for (Session* s : {&session, &alone}) s->append(some_tokens(20));
  start(pair.model, session, 1, GPTQ_GEN_SPECULATE | GPTQ_GEN_IGNORE_EOS, nullptr);
  start(plain.model, alone, 1, GPTQ_GEN_IGNORE_EOS, nullptr);
  finish(pair.engine), finish(plain.engine);
  EXPECT_LE(session.info().n_guessed_right, 30u);
  EXPECT_EQ(outcome(session.get()), outcome(alone.get()));
}

TEST(Draft, NothingIsAllocatedInAStep) {
  for (const bool constrained : {false, true}) {
    Host host;
    Pair pair(text_model(), params(3), host.desc(2));
    const Constraint constraint(pair.model, GPTQ_CONSTRAINT_REGEX, "[a-z ]{60}");
    Session a(pair.engine), b(pair.engine);
    a.append(some_tokens(40)), b.append(some_tokens(50, 2));
    const auto rule = [&](const Model&, gptq_generate_params& how, gptq_sampling&) {
      if (constrained) how.constraint = constraint.get(), how.flags &= ~uint32_t(GPTQ_GEN_IGNORE_EOS);
    };
    const uint64_t host_before = host.calls, heap_before = heap_calls();
    start(pair.model, a, 1, GPTQ_GEN_SPECULATE | GPTQ_GEN_IGNORE_EOS, nullptr);
    start(pair.model, b, 3, GPTQ_GEN_SPECULATE | GPTQ_GEN_IGNORE_EOS, nullptr, 120);
    if (constrained) {
      a.cancel(), pair.engine.step(1, nullptr);
      start(pair.model, a, 1, GPTQ_GEN_SPECULATE, rule);
    }
    for (int i = 0; i < 20; ++i) pair.engine.step(5000, nullptr);
    a.cancel();  // for one alone guesses pay on any machine
    finish(pair.engine);
    gptq_session* fork = nullptr;
    check(gptq_session_fork(a.get(), &fork, nullptr));
    gptq_session_destroy(fork);
    EXPECT_EQ(host.calls - host_before, 0u);
    if (!constrained) {
      EXPECT_EQ(heap_calls() - heap_before, 0u);
    }
    EXPECT_GT(b.info().n_guessed_right, 0u) << constrained;
  }
}

// All of it is taken in the call, within the budget, and goes back; a refusal leaves the engine as it was.
TEST(Draft, MemoryIsReserved) {
  Host free_host;
  int64_t without = 0, with = 0;
  uint64_t points = 0;
  {
    Pair pair("", params(), free_host.desc());
    const Model draft(pair.runtime, text_model());
    without = free_host.live;
    const uint64_t before = free_host.allocations;
    pair.engine.set_draft(&draft);
    with = free_host.live;
    points = free_host.allocations - before;
    EXPECT_GT(with, without);
    pair.engine.set_draft(&draft);  // in its place
    EXPECT_EQ(free_host.live, with);
    pair.engine.set_draft(nullptr);
    EXPECT_EQ(free_host.live, without);
    pair.engine.set_draft(&draft);
  }
  EXPECT_EQ(free_host.live, 0);
  EXPECT_GT(points, 2u);
  for (uint64_t point = 0; point <= points; ++point) {
    Host host;
    {
      Pair pair("", params(), host.desc());
      const Model draft(pair.runtime, text_model());
      const int64_t before = host.live;
      host.fail_at = host.allocations + point;
      const gptq_status status = gptq_engine_set_draft(pair.engine.get(), draft.get(), nullptr, nullptr);
      EXPECT_EQ(status, point < points ? GPTQ_E_OUT_OF_MEMORY : GPTQ_OK) << point;
      if (status != GPTQ_OK) {
        EXPECT_EQ(host.live, before) << point;
      }
      host.fail_at = UINT64_MAX;
      Session session(pair.engine);
      session.append(some_tokens(10));
      start(pair.model, session, 1, GPTQ_GEN_SPECULATE, nullptr, 5);
      finish(pair.engine);
      EXPECT_EQ(session.info().status, GPTQ_OK);
    }
    EXPECT_EQ(host.live, 0);
  }
  Host host;
  auto desc = host.desc();
  desc.host_bytes_max = static_cast<uint64_t>(without + (with - without) / 2);
  Pair pair("", params(), desc);
  const Model draft(pair.runtime, text_model());
  EXPECT_EQ(gptq_engine_set_draft(pair.engine.get(), draft.get(), nullptr, nullptr), GPTQ_E_BUDGET_EXCEEDED);
}

// In any order of release; the engine keeps its draft model alive.
TEST(Draft, GoesWithItsEngine) {
  Host host;
  {
    std::optional<Session> session;
    const Tokens prompt = some_tokens(20);
    {
      Pair pair(text_model(), params(), host.desc());
      session.emplace(pair.engine);
      session->append(prompt);
      start(pair.model, *session, 1, GPTQ_GEN_SPECULATE | GPTQ_GEN_IGNORE_EOS, nullptr);
      for (int i = 0; i < 200; ++i) pair.engine.step(1, nullptr);
    }
    EXPECT_GT(host.live, 0);
  }
  EXPECT_EQ(host.live, 0);
}

// ---- what the host foretells ----

TEST(Prediction, SameTokensAndFewerBatches) {
  Chain c(text_model(), params(2), with_threads(2));
  Guesses guesses;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    const Tokens prompt = some_tokens(20, static_cast<uint32_t>(seed) + 1);
    c.session.set_prediction("");
    c.session.truncate(0);
    c.session.append(prompt);
    start(c.model, c.session, seed, GPTQ_GEN_IGNORE_EOS, nullptr);
    finish(c.engine);
    const Said expected = said_by(c.session);
    // The text it will say, with a word changed and one left out, behind others.
    std::string text = expected.text;
    if (text.size() > 30) text.erase(20, 4);
    c.session.set_prediction((seed % 2 ? "this is not said at all " : "") + text + " nor is this");
    for (const uint32_t budget : {GPTQ_BUDGET_UNLIMITED, 20u}) {
      c.session.truncate(0);
      c.session.append(prompt);
      start(c.model, c.session, seed, GPTQ_GEN_SPECULATE | GPTQ_GEN_IGNORE_EOS, nullptr);
      const Session fork = c.session.fork();
      finish(c.engine, budget);
      EXPECT_TRUE(said_by(fork) == expected);
      EXPECT_TRUE(said_by(c.session, &guesses) == expected) << seed;
    }
  }
  EXPECT_GT(guesses.tried, 0u);
}

}  // namespace
}  // namespace gptq::test
