// SPDX-License-Identifier: Apache-2.0
// Adapters: the numbers of a model with the same change in its weights, per session, whoever computes beside, in any place of a generation.
#include <algorithm>
#include <cctype>
#include <fstream>

#include "tests/api/lora_fixture.h"

namespace gptq::test {
namespace {

constexpr double logits_tolerance = 2e-5;  // of the range of the logits

gptq_engine_params params_of(uint32_t flags, uint32_t max_sessions = 1, uint32_t batch_tokens = 32) {
  auto params = engine_of(flags, max_sessions);
  params.ctx_tokens = 128;
  params.batch_tokens = batch_tokens;
  params.logits_rows = 32;
  return params;
}

double range_of(const std::vector<float>& x) {
  const auto [low, high] = std::minmax_element(x.begin(), x.end());
  return double{*high} - *low;
}
double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(double{a[i]} - b[i]));
  return most;
}
double mean_kl(const std::vector<float>& p, const std::vector<float>& q, size_t n_vocab) {
  double sum = 0;
  for (size_t at = 0; at < p.size(); at += n_vocab) sum += kl(p.data() + at, q.data() + at, n_vocab);
  return sum / static_cast<double>(p.size() / n_vocab);
}

// Every family's matrices, whatever they are fused with, permuted or split: as if its part were in the weights.
class AdapterFamilies : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const auto all = family_folders();
    const auto place = std::find(all.begin(), all.end(), GetParam()) - all.begin();
    if (is_left_out(static_cast<uint32_t>(place), 8)) GTEST_SKIP() << "one family of eight is enough under a sanitizer";
  }
};

TEST_P(AdapterFamilies, LogitsOfMergedWeights) {
  const std::string& path = converted(GetParam());
  const Lora lora(path, {.rank = 5, .size = 3});
  const Tokens ids = prompts_of(GetParam()).at(0).ids;
  Chain c(path, params_of(GPTQ_ENGINE_EXACT, 2, 7), with_threads(2)), merged(lora.merged(GetParam(), 0.75), params_of(GPTQ_ENGINE_EXACT), with_threads(2));
  const std::vector<float> expected = all_logits(merged.model, merged.engine, merged.session, ids), plain = all_logits(c.model, c.engine, c.session, ids);
  const Adapter adapter(c.model, lora.path());
  Session session(c.engine);
  session.set_adapter(&adapter, 0.75f);
  const std::vector<float> found = all_logits(c.model, c.engine, session, ids);
  EXPECT_LE(distance(found, expected), logits_tolerance * range_of(expected));
  EXPECT_GE(distance(found, plain), 100 * logits_tolerance * range_of(plain)) << "the adapter changes too little to be seen";
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, AdapterFamilies, testing::ValuesIn(family_folders()), [](const auto& info) {
  std::string name = name_of(info.param);
  std::replace_if(name.begin(), name.end(), [](unsigned char c) { return !std::isalnum(c); }, '_');
  return name;
});

// A random model of the Llama line with two adapters of other ranks, one of them of attention alone.
class Adapted : public testing::Test {
 protected:
  Tokens generate(Session& session, const Adapter* adapter, float scale, uint32_t seed, uint32_t n = 24) {
    session.truncate(0);
    session.set_adapter(adapter, scale);
    session.append(some_tokens(20, seed));
    return continue_with(c.engine, session, n);
  }
  std::vector<float> logits(Session& session, const Adapter* adapter, float scale, const Tokens& ids, uint32_t budget_us = GPTQ_BUDGET_UNLIMITED) {
    session.truncate(0);
    session.set_adapter(adapter, scale);
    return all_logits(c.model, c.engine, session, ids, budget_us);
  }
  const Lora first{text_model(), {.rank = 12, .size = 3}}, second{text_model(), {.rank = 4, .seed = 2, .size = 3, .attention_alone = true}};
  Chain c{text_model(), params_of(0, 6), with_threads(2)};
  const Adapter a{c.model, first.path()}, b{c.model, second.path()};
};

