// SPDX-License-Identifier: Apache-2.0
// Conversations longer than the context: what is left of them, what that costs, and what is made ready in the background.
#include <cstring>
#include <set>

#include "tests/api/fixture.h"

namespace gptq::test {
namespace {

constexpr uint32_t ctx_tokens = 200, reserve = 30;

struct Turn {
  std::string role, text;
};

class LongChat : public testing::Test {
 protected:
  static gptq_engine_params params() {
    auto params = engine_of(0, 3);
    params.ctx_tokens = ctx_tokens;
    params.page_tokens = 16;
    return params;
  }
  static std::vector<Message> messages(const std::vector<Turn>& turns) {
    std::vector<Message> out;
    for (const Turn& t : turns) out.push_back({t.role, t.text});
    return out;
  }
  static size_t set(Session& session, const std::vector<Turn>& turns, uint32_t flags = GPTQ_CHAT_DROP_OLDEST, uint32_t keep = 0) {
    Chat chat(messages(turns));
    chat.chat.flags |= flags;
    chat.chat.reserve_tokens = reserve, chat.chat.keep_tokens = keep;
    size_t n = 0;
    call([&](gptq_error* err) { return gptq_session_set_chat(session.get(), &chat.chat, &n, err); });
    return n;
  }
  Tokens reply(Session& session) const {
    session.start(generation(12));
    finish(c.engine);
    return session.read_tokens();
  }
  // What the host would have left out itself.
  std::vector<Turn> without(uint32_t n_dropped) const {
    std::vector<Turn> kept = turns;
    kept.erase(kept.begin() + 1, kept.begin() + 1 + n_dropped);
    return kept;
  }
  std::string question(int i) const { return "tell me of place " + std::to_string(i * 37); }

