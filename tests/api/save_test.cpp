// SPDX-License-Identifier: Apache-2.0
// Saved sessions: what was saved goes on byte for byte, in another engine with other threads; what is damaged changes nothing.
#include <algorithm>
#include <cctype>
#include <cstring>

#include "format/hash.h"
#include "tests/api/fixture.h"

namespace gptq::test {
namespace {

gptq_engine_params params(uint32_t max_sessions, uint32_t batch_tokens = 32) {
  auto params = engine_of(0, max_sessions);
  params.ctx_tokens = 128;
  params.batch_tokens = batch_tokens;
  return params;
}

Bytes save(const Session& session) {
  size_t n = 0;
  EXPECT_EQ(gptq_session_save(session.get(), GPTQ_SAVE_REPLAY, nullptr, 0, &n, nullptr), GPTQ_E_BUFFER_TOO_SMALL);
  Bytes bytes(n);
  check(gptq_session_save(session.get(), GPTQ_SAVE_REPLAY, bytes.data(), n, &n, nullptr));
  return bytes;
}

gptq_status restore(const Engine& engine, const Bytes& bytes, gptq_session** out) {
  return gptq_session_restore(engine.get(), bytes.data(), bytes.size(), out, nullptr);
}

gptq_sampling hot() {
  auto sampling = make<gptq_sampling>();
  sampling.temperature = 1.5f;
  sampling.top_k = 40;
  sampling.top_p = 0.95f;
  sampling.repeat_penalty = 1.1f;
  sampling.seed = 7;
  return sampling;
}

// All of the chain at once, or mirostat instead of its end.
gptq_sampling whole_chain(bool mirostat) {
  static constexpr gptq_logit_bias bias[] = {{5, 2}, {9, -3}};
  auto sampling = hot();
  sampling.frequency_penalty = 0.1f;
  sampling.presence_penalty = 0.2f;
  sampling.dry_multiplier = 0.8f;
  sampling.top_n_sigma = 3;
  sampling.typical_p = 0.95f;
  sampling.temperature_range = 0.5f;
  sampling.xtc_probability = 0.5f;
  sampling.xtc_threshold = 0.01f;
  sampling.bias = bias, sampling.n_bias = 2;
  if (mirostat) sampling.mirostat_tau = 4, sampling.mirostat_eta = 0.3f;
  return sampling;
}

// All that is left of a generation: tokens and text.
struct Rest {
  Tokens tokens;
  std::string text;
  int32_t stop_reason = 0;
  bool operator==(const Rest&) const = default;
};
Rest rest_of(const Engine& engine, gptq_session* s, uint32_t budget_us) {
  finish(engine, budget_us);
  Rest rest;
  auto info = make<gptq_session_info>();
  check(gptq_session_info_get(s, &info));
  rest.stop_reason = info.stop_reason;
  rest.tokens.resize(info.tokens_unread);
  size_t n = 0;
  check(gptq_session_read_tokens(s, rest.tokens.data(), rest.tokens.size(), &n));
  char buffer[512];
  do {
    check(gptq_session_read(s, buffer, sizeof buffer, &n));
    rest.text.append(buffer, n);
  } while (n);
  return rest;
}

class Save : public testing::TestWithParam<std::string> {};

TEST_P(Save, GoesOnAtEveryQuantum) {
  const Prompt prompt = prompts_of(GetParam()).at(0);
  const auto sampling = hot();
  auto how = generation(30);
  how.sampling = &sampling;
  Chain c(converted(GetParam()), params(1, 7), with_threads(2));
  Chain other(converted(GetParam()), params(2), with_threads(1));
  for (uint32_t steps = 0; steps < 60; steps += 3) {
    c.session.truncate(0);
    c.session.append(prompt.ids);
    c.session.start(how);
    for (uint32_t i = 0; i < steps; ++i) c.engine.step(1, nullptr);  // a quantum each
    char text[5];
    size_t n = 0;
    check(gptq_session_read(c.session.get(), text, sizeof text, &n));
    const Bytes bytes = save(c.session);
    EXPECT_LE(bytes.size(), 4 * c.session.info().n_tokens + 1024);
    gptq_session* restored = nullptr;
    ASSERT_GE(restore(other.engine, bytes, &restored), GPTQ_OK);
    EXPECT_EQ(rest_of(other.engine, restored, steps % 2 ? 50 : GPTQ_BUDGET_UNLIMITED), rest_of(c.engine, c.session.get(), GPTQ_BUDGET_UNLIMITED))
        << "after " << steps << " quanta";
    gptq_session_destroy(restored);
  }
}

TEST(SaveOfTheWholeChain, GoesOnSoDoesAFork) {
  Chain c(text_model(), params(3), with_threads(2));
  Chain other(text_model(), params(2, 7), with_threads(1));
  std::vector<Tokens> texts;
  for (const bool mirostat : {false, true}) {
    const auto sampling = whole_chain(mirostat);
    auto how = generation(60);
    how.flags |= GPTQ_GEN_IGNORE_EOS;
    how.sampling = &sampling;
    c.session.truncate(0);
    c.session.append("the sea and ", GPTQ_TEXT_ADD_BOS);
    c.session.start(how);
    for (int i = 0; i < 60 && c.session.info().n_generated < 10; ++i) c.engine.step(1, nullptr);
    const Bytes bytes = save(c.session);
    gptq_session *restored = nullptr, *fork = nullptr;
    ASSERT_GE(restore(other.engine, bytes, &restored), GPTQ_OK);
    check(gptq_session_fork(c.session.get(), &fork, nullptr));
    const Rest rest = rest_of(c.engine, c.session.get(), GPTQ_BUDGET_UNLIMITED);
    EXPECT_EQ(rest_of(other.engine, restored, 50), rest);
    EXPECT_EQ(rest_of(c.engine, fork, 50), rest);
    EXPECT_EQ(rest.tokens.size(), 60u);
    texts.push_back(rest.tokens);
    gptq_session_destroy(restored);
    gptq_session_destroy(fork);
  }
  EXPECT_NE(texts[0], texts[1]);
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, Save, testing::ValuesIn(family_folders()), [](const auto& info) {
  std::string name = name_of(info.param);
  std::replace_if(name.begin(), name.end(), [](unsigned char c) { return !std::isalnum(c); }, '_');
  return name;
});

// A session with text, stop strings and a part of it read.
class Saved : public testing::Test {
 protected:
  Saved() {
    const gptq_string stops[] = {{"never to be seen", 16}, {"\x01\x02", 2}};
    how.sampling = &sampling;
    how.stop = stops, how.n_stop = 2;
    c.session.append("the sea and ", GPTQ_TEXT_ADD_BOS);
    c.session.start(how);
    for (int i = 0; i < 40; ++i) c.engine.step(1, nullptr);
    char text[3];
    size_t n = 0;
    check(gptq_session_read(c.session.get(), text, sizeof text, &n));
    bytes = save(c.session);
  }
  const gptq_sampling sampling = hot();
  gptq_generate_params how = generation(60);
  Chain c{text_model(), params(2), with_threads(2)};
  Bytes bytes;
};

TEST_F(Saved, SaysWhetherNumbersAreTheSame) {
  gptq_session* s = nullptr;
  ASSERT_EQ(restore(c.engine, bytes, &s), GPTQ_OK);
  EXPECT_EQ(rest_of(c.engine, s, 100), rest_of(c.engine, c.session.get(), 100));
  EXPECT_EQ(save(c.session).size(), [&] {
    size_t n = 0;
    gptq_session_save(s, GPTQ_SAVE_REPLAY, nullptr, 0, &n, nullptr);
    return n;
  }());
  gptq_session_destroy(s);
  auto exact = params(1);
  exact.flags = GPTQ_ENGINE_EXACT;
  const Engine other(c.model, exact);
  ASSERT_EQ(restore(other, bytes, &s), GPTQ_REPLAYED);
  gptq_session_destroy(s);
}

TEST_F(Saved, DamageIsFoundAndChangesNothing) {
  const Bytes good = bytes;
  gptq_session* none = nullptr;
  for (size_t at = 0; at < good.size(); ++at)
    for (int bit = 0; bit < 8; ++bit) {
      Bytes bad = good;
      bad[at] ^= static_cast<std::byte>(1 << bit);
      ASSERT_LT(restore(c.engine, bad, &none), 0) << "byte " << at << " bit " << bit;
    }
  for (size_t size = 0; size < good.size(); ++size)
    ASSERT_EQ(restore(c.engine, Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size) + (size == 0)), &none), GPTQ_E_FORMAT) << size;
  Bytes longer = good;
  longer.push_back({});
  EXPECT_EQ(restore(c.engine, longer, &none), GPTQ_E_FORMAT);
  EXPECT_EQ(none, nullptr);
  EXPECT_EQ(save(c.session), good);
  ASSERT_EQ(restore(c.engine, good, &none), GPTQ_OK);  // the slot is still free
  gptq_session_destroy(none);
}

