// SPDX-License-Identifier: Apache-2.0
// Saved sessions: what was saved goes on byte for byte, in another engine with other threads; what is damaged changes nothing.
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "format/hash.h"
#include "tests/api/fixture.h"
#include "tests/api/outcome.h"

namespace gptq::test {
namespace {

gptq_engine_params params(uint32_t max_sessions, uint32_t batch_tokens = 32) {
  auto params = engine_of(0, max_sessions);
  params.ctx_tokens = 128;
  params.batch_tokens = batch_tokens;
  return params;
}

Bytes save_of(const gptq_session* session, int32_t kind) {
  size_t n = 0;
  EXPECT_EQ(gptq_session_save(session, kind, nullptr, 0, &n, nullptr), GPTQ_E_BUFFER_TOO_SMALL);
  Bytes bytes(n);
  check(gptq_session_save(session, kind, bytes.data(), n, &n, nullptr));
  return bytes;
}
Bytes save(const Session& session, int32_t kind = GPTQ_SAVE_REPLAY) { return save_of(session.get(), kind); }
template <class T>
T field(const Bytes& bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}
uint32_t pages_used(const Engine& engine) {
  auto memory = make<gptq_memory_info>();
  check(gptq_engine_memory(engine.get(), &memory));
  return memory.kv_pages_used;
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
  rest.stop_reason = read_all(s, rest.tokens, rest.text).stop_reason;
  return rest;
}

// Latents are in 8 bits at least.
bool can_be_kept(const std::string& path, const gptq_engine_params& params) {
  const Runtime runtime(with_threads(1));
  const Model model(runtime, path);
  gptq_engine* engine = nullptr;
  const gptq_status status = gptq_engine_create(model.get(), &params, &engine, nullptr);
  gptq_engine_destroy(engine);
  if (status != GPTQ_E_UNSUPPORTED) check(status);
  return status == GPTQ_OK;
}

class Save : public testing::TestWithParam<std::string> {};

TEST_P(Save, FullGoesOnAtEveryQuantumWithoutComputingAgain) {
  const Prompt prompt = prompts_of(GetParam()).at(0);
  const auto sampling = hot();
  auto how = generation(30);
  how.sampling = &sampling;
  for (const int32_t kv : {GPTQ_KV_F16 + 0, GPTQ_KV_I8 + 0, GPTQ_KV_I4 + 0, GPTQ_KV_I8 | GPTQ_KV_VALUES_I4}) {
    auto here = params(1, 7), there = params(2);
    here.kv_type = there.kv_type = kv;
    here.page_tokens = there.page_tokens = 32;
    if (!can_be_kept(converted(GetParam()), here)) continue;
    Chain c(converted(GetParam()), here, with_threads(2));
    Chain other(converted(GetParam()), there, with_threads(1));
    for (uint32_t steps = 1; steps < 120; steps += 7) {
      c.session.truncate(0);
      c.session.append(prompt.ids);
      c.session.start(how);
      for (uint32_t i = 0; i < steps; ++i) c.engine.step(1, nullptr);
      const Bytes bytes = save(c.session, GPTQ_SAVE_FULL);
      const uint32_t n_computed = field<uint32_t>(bytes, 272);
      {  // in the pages is something else before
        Session others(other.engine);
        greedy(other.engine, others, Tokens(48, prompt.ids[0]), 1);
      }
      gptq_session* restored = nullptr;
      ASSERT_EQ(restore(other.engine, bytes, &restored), GPTQ_OK) << n_computed;
      ASSERT_EQ(pages_used(other.engine), (n_computed + 31) / 32);
      ASSERT_EQ(save_of(restored, GPTQ_SAVE_FULL), bytes) << "restored and saved again";
      EXPECT_EQ(rest_of(other.engine, restored, steps % 2 ? 50 : GPTQ_BUDGET_UNLIMITED), rest_of(c.engine, c.session.get(), GPTQ_BUDGET_UNLIMITED))
          << "after " << steps << " quanta";
      gptq_session_destroy(restored);
      ASSERT_EQ(pages_used(other.engine), 0u);
    }
  }
}

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

// As libraries before format 5 wrote it: without the last bytes of the header.
TEST_F(Saved, OfEarlierFormats) {
  const Rest rest = [&] {
    gptq_session* s = nullptr;
    check(restore(c.engine, bytes, &s));
    const Rest found = rest_of(c.engine, s, 100);
    gptq_session_destroy(s);
    return found;
  }();
  for (uint32_t version = 1; version <= 4; ++version) {
    Bytes old = bytes;
    old.erase(old.begin() + (version == 1 ? 192 : version == 2 ? 296 : version == 3 ? 312 : 320), old.begin() + 344);
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
    EXPECT_EQ(rest_of(c.engine, s, 100), rest);
    gptq_session_destroy(s);
    for (const uint32_t other : {0u, 6u, 1u << 31}) {
      std::memcpy(old.data() + 8, &other, sizeof other);
      seal();
      EXPECT_EQ(restore(c.engine, old, &s), GPTQ_E_UNSUPPORTED);
    }
  }
}

TEST_F(Saved, FullIsComputedAgainWhereItDoesNotFit) {
  const Bytes full = save(c.session, GPTQ_SAVE_FULL);
  EXPECT_EQ(full.size(), bytes.size() + field<uint64_t>(full, 280) + field<uint64_t>(full, 288) + 8);
  EXPECT_GT(field<uint32_t>(full, 272), 0u);
  const Rest rest = rest_of(c.engine, c.session.get(), GPTQ_BUDGET_UNLIMITED);
  const auto continued = [&](const gptq_engine_params& p, gptq_status expected, const Bytes& from) {
    const Engine other(c.model, p);
    gptq_session* s = nullptr;
    EXPECT_EQ(restore(other, from, &s), expected);
    EXPECT_EQ(pages_used(other), 0u);
    const Rest again = rest_of(other, s, 50);
    gptq_session_destroy(s);
    return again;
  };
  auto pages = params(1);
  pages.page_tokens = 16;
  EXPECT_EQ(continued(pages, GPTQ_OK, full), rest);  // other pages, the same numbers
  auto kv = params(1);
  for (const int32_t type : {GPTQ_KV_F32 + 0, GPTQ_KV_I8 + 0, GPTQ_KV_I4 + 0, GPTQ_KV_F16 | GPTQ_KV_VALUES_I4}) {
    kv.kv_type = type;
    EXPECT_EQ(continued(kv, GPTQ_REPLAYED, full), continued(kv, GPTQ_REPLAYED, bytes)) << type;
  }
}

TEST_F(Saved, FullDamageIsFoundAndChangesNothing) {
  const Bytes good = save(c.session, GPTQ_SAVE_FULL);
  const uint32_t pages = pages_used(c.engine);
  gptq_session* none = nullptr;
  for (size_t at = 0; at < good.size(); at += at < bytes.size() || at + 600 > good.size() ? 1 : 61) {
    Bytes bad = good;
    bad[at] ^= static_cast<std::byte>(1 << at % 8);
    ASSERT_LT(restore(c.engine, bad, &none), 0) << "byte " << at;
  }
  for (size_t size = 1; size < good.size(); size += 97)
    ASSERT_EQ(restore(c.engine, Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size)), &none), GPTQ_E_FORMAT) << size;
  EXPECT_EQ(none, nullptr);
  EXPECT_EQ(pages_used(c.engine), pages);
  EXPECT_EQ(save(c.session, GPTQ_SAVE_FULL), good);
  ASSERT_EQ(restore(c.engine, good, &none), GPTQ_OK);
  gptq_session_destroy(none);
}