  Chain c{text_model(), params(), with_threads(2)};
  std::vector<Turn> turns{{"system", "you are the keeper of the inn"}};
};

TEST_F(LongChat, DropsOldTurnsAndGoesOnLikeAFreshSession) {
  std::set<uint32_t> places;
  uint32_t most = 0;
  for (int i = 0; i < 40; ++i) {
    turns.push_back({"user", question(i)});
    const size_t n = set(c.session, turns);
    ASSERT_LE(n + reserve, ctx_tokens);
    const uint32_t n_dropped = c.session.info().n_dropped;
    ASSERT_EQ(n_dropped % 2, 0u) << "whole turns go";
    ASSERT_GE(n_dropped, most) << "what is gone comes back";
    most = n_dropped;
    places.insert(n_dropped);
    const Tokens here = reply(c.session);
    Session fresh(c.engine);
    set(fresh, without(n_dropped), 0);
    ASSERT_EQ(fresh.info().n_tokens, n);
    EXPECT_EQ(reply(fresh), here) << "turn " << i;
    turns.push_back({"assistant", "a reply of some words, number " + std::to_string(i)});
  }
  EXPECT_GT(most, 60u);
  EXPECT_LE(places.size(), 20u) << "it is shortened too often";
}

// A turn costs its own tokens, but where the conversation was shortened anew.
TEST_F(LongChat, ComputesOnlyWhatIsNew) {
  uint32_t shortened = 0, cheap = 0;
  for (int i = 0; i < 30; ++i) {
    turns.push_back({"user", question(i)});
    const uint32_t before = c.session.info().n_dropped;
    set(c.session, turns);
    const bool same = c.session.info().n_dropped == before;
    (same ? cheap : shortened) += 1;
    EXPECT_TRUE(!same || !i || c.session.info().n_pending < 60) << i;
    c.session.start(generation(0, GPTQ_GEN_PREFILL_ONLY));
    finish(c.engine);
    turns.push_back({"assistant", "yes"});
  }
  EXPECT_GT(shortened, 1u);
  EXPECT_GE(cheap, shortened);
}

TEST_F(LongChat, StaysWhereItStoodAlsoInARestoredSession) {
  for (int i = 0; i < 14; ++i) {
    turns.push_back({"user", "go on"});  // all alike
    set(c.session, turns);
    c.session.start(generation(0, GPTQ_GEN_PREFILL_ONLY));
    finish(c.engine);
    turns.push_back({"assistant", "number " + std::to_string(i)});
  }
  const uint32_t dropped = c.session.info().n_dropped;
  ASSERT_GT(dropped, 0u);
  Session restored(c.engine, c.session.save(GPTQ_SAVE_REPLAY));
  EXPECT_EQ(restored.info().n_dropped, dropped);
  turns.push_back({"user", "go on"});
  const size_t n = set(c.session, turns);
  EXPECT_EQ(set(restored, turns), n);
  EXPECT_EQ(restored.info().n_dropped, c.session.info().n_dropped);
}

TEST_F(LongChat, KeepsNoMoreThanItIsTold) {
  for (int i = 0; i < 40; ++i) turns.insert(turns.end(), {{"user", question(i)}, {"assistant", "yes"}});
  turns.push_back({"user", question(40)});
  for (const uint32_t keep : {60u, 100u, 160u}) {
    Session session(c.engine);
    const size_t n = set(session, turns, GPTQ_CHAT_DROP_OLDEST, keep);
    EXPECT_LE(n, keep);
    EXPECT_GT(n + 60, keep);
  }
}

TEST_F(LongChat, RefusesWhatCannotFit) {
  turns.push_back({"user", question(1)});
  set(c.session, turns);
  const uint32_t n_tokens = c.session.info().n_tokens;
  turns.push_back({"assistant", "yes"});
  turns.push_back({"user", std::string(300, 'q')});
  try {
    set(c.session, turns);
    FAIL() << "the last turn does not fit";
  } catch (const Error& error) {
    EXPECT_EQ(error.status, GPTQ_E_CONTEXT_FULL);
    EXPECT_NE(std::strstr(error.what(), "reserve_tokens"), nullptr) << error.what();
  }
  EXPECT_EQ(c.session.info().n_tokens, n_tokens);
  Chat chat(messages(turns));
  chat.chat.flags |= GPTQ_CHAT_DROP_OLDEST;
  chat.chat.reserve_tokens = ctx_tokens;
  EXPECT_EQ(gptq_session_set_chat(c.session.get(), &chat.chat, nullptr, nullptr), GPTQ_E_INVALID_ARGUMENT);
  chat.chat.flags = 4;
  EXPECT_EQ(gptq_session_set_chat(c.session.get(), &chat.chat, nullptr, nullptr), GPTQ_E_INVALID_ARGUMENT);
}

// While one session speaks nothing is computed for the other; then it is, and the first takes it over.
TEST_F(LongChat, IsMadeReadyInTheBackground) {
  for (int i = 0; i < 10; ++i) turns.insert(turns.end(), {{"user", question(i)}, {"assistant", "yes"}});
  turns.push_back({"user", question(10)});
  set(c.session, turns);
  c.session.start(generation(20));
  while (c.session.info().n_generated == 0) check(gptq_engine_step(c.engine.get(), 1, nullptr));
  Session ahead(c.engine);
  turns[0].text = "someone else altogether";  // else it has the other's pages
  set(ahead, turns, GPTQ_CHAT_DROP_OLDEST, 100);
  ahead.append(some_tokens(40));
  ahead.start(generation(0, GPTQ_GEN_PREFILL_ONLY | GPTQ_GEN_BACKGROUND));
  const uint32_t pending = ahead.info().n_pending;
  ASSERT_GT(pending, 40u);
  while (c.session.info().state == GPTQ_SESSION_RUNNING) {
    EXPECT_EQ(ahead.info().n_pending, pending);
    ASSERT_EQ(gptq_engine_step(c.engine.get(), 20, nullptr), GPTQ_MORE);
  }
  while (ahead.info().n_pending > 30) ASSERT_EQ(gptq_engine_step(c.engine.get(), 1, nullptr), GPTQ_MORE);
  // Comes in the middle of the other's batch, and goes first.
  const Tokens alone = [&] {
    Chain other(text_model(), params());
    return greedy(other.engine, other.session, some_tokens(20), 5);
  }();
  Session late(c.engine);
  late.append(some_tokens(20));
  late.start(generation(5));
  const uint32_t left = ahead.info().n_pending;
  while (late.info().state == GPTQ_SESSION_RUNNING) {
    EXPECT_EQ(ahead.info().n_pending, left);
    ASSERT_EQ(gptq_engine_step(c.engine.get(), 1, nullptr), GPTQ_MORE);
  }
  EXPECT_EQ(late.read_tokens(), alone);
  finish(c.engine);
  EXPECT_EQ(ahead.info().stop_reason, GPTQ_STOP_PREFILLED);
  const Tokens wanted = ahead.tokens();
  c.session.truncate(0);
  c.session.append(wanted);
  c.session.start(generation(1));
  check(gptq_engine_step(c.engine.get(), 1, nullptr));
  EXPECT_LE(c.session.info().n_pending, 16u);
}

}  // namespace
}  // namespace gptq::test
