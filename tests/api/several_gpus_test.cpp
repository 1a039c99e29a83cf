// SPDX-License-Identifier: Apache-2.0
// Models on two and three GPUs, and with the CPU between: the bits are those of one GPU. The GPUs are emulated ones; the memory of one cannot be
// touched while another works, and what is read before it was sure to be written is an error.
#include <deque>
#include <numeric>

#include "tests/api/cuda_fixture.h"
#include "tests/api/lora_fixture.h"

namespace gptq::test {
namespace {

constexpr int32_t cpu = -1;

// Devices with their layers, in order.
struct Devices {
  struct Of {
    int32_t ordinal;
    uint32_t layers = 0;
    uint64_t bytes_max = 0;
  };
  Devices(std::initializer_list<Of> list) {
    for (const Of& of : list) {
      auto& share = shares.emplace_back(make<gptq_device_share>());
      share.kind = of.ordinal == cpu ? GPTQ_DEVICE_CPU : GPTQ_DEVICE_CUDA;
      share.ordinal = std::max(0, of.ordinal);
      share.layers = of.layers;
      share.bytes_max = of.bytes_max;
      pointers.push_back(&share);
    }
  }
  operator gptq_model_params() const {
    auto params = make<gptq_model_params>();
    params.devices = pointers.data();
    params.n_devices = pointers.size();
    return params;
  }
  std::deque<gptq_device_share> shares;
  std::vector<const gptq_device_share*> pointers;
};

class CudaSeveral : public testing::Test {
 protected:
  void SetUp() override {
    if (!backend()) GTEST_SKIP() << "GPTQ_EMULATED_CUDA names the emulated backend";
    if (!set_fault({.gpus = 3})) GTEST_SKIP() << "the GPUs are the emulator's";
    check(gptq_runtime_load_backend(runtime.get(), backend(), GPTQ_NTS, nullptr));
  }
  void TearDown() override {
    if (backend()) set_fault({});
  }
  // "" where it loads.
  std::string refusal(const gptq_model_params& params, gptq_status expected) {
    gptq_model* model = nullptr;
    auto error = make<gptq_error>();
    EXPECT_EQ(gptq_model_load(runtime.get(), text_model().c_str(), GPTQ_NTS, &params, &model, &error), expected) << error.message;
    gptq_model_release(model);
    return error.message;
  }
  // Where a model's layers are: "cuda:0 2, cpu 1".
  static std::string placed(const Model& model) {
    std::string text;
    auto placement = make<gptq_placement>();
    uint32_t next = 0;
    uint64_t on_gpus = 0;
    for (uint32_t i = 0; gptq_model_placement(model.get(), i, &placement) == GPTQ_OK; ++i) {
      EXPECT_EQ(placement.first_layer, next);
      EXPECT_GT(placement.bytes, 0u);
      next += placement.n_layers;
      if (placement.kind == GPTQ_DEVICE_CUDA) on_gpus += placement.bytes;
      text += i ? ", " : "";
      text += placement.kind == GPTQ_DEVICE_CUDA ? "cuda:" + std::to_string(placement.ordinal) : "cpu";
      text += " " + std::to_string(placement.n_layers);
    }
    EXPECT_EQ(next, model.info().n_layers);
    EXPECT_EQ(on_gpus, model.info().device_bytes);
    return text;
  }
  // What n sessions with prompts of different lengths generate together.
  Tokens together(const gptq_model_params& params, uint32_t n, uint32_t n_tokens, int32_t top_k = 1, uint32_t budget_us = GPTQ_BUDGET_UNLIMITED,
                  const std::string& path = text_model()) {
    const Model model(runtime, path, params);
    return generate_together(model, n, n_tokens, top_k, budget_us);
  }
  Runtime runtime{with_threads(1)};
};

const Devices two = {{0, 1}, {1, 2}}, other_two = {{2, 2}, {0, 1}}, three = {{0, 1}, {1, 1}, {2, 1}};

TEST_F(CudaSeveral, LogitsAreThoseOfOneGpu) {
  const Tokens ids = some_tokens(40);
  for (const std::string* path : {&text_model(), &dense_model()})
    for (const uint32_t flags : {0u, uint32_t{GPTQ_ENGINE_EXACT}}) {
      const bool dense = path == &dense_model();
      if (dense && flags) continue;
      const auto one = logits_of(runtime, *path, on_gpu(), flags, ids);
      for (const Devices* devices : {&two, &other_two, &three})
        for (const bool no_peers : {false, true}) {
          if (dense && (no_peers || devices == &three)) continue;
          set_fault({.gpus = 3, .no_peers = no_peers});
          const uint32_t before = state().copies_across;
          EXPECT_EQ(logits_of(runtime, *path, *devices, flags, ids), one);
          if (no_peers) EXPECT_EQ(state().copies_across, before);
          else EXPECT_GE(state().copies_across, before + 4 * (devices->shares.size() - 1));  // chunks of 12 rows
        }
    }
}

TEST_F(CudaSeveral, FamiliesGiveThoseOfOneGpu) {
  uint32_t cases = 0, run = 0;
  for (const std::string& folder : family_folders()) {
    if (const uint32_t n = cases++; n % 3 || is_left_out(n / 3, 4)) continue;
    gptq_model* model = nullptr;
    const auto params = on_gpu();
    const std::string& path = converted(folder);
    if (gptq_model_load(runtime.get(), path.c_str(), GPTQ_NTS, &params, &model, nullptr) != GPTQ_OK) continue;  // what a GPU cannot do
    gptq_model_release(model);
    Tokens ids = prompts_of(folder)[0].ids;
    ids.resize(std::min<size_t>(ids.size(), 13));
    EXPECT_EQ(logits_of(runtime, path, Devices{{0, 1}, {1, 100}}, 0, ids), logits_of(runtime, path, on_gpu(), 0, ids)) << folder;
    ++run;
  }
  EXPECT_GT(run, 0u);
}

// From the CPU to a GPU it is today's offload, the other way round the CPU's stage waits for the GPU's.
TEST_F(CudaSeveral, TheCpuMayBeAnywhere) {
  const Tokens ids = some_tokens(30);
  EXPECT_EQ(logits_of(runtime, text_model(), Devices{{cpu, 1}, {0, 1}, {1, 1}}, 0, ids), logits_of(runtime, text_model(), on_gpu(2), 0, ids));
  EXPECT_EQ(logits_of(runtime, text_model(), Devices{{0, 1}, {1, 1}}, 0, ids), logits_of(runtime, text_model(), on_gpu(2), 0, ids)) << "the CPU has the rest";
  const auto exact = logits_of(runtime, text_model(), make<gptq_model_params>(), GPTQ_ENGINE_EXACT, ids);
  for (const Devices& devices : {Devices{{0, 1}, {cpu, 1}, {1, 1}}, Devices{{0, 1}, {1, 1}, {cpu}}, Devices{{1, 1}, {cpu}}, Devices{{cpu, 2}, {2, 1}}})
    EXPECT_LT(worst(logits_of(runtime, text_model(), devices, GPTQ_ENGINE_EXACT, ids), exact), 2e-3);
}

// 9: layers are replayed by the next multiple of 8, with rows of the shortest added.
TEST_F(CudaSeveral, TokensAreThoseOfOneGpu) {
  for (const auto& [n, top_k] : {std::pair{1u, 1}, {3u, 5}, {2u, 1000}, {9u, 1}}) {
    SCOPED_TRACE(std::to_string(n) + " sessions, top_k " + std::to_string(top_k));
    const Tokens one = together(on_gpu(), n, 4, top_k);
    EXPECT_EQ(together(three, n, 4, top_k), one);
    EXPECT_EQ(together(three, n, 4, top_k, 1000000000), together(on_gpu(), n, 4, top_k, 1000000000)) << "in quanta";
    if (n < 4) {
      EXPECT_EQ(together(two, n, 4, top_k), one);
    }
  }
}

// Streams that work as late as they may show what does not wait for each other.
TEST_F(CudaSeveral, WorkThatIsDoneLateIsTheSame) {
  const Tokens ids = some_tokens(40), one = together(on_gpu(), 3, 4, 5);
  const auto logits = logits_of(runtime, text_model(), on_gpu(), 0, ids);
  for (const bool no_peers : {false, true}) {
    set_fault({.gpus = 3, .no_peers = no_peers, .late = 7});
    EXPECT_EQ(together(on_gpu(), 3, 4, 5), one);
    EXPECT_EQ(together(three, 3, 4, 5), one);
    EXPECT_EQ(together(three, 3, 4, 5, 1000000000), one);
    EXPECT_EQ(logits_of(runtime, text_model(), two, 0, ids), logits);
    EXPECT_EQ(together(Devices{{0, 1}, {cpu, 1}, {1, 1}}, 2, 3).size(), 6u);
  }
}

// While one GPU computes a part of a prompt the one before it has the next part.
TEST_F(CudaSeveral, PartsOfAPrefillFollowEachOther) {
  const auto tokens = [&](const gptq_model_params& where, bool prefill_first) {
    const Model model(runtime, text_model(), where);
    auto params = engine_of(0, 2);
    params.batch_tokens = 16;
    const Engine engine(model, params);
    Session a(engine), b(engine);
    for (const bool prefill : {true, false}) {
      if (prefill && !prefill_first) continue;
      for (Session* session : {&a, &b}) {
        session->append(some_tokens(session == &a ? 60 : 40, prefill ? 1 : 2));
        session->start(generation(prefill ? 0 : 2, prefill ? GPTQ_GEN_PREFILL_ONLY : GPTQ_GEN_IGNORE_EOS));
      }
      finish(engine);
    }
    Tokens all = a.read_tokens(), more = b.read_tokens();
    all.insert(all.end(), more.begin(), more.end());
    EXPECT_EQ(all.size(), 4u);
    return all;
  };
  for (const bool prefill_first : {false, true}) {
    set_fault({.gpus = 3, .late = 7});
    uint32_t before = state().overlaps;
    const Tokens one = tokens(on_gpu(), prefill_first);
    EXPECT_EQ(state().overlaps, before);
    for (const Devices* devices : {&two, &three})
      for (const auto& [late, no_peers] : {std::pair{7u, false}, {6u, false}, {6u, true}}) {  // 6: the first hurries
        if ((no_peers || late == 7) && (prefill_first || devices == &two)) continue;
        set_fault({.gpus = 3, .no_peers = no_peers, .late = late});
        before = state().overlaps;
        EXPECT_EQ(tokens(*devices, prefill_first), one);
        EXPECT_GT(state().overlaps, before + 20);
      }
  }
}

// What was counted before it was done does not count when it fails.
TEST_F(CudaSeveral, APartThatFailsIsComputedAgain) {
  const Tokens prompt = some_tokens(cases_here(240, 160));  // 3 parts, or 2
  const auto params = [] {
    auto params = engine_of(0, 2);
    params.batch_tokens = 80;
    return params;
  }();
  const Model on_one(runtime, dense_model(), on_gpu()), model(runtime, dense_model(), three);
  const Engine plain(on_one, params), engine(model, params);
  Session alone(plain), session(engine), prefilled(engine);
  const Tokens expected = greedy(plain, alone, prompt, 4);
  for (const uint32_t flags : {uint32_t{GPTQ_GEN_IGNORE_EOS}, uint32_t{GPTQ_GEN_PREFILL_ONLY}}) {
    session.truncate(0);
    session.append(prompt);
    session.start(generation(4, flags));
    set_fault({.library_status = 13, .gpus = 3});
    EXPECT_EQ(gptq_engine_step(engine.get(), GPTQ_BUDGET_UNLIMITED, nullptr), GPTQ_E_BACKEND);
    EXPECT_EQ(session.info().status, GPTQ_E_BACKEND);
    set_fault({.gpus = 3});
    EXPECT_EQ(continue_with(engine, session, 4), expected);
  }
}

// Decoding is one graph a token on each.
TEST_F(CudaSeveral, TokensAreReplayedWhole) {
  const Model model(runtime, text_model(), three);
  const Engine engine(model, engine_of(0));
  Session session(engine);
  const uint32_t before = state().replays;
  greedy(engine, session, some_tokens(5), 12);
  EXPECT_EQ(state().replays - before, 3 * 11u);
}

// A busy GPU is looked at until the budget is over, wherever the batch stands.
TEST_F(CudaSeveral, BudgetsHoldAcrossDevices) {
  for (const Devices& devices : {two, three, Devices{{0, 1}, {cpu, 1}, {1, 1}}}) {
    const Tokens expected = together(devices, 2, 4);
    set_fault({.polls = 300, .gpus = 3});
    const Model model(runtime, text_model(), devices);
    Engine engine(model, engine_of(0, 2));
    Session a(engine), b(engine);
    a.append(some_tokens(1, 1));
    b.append(some_tokens(2, 2));
    a.start(generation(4));
    b.start(generation(4));
    int steps = 0;
    while (engine.step(1) == GPTQ_MORE) ++steps;
    EXPECT_GT(steps, 100);
    Tokens tokens = a.read_tokens(), more = b.read_tokens();
    tokens.insert(tokens.end(), more.begin(), more.end());
    EXPECT_EQ(tokens, expected);
    set_fault({.gpus = 3});
  }
}

// A batch is given up in the middle of its way; what comes next is not mixed with it.
TEST_F(CudaSeveral, CancelledInTheMiddleLeavesTheOthers) {
  const Model model(runtime, text_model(), three);
  Engine engine(model, engine_of(GPTQ_ENGINE_EXACT, 3));
  Session alone(engine);
  const Tokens expected = greedy(engine, alone, some_tokens(20, 2), 4);
  for (int quanta = 1; quanta < 5; ++quanta) {
    Session stays(engine), goes(engine);
    goes.append(some_tokens(9, 3));
    goes.start(generation(6));
    stays.append(some_tokens(20, 2));
    stays.start(generation(4));
    for (int i = 0; i < quanta; ++i) engine.step(1);
    gptq_session_cancel(goes.get());
    finish(engine);
    EXPECT_EQ(stays.read_tokens(), expected) << quanta;
  }
}

TEST_F(CudaSeveral, ForksGoOnAsTheOriginal) {
  const auto tokens = [&](const gptq_model_params& params) {
    const Model model(runtime, text_model(), params);
    auto p = engine_of(0, 3);
    p.page_tokens = 16;
    const Engine engine(model, p);
    Session session(engine);
    Tokens all = greedy(engine, session, some_tokens(21), 6);
    Session fork = session.fork(), other = session.fork();
    const Tokens more = continue_with(engine, session, 5);
    EXPECT_EQ(continue_with(engine, fork, 5), more);
    other.append(some_tokens(3, 9));
    other.start(generation(4));
    finish(engine);
    all.insert(all.end(), more.begin(), more.end());
    for (const int32_t token : other.read_tokens()) all.push_back(token);
    return all;
  };
  const Tokens one = tokens(on_gpu());
  EXPECT_EQ(tokens(two), one);
  EXPECT_EQ(tokens(three), one);
}

TEST_F(CudaSeveral, SavesGoOn) {
  const Model model(runtime, text_model(), three), on_one(runtime, text_model(), on_gpu());
  const Engine engine(model, engine_of(GPTQ_ENGINE_EXACT, 2)), other(on_one, engine_of(GPTQ_ENGINE_EXACT, 2));
  Session session(engine);
  greedy(engine, session, some_tokens(20), 6);
  const std::string saved = session.save();
  const Tokens expected = continue_with(engine, session, 5);
  for (const Engine* where : {&engine, &other}) {
    Session restored(*where, saved);
    EXPECT_EQ(continue_with(*where, restored, 5), expected);
  }
}

// Whatever was in the pages before stays out of a save, so that it is the same bytes from any number of GPUs.
TEST_F(CudaSeveral, FullSavesGoOnAnywhere) {
  for (const auto& [kv, n] : {std::pair<int32_t, uint32_t>{GPTQ_KV_F16, 36}, {GPTQ_KV_I8, 22}, {GPTQ_KV_I8, 39}}) {
    SCOPED_TRACE(std::to_string(n) + " tokens, kv " + std::to_string(kv));
    auto params = engine_of(0, 2);
    params.kv_type = kv;
    params.page_tokens = 32;
    std::string first;
    Tokens expected;
    for (const gptq_model_params& where : {on_gpu(), gptq_model_params(three)}) {
      const Model model(runtime, text_model(), where);
      const Engine engine(model, params);
      Session session(engine);
      if (!first.empty()) greedy(engine, session, some_tokens(50, 7), 1);
      session.truncate(0);
      greedy(engine, session, some_tokens(n - 3), 3);
      const std::string saved = session.save(GPTQ_SAVE_FULL);
      if (first.empty()) {
        first = saved;
        expected = continue_with(engine, session, 4);
      }
      const size_t head = session.save(GPTQ_SAVE_REPLAY).size();  // which has times
      EXPECT_TRUE(saved.substr(head) == first.substr(head)) << "the rows";
      bool exact = false;
      Session restored(engine, first, &exact);
      EXPECT_TRUE(exact);
      EXPECT_TRUE(restored.save(GPTQ_SAVE_FULL) == first);
      EXPECT_EQ(continue_with(engine, restored, 4), expected);
    }
  }
}

TEST_F(CudaSeveral, SpeculationGivesThoseOfOneGpu) {
  const auto tokens = [&](const gptq_model_params& params, uint32_t flags) {
    const Model model(runtime, text_model(), params);
    const Engine engine(model, engine_of(GPTQ_ENGINE_EXACT));
    Session session(engine);
    Tokens ids = some_tokens(12);
    for (int i = 0; i < 2; ++i) ids.insert(ids.end(), ids.begin(), ids.begin() + 12);
    session.append(ids);
    session.start(generation(24, GPTQ_GEN_IGNORE_EOS | flags));
    finish(engine);
    return session.read_tokens();
  };
  const Tokens plain = tokens(on_gpu(), 0);
  EXPECT_EQ(tokens(three, 0), plain);
  EXPECT_EQ(tokens(three, GPTQ_GEN_SPECULATE), plain);
}

TEST_F(CudaSeveral, AdaptersAreRefusedByName) {
  const Lora lora(text_model());
  for (const Devices& devices : {three, Devices{{0, 1}, {cpu}}}) {
    const Model model(runtime, text_model(), devices);
    const Adapter adapter(model, lora.path());
    const Engine engine(model);
    Session session(engine);
    auto error = make<gptq_error>();
    EXPECT_EQ(gptq_session_set_adapter(session.get(), adapter.get(), 1, &error), GPTQ_E_UNSUPPORTED);
  }
}

TEST_F(CudaSeveral, OneThatIsLostMidwayGivesItsStatus) {
  for (uint32_t gpu = 0; gpu < 3; ++gpu)
    for (const bool in_quanta : {false, true}) {
      const Model model(runtime, text_model(), three);
      Engine engine(model, engine_of(0, 2));
      Session session(engine), done(engine);
      const Tokens before = greedy(engine, done, some_tokens(4), 3);
      session.append(some_tokens(5));
      session.start(generation(30));
      for (int i = 0; in_quanta && i < 8; ++i) engine.step(1);
      set_fault({.gpus = 3, .lost_gpus = 1u << gpu});
      gptq_status status = GPTQ_MORE;
      for (int i = 0; i < 8 && status == GPTQ_MORE; ++i) status = gptq_engine_step(engine.get(), in_quanta ? 1 : GPTQ_BUDGET_UNLIMITED, nullptr);
      EXPECT_EQ(status, GPTQ_E_DEVICE_LOST) << gpu;
      EXPECT_EQ(session.info().status, GPTQ_E_DEVICE_LOST);
      EXPECT_EQ(session.info().state, GPTQ_SESSION_IDLE);
      EXPECT_EQ(done.info().status, GPTQ_OK);
      session.start(generation(3));
      EXPECT_EQ(gptq_engine_step(engine.get(), GPTQ_BUDGET_UNLIMITED, nullptr), GPTQ_E_DEVICE_LOST) << "it stays so";
      const Model on_cpu(runtime, text_model());
      const Engine other(on_cpu, engine_of(0));
      Session on(other);
      EXPECT_EQ(greedy(other, on, some_tokens(5), 3).size(), 3u);
      set_fault({.gpus = 3});
    }
}

TEST_F(CudaSeveral, LayersAreSplitByFreeMemory) {
  EXPECT_EQ(placed(Model(runtime, text_model(), Devices{{0}, {1}, {2}})), "cuda:0 1, cuda:1 1, cuda:2 1");
  EXPECT_EQ(placed(Model(runtime, text_model(), Devices{{0}, {1, 1}})), "cuda:0 2, cuda:1 1");
  EXPECT_EQ(placed(Model(runtime, text_model(), Devices{{2}})), "cuda:2 3");
  EXPECT_EQ(placed(Model(runtime, text_model(), Devices{{1}, {0, 0, 1 << 20}})), "cuda:1 3") << "a mebibyte is not enough for a layer";
  EXPECT_EQ(placed(Model(runtime, text_model(), Devices{{1}, {0, UINT32_MAX}})), "cuda:1 3");
  EXPECT_EQ(placed(Model(runtime, text_model(), Devices{{1, 1, 0}, {cpu}, {0, 0, 1 << 20}})), "cuda:1 1, cpu 2");
  EXPECT_EQ(placed(Model(runtime, text_model(), Devices{{cpu}, {0}})), "cuda:0 3") << "all that fit";
  EXPECT_EQ(placed(Model(runtime, text_model(), Devices{{cpu, 2}, {1}, {0}})), "cpu 2, cuda:0 1");
  EXPECT_EQ(placed(Model(runtime, text_model(), Devices{{cpu}})), "cpu 3");
  EXPECT_EQ(placed(Model(runtime, text_model(), Devices{{0}, {1}})), "cuda:0 1, cuda:1 2") << "the first has the embedding too";
  set_fault({.gpus = 3, .bytes = {1u << 30, 600u << 20}});
  EXPECT_EQ(placed(Model(runtime, text_model(), Devices{{0}, {1}})), "cuda:0 2, cuda:1 1");
  Devices by_uuid{{0}, {1}};
  by_uuid.shares[0].uuid[0] = 0xE2;  // the emulator's third
  EXPECT_EQ(placed(Model(runtime, text_model(), by_uuid)), "cuda:2 2, cuda:1 1") << "1 has less";
}

TEST_F(CudaSeveral, WhatCannotBeIsRefusedWithFigures) {
  const uint64_t before = state().bytes;
  EXPECT_NE(refusal(Devices{{0}, {7}}, GPTQ_E_NOT_FOUND).find("cuda:7"), std::string::npos);
  Devices unknown{{0}, {1}};
  unknown.shares[1].uuid[3] = 9;
  EXPECT_NE(refusal(unknown, GPTQ_E_NOT_FOUND).find("UUID"), std::string::npos);
  EXPECT_NE(refusal(Devices{{0}, {0}}, GPTQ_E_INVALID_ARGUMENT).find("twice"), std::string::npos);
  EXPECT_NE(refusal(Devices{{cpu}, {cpu}}, GPTQ_E_INVALID_ARGUMENT).find("twice"), std::string::npos);
  gptq_model_params both = two;
  both.device_kind = GPTQ_DEVICE_CUDA;
  refusal(both, GPTQ_E_INVALID_ARGUMENT);
  Devices kind{{0}};
  kind.shares[0].kind = 9;
  refusal(kind, GPTQ_E_INVALID_ARGUMENT);
  const std::string limit = refusal(Devices{{0, 1}, {1, 2, 4096}}, GPTQ_E_BUDGET_EXCEEDED);
  EXPECT_NE(limit.find("cuda:1: 2 layers take "), std::string::npos) << limit;
  EXPECT_NE(limit.find("4096"), std::string::npos) << limit;
  set_fault({.gpus = 3, .bytes = {0, 8192}});
  const std::string free = refusal(Devices{{0, 1}, {1, 2}}, GPTQ_E_OUT_OF_DEVICE_MEMORY);
  EXPECT_NE(free.find("8192 are free"), std::string::npos) << free;
  const std::string room = refusal(Devices{{0, 1}, {1}, {cpu, UINT32_MAX}}, GPTQ_E_OUT_OF_DEVICE_MEMORY);
  EXPECT_NE(room.find("room for 1 of 3 layers"), std::string::npos) << room;
  EXPECT_EQ(state().bytes, before);
  EXPECT_EQ(state().streams, 0u);
}

TEST_F(CudaSeveral, EstimatesAddUp) {
  const uint64_t before = state().bytes;
  {
    const gptq_model_params params = three;
    const Model model(runtime, text_model(), params);
    auto source = make<gptq_source>();
    source.path = text_model().c_str();
    source.path_size = GPTQ_NTS;
    auto estimate = make<gptq_memory_estimate>();
    const auto engine_params = engine_of(0);
    check(gptq_model_estimate(runtime.get(), &source, &params, &engine_params, &estimate, nullptr));
    EXPECT_EQ(estimate.device_weights, model.info().device_bytes);
    EXPECT_EQ(estimate.device_layers, 3u);
    EXPECT_TRUE(estimate.fits);
    const Engine engine(model, engine_params);
    auto memory = make<gptq_memory_info>();
    check(gptq_engine_memory(engine.get(), &memory));
    EXPECT_EQ(memory.device_bytes, estimate.device_weights + estimate.device_kv + estimate.device_scratch);
    EXPECT_EQ(memory.device_bytes, state().bytes - before);
    for (const uint64_t of : state().bytes_of) EXPECT_LT(of, state().bytes);
    set_fault({.gpus = 3, .bytes = {0, state().bytes_of[1] + (64u << 10)}});
    check(gptq_model_estimate(runtime.get(), &source, &params, &engine_params, &estimate, nullptr));
    EXPECT_FALSE(estimate.fits) << "the second GPU has no room for another";
  }
  EXPECT_EQ(state().bytes, before);
}

TEST_F(CudaSeveral, AHostsStreamIsOfOneGpu) {
  EmulatedHostStream stream{1};
  gptq_ext_cuda_stream extension{};
  extension.ext.type = GPTQ_EXT_CUDA_STREAM;
  extension.ext.struct_size = sizeof extension;
  extension.stream = &stream;
  auto params = engine_of(0);
  params.next = &extension.ext;
  const Model model(runtime, text_model(), two);
  gptq_engine* engine = nullptr;
  EXPECT_EQ(gptq_engine_create(model.get(), &params, &engine, nullptr), GPTQ_E_UNSUPPORTED);
}

TEST_F(CudaSeveral, StepsAllocateNothing) {
  Host host;
  const Runtime counted(host.desc());
  check(gptq_runtime_load_backend(counted.get(), backend(), GPTQ_NTS, nullptr));
  const Model model(counted, text_model(), Devices{{0, 1}, {cpu, 1}, {1, 1}});
  const Engine engine(model, engine_of(0, 2));
  Session session(engine);
  greedy(engine, session, some_tokens(5), 3);
  session.start(generation(20));
  const uint64_t before = host.calls;
  finish(engine);
  EXPECT_EQ(host.calls, before);
  EXPECT_EQ(session.read_tokens().size(), 20u);
}

}  // namespace
}  // namespace gptq::test
