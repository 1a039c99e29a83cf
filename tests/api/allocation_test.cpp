// SPDX-License-Identifier: Apache-2.0
// Memory: none is taken while generating, all of it comes from the host and goes back, and every refusal of it is survived.
#include <algorithm>
#include <array>
#include <filesystem>
#include <functional>

#include "tests/api/fixture.h"

namespace gptq::test {
namespace {

gptq_source source_of(const Bytes& bytes) {
  auto source = make<gptq_source>();
  source.data = bytes.data();
  source.data_size = bytes.size();
  return source;
}

class NoAllocation : public testing::TestWithParam<std::tuple<uint32_t, uint32_t>> {};

TEST_P(NoAllocation, WhileGenerating) {
  const auto [flags, threads] = GetParam();
  Host host;
  auto params = engine_of(flags, 3);
  params.logits_rows = 4;
  Chain c(text_model(), params, host.desc(threads));
  Session other(c.engine);
  c.session.append(some_tokens(100));
  other.append(some_tokens(30, 2));
  auto sampling = make<gptq_sampling>();
  sampling.temperature = 1;
  sampling.top_k = 50;
  sampling.top_p = 0.9f;
  sampling.min_p = 0.01f;
  sampling.repeat_penalty = 1.2f;
  const gptq_string stops[] = {{"\x01\x02\x03", 3}, {"never to be seen", 16}};
  auto how = generation(60);
  how.sampling = &sampling;
  how.stop = stops;
  how.n_stop = 2;
  how.flags |= GPTQ_GEN_LOGITS;
  std::vector<float> rows(4 * c.model.info().n_vocab);
  char text[64];
  gptq_token tokens[8];
  size_t n = 0;
  uint32_t first = 0, n_rows = 0, n_read = 0;

  const uint64_t host_before = host.calls, heap_before = heap_calls();
  c.session.start(how);
  other.start(generation(50));
  auto info = make<gptq_step_info>();
  do {
    check(gptq_engine_step(c.engine.get(), 200, &info));
    while (gptq_session* s = gptq_engine_next_readable(c.engine.get())) {
      check(gptq_session_read(s, text, sizeof text, &n));
      check(gptq_session_read_tokens(s, tokens, 8, &n));
      check(gptq_session_read_logits(s, rows.data(), rows.size(), &first, &n_rows));
      n_read += n_rows;
    }
  } while (info.sessions_active);
  c.session.truncate(20);
  gptq_session* fork = nullptr;
  check(gptq_session_fork(other.get(), &fork, nullptr));
  check(gptq_session_start(fork, &how, nullptr));
  check(gptq_session_start(other.get(), &how, nullptr));
  for (int i = 0; i < 4; ++i) check(gptq_engine_step(c.engine.get(), 1000, nullptr));
  gptq_session_destroy(fork);
  const uint64_t host_calls = host.calls - host_before, heap = heap_calls() - heap_before;
  EXPECT_EQ(host_calls, 0u);
  EXPECT_EQ(heap, 0u);
  EXPECT_GE(n_read, 100u);
#if defined(__GLIBC__) && !defined(GPTQ_SANITIZED)
  EXPECT_GT(heap_before, 0u) << "malloc is not intercepted";
#endif
}

INSTANTIATE_TEST_SUITE_P(Engines, NoAllocation,
                         testing::Combine(testing::Values(0u, uint32_t(GPTQ_ENGINE_EXACT), uint32_t(GPTQ_ENGINE_BF16)), testing::Values(1u, 3u)));

TEST(Memory, GoesBackInEveryOrderOfRelease) {
  std::array<int, 4> order = {0, 1, 2, 3};
  do {
    Host host;
    gptq_runtime* rt = nullptr;
    gptq_model* m = nullptr;
    gptq_engine* e = nullptr;
    gptq_session* s = nullptr;
    const auto desc = host.desc(2);
    check(gptq_runtime_create(&desc, &rt, nullptr));
    check(gptq_model_load(rt, text_model().c_str(), GPTQ_NTS, nullptr, &m, nullptr));
    check(gptq_engine_create(m, nullptr, &e, nullptr));
    check(gptq_session_create(e, &s, nullptr));
    check(gptq_generate(s, "hello", GPTQ_NTS, nullptr, nullptr, nullptr, nullptr, nullptr));
    const std::function<void()> releases[] = {[&] { gptq_runtime_release(rt); }, [&] { gptq_model_release(m); },
                                              [&] { gptq_engine_destroy(e); }, [&] { gptq_session_destroy(s); }};
    for (const int i : order) {
      EXPECT_GT(host.live, 0);
      releases[i]();
    }
    EXPECT_EQ(host.live, 0);
  } while (std::next_permutation(order.begin(), order.end()));
}

// A whole life through the API. Every call that fails for want of memory is made again once.
class Life {
 public:
  Life(Host& host, const Bytes& file) : host_(host), file_(file) {}
  std::string text;
  int refused = 0, persisted = 0;

