// SPDX-License-Identifier: Apache-2.0
// What a step does: budgets, polling, who is readable, the flow of logits, NaN.
#include <algorithm>
#include <chrono>
#include <utility>

#include "tests/api/fixture.h"

namespace gptq::test {
namespace {

TEST(Step, PollDoesNothing) {
  Chain c(text_model());
  EXPECT_EQ(c.engine.step(GPTQ_BUDGET_POLL), GPTQ_IDLE);
  c.session.append(some_tokens(20));
  c.session.start(generation(5));
  auto info = make<gptq_step_info>();
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(c.engine.step(GPTQ_BUDGET_POLL, &info), GPTQ_MORE);
    EXPECT_EQ(info.quanta, 0u);
    EXPECT_EQ(info.sessions_active, 1u);
  }
  EXPECT_EQ(c.session.info().n_pending, 20u);
  finish(c.engine);
  EXPECT_EQ(c.engine.step(GPTQ_BUDGET_POLL, &info), GPTQ_IDLE);
  EXPECT_EQ(info.sessions_active, 0u);
  EXPECT_EQ(info.sessions_readable, 1u);
}

TEST(Step, KeepsNearItsBudget) {
  Chain c(text_model(), engine_of(0), with_threads(1));
  c.session.append(some_tokens(150));
  c.session.start(generation(100));
  constexpr uint32_t budget = 250;
  uint32_t steps = 0, over = 0, generated = 0;
  auto info = make<gptq_step_info>();
  for (double before = thread_us(); c.engine.step(budget, &info) == GPTQ_MORE; before = thread_us()) {
    ++steps;
    over += thread_us() - before > 2 * budget;
    generated += info.tokens_generated;
    ASSERT_GE(info.quanta, 1u);
  }
  EXPECT_GT(steps, 3u);
  EXPECT_LE(over, steps / 4 + 2) << "of " << steps;
  EXPECT_EQ(generated + info.tokens_generated, 100u);
}

// What sessions sample is cut too: constraints make a row cost as much as a layer.
TEST(Step, SamplesRowByRow) {
  constexpr uint32_t n = 6;
  const auto tokens = [](uint32_t budget_us, std::vector<uint32_t>* steps) {
    Chain c(text_model(), engine_of(0, n));
    const Constraint constraint(c.model, GPTQ_CONSTRAINT_REGEX, "[a-m ]{100}");
    auto sampling = make<gptq_sampling>();
    sampling.temperature = 1;
    auto how = generation(8, 0);
    how.constraint = constraint.get(), how.sampling = &sampling;
    std::vector<Session> sessions;
    for (uint32_t i = 0; i < n; ++i) {
      sessions.emplace_back(i ? Session(c.engine) : std::move(c.session));
      sessions[i].append(some_tokens(8, i + 1));
      sessions[i].start(how);
    }
    auto info = make<gptq_step_info>();
    for (uint32_t since = 1; c.engine.step(budget_us, &info) == GPTQ_MORE; ++since) {
      EXPECT_GE(info.quanta, 1u);
      if (info.tokens_generated) steps->push_back(std::exchange(since, 0));
    }
    std::vector<Tokens> all;
    for (Session& s : sessions) all.push_back(s.read_tokens());
    return all;
  };
  std::vector<uint32_t> one, many;
  EXPECT_EQ(tokens(1, &many), tokens(GPTQ_BUDGET_UNLIMITED, &one));
  ASSERT_GT(many.size(), 40u);
  // Layers, logits, a row: each in a step of its own, however many sessions a batch has.
  EXPECT_EQ(*std::min_element(many.begin() + 1, many.end()), 3u + 1 + 1);
}

TEST(Step, OffersEachReadableSessionOnce) {
  Chain c(text_model(), engine_of(0, 3));
  Session second(c.engine);
  const Session idle(c.engine);
  int mark = 0;
  gptq_session_set_user(second.get(), &mark);
  for (Session* s : {&c.session, &second}) s->append(some_tokens(4)), s->start(generation(3));
  EXPECT_EQ(gptq_engine_next_readable(c.engine.get()), nullptr);
  finish(c.engine);
  gptq_session* first = gptq_engine_next_readable(c.engine.get());
  gptq_session* next = gptq_engine_next_readable(c.engine.get());
  EXPECT_EQ(first, c.session.get());
  EXPECT_EQ(next, second.get());
  EXPECT_EQ(gptq_session_user(next), &mark);
  EXPECT_EQ(gptq_engine_next_readable(c.engine.get()), nullptr);
  c.session.read(), c.session.read_tokens(), second.read(), second.read_tokens();
  c.engine.step(1);
  EXPECT_EQ(gptq_engine_next_readable(c.engine.get()), nullptr);
}

TEST(Logits, RowsFlowAsTheyAreRead) {
  auto params = engine_of(GPTQ_ENGINE_EXACT);
  params.logits_rows = 3;
  Chain c(text_model(), params);
  const uint32_t n_vocab = c.model.info().n_vocab;
  const Tokens prompt = some_tokens(20);
  const std::vector<float> expected = all_logits(c.model, c.engine, c.session, prompt);
  c.session.truncate(0);
  c.session.append(prompt);
  c.session.start(generation(5, GPTQ_GEN_LOGITS | GPTQ_GEN_IGNORE_EOS));
  std::vector<float> rows(8 * n_vocab), all;
  uint32_t first = 0, n = 0;
  EXPECT_EQ(c.engine.step(), GPTQ_IDLE) << "waits for its reader";
  EXPECT_EQ(c.session.info().logits_unread, 3u);
  EXPECT_EQ(c.session.info().state, GPTQ_SESSION_RUNNING);
  EXPECT_EQ(gptq_session_read_logits(c.session.get(), rows.data(), n_vocab - 1, &first, &n), GPTQ_E_BUFFER_TOO_SMALL);
  do {
    check(gptq_session_read_logits(c.session.get(), rows.data(), 2 * n_vocab, &first, &n));
    EXPECT_EQ(first, all.size() / n_vocab);
    all.insert(all.end(), rows.data(), rows.data() + n * n_vocab);
    c.engine.step();
  } while (c.session.info().logits_unread);
  ASSERT_EQ(all.size(), 24u * n_vocab);
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), all.begin()));
  const Tokens tokens = c.session.read_tokens();
  for (uint32_t i = 0; i < 5; ++i) EXPECT_EQ(top(all.data() + (19 + i) * n_vocab, n_vocab), static_cast<size_t>(tokens[i]));
  c.session.truncate(0);
  const auto logits = generation(3, GPTQ_GEN_LOGITS);
  EXPECT_EQ(gptq_generate(c.session.get(), "the sea is deep", GPTQ_NTS, &logits, nullptr, nullptr, nullptr, nullptr), GPTQ_E_INVALID_STATE);
  EXPECT_EQ(c.session.info().state, GPTQ_SESSION_IDLE);
}