TEST_F(Saved, IsRefusedWhereItDoesNotFit) {
  gptq_session* none = nullptr;
  const Chain stranger(dense_model(), params(2));
  EXPECT_EQ(restore(stranger.engine, bytes, &none), GPTQ_E_UNSUPPORTED);
  auto narrow = params(1);
  narrow.ctx_tokens = 16;
  const Engine small(c.model, narrow);
  EXPECT_EQ(restore(small, bytes, &none), c.session.info().n_tokens > 16 ? GPTQ_E_CONTEXT_FULL : GPTQ_REPLAYED);
  Session second(c.engine);
  EXPECT_EQ(restore(c.engine, bytes, &none), GPTQ_E_INVALID_STATE);
}

// As a library before format 2 wrote it: without the last 80 bytes of the header.
TEST_F(Saved, OfFormat1) {
  Bytes old = bytes;
  old.erase(old.begin() + 192, old.begin() + 272);
  const uint32_t version = 1;
  const uint64_t size = old.size();
  std::memcpy(old.data() + 8, &version, sizeof version);
  std::memcpy(old.data() + 16, &size, sizeof size);
  const auto seal = [&] {
    const uint64_t hash = format::hash_bytes(std::span(old).first(old.size() - sizeof hash));
    std::memcpy(old.data() + old.size() - sizeof hash, &hash, sizeof hash);
  };
  seal();
  gptq_session* s = nullptr;
  ASSERT_EQ(restore(c.engine, old, &s), GPTQ_OK);
  EXPECT_EQ(rest_of(c.engine, s, 100), rest_of(c.engine, c.session.get(), 100));
  gptq_session_destroy(s);
  for (const uint32_t other : {0u, 3u, 1u << 31}) {
    std::memcpy(old.data() + 8, &other, sizeof other);
    seal();
    EXPECT_EQ(restore(c.engine, old, &s), GPTQ_E_UNSUPPORTED);
  }
}

TEST_F(Saved, AnEmptySessionToo) {
  Session empty(c.engine);
  const Bytes nothing = save(empty);
  empty.append(some_tokens(3));
  const Chain other(text_model(), params(2));
  gptq_session* s = nullptr;
  ASSERT_GE(restore(other.engine, nothing, &s), GPTQ_OK);
  auto info = make<gptq_session_info>();
  check(gptq_session_info_get(s, &info));
  EXPECT_EQ(info.n_tokens, 0u);
  gptq_session_destroy(s);
}

}  // namespace
}  // namespace gptq::test
