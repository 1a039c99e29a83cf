// SPDX-License-Identifier: Apache-2.0
// How sessions behave: limits, order of calls, cancelling, rewinding, budgets, company.
#include <chrono>
#include <cstring>
#include <thread>

#include "tests/api/fixture.h"

namespace gptq::test {
namespace {

gptq_status append(const Session& s, const Tokens& tokens) {
  return gptq_session_append_tokens(s.get(), tokens.data(), tokens.size(), nullptr);
}
gptq_status start(const Session& s, const gptq_generate_params& params) { return gptq_session_start(s.get(), &params, nullptr); }

// What a prompt is continued with by a session that is alone.
Tokens alone(const Tokens& prompt, uint32_t n) {
  Chain c(text_model());
  return greedy(c.engine, c.session, prompt, n);
}

// What the prompt's repeat would go on with, wanted 40 more than it is and 1000 less if it makes a repeat longer.
bool repeats(const std::string& prompt, const char* breakers) {
  Chain c(text_model());
  const Tokens ids = c.model.tokenize(prompt);
  const gptq_logit_bias wanted{ids[(ids.size() + 1) / 2], 40};
  auto sampling = make<gptq_sampling>();
  sampling.dry_multiplier = 1000;
  sampling.bias = &wanted, sampling.n_bias = 1;
  if (breakers) sampling.dry_breakers = {breakers, std::strlen(breakers)};
  auto params = generation(1);
  params.sampling = &sampling;
  EXPECT_EQ(append(c.session, ids), GPTQ_OK);
  EXPECT_EQ(start(c.session, params), GPTQ_OK);
  finish(c.engine);
  return c.session.read_tokens() == Tokens{wanted.token};
}

TEST(Session, DryBreakers) {
  for (const char* prompt : {"ab:ab:", "ab\"ab\"", "ab*ab*"}) {
    EXPECT_TRUE(repeats(prompt, nullptr)) << prompt;
    EXPECT_FALSE(repeats(prompt, "")) << prompt;
  }
  EXPECT_FALSE(repeats("q~z~q~z~", nullptr));
  EXPECT_TRUE(repeats("q~z~q~z~", "~"));
  EXPECT_TRUE(repeats("q~z~q~z~", "z"));  // "~" alone is shorter than dry_allowed_length
  EXPECT_FALSE(repeats("q~z~q~z~", "q"));
}

TEST(Session, ContextFull) {
  auto params = engine_of(0);
  params.ctx_tokens = 50;
  Chain c(text_model(), params);
  EXPECT_EQ(append(c.session, some_tokens(51)), GPTQ_E_CONTEXT_FULL);
  EXPECT_EQ(c.session.info().n_tokens, 0u);
  EXPECT_EQ(append(c.session, some_tokens(40)), GPTQ_OK);
  EXPECT_EQ(append(c.session, some_tokens(11)), GPTQ_E_CONTEXT_FULL);
  EXPECT_EQ(continue_with(c.engine, c.session, 0).size(), 10u);
  EXPECT_EQ(c.session.info().stop_reason, GPTQ_STOP_CONTEXT);
  EXPECT_EQ(c.session.info().n_tokens, 50u);
  c.session.truncate(45);
  EXPECT_EQ(continue_with(c.engine, c.session, 3).size(), 3u);
  EXPECT_EQ(c.session.info().stop_reason, GPTQ_STOP_LENGTH);
}

TEST(Session, KvArenaFull) {
  auto params = engine_of(0, 3);
  params.page_tokens = 16;
  params.kv_bytes = 6 * 16 * 3 * 2 * 64 * 2;  // six pages: 3 layers, keys and values, 2 heads of 32, 2 bytes
  Chain c(text_model(), params);
  auto memory = make<gptq_memory_info>();
  check(gptq_engine_memory(c.engine.get(), &memory));
  ASSERT_EQ(memory.kv_pages_total, 6u);
  Session other(c.engine);
  c.session.append(some_tokens(40));
  other.append(some_tokens(40, 2));
  c.session.start(generation(100));
  other.start(generation(8));
  finish(c.engine);
  EXPECT_EQ(other.info().stop_reason, GPTQ_STOP_LENGTH) << "the others go on";
  const gptq_session_info info = c.session.info();
  EXPECT_EQ(info.stop_reason, GPTQ_STOP_ERROR);
  EXPECT_EQ(info.status, GPTQ_E_KV_FULL);
  EXPECT_EQ(c.session.read_tokens().size(), info.n_generated);
  other.truncate(0);
  c.session.truncate(40);
  EXPECT_EQ(continue_with(c.engine, c.session, 30), alone(some_tokens(40), 30));
  c.session.truncate(0);
  check(gptq_engine_memory(c.engine.get(), &memory));
  EXPECT_EQ(memory.kv_pages_used, 0u);
}

TEST(Session, MostSessions) {
  Chain c(text_model(), engine_of(0, 2));
  {
    const Session second(c.engine);
    gptq_session* third = nullptr;
    auto err = make<gptq_error>();
    EXPECT_EQ(gptq_session_create(c.engine.get(), &third, &err), GPTQ_E_INVALID_STATE);
    EXPECT_EQ(third, nullptr);
  }
  const Session again(c.engine);
}

TEST(Session, WrongOrderOfCalls) {
  Chain c(text_model());
  EXPECT_EQ(start(c.session, generation(1)), GPTQ_E_INVALID_STATE) << "nothing to compute from";
  c.session.append(some_tokens(3));
  EXPECT_EQ(start(c.session, generation(20)), GPTQ_OK);
  EXPECT_EQ(start(c.session, generation(20)), GPTQ_E_INVALID_STATE);
  EXPECT_EQ(append(c.session, some_tokens(1)), GPTQ_E_INVALID_STATE);
  EXPECT_EQ(gptq_session_append_text(c.session.get(), "a", 1, 0, nullptr, nullptr), GPTQ_E_INVALID_STATE);
  EXPECT_EQ(gptq_session_truncate(c.session.get(), 0), GPTQ_E_INVALID_STATE);
  EXPECT_EQ(gptq_generate(c.session.get(), "a", 1, nullptr, nullptr, nullptr, nullptr, nullptr), GPTQ_E_INVALID_STATE);
  c.engine.step(50);
  EXPECT_EQ(append(c.session, some_tokens(1)), GPTQ_E_INVALID_STATE);
  finish(c.engine);
  EXPECT_EQ(c.session.read_tokens(), alone(some_tokens(3), 20)) << "none of that did any harm";
}

TEST(Session, TinyBuffers) {
  Chain c(text_model());
  const Tokens expected = alone(some_tokens(9), 40);
  c.session.append(some_tokens(9));
  c.session.start(generation(40));
  finish(c.engine);
  Tokens tokens;
  for (size_t n = 1; n;) {
    gptq_token token = 0;
    check(gptq_session_read_tokens(c.session.get(), &token, 1, &n));
    if (n) tokens.push_back(token);
  }
  EXPECT_EQ(tokens, expected);
  size_t n = 7;
  EXPECT_EQ(gptq_session_read(c.session.get(), nullptr, 0, &n), GPTQ_OK);
  EXPECT_EQ(n, 0u);
}

TEST(Session, DestroyedWhileRunning) {
  Chain c(text_model(), engine_of(0, 3), with_threads(2));
  const Tokens expected = alone(some_tokens(30), 30);
  for (int steps = 0; steps < 12; ++steps) {
    Session other(c.engine);
    other.append(some_tokens(60, 9));
    other.start(generation(50));
    c.session.truncate(0);
    c.session.append(some_tokens(30));
    c.session.start(generation(30));
    for (int i = 0; i < steps; ++i) c.engine.step(1);
    { const Session gone = std::move(other); }
    finish(c.engine);
    ASSERT_EQ(c.session.read_tokens(), expected) << steps;
  }
}

TEST(Session, OutlivesItsEngine) {
  gptq_session* s = nullptr;
  {
    const Runtime rt;
    const Model model(rt, text_model());
    const Engine engine(model);
    check(gptq_session_create(engine.get(), &s, nullptr));
  }
  std::string text;
  const auto add = [](void* user, const char* bytes, size_t n) -> int32_t { return static_cast<std::string*>(user)->append(bytes, n), 0; };
  const auto how = generation(10);
  EXPECT_EQ(gptq_generate(s, "hello", GPTQ_NTS, &how, add, &text, nullptr, nullptr), GPTQ_OK);
  EXPECT_FALSE(text.empty());
  gptq_session_destroy(s);
}

TEST(Session, CancelFromAnotherThread) {
  using Clock = std::chrono::steady_clock;
  auto params = engine_of(GPTQ_ENGINE_EXACT);
  params.ctx_tokens = 4000;
  Chain c(text_model(), params);
  c.session.append(some_tokens(3000));
  c.session.start(generation(0));
  Clock::time_point cancelled;
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(15));
    cancelled = Clock::now();
    c.session.cancel();
  });
  finish(c.engine);
  const Clock::time_point ended = Clock::now();
  other.join();
  const double ms = std::chrono::duration<double, std::milli>(ended - cancelled).count();
  RecordProperty("latency_ms", std::to_string(ms));
  EXPECT_EQ(c.session.info().stop_reason, GPTQ_STOP_CANCELLED);
  EXPECT_LT(ms, 200) << "the bound is wide for busy machines; a layer of 256 rows takes a few milliseconds";
  c.session.truncate(20);
  EXPECT_EQ(continue_with(c.engine, c.session, 5).size(), 5u);
}