// The same bits beside others with the same, with another and with no adapter, in pieces, with budgets and other thread counts.
TEST_F(Adapted, MatesDoNotMatter) {
  struct Way {
    const Adapter* adapter;
    float scale;
  } ways[] = {{nullptr, 0}, {&a, 1}, {&b, 1}, {&a, 0.5f}, {&a, 1}, {nullptr, 0}};
  std::vector<Tokens> alone;
  for (uint32_t i = 0; i < 6; ++i) alone.push_back(generate(c.session, ways[i].adapter, ways[i].scale, i));
  for (uint32_t i = 1; i < 4; ++i) EXPECT_NE(generate(c.session, ways[i].adapter, ways[i].scale, 0), alone[0]) << "an adapter that does nothing";
  c.session.set_adapter(nullptr);
  std::vector<Session> sessions;
  for (uint32_t i = 0; i < 5; ++i) sessions.emplace_back(c.engine);
  const auto at = [&](uint32_t i) -> Session& { return i ? sessions[i - 1] : c.session; };
  for (const uint32_t budget : {GPTQ_BUDGET_UNLIMITED, 1u, 300u}) {
    for (uint32_t i = 0; i < 6; ++i) {
      at(i).truncate(0);
      at(i).set_adapter(ways[i].adapter, ways[i].scale);
      at(i).append(some_tokens(20, i));
      at(i).start(generation(24));
    }
    finish(c.engine, budget);
    for (uint32_t i = 0; i < 6; ++i) EXPECT_EQ(at(i).read_tokens(), alone[i]) << i << " with a budget of " << budget;
  }
  Chain other(text_model(), params_of(0, 1, 3), with_threads(1));
  const Adapter same(other.model, first.path());
  other.session.set_adapter(&same);
  EXPECT_EQ(greedy(other.engine, other.session, some_tokens(20, 1), 24), alone[1]);
}

// Bits of a session without an adapter, in an engine that had one, are those of an engine that never saw any.
TEST_F(Adapted, WithoutIsAsBefore) {
  for (const uint32_t flags : {0u, uint32_t{GPTQ_ENGINE_EXACT}, uint32_t{GPTQ_ENGINE_BF16}}) {
    const Tokens ids = some_tokens(40);
    Chain plain(text_model(), params_of(flags), with_threads(2)), had(text_model(), params_of(flags, 2), with_threads(2));
    const Adapter adapter(had.model, first.path());
    Session mate(had.engine);
    mate.set_adapter(&adapter);
    mate.append(some_tokens(30, 5));
    mate.start(generation(50));
    had.session.set_adapter(&adapter);
    had.session.append(ids);
    had.session.start(generation(3));
    had.engine.step(1, nullptr);
    had.session.cancel();
    had.engine.step(1, nullptr);
    had.session.truncate(0);
    had.session.set_adapter(nullptr);
    EXPECT_EQ(all_logits(plain.model, plain.engine, plain.session, ids), all_logits(had.model, had.engine, had.session, ids)) << flags;
  }
}

// Eight bits of the adapter cost no more than the activations' eight bits do anyway.
TEST_F(Adapted, IsAsNearAsWithout) {
  const Tokens ids = some_tokens(60);
  const size_t n_vocab = c.model.info().n_vocab;
  Chain exact(text_model(), params_of(GPTQ_ENGINE_EXACT), with_threads(2));
  const Adapter same(exact.model, first.path());
  const auto all = [&](Chain& chain, const Adapter* adapter) {
    chain.session.truncate(0);
    chain.session.set_adapter(adapter);
    return all_logits(chain.model, chain.engine, chain.session, ids);
  };
  const double without = mean_kl(all(exact, nullptr), all(c, nullptr), n_vocab), with = mean_kl(all(exact, &same), all(c, &a), n_vocab);
  EXPECT_LE(with, 2 * without);
  const double changed = mean_kl(all(exact, &same), all(exact, nullptr), n_vocab);
  EXPECT_GE(changed, 20 * with);
}

