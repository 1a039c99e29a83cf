// SPDX-License-Identifier: Apache-2.0
// The library as a guest: small stacks, other FP environments and locales, the host's job system, no work when none is asked for.
#include <pthread.h>

#include <algorithm>
#include <cfenv>
#include <clocale>
#include <filesystem>
#include <functional>
#include <map>
#include <new>
#include <random>
#include <thread>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "kernels/kernels.h"
#include "tests/api/fixture.h"

namespace gptq::test {
namespace {

// Loads, tokenizes, renders a chat and generates; whatever may depend on the host shows in it.
std::string everything(const gptq_runtime_desc& desc, uint32_t flags = 0) {
  Chain c(text_model(), engine_of(flags), desc);
  auto sampling = make<gptq_sampling>();
  sampling.temperature = 0.9f;
  sampling.top_p = 0.9f;
  sampling.seed = 5;
  auto how = generation(30);
  how.sampling = &sampling;
  std::string text = std::to_string(c.model.tokenize("the sea and the \xE2\x82\xAC land").size());
  auto message = make<gptq_message>();
  message.role = "user", message.role_size = GPTQ_NTS, message.text = "0.5 + 1.25", message.text_size = GPTQ_NTS;
  const gptq_message* messages[] = {&message};
  auto chat = make<gptq_chat>();
  chat.messages = messages, chat.n_messages = 1;
  c.session.set_chat(chat);
  c.session.start(how);
  finish(c.engine);
  text += c.session.read();
  c.session.truncate(0);
  const std::vector<float> logits = all_logits(c.model, c.engine, c.session, some_tokens(40));
  return text.append(reinterpret_cast<const char*>(logits.data()), logits.size() * sizeof(float));
}
const std::string& expected() {
  static const std::string text = everything(with_threads(1));
  return text;
}

void on_stack_of(size_t bytes, std::function<void()> f) {
  pthread_attr_t attributes;
  pthread_t thread;
  pthread_attr_init(&attributes);
  ASSERT_EQ(pthread_attr_setstacksize(&attributes, bytes), 0);
  const auto run = [](void* p) -> void* { return (*static_cast<std::function<void()>*>(p))(), nullptr; };
  ASSERT_EQ(pthread_create(&thread, &attributes, run, &f), 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
}

TEST(Host, SixtyFourKilobytesOfStackSuffice) {
#ifdef GPTQ_SANITIZED
  GTEST_SKIP() << "sanitizers make frames larger";
#endif
  const std::string& wanted = expected();
  std::string found;
  on_stack_of(64 << 10, [&] { found = everything(with_threads(2)); });
  EXPECT_EQ(found, wanted);
}

#if defined(__x86_64__)
TEST(Host, FloatStateIsItsOwn) {
  const std::string& wanted = expected();
  const unsigned usual = _mm_getcsr();
  constexpr unsigned flush = 0x8040, towards_zero = 0x6000, up = 0x4000, all_traps = 0x1F80;
  for (const unsigned state : {usual | flush, usual | towards_zero, usual | up, usual & ~all_traps, (usual | flush | up) & ~all_traps}) {
    Chain c(text_model(), engine_of(0), with_threads(2));
    c.session.append(some_tokens(60));
    c.session.start(generation(20));
    _mm_setcsr(state);
    const gptq_status status = gptq_engine_step(c.engine.get(), GPTQ_BUDGET_UNLIMITED, nullptr);
    const unsigned after = _mm_getcsr();
    const gptq_status bad = gptq_engine_step(nullptr, 0, nullptr);
    const unsigned after_error = _mm_getcsr();
    _mm_setcsr(usual);
    EXPECT_EQ(after, state);
    EXPECT_EQ(after_error, state);
    EXPECT_EQ(status, GPTQ_IDLE);
    EXPECT_EQ(bad, GPTQ_E_INVALID_ARGUMENT);
    _mm_setcsr(state & ~0x3Fu);
    std::string found;
    {
      // The fixture itself computes nothing in floating point but constants.
      found = everything(with_threads(2));
      _mm_setcsr(usual);
    }
    EXPECT_TRUE(found == wanted) << "MXCSR " << state;
  }
}
#endif

TEST(Host, LocaleChangesNothing) {
  const std::string& wanted = expected();
  const char* found = nullptr;
  for (const char* name : {"de_DE.UTF-8", "de_DE.utf8", "de_DE", "fr_FR.UTF-8"})
    if (!found) found = std::setlocale(LC_ALL, name);
  if (!found) GTEST_SKIP() << "no locale with a decimal comma is installed (de_DE.UTF-8)";
  const std::string text = everything(with_threads(1));
  EXPECT_EQ(std::string(std::setlocale(LC_ALL, nullptr)), found);
  std::setlocale(LC_ALL, "C");
  EXPECT_TRUE(text == wanted);
}

// A job system that runs tasks in a shuffled order on its own threads, which have their own idea of floating point.
void GPTQ_CALL shuffled(void* user, gptq_task_fn fn, void* ctx, uint32_t count) {
  auto& random = *static_cast<std::minstd_rand*>(user);
  std::vector<uint32_t> order(count);
  for (uint32_t i = 0; i < count; ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), random);
  const auto half = [&](size_t first, size_t last) {
#if defined(__x86_64__)
    const unsigned usual = _mm_getcsr();
    _mm_setcsr(usual | 0xE040);
#endif
    for (size_t i = first; i < last; ++i) fn(ctx, order[i]);
#if defined(__x86_64__)
    _mm_setcsr(usual);
#endif
  };
  if (random() % 16) return half(0, count);
  std::thread other(half, 0, count / 2);
  half(count / 2, count);
  other.join();
}

TEST(Host, JobSystemGivesTheSameBits) {
  std::minstd_rand random(3);
  auto desc = with_threads(3);
  desc.parallel = shuffled;
  desc.parallel_user = &random;
  EXPECT_TRUE(everything(desc) == expected());
  EXPECT_TRUE(everything(desc, GPTQ_ENGINE_EXACT) == everything(with_threads(1), GPTQ_ENGINE_EXACT));
}

TEST(Host, BuildInfoNamesEveryLevel) {
  const std::string text = gptq_build_info();
  size_t n = 0;
  const kernels::Variant* variants = kernels::variants(&n);
  ASSERT_GT(n, 0u);
  for (size_t i = 0; i < n; ++i) {
    const std::string level = kernels::level_name(variants[i].level);
    EXPECT_NE((text + ",").find(" " + (level == "ref" ? "reference" : level) + ","), std::string::npos) << text;
  }
}

// Calls without a gptq_error tell the host's log why they failed.
TEST(Host, MessagesWithoutAnErrorGoToTheLog) {
  std::vector<std::string> log;
  auto desc = with_threads(1);
  desc.log_user = &log;
  desc.log = [](void* user, int32_t level, const char* text, size_t size) {
    if (level == GPTQ_LOG_ERROR) static_cast<std::vector<std::string>*>(user)->emplace_back(text, size);
  };
  Chain c(tiny_model(), engine_of(0), desc);
  size_t n = 0;
  EXPECT_EQ(gptq_tokenize(c.model.get(), "x", 1, 0, nullptr, 0, &n), GPTQ_E_TEXT);
  ASSERT_EQ(log.size(), 1u);
  EXPECT_TRUE(log[0].starts_with("the model has no tokenizer: give token ids instead of text [api/text.cpp:")) << log[0];
  c.session.append({4, 5});
  c.session.start(generation(4));
  EXPECT_EQ(gptq_session_truncate(c.session.get(), 0), GPTQ_E_INVALID_STATE);
  gptq_step_info info{};
  EXPECT_EQ(gptq_engine_step(c.engine.get(), 0, &info), GPTQ_E_STRUCT_VERSION);
  ASSERT_EQ(log.size(), 3u);
  EXPECT_TRUE(log[1].starts_with("the session is running")) << log[1];
  EXPECT_TRUE(log[2].starts_with("gptq_step_info: set struct_size")) << log[2];
  gptq_token tokens[1];
  EXPECT_EQ(gptq_session_tokens(c.session.get(), tokens, 1, &n), GPTQ_E_BUFFER_TOO_SMALL);  // an answer, not a failure
  EXPECT_EQ(gptq_tokenize(nullptr, "x", 1, 0, nullptr, 0, &n), GPTQ_E_INVALID_ARGUMENT);    // nobody to tell
  EXPECT_EQ(log.size(), 3u);
}

// The host sees what its memory is for, and every block goes back under its own tag.
TEST(Host, MemoryIsTagged) {
  struct Account {
    std::map<void*, uint32_t> blocks;
    int64_t bytes[4] = {};
    bool wrong = false;
  } account;
  auto desc = with_threads(1);
  desc.alloc_user = &account;
  desc.alloc = [](void* user, size_t size, size_t align, uint32_t, uint32_t tag) -> void* {
    Account& a = *static_cast<Account*>(user);
    align = std::max(align, sizeof(void*));
    void* p = ::operator new(size, std::align_val_t(align), std::nothrow);
    a.wrong |= tag >= std::size(a.bytes);
    if (!a.wrong) a.blocks[p] = tag, a.bytes[tag] += static_cast<int64_t>(size);
    return p;
  };
  desc.free = [](void* user, void* p, size_t size, size_t align, uint32_t, uint32_t tag) {
    Account& a = *static_cast<Account*>(user);
    const auto at = a.blocks.find(p);
    a.wrong |= at == a.blocks.end() || at->second != tag;
    if (!a.wrong) a.blocks.erase(at), a.bytes[tag] -= static_cast<int64_t>(size);
    ::operator delete(p, std::align_val_t(std::max(align, sizeof(void*))));
  };
  {
    Runtime runtime(desc);
    Model model(runtime, text_model());
    const int64_t of_model = account.bytes[GPTQ_TAG_MODEL];
    EXPECT_GE(of_model, static_cast<int64_t>(model.info().host_bytes));
    EXPECT_EQ(account.bytes[GPTQ_TAG_ENGINE], 0);
    Engine engine(model, engine_of(0));
    EXPECT_GT(account.bytes[GPTQ_TAG_ENGINE], 100'000);
    EXPECT_EQ(account.bytes[GPTQ_TAG_MODEL], of_model);
    EXPECT_LT(account.bytes[GPTQ_TAG_OTHER], 100'000);
    EXPECT_EQ(account.bytes[GPTQ_TAG_QUANTIZE], 0);
  }
  EXPECT_FALSE(account.wrong);
  EXPECT_TRUE(account.blocks.empty());
}

}  // namespace
}  // namespace gptq::test
