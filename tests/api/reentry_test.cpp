// SPDX-License-Identifier: Apache-2.0
// What callbacks and other threads may do to an engine that is at work: use it where that is safe, be refused where not, and destroy at any time.
#include <array>
#include <functional>
#include <stdexcept>
#include <thread>

#include "tests/api/fixture.h"

namespace gptq::test {
namespace {

constexpr const char* prompt = "the sea";

// gptq_generate with a callback that does something, with the n-th piece alone.
struct Reentry {
  std::function<int32_t()> act;
  std::string text;
  int at = 0, pieces = 0;
  static int32_t GPTQ_CALL on_text(void* user, const char* text, size_t size) {
    auto& self = *static_cast<Reentry*>(user);
    self.text.append(text, size);
    return self.pieces++ == self.at ? self.act() : 0;
  }
  gptq_status generate(gptq_session* s, gptq_session_info* info = nullptr) {
    const auto params = generation(24);
    return gptq_generate(s, prompt, GPTQ_NTS, &params, on_text, this, info, nullptr);
  }
};

std::string expected_text() {
  static const std::string text = [] {
    Chain c(text_model());
    Reentry nothing{.act = [] { return 0; }};
    EXPECT_EQ(nothing.generate(c.session.get()), GPTQ_OK);
    EXPECT_GT(nothing.pieces, 4);
    return nothing.text;
  }();
  return text;
}

TEST(Reentry, TheGeneratingSessionIsNotChanged) {
  for (const int at : {0, 2}) {
    Chain c(text_model());
    gptq_session* const s = c.session.get();
    Reentry reentry{.act = [&] {
      const gptq_token token = 5;
      auto chat = make<gptq_chat>();
      const auto params = generation(2);
      EXPECT_EQ(gptq_generate(s, "x", 1, &params, nullptr, nullptr, nullptr, nullptr), GPTQ_E_INVALID_STATE);
      EXPECT_EQ(gptq_session_start(s, nullptr, nullptr), GPTQ_E_INVALID_STATE);
      EXPECT_EQ(gptq_session_append_text(s, "x", 1, 0, nullptr, nullptr), GPTQ_E_INVALID_STATE);
      EXPECT_EQ(gptq_session_append_tokens(s, &token, 1, nullptr), GPTQ_E_INVALID_STATE);
      EXPECT_EQ(gptq_session_set_chat(s, &chat, nullptr, nullptr), GPTQ_E_INVALID_STATE);
      EXPECT_EQ(gptq_session_truncate(s, 0), GPTQ_E_INVALID_STATE);
      return 0;
    }, .at = at};
    gptq_session_info info = make<gptq_session_info>();
    EXPECT_EQ(reentry.generate(s, &info), GPTQ_OK);
    EXPECT_EQ(reentry.text, expected_text());
    EXPECT_EQ(info.n_generated, 24u);
    c.session.truncate(0);  // it is free again
    EXPECT_EQ(reentry.generate(s), GPTQ_OK);
  }
}

// Also when the callback is told of the last piece, when the session is not running any more.
TEST(Reentry, NorAtItsEnd) {
  Chain c(text_model());
  int refused = 0;
  Reentry reentry{.at = -1};
  const auto params = generation(24);
  struct Both {
    Reentry* reentry;
    gptq_session* s;
    int* refused;
  } both{&reentry, c.session.get(), &refused};
  const auto each = [](void* user, const char* text, size_t size) -> int32_t {
    const auto& b = *static_cast<Both*>(user);
    b.reentry->text.append(text, size);
    *b.refused += gptq_generate(b.s, "x", 1, nullptr, nullptr, nullptr, nullptr, nullptr) == GPTQ_E_INVALID_STATE;
    ++b.reentry->pieces;
    return 0;
  };
  EXPECT_EQ(gptq_generate(c.session.get(), prompt, GPTQ_NTS, &params, each, &both, nullptr, nullptr), GPTQ_OK);
  EXPECT_EQ(refused, reentry.pieces);
  EXPECT_EQ(reentry.text, expected_text());
}

TEST(Reentry, TheEngineMayBeUsed) {
  Chain c(text_model(), engine_of(0, 3));
  Session other(c.engine);
  gptq_session* const s = c.session.get();
  std::string text_of_fork, text_of_other;
  Reentry inner{.act = [] { return 0; }};
  Reentry reentry{.act = [&] {
    auto info = make<gptq_session_info>();
    EXPECT_EQ(gptq_session_info_get(s, &info), GPTQ_OK);
    EXPECT_EQ(info.state, GPTQ_SESSION_RUNNING);
    size_t n = 0;
    EXPECT_EQ(gptq_session_tokens(s, nullptr, 0, &n), GPTQ_E_BUFFER_TOO_SMALL);
    EXPECT_EQ(gptq_session_save(s, GPTQ_SAVE_REPLAY, nullptr, 0, &n, nullptr), GPTQ_E_BUFFER_TOO_SMALL);
    EXPECT_GE(gptq_engine_step(c.engine.get(), 1, nullptr), 0);
    EXPECT_EQ(inner.generate(other.get()), GPTQ_OK);
    Session fork = c.session.fork();
    fork.cancel();
    return 0;
  }};
  EXPECT_EQ(reentry.generate(s), GPTQ_OK);
  EXPECT_EQ(reentry.text, expected_text());
  EXPECT_EQ(inner.text, expected_text());
}

TEST(Reentry, SessionsMayBeDestroyed) {
  Chain c(text_model(), engine_of(0, 2));
  gptq_session *other = nullptr, *own = nullptr;
  ASSERT_EQ(gptq_session_create(c.engine.get(), &other, nullptr), GPTQ_OK);
  Reentry reentry{.act = [&] {
    gptq_session_destroy(other);
    EXPECT_EQ(gptq_session_create(c.engine.get(), &own, nullptr), GPTQ_OK);  // at once
    return 0;
  }};
  EXPECT_EQ(reentry.generate(c.session.get()), GPTQ_OK);
  EXPECT_EQ(reentry.text, expected_text());

  Reentry suicide{.act = [&] {
    gptq_session_destroy(own);
    gptq_session* none = nullptr;
    EXPECT_EQ(gptq_session_create(c.engine.get(), &none, nullptr), GPTQ_E_INVALID_STATE);  // it is still there
    return 0;
  }};
  auto info = make<gptq_session_info>();
  EXPECT_EQ(suicide.generate(own, &info), GPTQ_OK);
  EXPECT_EQ(info.stop_reason, GPTQ_STOP_CANCELLED);
  EXPECT_EQ(suicide.pieces, 1);
  const Session free_again(c.engine);
}

TEST(Reentry, TheEngineMayBeDestroyed) {
  Host host;
  {
    Runtime runtime(host.desc());
    gptq_engine* e = nullptr;
    gptq_session* s = nullptr;
    {
      const Model model(runtime, text_model());
      ASSERT_EQ(gptq_engine_create(model.get(), nullptr, &e, nullptr), GPTQ_OK);
    }
    ASSERT_EQ(gptq_session_create(e, &s, nullptr), GPTQ_OK);
    Reentry reentry{.act = [&] {
      gptq_engine_destroy(e);
      gptq_session_destroy(s);
      return 0;
    }};
    EXPECT_EQ(reentry.generate(s), GPTQ_OK);
  }
  EXPECT_EQ(host.live, 0);
}

TEST(Reentry, AThrowingCallbackLeavesTheSessionIdle) {
  Chain c(text_model());
  auto err = make<gptq_error>();
  const auto params = generation(24);
  const auto on_text = [](void*, const char*, size_t) -> int32_t { throw std::runtime_error("from the callback"); };
  EXPECT_EQ(gptq_generate(c.session.get(), prompt, GPTQ_NTS, &params, on_text, nullptr, nullptr, &err), GPTQ_E_INTERNAL);
  EXPECT_EQ(c.session.info().state, GPTQ_SESSION_IDLE);
  c.session.truncate(0);
  Reentry nothing{.act = [] { return 0; }};
  EXPECT_EQ(nothing.generate(c.session.get()), GPTQ_OK);
  EXPECT_EQ(nothing.text, expected_text());
}

// A host's job system that uses the engine while the engine uses it.
struct Jobs {
  std::function<void()> act;
  static void GPTQ_CALL parallel(void* user, gptq_task_fn fn, void* ctx, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) fn(ctx, i);
    if (const auto& act = static_cast<Jobs*>(user)->act) act();
  }
};

TEST(Reentry, InsideAStepCallsAreRefused) {
  Jobs jobs;
  auto desc = with_threads(2);
  desc.parallel = jobs.parallel, desc.parallel_user = &jobs;
  Chain c(text_model(), engine_of(0, 2), desc);
  gptq_session *other = nullptr, *s = c.session.get();
  ASSERT_EQ(gptq_session_create(c.engine.get(), &other, nullptr), GPTQ_OK);
  c.session.append(some_tokens(40));
  auto params = generation(4);
  c.session.start(params);
  int acts = 0;
  jobs.act = [&] {
    auto info = make<gptq_session_info>();
    char text[64];
    size_t n = 0;
    gptq_session* made = nullptr;
    EXPECT_EQ(gptq_engine_step(c.engine.get(), 1, nullptr), GPTQ_E_INVALID_STATE);
    EXPECT_EQ(gptq_engine_next_readable(c.engine.get()), nullptr);
    EXPECT_EQ(gptq_session_info_get(s, &info), GPTQ_E_INVALID_STATE);
    EXPECT_EQ(gptq_session_read(s, text, sizeof text, &n), GPTQ_E_INVALID_STATE);
    EXPECT_EQ(gptq_session_fork(s, &made, nullptr), GPTQ_E_INVALID_STATE);
    EXPECT_EQ(gptq_session_create(c.engine.get(), &made, nullptr), GPTQ_E_INVALID_STATE);
    EXPECT_EQ(gptq_session_cancel(other), GPTQ_OK);
    if (acts++ == 0) gptq_session_destroy(other);  // when the step is over
  };
  finish(c.engine);
  jobs.act = nullptr;
  EXPECT_GT(acts, 0);
  EXPECT_EQ(c.session.info().n_generated, 4u);
  const Session free_again(c.engine);
}

// One thread steps and starts, others cancel and destroy what it gave them.
TEST(Reentry, CancelAndDestroyFromOtherThreads) {
  Host host;
  {
    Chain c(text_model(), engine_of(0, 8), host.desc());
    for (int round = 0; round < 60; ++round) {
      std::array<gptq_session*, 4> sessions{};
      for (gptq_session*& s : sessions) {
        ASSERT_EQ(gptq_session_create(c.engine.get(), &s, nullptr), GPTQ_OK);
        const auto params = generation(40);
        const Tokens tokens = some_tokens(5);
        ASSERT_EQ(gptq_session_append_tokens(s, tokens.data(), tokens.size(), nullptr), GPTQ_OK);
        ASSERT_EQ(gptq_session_start(s, &params, nullptr), GPTQ_OK);
        gptq_session_retain(s);
      }
      const auto other = [&sessions] {
        for (gptq_session* s : sessions) {
          EXPECT_EQ(gptq_session_cancel(s), GPTQ_OK);
          gptq_session_destroy(s);
        }
      };
      std::thread first(other), second(other);
      while (gptq_engine_step(c.engine.get(), 1, nullptr) == GPTQ_MORE) {
      }
      first.join();
      second.join();
    }
    auto memory = make<gptq_memory_info>();
    ASSERT_EQ(gptq_engine_memory(c.engine.get(), &memory), GPTQ_OK);
    EXPECT_EQ(memory.kv_pages_used, 0u);
  }
  EXPECT_EQ(host.live, 0);
}

TEST(Reentry, ARetainedSessionKeepsItsPlace) {
  Chain c(text_model());
  gptq_session *s = c.session.get(), *second = nullptr;
  EXPECT_EQ(gptq_session_retain(nullptr), nullptr);
  EXPECT_EQ(gptq_session_retain(s), s);
  gptq_session_destroy(s);
  EXPECT_EQ(gptq_session_create(c.engine.get(), &second, nullptr), GPTQ_E_INVALID_STATE);
  EXPECT_EQ(gptq_session_cancel(s), GPTQ_OK);
  Reentry nothing{.act = [] { return 0; }};
  EXPECT_EQ(nothing.generate(s), GPTQ_OK);
  EXPECT_EQ(nothing.text, expected_text());
}

TEST(Reentry, UsersAreFreedOnceAndLast) {
  static int freed;
  const auto count = [](void* user) { freed += *static_cast<int*>(user); };
  int one = 1, thousand = 1000;
  freed = 0;
  auto desc = with_threads(1);
  desc.user_free = count, desc.user = &one;
  desc.flags = 1;
  gptq_runtime* rt = nullptr;
  EXPECT_EQ(gptq_runtime_create(&desc, &rt, nullptr), GPTQ_E_INVALID_ARGUMENT);
  EXPECT_EQ(freed, 0);
  desc.flags = 0;
  ASSERT_EQ(gptq_runtime_create(&desc, &rt, nullptr), GPTQ_OK);
  gptq_model* m = nullptr;
  ASSERT_EQ(gptq_model_load(rt, text_model().c_str(), GPTQ_NTS, nullptr, &m, nullptr), GPTQ_OK);
  gptq_engine* e = nullptr;
  ASSERT_EQ(gptq_engine_create(m, nullptr, &e, nullptr), GPTQ_OK);
  gptq_session* s = nullptr;
  ASSERT_EQ(gptq_session_create(e, &s, nullptr), GPTQ_OK);
  gptq_session_set_user(s, &thousand);
  gptq_session_set_user_free(s, count);
  gptq_runtime_release(rt);
  gptq_model_release(m);
  gptq_engine_destroy(e);
  EXPECT_EQ(freed, 0);
  gptq_session_destroy(s);
  EXPECT_EQ(freed, 1001);
}

}  // namespace
}  // namespace gptq::test