// In the middle of a generation: from there on as a session that had it from the beginning, with what was generated so far.
TEST_F(Adapted, AttachedAndDetachedBetweenTokens) {
  for (const uint32_t steps : {1u, 7u, 30u, 61u}) {
    c.session.truncate(0);
    c.session.set_adapter(nullptr);
    c.session.append(some_tokens(20));
    c.session.start(generation(30));
    for (uint32_t i = 0; i < steps; ++i) c.engine.step(1, nullptr);
    size_t n = 0;
    Tokens so_far(128);
    const auto tokens = [&] {
      so_far.resize(128);
      check(gptq_session_tokens(c.session.get(), so_far.data(), so_far.size(), &n));
      so_far.resize(n);
    };
    tokens();
    c.session.set_adapter(&a);
    for (uint32_t i = 0; i < steps; ++i) c.engine.step(1, nullptr);
    Session beside(c.engine);
    beside.set_adapter(&a);
    const size_t before = so_far.size();
    beside.append(so_far);
    tokens();
    c.session.set_adapter(nullptr);
    const Tokens expected = continue_with(c.engine, beside, static_cast<uint32_t>(so_far.size() - before) + 1);
    EXPECT_TRUE(std::equal(so_far.begin() + static_cast<std::ptrdiff_t>(before), so_far.end(), expected.begin())) << steps;
    Session plain(c.engine);
    plain.append(so_far);
    finish(c.engine);
    Tokens all(128);
    check(gptq_session_tokens(c.session.get(), all.data(), all.size(), &n));
    all.resize(n);
    const uint32_t left = static_cast<uint32_t>(all.size() - so_far.size());
    if (left) {
      EXPECT_EQ(Tokens(all.begin() + static_cast<std::ptrdiff_t>(so_far.size()), all.end()), continue_with(c.engine, plain, left)) << steps;
    }
    EXPECT_EQ(c.session.info().n_generated, 30u);
  }
}

TEST_F(Adapted, TheSameAgainKeepsTheCache) {
  generate(c.session, &a, 1, 3);
  const uint32_t pending = c.session.info().n_pending;
  const Adapter again(c.model, first.path());
  c.session.set_adapter(&again, 1);
  EXPECT_EQ(c.session.info().n_pending, pending);
  c.session.set_adapter(&again, 2);
  EXPECT_EQ(c.session.info().n_pending, c.session.info().n_tokens);
}

TEST_F(Adapted, ForksHaveIt) {
  c.session.set_adapter(&a, 0.7f);
  c.session.append(some_tokens(30));
  c.session.start(generation(40));
  for (int i = 0; i < 50; ++i) c.engine.step(1, nullptr);
  Session fork = c.session.fork();
  finish(c.engine);
  const Tokens tokens = c.session.read_tokens();
  EXPECT_EQ(fork.read_tokens(), tokens);
  fork.truncate(0);
  c.session.truncate(0);
  EXPECT_EQ(greedy(c.engine, fork, some_tokens(20, 9), 10), greedy(c.engine, c.session, some_tokens(20, 9), 10));
}

// What pages are there for: equal beginnings with equal adapters.
TEST_F(Adapted, PagesAreSharedByEqualAdapters) {
  auto params = params_of(0, 3);
  params.page_tokens = 16;
  Chain chain(text_model(), params, with_threads(1));
  const Adapter x(chain.model, first.path()), same(chain.model, first.path()), y(chain.model, second.path());
  const auto used = [&] {
    auto info = make<gptq_memory_info>();
    check(gptq_engine_memory(chain.engine.get(), &info));
    return info.kv_pages_used;
  };
  const Tokens ids = some_tokens(70);
  const auto pages_with = [&](const Adapter* one, const Adapter* other, float scale) {
    Session p(chain.engine), q(chain.engine);
    p.set_adapter(one), q.set_adapter(other, scale);
    p.append(ids), q.append(ids);
    p.start(generation(1));
    finish(chain.engine);
    q.start(generation(1));
    finish(chain.engine);
    EXPECT_EQ(p.read_tokens().size() + q.read_tokens().size(), 2u);
    return used();
  };
  EXPECT_EQ(pages_with(&x, &same, 1), 6u);
  EXPECT_EQ(pages_with(nullptr, nullptr, 1), 6u);
  EXPECT_EQ(pages_with(&x, &y, 1), 10u);
  EXPECT_EQ(pages_with(&x, nullptr, 1), 10u);
  EXPECT_EQ(pages_with(nullptr, &x, 1), 10u);
  EXPECT_EQ(pages_with(&x, &same, 2), 10u);
  EXPECT_EQ(used(), 0u);
}

