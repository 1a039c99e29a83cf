// SPDX-License-Identifier: Apache-2.0
// The same bits whatever the threads, the prefill's chunks, the pages, the step's budget and who else is computed with.
#include "tests/api/fixture.h"

namespace gptq::test {
namespace {

constexpr uint32_t prompt_tokens = 290;  // and 60 more: two blocks of attention

struct Way {
  const char* name;
  uint32_t threads = 1, batch = 0, page = 0, logits_rows = 8, mates = 0, budget_us = GPTQ_BUDGET_UNLIMITED;
};

constexpr Way ways[] = {
    {.name = "two_threads", .threads = 2},
    {.name = "three_threads", .threads = 3},
    {.name = "four_threads", .threads = 4},
    {.name = "token_by_token", .batch = 1},
    {.name = "chunks_of_7", .threads = 2, .batch = 7, .logits_rows = 64},
    {.name = "chunks_of_64", .batch = 64, .logits_rows = 64},
    {.name = "one_chunk", .threads = 2, .batch = 256, .logits_rows = 256},
    {.name = "three_mates", .threads = 2, .logits_rows = 64, .mates = 3},
    {.name = "mates_and_budget", .threads = 2, .batch = 33, .logits_rows = 64, .mates = 2, .budget_us = 30},
    {.name = "pages_of_16", .threads = 2, .page = 16},
    {.name = "pages_of_256", .batch = 40, .page = 256},
    {.name = "budget_of_1", .budget_us = 1},
    {.name = "budget_of_300", .threads = 2, .logits_rows = 150, .budget_us = 300},
};

struct Output {
  std::vector<float> logits;
  Tokens sampled;
};

struct Mode {
  const char* name;
  uint32_t flags;
  int32_t kv;
};
constexpr Mode modes[] = {{"int8", 0, GPTQ_KV_F16}, {"exact", GPTQ_ENGINE_EXACT, GPTQ_KV_F16}, {"int8_kv", 0, GPTQ_KV_I8},
                          {"bf16", GPTQ_ENGINE_BF16, GPTQ_KV_F16}, {"int4_kv", 0, GPTQ_KV_I4}, {"int8_int4_kv", 0, GPTQ_KV_I8 | GPTQ_KV_VALUES_I4}};

// Logits of a prompt, then tokens sampled after it.
Output run(const Way& way, Mode mode) {
  auto params = engine_of(mode.flags, 1 + way.mates);
  params.kv_type = mode.kv;
  params.ctx_tokens = 400;
  params.batch_tokens = way.batch;
  params.page_tokens = way.page;
  params.logits_rows = way.logits_rows;
  Chain c(text_model(), params, with_threads(way.threads));
  std::vector<Session> mates;
  for (uint32_t i = 0; i < way.mates; ++i) {
    mates.emplace_back(c.engine);
    mates.back().append(some_tokens(20 + 37 * i, 100 + i));
    mates.back().start(generation(40));
  }
  Output out;
  out.logits = all_logits(c.model, c.engine, c.session, some_tokens(prompt_tokens), way.budget_us);
  auto sampling = make<gptq_sampling>();
  sampling.temperature = 1.5f;
  sampling.top_k = 100;
  sampling.top_p = 0.95f;
  sampling.repeat_penalty = 1.1f;
  sampling.seed = 42;
  auto how = generation(60);
  how.sampling = &sampling;
  c.session.start(how);
  finish(c.engine, way.budget_us);
  out.sampled = c.session.read_tokens();
  return out;
}

class Determinism : public testing::TestWithParam<std::tuple<size_t, Way>> {};

TEST_P(Determinism, SameBits) {
  const auto& [mode, way] = GetParam();
  static std::map<size_t, Output> bases;
  if (!bases.count(mode)) bases[mode] = run({.name = "base"}, modes[mode]);
  const Output& expected = bases[mode];
  const Output out = run(way, modes[mode]);
  EXPECT_EQ(out.logits, expected.logits);
  EXPECT_EQ(out.sampled, expected.sampled);
  EXPECT_EQ(out.sampled.size(), 60u);
}

INSTANTIATE_TEST_SUITE_P(Ways, Determinism, testing::Combine(testing::Range(size_t{0}, std::size(modes)), testing::ValuesIn(ways)),
                         [](const auto& info) {
                           return std::string(modes[std::get<0>(info.param)].name) + "_" + std::get<1>(info.param).name;
                         });

TEST(Seed, DecidesWhatIsSampled) {
  Chain c(text_model());
  const auto sample = [&](uint64_t seed, uint32_t flags) {
    auto sampling = make<gptq_sampling>();
    sampling.temperature = 2;
    sampling.seed = seed;
    sampling.flags = flags;
    auto how = generation(30);
    how.sampling = &sampling;
    c.session.truncate(0);
    c.session.append(some_tokens(10));
    c.session.start(how);
    finish(c.engine);
    return c.session.read_tokens();
  };
  const Tokens first = sample(1, 0);
  EXPECT_EQ(sample(1, 0), first);
  EXPECT_NE(sample(2, 0), first);
  EXPECT_NE(sample(1, GPTQ_SAMPLE_RANDOM_SEED), sample(1, GPTQ_SAMPLE_RANDOM_SEED));
}

}  // namespace
}  // namespace gptq::test
