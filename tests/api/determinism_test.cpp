// SPDX-License-Identifier: Apache-2.0
// The same bits whatever the threads, the prefill's chunks, the step's budget and who else is computed with.
#include "tests/api/fixture.h"

namespace gptq::test {
namespace {

constexpr uint32_t prompt_tokens = 150;

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
    {.name = "budget_of_1", .budget_us = 1},
    {.name = "budget_of_300", .threads = 2, .logits_rows = 150, .budget_us = 300},
};

struct Output {
  std::vector<float> logits;
  Tokens sampled;
};

// Logits of a prompt, then tokens sampled after it.
Output run(const Way& way, uint32_t flags) {
  auto params = engine_of(flags, 1 + way.mates);
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

class Determinism : public testing::TestWithParam<std::tuple<uint32_t, Way>> {};

TEST_P(Determinism, SameBits) {
  const auto& [flags, way] = GetParam();
  static const Output expected[] = {run({.name = "base"}, 0), run({.name = "base"}, GPTQ_ENGINE_EXACT)};
  const Output out = run(way, flags);
  EXPECT_EQ(out.logits, expected[flags].logits);
  EXPECT_EQ(out.sampled, expected[flags].sampled);
  EXPECT_EQ(out.sampled.size(), 60u);
}

INSTANTIATE_TEST_SUITE_P(Ways, Determinism, testing::Combine(testing::Values(0u, uint32_t(GPTQ_ENGINE_EXACT)), testing::ValuesIn(ways)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param) ? "exact_" : "int8_") + std::get<1>(info.param).name;
                         });

// Attention sums page by page, so that their size shows in the last bits, and nowhere else.
TEST(Pages, ChangeRoundingAlone) {
  const Output expected = run({.name = "pages_of_64"}, GPTQ_ENGINE_EXACT);
  for (const uint32_t page : {16u, 128u}) {
    const Output out = run({.name = "other_pages", .page = page}, GPTQ_ENGINE_EXACT);
    for (size_t i = 0; i < out.logits.size(); ++i) ASSERT_NEAR(out.logits[i], expected.logits[i], 1e-4) << page;
  }
}

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