TEST_F(Adapted, SavesGoOnWithIt) {
  auto sampling = make<gptq_sampling>();
  sampling.temperature = 2;
  sampling.seed = 5;
  auto how = generation(30);
  how.sampling = &sampling;
  Chain other(text_model(), params_of(0, 2, 9), with_threads(1));
  for (int steps = 0; steps < 40; steps += 5) {
    c.session.truncate(0);
    c.session.set_adapter(&a, 0.9f);
    c.session.append(some_tokens(25));
    c.session.start(how);
    for (int i = 0; i < steps; ++i) c.engine.step(1, nullptr);
    Bytes bytes(4096);
    size_t n = 0;
    check(gptq_session_save(c.session.get(), GPTQ_SAVE_REPLAY, bytes.data(), bytes.size(), &n, nullptr));
    gptq_session* restored = nullptr;
    EXPECT_EQ(gptq_session_restore(other.engine.get(), bytes.data(), n, &restored, nullptr), GPTQ_E_NOT_FOUND);
    ASSERT_EQ(restored, nullptr);
    gptq_session* s = nullptr;
    {
      const Adapter loaded(other.model, first.path());
      ASSERT_GE(gptq_session_restore(other.engine.get(), bytes.data(), n, &restored, nullptr), GPTQ_OK);
      s = restored;  // it keeps the adapter
    }
    finish(other.engine, 70);
    finish(c.engine);
    Tokens expected(128), found(128);
    check(gptq_session_tokens(c.session.get(), expected.data(), expected.size(), &n));
    expected.resize(n);
    check(gptq_session_tokens(s, found.data(), found.size(), &n));
    found.resize(n);
    EXPECT_EQ(found, expected) << steps;
    gptq_session_destroy(s);
  }
}

// Guessed tokens are rows with the adapter too: right and wrong ones, at any temperature.
TEST_F(Adapted, SpeculatesToTheSame) {
  static constexpr gptq_logit_bias likely[] = {{40, 6}};
  uint32_t tried = 0, right = 0;
  for (uint64_t seed = 0; seed < 6; ++seed) {
    auto sampling = make<gptq_sampling>();
    sampling.temperature = seed % 2 ? 0.7f : 0;
    sampling.seed = seed;
    sampling.bias = likely, sampling.n_bias = 1;
    const auto tokens = [&](uint32_t flags) {
      auto how = generation(90, GPTQ_GEN_IGNORE_EOS | flags);
      how.sampling = &sampling;
      c.session.truncate(0);
      c.session.set_adapter(&a);
      c.session.append(some_tokens(20, static_cast<uint32_t>(seed)));
      c.session.start(how);
      finish(c.engine);
      return c.session.read_tokens();
    };
    const Tokens plain = tokens(0);
    EXPECT_EQ(tokens(GPTQ_GEN_SPECULATE), plain) << seed;
    tried += c.session.info().n_guessed, right += c.session.info().n_guessed_right;
  }
  EXPECT_GT(right, 0u);
  EXPECT_GT(tried, right);
}