TEST(Numeric, NanEndsThatSessionAlone) {
  for (const uint32_t flags : {0u, uint32_t(GPTQ_ENGINE_EXACT)}) {
    Chain c(sick_model(), engine_of(flags, 2), with_threads(2));
    Session well(c.engine);
    const Tokens expected = greedy(c.engine, well, some_tokens(20), 3);
    ASSERT_EQ(expected.size(), 3u);
    well.truncate(0);
    well.append(some_tokens(20));
    c.session.append(some_tokens(20));
    c.session.append(Tokens{sick_token, 5});
    well.start(generation(3));
    c.session.start(generation(3));
    finish(c.engine);
    EXPECT_EQ(c.session.info().stop_reason, GPTQ_STOP_ERROR);
    EXPECT_EQ(c.session.info().status, GPTQ_E_NUMERIC);
    EXPECT_EQ(c.session.read_tokens().size(), 0u);
    EXPECT_EQ(well.read_tokens(), expected);
    c.session.truncate(20);
    EXPECT_EQ(continue_with(c.engine, c.session, 3), expected) << "usable after rewinding";
    const gptq_token sick = sick_token;
    check(gptq_session_append_tokens(c.session.get(), &sick, 1, nullptr));
    auto err = make<gptq_error>();
    EXPECT_EQ(gptq_generate(c.session.get(), "", 0, nullptr, nullptr, nullptr, nullptr, &err), GPTQ_E_NUMERIC);
    EXPECT_NE(err.message[0], 0);
  }
}

}  // namespace
}  // namespace gptq::test