TEST_F(Saved, FullNeedsFreePages) {
  finish(c.engine);
  const Bytes full = save(c.session, GPTQ_SAVE_FULL);
  ASSERT_GT(field<uint32_t>(full, 272), 64u);
  auto few = params(2);
  few.kv_bytes = 3 * 64 * 3 * 2 * 64 * 2;  // three pages: 3 layers, keys and values, 2 heads of 32, 2 bytes
  const Engine small(c.model, few);
  gptq_session *first = nullptr, *none = nullptr;
  ASSERT_EQ(restore(small, full, &first), GPTQ_OK);
  EXPECT_EQ(restore(small, full, &none), GPTQ_E_KV_FULL);
  EXPECT_EQ(none, nullptr);
  gptq_session_destroy(first);
  EXPECT_EQ(pages_used(small), 0u);
}

// A host that writes to memory, some bytes a call, and fails when told to; and reads from it.
struct HostFile {
  Bytes bytes;
  int calls = 0, fail_at = -1;
  static int32_t GPTQ_CALL write(void* user, const void* from, size_t size) {
    auto& file = *static_cast<HostFile*>(user);
    if (file.calls++ == file.fail_at) return -28;
    const auto* begin = static_cast<const std::byte*>(from);
    file.bytes.insert(file.bytes.end(), begin, begin + size);
    return 0;
  }
  static int64_t GPTQ_CALL size(void* user) { return static_cast<int64_t>(static_cast<HostFile*>(user)->bytes.size()); }
  static int64_t GPTQ_CALL read_at(void* user, uint64_t offset, void* to, size_t size) {
    auto& file = *static_cast<HostFile*>(user);
    if (file.calls++ == file.fail_at) return -5;
    const size_t n = std::min(size, file.bytes.size() - static_cast<size_t>(offset));
    std::memcpy(to, file.bytes.data() + offset, n);
    return static_cast<int64_t>(n);
  }
};