  void live() {
    const auto desc = host_.desc(1);
    const auto source = source_of(file_);
    auto message = make<gptq_message>();
    message.role = "user", message.role_size = GPTQ_NTS, message.text = "tell me of the sea", message.text_size = GPTQ_NTS;
    const gptq_message* messages[] = {&message};
    auto chat = make<gptq_chat>();
    chat.flags = GPTQ_CHAT_ADD_GENERATION_PROMPT, chat.messages = messages, chat.n_messages = 1;
    gptq_runtime* rt = nullptr;
    gptq_model* m = nullptr;
    gptq_engine* e = nullptr;
    gptq_session* s = nullptr;
    gptq_token tokens[32];
    char rendered[256];
    size_t n = 0;
    const auto how = generation(4);
    const auto add = [](void* user, const char* bytes, size_t size) -> int32_t {
      return static_cast<std::string*>(user)->append(bytes, size), 0;
    };
    const bool all =
        attempt([&](gptq_error* err) { return gptq_runtime_create(&desc, &rt, err); }) &&
        attempt([&](gptq_error* err) { return gptq_model_load_from(rt, &source, nullptr, &m, err); }) &&
        attempt([&](gptq_error* err) { return gptq_engine_create(m, nullptr, &e, err); }) &&
        attempt([&](gptq_error* err) { return gptq_session_create(e, &s, err); }) &&
        attempt([&](gptq_error* err) { return err->status = gptq_tokenize(m, "the sea", GPTQ_NTS, GPTQ_TEXT_ADD_BOS, tokens, 32, &n); }) &&
        attempt([&](gptq_error* err) { return gptq_chat_render(m, &chat, rendered, sizeof rendered, &n, err); }) &&
        attempt([&](gptq_error* err) { return gptq_session_set_chat(s, &chat, nullptr, err); }) &&
        attempt([&](gptq_error* err) { return gptq_generate(s, " and the land", GPTQ_NTS, &how, add, &text, nullptr, err); });
    if (all) text.append(rendered, n);
    gptq_session_destroy(s);
    gptq_engine_destroy(e);
    gptq_model_release(m);
    gptq_runtime_release(rt);
  }