TEST_F(Adapted, IsRefusedByName) {
  const auto fails = [](auto f) {
    try {
      f();
    } catch (const Error& error) {
      return std::pair(error.status, std::string(error.what()));
    }
    return std::pair(gptq_status(GPTQ_OK), std::string());
  };
  const auto expect = [&](auto f, gptq_status status, const char* words) {
    const auto [found, text] = fails(f);
    EXPECT_EQ(found, status) << text;
    EXPECT_NE(text.find(words), text.npos) << text;
  };
  expect([&] { Adapter(c.model, text_model()); }, GPTQ_E_FORMAT, "is a model");
  expect([&] { Model(c.runtime, first.path()); }, GPTQ_E_FORMAT, "is an adapter");
  Chain tiny(tiny_model());
  expect([&] { Adapter(tiny.model, first.path()); }, GPTQ_E_UNSUPPORTED, "another model");
  expect([&] { tiny.session.set_adapter(&a); }, GPTQ_E_INVALID_ARGUMENT, "another model");
  expect([&] { c.session.set_adapter(&a, NAN); }, GPTQ_E_INVALID_ARGUMENT, "scale");
  c.session.append(some_tokens(10));
  c.session.start(generation(10, GPTQ_GEN_LOGITS));
  expect([&] { c.session.set_adapter(&a); }, GPTQ_E_INVALID_STATE, "GPTQ_GEN_LOGITS");
  c.session.cancel();
  auto error = make<gptq_error>();
  gptq_adapter* out = nullptr;
  EXPECT_EQ(gptq_adapter_load(c.model.get(), nullptr, &out, &error), GPTQ_E_INVALID_ARGUMENT);
  EXPECT_EQ(gptq_session_set_adapter(nullptr, a.get(), 1, &error), GPTQ_E_INVALID_ARGUMENT);
  auto info = make<gptq_adapter_info>();
  EXPECT_EQ(gptq_adapter_info_get(nullptr, &info), GPTQ_E_INVALID_ARGUMENT);
  gptq_adapter_release(nullptr);
  auto params = params_of(0);
  params.adapter_rank = 1025;
  expect([&] { Engine(c.model, params); }, GPTQ_E_INVALID_ARGUMENT, "adapter_rank");
  EXPECT_EQ(a.info().rank, 12u);
  EXPECT_EQ(a.info().n_matrices, 21u);
  EXPECT_EQ(b.info().n_matrices, 12u);
  EXPECT_NE(a.info().fingerprint, b.info().fingerprint);
}

// Its memory counts, comes back, and is within the budget or not taken.
TEST_F(Adapted, MemoryIsTheHosts) {
  Host host;
  const int64_t before = [&] {
    Chain chain(text_model(), params_of(0), host.desc(1));
    const int64_t without = host.live;
    {
      const Adapter adapter(chain.model, first.path());
      EXPECT_GE(host.live - without, static_cast<int64_t>(adapter.info().host_bytes));
      chain.session.set_adapter(&adapter);
    }
    EXPECT_GT(host.live.load(), without);  // the session has it
    chain.session.set_adapter(nullptr);
    return without;
  }();
  EXPECT_EQ(host.live, 0);
  auto desc = with_threads(1);
  desc.host_bytes_max = static_cast<uint64_t>(before) + 20'000;
  Chain tight(text_model(), params_of(0), desc);
  auto source = make<gptq_source>();
  const std::string path = first.path();
  source.path = path.c_str();
  source.path_size = path.size();
  gptq_adapter* out = nullptr;
  EXPECT_EQ(gptq_adapter_load(tight.model.get(), &source, &out, nullptr), GPTQ_E_BUDGET_EXCEEDED);
  EXPECT_EQ(out, nullptr);
}

