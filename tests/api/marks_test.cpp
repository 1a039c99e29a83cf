// SPDX-License-Identifier: Apache-2.0
// GPTQ_GEN_MARKED: whatever the steps, forks, saves, speculation and buffers, the same pieces; gptq_session_read stays as it is; nothing is allocated.
#include <algorithm>
#include <cstring>

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
      if (marked.kind == GPTQ_MARK_TOOL_CALL) {
        if (!more) all += "|" + std::to_string(marked.call) + " " + marked.name + (marked.id[0] ? std::string("#") + marked.id : "") + " ";
      } else if (marked.kind != last) {
        all += marked.kind == GPTQ_MARK_ANSWER ? "|answer " : "|thinking ";
      }
      last = marked.kind;
      more = marked.more;
      all.append(buffer.data(), marked.size);
    }
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
    Chat chat({{"user", "the sea"}});
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

TEST_F(Marks, ForksAndSavesGoOnAnywhere) {
  Chain other(text_model(), params());
  std::vector<std::string> saves;
  start(c.session);
  Told told;
  char text[3];
  for (int steps = 0; c.engine.step(1) == GPTQ_MORE; ++steps) {
    if (steps % 7) continue;
    Told fork_told = told, restored_told[2] = {told, told};
    Session fork = c.session.fork();
    for (const int32_t kind : {GPTQ_SAVE_REPLAY, GPTQ_SAVE_FULL}) {
      Session restored(other.engine, c.session.save(kind));
      EXPECT_EQ(restored.save(kind), c.session.save(kind));
      finish(other.engine, 50);
      restored_told[kind].read(restored.get(), 16);
      ASSERT_EQ(restored_told[kind].all, pieces_said) << steps;
    }
    const std::string saved = c.session.save();
    finish_alone(fork, fork_told);
    ASSERT_EQ(fork_told.all, pieces_said) << steps;
    fork.truncate(0);
    // Goes back to where it stood, and reads a little.
    c.session = Session(c.engine, saved);
    auto marked = make<gptq_marked>();
    check(gptq_session_read_marked(c.session.get(), text, 0, &marked));
    if (steps % 2) told.read(c.session.get(), 5);
  }
  told.read(c.session.get());
  EXPECT_EQ(told.all, pieces_said);
}

}  // namespace
}  // namespace gptq::test