 private:
  bool attempt(const std::function<gptq_status(gptq_error*)>& call) {
    auto err = make<gptq_error>();
    gptq_status status = call(&err);
    if (status >= 0) return true;
    EXPECT_EQ(status, GPTQ_E_OUT_OF_MEMORY) << err.message;
    EXPECT_EQ(err.status, GPTQ_E_OUT_OF_MEMORY);
    ++refused;
    status = call(&err);
    if (status < 0) ++persisted;
    return status >= 0;
  }
  Host& host_;
  const Bytes& file_;
};

TEST(Memory, EveryRefusalIsSurvived) {
  const Bytes file = read_bytes(text_model());
  Host counted;
  Life normal(counted, file);
  normal.live();
  ASSERT_FALSE(normal.text.empty());
  ASSERT_EQ(normal.refused, 0);
  const uint64_t points = counted.allocations, stride = std::max<uint64_t>(1, points / 400);
  RecordProperty("points", std::to_string(points));
  for (const bool for_ever : {false, true})
    for (uint64_t at = 0; at < points; at += stride) {
      Host host;
      host.fail_at = at;
      host.fail_on = for_ever;
      Life life(host, file);
      life.live();
      ASSERT_EQ(host.live, 0) << "allocation " << at;
      ASSERT_EQ(life.refused, 1) << "allocation " << at;
      ASSERT_EQ(life.persisted, for_ever) << "allocation " << at;
      ASSERT_EQ(life.text, for_ever ? life.text : normal.text) << "allocation " << at;
    }
}

TEST(Memory, StaysWithinTheHostsLimit) {
  const Bytes file = read_bytes(text_model());
  const auto source = source_of(file);
  Host free_host;
  { const Chain c(text_model(), engine_of(0), free_host.desc()); }
  for (const double part : {1.0, 0.9, 0.5, 0.1, 0.001}) {
    Host host;
    auto desc = host.desc();
    desc.host_bytes_max = static_cast<uint64_t>(static_cast<double>(free_host.peak) * part);
    gptq_runtime* rt = nullptr;
    gptq_model* m = nullptr;
    gptq_engine* e = nullptr;
    check(gptq_runtime_create(&desc, &rt, nullptr));
    gptq_status status = gptq_model_load_from(rt, &source, nullptr, &m, nullptr);
    if (status == GPTQ_OK) status = gptq_engine_create(m, nullptr, &e, nullptr);
    EXPECT_EQ(status, part == 1.0 ? GPTQ_OK : GPTQ_E_BUDGET_EXCEEDED) << part;
    EXPECT_LE(host.peak, static_cast<int64_t>(desc.host_bytes_max + 4096));  // the runtime's own block
    gptq_engine_destroy(e);
    gptq_model_release(m);
    gptq_runtime_release(rt);
    EXPECT_EQ(host.live, 0);
  }
}

// Above the real use, but by 5 % and 64 KiB at most.
void expect_near(uint64_t estimate, int64_t real, const std::string& what) {
  EXPECT_GE(static_cast<int64_t>(estimate), real) << what;
  EXPECT_LE(static_cast<double>(estimate), static_cast<double>(real) * 1.05 + 65536) << what;
}

TEST(Memory, EstimateIsTrue) {
  auto big = engine_of(0, 5);
  big.ctx_tokens = 200, big.page_tokens = 16, big.batch_tokens = 100, big.logits_rows = 50, big.kv_type = GPTQ_KV_F32;
  std::vector<std::string> files = {text_model()};
  for (const std::string& folder : checkpoint_folders()) files.push_back(converted(folder));
  for (const std::string& path : files)
    for (const auto& params : {engine_of(0), engine_of(GPTQ_ENGINE_EXACT), engine_of(GPTQ_ENGINE_BF16), big}) {
      Host host;
      const Runtime rt(host.desc(2));
      auto source = make<gptq_source>();
      source.path = path.c_str(), source.path_size = GPTQ_NTS;
      auto estimate = make<gptq_memory_estimate>();
      check(gptq_model_estimate(rt.get(), &source, nullptr, &params, &estimate, nullptr));
      EXPECT_EQ(estimate.fits, 1u);
      const int64_t before = host.live;
      host.peak = before;
      const Model model(rt, path);
      const int64_t loaded = host.live - before, load_peak = host.peak - before;
      expect_near(estimate.host_weights, loaded, path);
      EXPECT_GE(static_cast<int64_t>(estimate.host_load_peak), load_peak) << path;
      EXPECT_LE(load_peak, static_cast<int64_t>(std::filesystem::file_size(path) + (64u << 20))) << path;
      const Engine engine(model, params);
      expect_near(estimate.host_kv + estimate.host_scratch, host.live - before - loaded, path);
    }
}

}  // namespace
}  // namespace gptq::test
