// SPDX-License-Identifier: Apache-2.0
// How keys and values are kept: every family with int4 and with pairs, near float32 and the same bits however it is computed; memory; what is refused.
#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>

#include "tests/api/fixture.h"

namespace gptq::test {
namespace {

constexpr int32_t i8_i4 = GPTQ_KV_I8 | GPTQ_KV_VALUES_I4;

gptq_engine_params params(int32_t kv, uint32_t flags = GPTQ_ENGINE_EXACT, uint32_t batch_tokens = 0, uint32_t max_sessions = 1) {
  auto params = engine_of(flags, max_sessions);
  params.kv_type = kv;
  params.logits_rows = 64;
  params.ctx_tokens = 192;
  params.batch_tokens = batch_tokens;
  params.page_tokens = 16;
  return params;
}

gptq_status create(const Model& model, const gptq_engine_params& params, std::string* message = nullptr) {
  gptq_engine* engine = nullptr;
  auto error = make<gptq_error>();
  const gptq_status status = gptq_engine_create(model.get(), &params, &engine, &error);
  gptq_engine_destroy(engine);
  if (message) *message = error.message;
  return status;
}

class Kv : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const auto all = family_folders();
    const auto place = std::find(all.begin(), all.end(), GetParam()) - all.begin();
    if (is_left_out(static_cast<uint32_t>(place), 8)) GTEST_SKIP() << "one family of eight is enough under a sanitizer";
    std::string message;
    const gptq_status status = create(model_, params(GPTQ_KV_I4), &message);
    if (status == GPTQ_E_UNSUPPORTED) {
      EXPECT_NE(message.find("latent"), message.npos) << message;
      EXPECT_EQ(create(model_, params(i8_i4)), GPTQ_E_UNSUPPORTED);
      EXPECT_EQ(create(model_, params(GPTQ_KV_I8 | GPTQ_KV_VALUES_I8)), GPTQ_OK);
      GTEST_SKIP() << "its latents are kept in 8 bits at least";
    }
    ASSERT_EQ(status, GPTQ_OK) << message;
  }
  std::vector<float> logits(const gptq_engine_params& params, const Tokens& ids) const {
    const Engine engine(model_, params);
    Session session(engine);
    return all_logits(model_, engine, session, ids);
  }
  const Runtime runtime_{with_threads(2)};
  const Model model_{runtime_, converted(GetParam())};
  const Tokens ids_ = prompts_of(GetParam()).at(0).ids;
};

// Random weights, with heads of 8 to 32 dimensions.
TEST_P(Kv, IsNearFloat32) {
  const size_t n_vocab = model_.info().n_vocab;
  const std::vector<float> truth = logits(params(GPTQ_KV_F32), ids_);
  for (const int32_t kv : {GPTQ_KV_I4 + 0, i8_i4, GPTQ_KV_F16 | GPTQ_KV_VALUES_I4, GPTQ_KV_I4 | GPTQ_KV_VALUES_F32}) {
    const std::vector<float> found = logits(params(kv), ids_);
    double sum = 0;
    for (size_t at = 0; at < truth.size(); at += n_vocab) sum += kl(truth.data() + at, found.data() + at, n_vocab);
    sum *= static_cast<double>(n_vocab) / static_cast<double>(truth.size());
    RecordProperty("kl_" + std::to_string(kv), std::to_string(sum));
    EXPECT_LT(sum, 0.3) << kv;
    EXPECT_NE(found, truth) << kv;
  }
}

// In one piece, in pieces of 7, a token at a time, and once more behind a rewind.
TEST_P(Kv, ChunksAndRewindsDoNotMatter) {
  for (const int32_t kv : {GPTQ_KV_I4 + 0, i8_i4}) {
    const std::vector<float> whole = logits(params(kv, 0, 64), ids_);
    for (const uint32_t batch : {7u, 1u}) EXPECT_EQ(logits(params(kv, 0, batch), ids_), whole) << kv << " by " << batch;
    const Engine engine(model_, params(kv, 0, 64));
    Session session(engine);
    const Tokens half(ids_.begin(), ids_.begin() + static_cast<std::ptrdiff_t>(ids_.size() / 2));
    const Tokens begun = greedy(engine, session, half, 20);
    session.truncate(static_cast<uint32_t>(half.size()));
    EXPECT_EQ(continue_with(engine, session, 20), begun) << kv;
    session.truncate(0);
    EXPECT_EQ(all_logits(model_, engine, session, ids_), whole) << kv;
  }
}

