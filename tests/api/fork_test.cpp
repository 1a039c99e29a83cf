// SPDX-License-Identifier: Apache-2.0
// Forks and shared beginnings: sessions hold the same pages, and every one gives the bits it gives alone.
#include <algorithm>
#include <cctype>

#include "tests/api/fixture.h"

namespace gptq::test {
namespace {

constexpr uint32_t page = 16;

gptq_engine_params params(uint32_t max_sessions, uint32_t batch_tokens = 32) {
  auto params = engine_of(0, max_sessions);
  params.ctx_tokens = 128;
  params.page_tokens = page;
  params.batch_tokens = batch_tokens;
  return params;
}

uint64_t pages_used(const Engine& engine) {
  auto info = make<gptq_memory_info>();
  check(gptq_engine_memory(engine.get(), &info));
  return info.kv_pages_used;
}

Tokens all_tokens(const Session& session) {
  Tokens tokens(session.info().n_tokens);
  size_t n = 0;
  check(gptq_session_tokens(session.get(), tokens.data(), tokens.size(), &n));
  return tokens;
}

gptq_sampling hot(uint64_t seed) {
  auto sampling = make<gptq_sampling>();
  sampling.temperature = 1.5f;
  sampling.top_k = 40;
  sampling.repeat_penalty = 1.1f;
  sampling.seed = seed;
  return sampling;
}

// Every family: with pages, with latents, with a state.
class Fork : public testing::TestWithParam<std::string> {
 protected:
  const Prompt prompt = prompts_of(GetParam()).at(0);
  Chain chain{converted(GetParam()), params(4), with_threads(2)};
  // What an engine without other sessions gives.
  Tokens alone(const Tokens& ids, uint32_t n) {
    Chain other(converted(GetParam()), params(1), with_threads(1));
    return greedy(other.engine, other.session, ids, n);
  }
  Tokens with(Tokens ids, const Tokens& more) {
    ids.insert(ids.end(), more.begin(), more.end());
    return ids;
  }
};

TEST_P(Fork, GoesOnAsIfAlone) {
  const Tokens begun = with(prompt.ids, greedy(chain.engine, chain.session, prompt.ids, 5));
  Session fork = chain.session.fork();
  EXPECT_EQ(all_tokens(fork), begun);
  const Tokens left(prompt.ids.begin(), prompt.ids.begin() + 3), right(prompt.ids.rbegin(), prompt.ids.rbegin() + 4);
  chain.session.append(left);
  fork.append(right);
  chain.session.start(generation(20));
  fork.start(generation(20));
  finish(chain.engine);
  EXPECT_EQ(chain.session.read_tokens(), alone(with(begun, left), 20));
  EXPECT_EQ(fork.read_tokens(), alone(with(begun, right), 20));
}

TEST_P(Fork, InTheMiddleOfAGenerationAtEveryQuantum) {
  const auto sampling = hot(7);
  auto how = generation(8);
  how.sampling = &sampling;
  const auto begin = [&] {
    chain.session.truncate(0);
    chain.session.append(prompt.ids);
    chain.session.start(how);
  };
  begin();
  finish(chain.engine);
  const Tokens expected = chain.session.read_tokens();
  for (uint32_t steps = 0; steps < 40; ++steps) {
    begin();
    for (uint32_t i = 0; i < steps; ++i) chain.engine.step(1, nullptr);  // a quantum each
    Session fork = chain.session.fork();
    Session dropped = fork.fork();
    dropped.cancel();
    finish(chain.engine, steps % 2 ? 1 : GPTQ_BUDGET_UNLIMITED);
    EXPECT_EQ(chain.session.read_tokens(), expected) << "after " << steps << " quanta";
    EXPECT_EQ(fork.read_tokens(), expected) << "after " << steps << " quanta";
  }
}

// One of the sharers is cut back into shared pages, written over, cancelled and destroyed; the other does not notice.
TEST_P(Fork, WhatOneDoesTheOtherDoesNotSee) {
  greedy(chain.engine, chain.session, prompt.ids, 5);
  const Tokens begun = all_tokens(chain.session), expected = alone(begun, 12);
  for (uint32_t steps = 0; steps < 12; ++steps) {
    Session kept = chain.session.fork();
    Session other = kept.fork();
    other.truncate(static_cast<uint32_t>(prompt.ids.size() / 2));
    other.append(Tokens(prompt.ids.rbegin(), prompt.ids.rend()));
    other.start(generation(20));
    for (uint32_t i = 0; i < steps; ++i) chain.engine.step(1, nullptr);
    other.cancel();
    chain.engine.step(1, nullptr);
    if (steps % 2) const Session gone(std::move(other));
    EXPECT_EQ(continue_with(chain.engine, kept, 12), expected) << "after " << steps << " quanta";
  }
}

// Attention reads the blocks that forks share once for all of them: every one gives the bits it gives alone, with another beside that
// shares less, and one that shares nothing.
TEST_P(Fork, ManyReadWhatTheyShareTogether) {
  const std::string name = name_of(GetParam());
  constexpr std::string_view kinds[] = {"bloom-w4", "deepseek-v3-w4", "gemma2", "gpt-oss", "llama4", "mixtral-w4", "qwen3-next"};  // what attention tells apart
  if (std::none_of(std::begin(kinds), std::end(kinds), [&](std::string_view kind) { return name.starts_with(kind); })) return;
  constexpr uint32_t n = 5;
  auto params_of = [](uint32_t sessions) {
    auto p = params(sessions, 64);
    p.ctx_tokens = 1024;
    return p;
  };
  Tokens ids;
  while (ids.size() < 700) ids.insert(ids.end(), prompt.ids.begin(), prompt.ids.end());
  const auto own = [&](uint32_t i) { return Tokens(prompt.ids.begin() + i, prompt.ids.begin() + i + 3); };
  const auto begin_of = [&](uint32_t i) { return with(i == n ? Tokens(ids.begin(), ids.begin() + 300) : ids, own(i)); };
  for (const uint32_t threads : {1u, 2u}) {
    Chain c(converted(GetParam()), params_of(n + 3), with_threads(threads));
    std::vector<Session> sessions;
    greedy(c.engine, c.session, ids, 1);
    Session stranger(c.engine);
    stranger.append(own(7));
    for (uint32_t i = 0; i <= n; ++i) {
      sessions.push_back(c.session.fork());
      sessions.back().truncate(i == n ? 300 : static_cast<uint32_t>(ids.size()));
      sessions.back().append(own(i));
      sessions.back().start(generation(6));
    }
    stranger.start(generation(6));
    finish(c.engine);
    for (uint32_t i = 0; i <= n; ++i) {
      Chain alone(converted(GetParam()), params_of(1), with_threads(1));
      EXPECT_EQ(sessions[i].read_tokens(), greedy(alone.engine, alone.session, begin_of(i), 6)) << "fork " << i << ", " << threads << " threads";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, Fork, testing::ValuesIn(family_folders()), [](const auto& info) {
  std::string name = name_of(info.param);
  std::replace_if(name.begin(), name.end(), [](unsigned char c) { return !std::isalnum(c); }, '_');
  return name;
});

TEST(Forked, HoldsPagesOnceAndCopiesOne) {
  Chain c(text_model(), params(3));
  greedy(c.engine, c.session, some_tokens(60), 1);
  EXPECT_EQ(pages_used(c.engine), 4u);
  {
    Session fork = c.session.fork(), second = fork.fork();
    EXPECT_EQ(pages_used(c.engine), 4u);
    continue_with(c.engine, fork, 1);
    EXPECT_EQ(pages_used(c.engine), 5u);
    continue_with(c.engine, second, 1);
    EXPECT_EQ(pages_used(c.engine), 6u);
    EXPECT_THROW(c.session.fork(), Error);
  }
  EXPECT_EQ(pages_used(c.engine), 4u);
  c.session.truncate(0);
  EXPECT_EQ(pages_used(c.engine), 0u);
}

TEST(SharedPrefix, IsFoundAndHeldOnce) {
  constexpr uint32_t n = 8;
  const Tokens prefix = some_tokens(80);
  for (const bool at_once : {true, false}) {
    Chain c(text_model(), params(n + 1), with_threads(2));
    std::vector<Session> sessions;
    for (uint32_t i = 0; i < n; ++i) {
      sessions.emplace_back(c.engine);
      sessions.back().append(prefix);
      sessions.back().append(some_tokens(3, 50 + i));
      sessions.back().start(generation(6));
      if (!at_once) finish(c.engine);
    }
    if (at_once) finish(c.engine, 20);
    EXPECT_EQ(pages_used(c.engine), 5 + n) << at_once;
    for (uint32_t i = 0; i < n; ++i) {
      Chain alone(text_model(), params(1));
      Tokens ids = prefix;
      const Tokens own = some_tokens(3, 50 + i);
      ids.insert(ids.end(), own.begin(), own.end());
      EXPECT_EQ(sessions[i].read_tokens(), greedy(alone.engine, alone.session, ids, 6)) << i;
    }
  }
}

TEST(SharedPrefix, ThirtyTwoSessionsHoldTwoThousandTokensOnce) {
  constexpr uint32_t n = 32;
  auto many = params(n, 256);
  many.ctx_tokens = 2064;
  Chain c(text_model(), many, with_threads(2));
  const Tokens prefix = some_tokens(2000);
  std::vector<Session> sessions;
  for (uint32_t i = 0; i + 1 < n; ++i) {
    sessions.emplace_back(c.engine);
    sessions.back().append(prefix);
    sessions.back().append(some_tokens(3, 50 + i));
    sessions.back().start(generation(6));
  }
  finish(c.engine);
  EXPECT_EQ(pages_used(c.engine), 2000 / page + n - 1);
  for (const uint32_t i : {0u, 17u, 30u}) {
    auto one = params(1, 256);
    one.ctx_tokens = 2064;
    Chain alone(text_model(), one);
    Tokens ids = prefix;
    const Tokens own = some_tokens(3, 50 + i);
    ids.insert(ids.end(), own.begin(), own.end());
    EXPECT_EQ(sessions[i].read_tokens(), greedy(alone.engine, alone.session, ids, 6)) << i;
  }
}

TEST(SharedPrefix, IsNotComputedAgain) {
  Chain c(text_model(), params(2));
  const Tokens ids = some_tokens(96);
  greedy(c.engine, c.session, ids, 1);
  Session second(c.engine);
  second.append(ids);
  second.start(generation(1));
  auto info = make<gptq_step_info>();
  check(gptq_engine_step(c.engine.get(), GPTQ_BUDGET_UNLIMITED, &info));
  EXPECT_EQ(info.tokens_prefilled, page);  // the last token's page
}

TEST(SharedPrefix, OutlivesItsFirstHolder) {
  Chain c(text_model(), params(3));
  const Tokens ids = some_tokens(70);
  Tokens expected;
  {
    Session first(c.engine);
    expected = greedy(c.engine, first, ids, 10);
    c.session.append(ids);
    c.session.start(generation(10));
    c.engine.step(1, nullptr);
  }
  Session over(c.engine);
  greedy(c.engine, over, some_tokens(90, 9), 3);
  finish(c.engine);
  EXPECT_EQ(c.session.read_tokens(), expected);
}

TEST(SharedPrefix, LogitsOfEveryPositionAreComputed) {
  auto with_rows = params(2);
  with_rows.logits_rows = 64;
  Chain c(text_model(), with_rows);
  const Tokens ids = some_tokens(50);
  const auto expected = all_logits(c.model, c.engine, c.session, ids);
  Session second(c.engine);
  EXPECT_EQ(all_logits(c.model, c.engine, second, ids), expected);
}

}  // namespace
}  // namespace gptq::test