TEST_F(Saved, ThroughTheHostsIo) {
  for (const int32_t kind : {GPTQ_SAVE_REPLAY, GPTQ_SAVE_FULL}) {
    const Bytes expected = save(c.session, kind);
    HostFile file;
    ASSERT_EQ(gptq_session_save_to(c.session.get(), kind, HostFile::write, &file, nullptr), GPTQ_OK);
    EXPECT_EQ(file.bytes, expected);
    for (int i = 0, n = file.calls; i < n; ++i) {
      HostFile full{.fail_at = i};
      ASSERT_EQ(gptq_session_save_to(c.session.get(), kind, HostFile::write, &full, nullptr), GPTQ_E_IO);
    }
    auto io = make<gptq_io>();
    io.user = &file, io.size = HostFile::size, io.read_at = HostFile::read_at;
    auto source = make<gptq_source>();
    source.io = &io;
    gptq_session* s = nullptr;
    file.calls = 0;
    ASSERT_EQ(gptq_session_restore_from(c.engine.get(), &source, &s, nullptr), GPTQ_OK);
    EXPECT_EQ(save_of(s, kind), expected);
    gptq_session_destroy(s);
    const uint32_t pages = pages_used(c.engine);
    for (int i = 0, n = file.calls; i < n; ++i) {
      file.calls = 0, file.fail_at = i, s = nullptr;
      ASSERT_EQ(gptq_session_restore_from(c.engine.get(), &source, &s, nullptr), GPTQ_E_IO) << i;
      ASSERT_EQ(s, nullptr);
    }
    EXPECT_EQ(pages_used(c.engine), pages);
    file.fail_at = -1;
    ASSERT_EQ(gptq_session_restore_from(c.engine.get(), &source, &s, nullptr), GPTQ_OK);
    EXPECT_EQ(rest_of(c.engine, s, 50).tokens.size(), 60u);
    gptq_session_destroy(s);
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

// Saves that an earlier library wrote, of a file that an earlier converter wrote.
class GoldenSave : public testing::TestWithParam<int> {};

// The text of the pieces that are left, or only the first so many bytes.
std::string marked_rest(gptq_session* s, size_t cap = 512) {
  char buffer[512];
  auto piece = make<gptq_marked>();
  std::string all;
  do {
    check(gptq_session_read_marked(s, buffer, cap, &piece));
    all.append(buffer, piece.size);
  } while (piece.kind != GPTQ_MARK_NONE && cap == 512);
  return all;
}

// Format 5 holds what was read of a generation with GPTQ_GEN_MARKED.
TEST_P(GoldenSave, GoesOn) {
  const bool marked = GetParam() == 5;
  const char* folder = std::getenv("GPTQ_GOLDEN");
  if (!folder) GTEST_SKIP() << "GPTQ_GOLDEN is not set; meson test sets it to tests/golden";
  auto exact = params(2);
  exact.ctx_tokens = 32;
  exact.flags = GPTQ_ENGINE_EXACT;
  Chain c(std::string(folder) + "/tiny-1.0.gptq", exact);
  auto sampling = whole_chain(false);
  const gptq_logit_bias bias[] = {{1, marked ? 8.0f : 0.5f}, {marked ? 0 : 2, marked ? 8.0f : -0.5f}};
  sampling.bias = bias, sampling.top_k = 0;
  const gptq_string stop = {"never", 5};
  auto how = generation(20);
  how.sampling = &sampling;
  how.stop = &stop, how.n_stop = 1;
  if (marked) {
    Chat chat(std::vector<Message>{{"user", "ab"}});
    const std::string_view thinks = "{{ messages[0].content }}{# <think></think> #}";
    chat.chat.template_override = thinks.data(), chat.chat.template_override_size = thinks.size();
    c.session.set_chat(chat.chat);
    c.session.truncate(0);
    how.flags |= GPTQ_GEN_MARKED;
  }
  c.session.append(Tokens{3, 4, 5, 3});
  c.session.start(how);
  while (c.session.info().n_generated < 6) c.engine.step(1, nullptr);
  if (marked) {
    EXPECT_NE(marked_rest(c.session.get(), 4), "");
  }
  const Bytes now[] = {save(c.session, GPTQ_SAVE_REPLAY), save(c.session, GPTQ_SAVE_FULL)};
  const Rest rest = rest_of(c.engine, c.session.get(), GPTQ_BUDGET_UNLIMITED);
  ASSERT_EQ(rest.tokens.size(), 20u);
  const std::string marks = marked ? marked_rest(c.session.get()) : "";
  ASSERT_LT(marks.size(), rest.text.size());
  for (const bool full : {false, true}) {
    const std::string name = (full ? "tiny-full-" : "tiny-replay-") + std::to_string(GetParam()) + ".save", path = std::string(folder) + "/" + name;
    if (!std::filesystem::exists(path)) {
      const std::string left = (std::filesystem::temp_directory_path() / name).string();
      std::ofstream(left, std::ios::binary).write(reinterpret_cast<const char*>(now[full].data()), static_cast<std::streamsize>(now[full].size()));
      ADD_FAILURE() << path << " is missing; what is written now was left in " << left;
      continue;
    }
    auto source = make<gptq_source>();
    source.path = path.c_str(), source.path_size = GPTQ_NTS;
    gptq_session* s = nullptr;
    ASSERT_GE(gptq_session_restore_from(c.engine.get(), &source, &s, nullptr), GPTQ_OK);
    EXPECT_EQ(rest_of(c.engine, s, 50), rest) << name;
    if (marked) {
      EXPECT_EQ(marked_rest(s), marks);
    }
    gptq_session_destroy(s);
  }
}
INSTANTIATE_TEST_SUITE_P(OfFormat, GoldenSave, testing::Values(2, 5), testing::PrintToStringParamName());

}  // namespace
}  // namespace gptq::test