TEST(Session, CallbackCancels) {
  Chain c(text_model());
  const auto how = generation(50);
  auto info = make<gptq_session_info>();
  const auto refuse = [](void*, const char*, size_t) -> int32_t { return 1; };
  EXPECT_EQ(gptq_generate(c.session.get(), "hello", 5, &how, refuse, nullptr, &info, nullptr), GPTQ_OK);
  EXPECT_EQ(info.stop_reason, GPTQ_STOP_CANCELLED);
  EXPECT_LT(info.n_generated, 50u);
}

TEST(Session, RewindRegenerates) {
  for (const uint32_t flags : {0u, uint32_t(GPTQ_ENGINE_EXACT)}) {
    Chain c(text_model(), engine_of(flags));
    const Tokens prompt = some_tokens(70), first = greedy(c.engine, c.session, prompt, 60);
    for (const uint32_t keep : {70u, 71u, 99u, 128u, 129u}) {
      c.session.truncate(keep);
      EXPECT_EQ(c.session.info().tokens_unread, 0u);
      const Tokens again = continue_with(c.engine, c.session, 130 - keep);
      EXPECT_TRUE(std::equal(again.begin(), again.end(), first.begin() + (keep - 70))) << keep;
    }
    c.session.truncate(10);
    c.session.append(Tokens(prompt.begin() + 10, prompt.end()));
    EXPECT_EQ(continue_with(c.engine, c.session, 60), first);
  }
}

TEST(Session, SeveralGiveWhatEachGivesAlone) {
  constexpr uint32_t n_sessions = 5;
  Chain c(text_model(), engine_of(0, n_sessions + 1), with_threads(2));
  std::vector<Session> sessions;
  for (uint32_t i = 0; i < n_sessions; ++i) {
    sessions.emplace_back(c.engine);
    sessions[i].append(some_tokens(1 + 40 * i, i));
    sessions[i].start(generation(30 + i));
    c.engine.step(200);
  }
  finish(c.engine);
  for (uint32_t i = 0; i < n_sessions; ++i) EXPECT_EQ(sessions[i].read_tokens(), alone(some_tokens(1 + 40 * i, i), 30 + i)) << i;
}

}  // namespace
}  // namespace gptq::test
