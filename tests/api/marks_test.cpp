// SPDX-License-Identifier: Apache-2.0
// GPTQ_GEN_MARKED: whatever the steps, forks, saves, speculation and buffers, the same pieces; gptq_session_read stays as it is; nothing is allocated.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <optional>
#include <span>

#include "format/hash.h"
#include "tests/api/fixture.h"

namespace gptq::test {
namespace {

const char* const qwen = "{% for m in messages %}{{ m.content }}{% endfor %}{# <think></think> <tool_call>{\"name\": , \"arguments\": }</tool_call> #}";
const char* const opened = "{% for m in messages %}{{ m.content }}{% endfor %}<s><think>\n{# </think> <tool_call>{\"name\": , \"arguments\": }</tool_call> #}";
// The model says what it must.
const char* const said = "<think>\nthe sea, \xE2\x82\xAC\n</think>\n\nI look.\n<tool_call>\n{\"name\": \"look\", \"arguments\": {\"at\": \"the sea \xC3\xA9\"}}\n</tool_call>\n"
                         "<tool_call>\n{\"name\": \"go\"}\n</tool_call>\n<tool_call>no</tool_call>";
const char* const pieces_said = "|thinking the sea, \xE2\x82\xAC|answer I look.|0 look {\"at\": \"the sea \xC3\xA9\"}|1 go {}|answer <tool_call>no</tool_call>";

std::string json(std::string_view text) {
  std::string out = "[\"";
  for (const char c : text) c == '\n' ? out += "\\n" : c == '"' || c == '\\' ? (out += '\\') += c : out += c;
  return out + "\"]";
}

// Pieces as text; what went before is added to.
struct Told {
  std::string all;
  int32_t last = 0;
  bool more = false;
  void read(gptq_session* s, size_t cap = 512) {
    std::vector<char> buffer(cap);
    auto marked = make<gptq_marked>();
    for (;;) {
      check(gptq_session_read_marked(s, buffer.data(), cap, &marked));
      if (marked.kind == GPTQ_MARK_NONE) return;
      add(marked, buffer.data());
    }
  }
  void add(const gptq_marked& marked, const char* text) {
    if (marked.kind == GPTQ_MARK_TOOL_CALL) {
      if (!more) all += "|" + std::to_string(marked.call) + " " + marked.name + (marked.id[0] ? std::string("#") + marked.id : "") + " ";
    } else if (marked.kind != last) {
      all += marked.kind == GPTQ_MARK_ANSWER ? "|answer " : "|thinking ";
    }
    last = marked.kind;
    more = marked.more;
    all.append(text, marked.size);
  }
};

class Marks : public testing::Test {
 protected:
  void start(Session& session, uint32_t flags = 0, const char* chat_template = qwen, const char* text = said) {
    set_chat(session, chat_template);
    constraint.emplace(c.model, GPTQ_CONSTRAINT_CHOICE, json(text));
    auto how = generation(0, GPTQ_GEN_MARKED | flags);
    how.constraint = constraint->get();
    session.start(how);
  }
  static void set_chat(Session& session, std::string_view chat_template) {
    Chat chat(std::vector<Message>{{"user", "the sea"}});
    chat.chat.template_override = chat_template.data();
    chat.chat.template_override_size = chat_template.size();
    session.set_chat(chat.chat);
  }
  static gptq_engine_params params() {
    auto params = engine_of(0, 4);
    params.ctx_tokens = 512;
    return params;
  }
  std::string all(Session& session) {
    finish(c.engine);
    Told told;
    told.read(session.get());
    return told.all;
  }
  Chain c{text_model(), params(), with_threads(2)};
  std::optional<Constraint> constraint;
};

TEST_F(Marks, WholeAndInPieces) {
  start(c.session);
  EXPECT_EQ(all(c.session), pieces_said);
  EXPECT_EQ(c.session.read(), said);
  EXPECT_EQ(c.session.info().stop_reason, GPTQ_STOP_CONSTRAINT);
  for (const size_t cap : {4, 5, 7, 64})
    for (const uint32_t budget : {1u, 300u}) {
      start(c.session, cap == 7 ? GPTQ_GEN_SPECULATE : 0);
      Told told;
      std::string text;
      while (c.engine.step(budget) == GPTQ_MORE) {
        told.read(c.session.get(), cap);
        text += c.session.read();
      }
      told.read(c.session.get(), cap);
      EXPECT_EQ(told.all, pieces_said) << cap;
      EXPECT_EQ(text + c.session.read(), said);
    }
}

TEST_F(Marks, ThinkingThatTheTemplateBegan) {
  start(c.session, 0, opened, "so\n</think>\n\nyes");
  EXPECT_EQ(all(c.session), "|thinking so|answer yes");
  start(c.session, 0, opened, "only <tool_call>");
  EXPECT_EQ(all(c.session), "|thinking only <tool_call>");
}

const char* const coder = "{% for m in messages %}{{ m.content }}{% endfor %}{# <think></think> <tool_call><function=name><parameter=key></parameter></function></tool_call> #}";
const char* const elements_said = "So.\n<tool_call>\n<function=look>\n<parameter=at>\nthe \"sea\" \xC3\xA9\n</parameter>\n<parameter=n>\n12\n</parameter>\n</function>\n</tool_call>";
const char* const elements_told = "|answer So.|0 look {\"at\": \"the \\\"sea\\\" \xC3\xA9\", \"n\": 12}";

TEST_F(Marks, ElementsAreJson) {
  for (const size_t cap : {4, 5, 6, 7, 64}) {
    start(c.session, 0, coder, elements_said);
    finish(c.engine);
    Told told;
    told.read(c.session.get(), cap);
    EXPECT_EQ(told.all, elements_told) << cap;
    EXPECT_EQ(c.session.read(), elements_said);
  }
  // Saved and forked while the call is being read.
  start(c.session, 0, coder, elements_said);
  finish(c.engine);
  Told told;
  char text[4];
  auto marked = make<gptq_marked>();
  for (int reads = 0; reads < 100; ++reads) {
    Session restored(c.engine, c.session.save());
    EXPECT_EQ(restored.save(), c.session.save());
    Told rest = told, fork_rest = told;
    rest.read(restored.get(), 9);
    EXPECT_EQ(rest.all, elements_told) << reads;
    const Session fork = c.session.fork();
    fork_rest.read(fork.get());
    EXPECT_EQ(fork_rest.all, elements_told) << reads;
    check(gptq_session_read_marked(c.session.get(), text, sizeof text, &marked));
    if (marked.kind == GPTQ_MARK_NONE) break;
    told.add(marked, text);
  }
  EXPECT_EQ(told.all, elements_told);
}

// At every quantum: in the middle of a mark, of a character, of a call that is half read.
TEST_F(Marks, ForksAndSavesGoOnAnywhere) {
  Chain other(text_model(), params());
  start(c.session);
  Told told;
  int steps = 0;
  for (; c.engine.step(1) == GPTQ_MORE; ++steps) {
    if (steps % cases_here(5, 15)) continue;
    Told fork_told = told, restored_told[] = {told, told};
    Session fork = c.session.fork();
    std::string saved;
    for (const int32_t kind : {GPTQ_SAVE_REPLAY, GPTQ_SAVE_FULL}) {
      saved = c.session.save(kind);
      Session restored(other.engine, saved);
      ASSERT_TRUE(restored.save(kind) == saved) << steps;
      finish(other.engine, 50);
      restored_told[kind].read(restored.get(), 16);
      ASSERT_EQ(restored_told[kind].all, pieces_said) << steps;
    }
    finish(c.engine);
    fork_told.read(fork.get());
    ASSERT_EQ(fork_told.all, pieces_said) << steps;
    c.session = Session(c.engine, saved);  // back to where it was
    if (steps % 2) {
      // A little is read.
      char text[5];
      auto marked = make<gptq_marked>();
      check(gptq_session_read_marked(c.session.get(), text, sizeof text, &marked));
      if (marked.kind == GPTQ_MARK_NONE) continue;
      told.add(marked, text);
    }
  }
  EXPECT_GT(steps, 100);
  told.read(c.session.get());
  EXPECT_EQ(told.all, pieces_said);
}

TEST_F(Marks, SavesThatNobodyWroteAreRefused) {
  start(c.session);
  finish(c.engine);
  Told told;
  told.read(c.session.get());
  const std::string good = c.session.save();
  const auto with = [&](size_t at, uint64_t value, size_t size) {
    std::string bad = good;
    std::memcpy(bad.data() + at, &value, size);
    const uint64_t hash = format::hash_bytes(std::as_bytes(std::span(bad.data(), bad.size() - sizeof hash)));
    std::memcpy(bad.data() + bad.size() - sizeof hash, &hash, sizeof hash);
    gptq_session* s = nullptr;
    const gptq_status status = gptq_session_restore(c.engine.get(), bad.data(), bad.size(), &s, nullptr);
    gptq_session_destroy(s);
    return status;
  };
  constexpr size_t taken = 320, looked_at = 328, format = 336;
  uint64_t n;
  std::memcpy(&n, good.data() + taken, sizeof n);
  EXPECT_GT(n, 50u);
  EXPECT_EQ(with(taken, n, 8), GPTQ_OK);
  EXPECT_EQ(with(taken, n + 1, 8), GPTQ_E_FORMAT);
  EXPECT_EQ(with(looked_at, 1u << 30, 8), GPTQ_E_FORMAT);
  EXPECT_EQ(with(format, 4, 4), GPTQ_E_FORMAT);
  EXPECT_EQ(with(format, 77 << 8, 4), GPTQ_E_FORMAT);
}

TEST_F(Marks, StopStringsAndBannedPhrases) {
  const gptq_string stop = {"</tool_call>", 12};
  const Constraint banned(c.model, GPTQ_CONSTRAINT_BANNED, R"(["look", "sea"])");
  set_chat(c.session, qwen);
  const Constraint one(c.model, GPTQ_CONSTRAINT_CHOICE, json(said));
  auto how = generation(0, GPTQ_GEN_MARKED);
  how.constraint = one.get();
  how.stop = &stop, how.n_stop = 1;
  c.session.start(how);
  EXPECT_EQ(all(c.session), "|thinking the sea, \xE2\x82\xAC|answer I look.|0 look {\"at\": \"the sea \xC3\xA9\"}");
  EXPECT_EQ(c.session.info().stop_reason, GPTQ_STOP_STRING);
  // What could become a phrase is not read before it is known to be none.
  set_chat(c.session, qwen);
  const Constraint two(c.model, GPTQ_CONSTRAINT_REGEX, "<think>the (sea|fog)</think> I (look|walk)\\. <tool_call>\\{\"name\": \"(look|go)\"\\}</tool_call>");
  how = generation(0, GPTQ_GEN_MARKED);
  how.constraint = two.get();
  how.banned = banned.get();
  c.session.start(how);
  Told told;
  while (c.engine.step(1) == GPTQ_MORE) told.read(c.session.get(), 16);
  told.read(c.session.get());
  EXPECT_EQ(told.all, "|thinking the fog|answer I walk.|0 go {}");
}

TEST_F(Marks, SeveralSessionsAtOnce) {
  const Constraint one(c.model, GPTQ_CONSTRAINT_CHOICE, json(said)), two(c.model, GPTQ_CONSTRAINT_CHOICE, json("so</think>yes"));
  std::vector<Session> sessions;
  for (int i = 0; i < 3; ++i) {
    sessions.emplace_back(c.engine);
    set_chat(sessions.back(), i == 1 ? opened : qwen);
    auto how = generation(0, GPTQ_GEN_MARKED | (i == 2 ? GPTQ_GEN_SPECULATE : 0));
    how.constraint = i == 1 ? two.get() : one.get();
    sessions.back().start(how);
  }
  std::vector<Told> told(3);
  while (c.engine.step(50) == GPTQ_MORE)
    while (gptq_session* s = gptq_engine_next_readable(c.engine.get()))
      for (size_t i = 0; i < 3; ++i)
        if (sessions[i].get() == s) told[i].read(s, 32);
  for (size_t i = 0; i < 3; ++i) {
    told[i].read(sessions[i].get());
    EXPECT_EQ(told[i].all, i == 1 ? "|thinking so|answer yes" : pieces_said);
  }
  // Nothing is left to read once tokens are read too.
  for (Session& session : sessions) session.read_tokens();
  while (gptq_engine_next_readable(c.engine.get())) {
  }
  c.engine.step(1);
  EXPECT_EQ(gptq_engine_next_readable(c.engine.get()), nullptr);
}

TEST_F(Marks, UnknownTemplatesSaySo) {
  const auto refused = [&](const char* chat_template) {
    set_chat(c.session, chat_template);
    auto how = generation(1, GPTQ_GEN_MARKED);
    auto err = make<gptq_error>();
    EXPECT_EQ(gptq_session_start(c.session.get(), &how, &err), GPTQ_E_UNSUPPORTED);
    EXPECT_EQ(c.session.info().state, GPTQ_SESSION_IDLE);
    return std::string(err.message);
  };
  EXPECT_NE(refused("{{ messages[0].content }}").find("neither tool calls nor thinking"), std::string::npos);
  EXPECT_NE(refused("{{ messages[0].content }}{% if tools %}{% endif %}<think></think>").find("it has tools"), std::string::npos);
  // The model's own has neither.
  c.session.set_chat({{"user", "the sea"}});
  auto how = generation(1, GPTQ_GEN_MARKED);
  EXPECT_EQ(gptq_session_start(c.session.get(), &how, nullptr), GPTQ_E_UNSUPPORTED);
  c.session.start(generation(1));
  auto marked = make<gptq_marked>();
  char text[8];
  EXPECT_EQ(gptq_session_read_marked(c.session.get(), text, sizeof text, &marked), GPTQ_E_INVALID_STATE);
  EXPECT_EQ(gptq_session_read_marked(nullptr, text, sizeof text, &marked), GPTQ_E_INVALID_ARGUMENT);
}

TEST_F(Marks, TruncatedAndStartedAnew) {
  start(c.session);
  finish(c.engine);
  c.session.truncate(2);
  Told told;
  told.read(c.session.get());
  EXPECT_EQ(told.all, "");
  start(c.session);
  c.engine.step(100);
  c.session.cancel();
  finish(c.engine);
  start(c.session);
  EXPECT_EQ(all(c.session), pieces_said);
}

// For tests/bench/RESULTS.md: what reading costs, of a text that is all there; and gptq_session_read of the same.
TEST_F(Marks, DISABLED_Cost) {
  auto params = engine_of(0, 2);
  params.ctx_tokens = 2048;
  Engine engine(c.model, params);
  std::string text = said;
  while (text.size() < 2500) text += "\nthe sea and the land are here; " + std::string(said).substr(std::string_view(said).find("I look"));
  const Constraint long_text(c.model, GPTQ_CONSTRAINT_CHOICE, json(text));
  Session session(engine);
  set_chat(session, qwen);
  auto how = generation(0, GPTQ_GEN_MARKED);
  how.constraint = long_text.get();
  session.start(how);
  finish(engine);
  const std::string saved = session.save();
  const uint32_t n = session.info().n_generated;
  char buffer[512];
  auto marked = make<gptq_marked>();
  const auto median = [&](auto&& read) {
    std::vector<double> times;
    for (int i = 0; i < 101; ++i) {
      Session again(engine, saved);
      const auto begin = std::chrono::steady_clock::now();
      read(again.get());
      times.push_back(std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begin).count() / n);
    }
    std::nth_element(times.begin(), times.begin() + 50, times.end());
    return times[50];
  };
  const auto marks = [&](size_t cap) {
    return median([&](gptq_session* s) {
      do check(gptq_session_read_marked(s, buffer, cap, &marked));
      while (marked.kind != GPTQ_MARK_NONE);
    });
  };
  const double plain = median([&](gptq_session* s) {
    size_t size;
    do check(gptq_session_read(s, buffer, sizeof buffer, &size));
    while (size);
  });
  std::printf("%u tokens, %.1f bytes each: marks %.0f ns a token, 4 bytes a call %.0f ns; gptq_session_read %.0f ns\n", n, static_cast<double>(text.size()) / n,
              marks(sizeof buffer), marks(4), plain);
}

TEST(MarksMemory, NoneIsTaken) {
  Host host;
  auto params = engine_of(0, 2);
  params.ctx_tokens = 512;
  Chain c(text_model(), params, host.desc(2));
  const Constraint constraint(c.model, GPTQ_CONSTRAINT_CHOICE, json(said));
  Chat chat(std::vector<Message>{{"user", "the sea"}});
  chat.chat.template_override = qwen, chat.chat.template_override_size = GPTQ_NTS;
  auto how = generation(0, GPTQ_GEN_MARKED);
  how.constraint = constraint.get();
  char text[64];
  auto marked = make<gptq_marked>();
  int calls = 0;
  for (int run = 0; run < 2; ++run) {
    c.session.set_chat(chat.chat);
    const uint64_t host_before = host.calls, heap_before = heap_calls();
    c.session.start(how);
    gptq_status status;
    do {
      status = gptq_engine_step(c.engine.get(), 100, nullptr);
      do {
        check(gptq_session_read_marked(c.session.get(), text, sizeof text, &marked));
        calls += marked.kind == GPTQ_MARK_TOOL_CALL;
      } while (marked.kind != GPTQ_MARK_NONE);
    } while (status == GPTQ_MORE);
    if (run == 1) {  // a constraint's states are there the second time
      EXPECT_EQ(host.calls, host_before);
      EXPECT_EQ(heap_calls(), heap_before);
    }
  }
  EXPECT_EQ(calls, 4);
}

}  // namespace
}  // namespace gptq::test