// Each allocation of loading and attaching fails once: a status, nothing lost, and then it works.
TEST_F(Adapted, EveryAllocationMayFail) {
  Host host;
  Chain chain(text_model(), params_of(0), host.desc(1));
  auto source = make<gptq_source>();
  const std::string path = first.path();
  source.path = path.c_str();
  source.path_size = path.size();
  gptq_adapter* adapter = nullptr;
  for (uint64_t i = 0; !adapter; ++i) {
    const int64_t live = host.live;
    host.fail_at = host.allocations + i;
    const gptq_status status = gptq_adapter_load(chain.model.get(), &source, &adapter, nullptr);
    host.fail_at = UINT64_MAX;
    if (status == GPTQ_OK) break;
    ASSERT_EQ(status, GPTQ_E_OUT_OF_MEMORY);
    ASSERT_EQ(host.live, live);
    ASSERT_LT(i, 100'000u);
  }
  host.fail_at = host.allocations;
  EXPECT_EQ(gptq_session_set_adapter(chain.session.get(), adapter, 1, nullptr), GPTQ_E_OUT_OF_MEMORY);
  host.fail_at = UINT64_MAX;
  const Tokens plain = greedy(chain.engine, chain.session, some_tokens(20), 8);
  chain.session.truncate(0);
  check(gptq_session_set_adapter(chain.session.get(), adapter, 1, nullptr));
  gptq_adapter_release(adapter);
  const Tokens tokens = greedy(chain.engine, chain.session, some_tokens(20), 8);
  EXPECT_EQ(tokens, generate(c.session, &a, 1, 1, 8));
  EXPECT_NE(tokens, plain);
}

TEST_F(Adapted, NothingIsAllocatedMeanwhile) {
  Host host;
  auto params = params_of(0, 3);
  params.adapter_rank = 12;
  Chain chain(text_model(), params, host.desc(2));
  const Adapter x(chain.model, first.path()), y(chain.model, second.path());
  Session mate(chain.engine);
  chain.session.append(some_tokens(30)), mate.append(some_tokens(30, 2));
  const uint64_t host_before = host.calls, heap_before = heap_calls();
  chain.session.set_adapter(&x), mate.set_adapter(&y);
  chain.session.start(generation(30)), mate.start(generation(30));
  for (int i = 0; i < 40; ++i) check(gptq_engine_step(chain.engine.get(), 1, nullptr));
  mate.set_adapter(&x, 0.5f);
  for (int i = 0; i < 20; ++i) check(gptq_engine_step(chain.engine.get(), 1, nullptr));
  mate.set_adapter(nullptr);
  check(gptq_engine_step(chain.engine.get(), GPTQ_BUDGET_UNLIMITED, nullptr));
  EXPECT_EQ(host.calls, host_before);
  EXPECT_EQ(heap_calls(), heap_before);
}

// What adapter_rank reserves is told beforehand.
TEST_F(Adapted, EstimateCountsTheRoom) {
  auto source = make<gptq_source>();
  source.path = text_model().c_str();
  source.path_size = text_model().size();
  auto params = params_of(0);
  auto none = make<gptq_memory_estimate>(), some = none;
  check(gptq_model_estimate(c.runtime.get(), &source, nullptr, &params, &none, nullptr));
  params.adapter_rank = 12;
  check(gptq_model_estimate(c.runtime.get(), &source, nullptr, &params, &some, nullptr));
  EXPECT_EQ(some.host_scratch - none.host_scratch, 7u * 16 * 32 * sizeof(float));
}

// Whatever happens to the file: a status, or (a truncation that is none) the adapter.
TEST_F(Adapted, DamagedFilesAreFound) {
  const Bytes whole = read_bytes(first.path());
  const auto load = [&](const Bytes& bytes) {
    auto source = make<gptq_source>();
    source.data = bytes.data();
    source.data_size = bytes.size();
    gptq_adapter* out = nullptr;
    auto error = make<gptq_error>();
    const gptq_status status = gptq_adapter_load(c.model.get(), &source, &out, &error);
    EXPECT_EQ(status == GPTQ_OK, error.message[0] == 0);
    gptq_adapter_release(out);
    return status;
  };
  ASSERT_EQ(load(whole), GPTQ_OK);
  for (size_t size = 0; size < whole.size(); size += 1 + whole.size() / 300) EXPECT_LT(load(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size))), 0) << size;
  for (size_t at = 0; at < whole.size(); at += at < 4096 ? 1 : 97) {
    Bytes bytes = whole;
    bytes[at] ^= std::byte{0x10};
    EXPECT_LT(load(bytes), 0) << at;
  }
}

}  // namespace
}  // namespace gptq::test