INSTANTIATE_TEST_SUITE_P(All, Kv, testing::ValuesIn(family_folders()), [](const auto& info) {
  std::string name = name_of(info.param);
  std::replace_if(name.begin(), name.end(), [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
});

// The text's last tokens once more, which a lookup guesses right or wrong: pages are written ahead and taken back.
TEST(KvKinds, SpeculationAndForksGiveTheSameTokens) {
  Tokens ids = some_tokens(30);
  for (int i = 0; i < 2; ++i) ids.insert(ids.end(), ids.begin(), ids.begin() + 25);
  for (const auto& [kv, temperature] : {std::pair<int32_t, float>{GPTQ_KV_I4, 0.0f}, {i8_i4, 0.0f}, {GPTQ_KV_I4, 0.7f}}) {
    Chain c(text_model(), params(kv, 0, 32, 3), with_threads(2));
    auto sampling = make<gptq_sampling>();
    sampling.temperature = temperature;
    sampling.seed = 3;
    const auto generate = [&](Session& session, uint32_t flags) {
      auto how = generation(70, GPTQ_GEN_IGNORE_EOS | flags);
      how.sampling = &sampling;
      session.start(how);
    };
    c.session.append(ids);
    generate(c.session, 0);
    finish(c.engine);
    const Tokens plain = c.session.read_tokens();
    ASSERT_EQ(plain.size(), 70u);
    c.session.truncate(static_cast<uint32_t>(ids.size()));
    Session fork = c.session.fork(), other = c.session.fork();
    other.append(some_tokens(9, 4));
    generate(c.session, GPTQ_GEN_SPECULATE);
    finish(c.engine);
    generate(fork, 0);
    generate(other, GPTQ_GEN_SPECULATE);
    finish(c.engine, 1);
    if (temperature == 0) {
      EXPECT_GT(c.session.info().n_guessed, 0u);
    }
    EXPECT_EQ(c.session.read_tokens(), plain) << kv;
    EXPECT_EQ(fork.read_tokens(), plain) << kv;
    EXPECT_EQ(other.read_tokens().size(), 70u);
  }
}

TEST(KvKinds, PagesAreAsLargeAsTheKindsSay) {
  const Runtime runtime(with_threads(1));
  const Model model(runtime, text_model());
  // Bytes of a key or value of one of two heads of 32, in a page of 16 of three layers.
  const auto pages = [&](int32_t kv, uint32_t key, uint32_t value) {
    auto p = params(kv, 0);
    p.ctx_tokens = 256;
    p.kv_bytes = 7 * 16 * 3 * 2 * (key + value);
    const Engine engine(model, p);
    auto memory = make<gptq_memory_info>();
    check(gptq_engine_memory(engine.get(), &memory));
    return memory.kv_pages_total;
  };
  EXPECT_EQ(pages(GPTQ_KV_F16, 64, 64), 7u);
  EXPECT_EQ(pages(GPTQ_KV_I8, 36, 36), 7u);
  EXPECT_EQ(pages(GPTQ_KV_I4, 20, 20), 7u);
  EXPECT_EQ(pages(GPTQ_KV_I4 | GPTQ_KV_VALUES_I4, 20, 20), 7u);
  EXPECT_EQ(pages(i8_i4, 36, 20), 7u);
  EXPECT_EQ(pages(GPTQ_KV_F16 | GPTQ_KV_VALUES_I4, 64, 20), 7u);
  EXPECT_EQ(pages(GPTQ_KV_I4 | GPTQ_KV_VALUES_F32, 20, 128), 7u);
}

// The default of exact mode is float32, unless it says which of both.
TEST(KvKinds, APairIsWhatItSaysInExactMode) {
  Chain exact(text_model(), params(GPTQ_KV_F16)), f32(text_model(), params(GPTQ_KV_F32)), f16(text_model(), params(GPTQ_KV_F16 | GPTQ_KV_VALUES_F16));
  const Tokens ids = some_tokens(40);
  const auto logits = [&](Chain& c) {
    c.session.truncate(0);
    return all_logits(c.model, c.engine, c.session, ids);
  };
  EXPECT_EQ(logits(exact), logits(f32));
  EXPECT_NE(logits(exact), logits(f16));
}

TEST(KvKinds, UnknownOnesAreRefused) {
  const Runtime runtime(with_threads(1));
  const Model model(runtime, text_model());
  for (const int32_t kv : {4, 255, -1, INT32_MIN, INT32_MAX, 0x500, 0x10000, GPTQ_KV_I4 + 1 + GPTQ_KV_VALUES_I4})
    EXPECT_EQ(create(model, params(kv)), GPTQ_E_INVALID_ARGUMENT) << kv;
}

}  // namespace
}  // namespace gptq::test
