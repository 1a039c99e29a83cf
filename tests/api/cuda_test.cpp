// SPDX-License-Identifier: Apache-2.0
// The promises of the C API with layers on a GPU: the one of the backend that GPTQ_CUDA_BACKEND names, otherwise the emulated one, which runs the
// CUDA kernels on the CPU and fails when told to.
#include <algorithm>

#include "tests/api/cuda_fixture.h"
#include "tests/api/lora_fixture.h"

namespace gptq::test {
namespace {

// What a family's models have that the GPU cannot do; NULL: nothing.
const char* gpu_lacks(const std::string& name) {
  const auto any = [&](std::initializer_list<std::string_view> parts) {
    return std::any_of(parts.begin(), parts.end(), [&](std::string_view part) { return name.find(part) != name.npos; });
  };
  if (any({"qwen3-next", "qwen3-5"})) return "a gated delta rule";
  if (any({"lfm2"})) return "short convolutions";
  if (any({"deepseek", "minicpm3", "glm4-moe-lite"})) return "latent attention";
  if (any({"moe", "mixtral", "dots1", "gpt-oss", "llama4", "minimax-m2"})) return "a mixture of experts";
  return nullptr;
}

// Every family runs as on the CPU, or is refused by name.
TEST_F(Cuda, FamiliesAreThoseOfTheCpuOrRefusedByName) {
  uint32_t cases = 0, run = 0, refused = 0;
  double largest = 0;
  for (const std::string& folder : family_folders()) {
    const std::string name = name_of(folder);
    if (is_left_out(cases++, 4)) continue;
    const std::string& path = converted(folder);
    if (const char* lack = gpu_lacks(name)) {
      auto error = make<gptq_error>();
      gptq_model* model = nullptr;
      const auto params = on_gpu();
      EXPECT_EQ(gptq_model_load(runtime.get(), path.data(), path.size(), &params, &model, &error), GPTQ_E_UNSUPPORTED) << name;
      EXPECT_NE(std::string_view(error.message).find(std::string("on a GPU a model with ") + lack), std::string_view::npos)
          << name << ": " << error.message;
      EXPECT_EQ(gptq_model_load(runtime.get(), path.data(), path.size(), nullptr, &model, &error), GPTQ_OK) << "on the CPU it works";
      gptq_model_release(model);
      ++refused;
      continue;
    }
    Tokens ids = prompts_of(folder)[0].ids;
    ids.resize(std::min<size_t>(ids.size(), 13));  // 12 rows, then one
    const auto cpu = logits_of(runtime, path, make<gptq_model_params>(), GPTQ_ENGINE_EXACT, ids);
    for (const uint32_t layers : {1000u, 1u}) {
      const double error = worst(logits_of(runtime, path, on_gpu(layers), GPTQ_ENGINE_EXACT, ids), cpu);
      EXPECT_LT(error, 2e-3) << name << ", " << layers << " layers on the GPU";
      largest = std::max(largest, error);
    }
    ++run;
  }
  RecordProperty("families_run", std::to_string(run));
  RecordProperty("families_refused", std::to_string(refused));
  RecordProperty("largest_error", std::to_string(largest));
  EXPECT_GT(run + refused, 0u);
}

TEST_F(Cuda, AdaptersAreRefusedByName) {
  const Lora lora(text_model());
  for (const uint32_t layers : {1000u, 1u}) {
    const Model model(runtime, text_model(), on_gpu(layers));
    const Adapter adapter(model, lora.path());
    const Engine engine(model);
    Session session(engine);
    auto error = make<gptq_error>();
    EXPECT_EQ(gptq_session_set_adapter(session.get(), adapter.get(), 1, &error), GPTQ_E_UNSUPPORTED);
    EXPECT_NE(std::string_view(error.message).find("on the CPU"), std::string_view::npos) << error.message;
  }
}

TEST_F(Cuda, DeviceIsDescribed) {
  auto info = make<gptq_device_info>();
  check(gptq_runtime_device(runtime.get(), 0, &info, nullptr));
  if (emulated) EXPECT_STREQ(info.name, "emulated"); else EXPECT_STRNE(info.name, "");
  EXPECT_EQ(info.kind, GPTQ_DEVICE_CUDA);
  if (emulated) EXPECT_EQ(info.capability, 80u); else EXPECT_GE(info.capability, 75u);
  EXPECT_EQ(gptq_runtime_device(runtime.get(), emulated ? 1 : 1000, &info, nullptr), GPTQ_E_NOT_FOUND);
}

TEST_F(Cuda, LogitsAreThoseOfTheCpu) {
  uint32_t cases = 0;
  for (const std::string& folder : checkpoint_folders()) {
    if (name_of(folder).find("random") != 0 || is_left_out(cases++, 4)) continue;
    const std::string& path = converted(folder);
    Tokens ids = prompts_of(folder)[0].ids;
    ids.resize(std::min<size_t>(ids.size(), 16));
    const auto cpu = logits_of(runtime, path, make<gptq_model_params>(), GPTQ_ENGINE_EXACT, ids);
    EXPECT_LT(worst(logits_of(runtime, path, on_gpu(), GPTQ_ENGINE_EXACT, ids), cpu), 2e-3) << folder;
    EXPECT_LT(worst(logits_of(runtime, path, on_gpu(1), GPTQ_ENGINE_EXACT, ids), cpu), 2e-3) << folder;
    EXPECT_LT(worst(logits_of(runtime, path, on_gpu(), 0, ids), cpu), 1e-2) << folder;
  }
}

TEST_F(Cuda, EmbeddingsAreThoseOfTheCpu) {
  for (const int32_t pooling : {GPTQ_POOL_LAST, GPTQ_POOL_MEAN})
    for (const uint32_t layers : {1000u, 2u}) {
      const auto vector = [&](const gptq_model_params& params) {
        const Model model(runtime, text_model(), params);
        const Engine engine(model, engine_of(GPTQ_ENGINE_EXACT, 2));
        return engine.embed({"the knight", "rather a long text beside it, of some more letters"}, pooling);
      };
      const auto is = vector(on_gpu(layers)), should = vector(make<gptq_model_params>());
      for (size_t i = 0; i < is.size(); ++i) EXPECT_LT(worst(is[i], should[i]), 1e-3) << pooling << " " << layers;
    }
}

TEST_F(Cuda, ManyRowsGoThroughTheLibrary) {
  const Tokens ids = some_tokens(140);
  const auto cpu = logits_of(runtime, dense_model(), make<gptq_model_params>(), GPTQ_ENGINE_EXACT, ids, 140);
  const uint32_t before = state().library_products;
  const auto with = logits_of(runtime, dense_model(), on_gpu(), 0, ids, 140);
  EXPECT_LT(worst(with, cpu), 1e-2);
  if (!emulated) return;
  const uint32_t done = state().library_products;
  EXPECT_GE(done - before, 21u);  // seven in each layer
#ifndef GPTQ_SANITIZED
  EXPECT_EQ(with, logits_of(runtime, dense_model(), on_gpu(), 0, ids, 140)) << "two runs differ";
  logits_of(runtime, dense_model(), on_gpu(), GPTQ_ENGINE_EXACT, ids, 140);
  EXPECT_EQ(state().library_products - done, done - before) << "exact mode is not the library's";
  set_fault({.no_library = true});
  EXPECT_LT(worst(logits_of(runtime, dense_model(), on_gpu(), 0, ids, 140), cpu), 1e-2);
  EXPECT_EQ(state().library_products - done, done - before);
#endif
}

TEST_F(Cuda, LibraryThatFailsIsReported) {
  if (!emulated) GTEST_SKIP() << "cuBLASLt does not fail on demand";
  const Model model(runtime, dense_model(), on_gpu());
  const Engine engine(model, engine_of(0));
  Session session(engine);
  session.append(some_tokens(140));
  session.start(generation(3));
  set_fault({.library_status = 13});
  EXPECT_EQ(gptq_engine_step(engine.get(), GPTQ_BUDGET_UNLIMITED, nullptr), GPTQ_E_BACKEND);
  EXPECT_EQ(session.info().status, GPTQ_E_BACKEND);
  set_fault({});
  session.start(generation(3));
  finish(engine);
  EXPECT_EQ(session.read_tokens().size(), 3u);
}

// int8 codes of keys and values that differ in their last bit may differ by one.
TEST_F(Cuda, KvCacheOfBytesGivesWhatItGivesOnTheCpu) {
  uint32_t cases = 0;
  for (const std::string& folder : checkpoint_folders()) {
    if (name_of(folder).find("random") != 0 || is_left_out(cases++, 4)) continue;
    Tokens ids = prompts_of(folder)[0].ids;
    ids.resize(std::min<size_t>(ids.size(), 40));
    const std::string& path = converted(folder);
    const auto cpu = logits_of(runtime, path, make<gptq_model_params>(), GPTQ_ENGINE_EXACT, ids, 12, GPTQ_KV_I8);
    const auto gpu = logits_of(runtime, path, on_gpu(), GPTQ_ENGINE_EXACT, ids, 12, GPTQ_KV_I8);
    EXPECT_LT(worst(gpu, cpu), 5e-3) << folder;
    EXPECT_NE(gpu, logits_of(runtime, path, on_gpu(), GPTQ_ENGINE_EXACT, ids)) << folder;
    EXPECT_LT(worst(logits_of(runtime, path, on_gpu(1), GPTQ_ENGINE_EXACT, ids, 12, GPTQ_KV_I8), cpu), 5e-3) << folder;
  }
  const Model model(runtime, text_model(), on_gpu());
  auto params = engine_of(0);
  for (const int32_t kv : {GPTQ_KV_F32 + 0, GPTQ_KV_I4 + 0, GPTQ_KV_F16 | GPTQ_KV_VALUES_I8}) {
    params.kv_type = kv;
    gptq_engine* refused = nullptr;
    EXPECT_EQ(gptq_engine_create(model.get(), &params, &refused, nullptr), GPTQ_E_UNSUPPORTED) << kv;
  }
}

// The GPU gives its best logits alone, or, where logits are asked for, all of them: the tokens are the same.
TEST_F(Cuda, SamplingFromTheBestIsSamplingFromAll) {
  const Model model(runtime, text_model(), on_gpu());
  auto engine_params = engine_of(GPTQ_ENGINE_EXACT, 2);
  engine_params.logits_rows = 16;
  const Engine engine(model, engine_params);
  const auto generated = [&](const gptq_sampling& sampling, uint32_t flags) {
    Session session(engine), greedy(engine);
    greedy.append(some_tokens(2));
    greedy.start(generation(sampling.seed == 1 ? 8 : 0, GPTQ_GEN_IGNORE_EOS | (sampling.seed == 1 ? 0 : GPTQ_GEN_PREFILL_ONLY)));
    session.append(some_tokens(4));
    auto params = generation(8, GPTQ_GEN_IGNORE_EOS | flags);
    params.sampling = &sampling;
    session.start(params);
    finish(engine);
    Tokens both = session.read_tokens(), others = greedy.read_tokens();
    both.insert(both.end(), others.begin(), others.end());
    return both;
  };
  uint32_t cases = 0;
  for (const int32_t top_k : {5, 256, 300})
    for (uint64_t seed = 1; seed <= 3; ++seed) {
      if (is_left_out(cases++, 4)) continue;
      auto sampling = make<gptq_sampling>();
      sampling.temperature = 1.5f;
      sampling.top_k = top_k;
      sampling.top_p = seed == 2 ? 0.7f : 0;
      sampling.min_p = seed == 3 ? 0.1f : 0;
      sampling.seed = seed;
      EXPECT_EQ(generated(sampling, 0), generated(sampling, GPTQ_GEN_LOGITS)) << top_k << ' ' << seed;
    }
}

TEST_F(Cuda, ProgressRisesToTheEnd) {
  for (const std::string& folder : checkpoint_folders()) {
    if (name_of(folder).find("random") != 0) continue;
    for (const uint32_t layers : {1u, 1000u}) {
      uint32_t last = 0;
      auto params = on_gpu(layers);
      params.progress_user = &last;
      params.progress = [](void* user, uint32_t, uint32_t permille) -> int32_t {
        EXPECT_GE(permille, *static_cast<uint32_t*>(user));
        *static_cast<uint32_t*>(user) = permille;
        return 0;
      };
      const Model model(runtime, converted(folder), params);
      EXPECT_EQ(last, 1000u) << folder;
    }
  }
}

TEST_F(Cuda, ReplayedDecodingGivesWhatPrefillGives) {
  const Model model(runtime, text_model(), on_gpu());
  const Engine engine(model, engine_of(GPTQ_ENGINE_EXACT, 2));
  Session one(engine), two(engine);
  const uint32_t before = state().replays;
  const Tokens generated = greedy(engine, one, some_tokens(5), 12);
  if (emulated) {
    EXPECT_EQ(state().replays - before, 11u) << "a graph a token";
  }
  Tokens all = some_tokens(5);
  all.insert(all.end(), generated.begin(), generated.end() - 1);
  EXPECT_EQ(greedy(engine, two, all, 1).front(), generated.back());
}

// With a budget a token is several graphs; without one it is one, whatever is sampled from.
TEST_F(Cuda, TokensAreTheSameWholeAndInQuanta) {
  const Model model(runtime, text_model(), on_gpu());
  for (const uint32_t top_k : {1u, 5u, 1000u}) {
    SCOPED_TRACE(top_k);
    const uint32_t n_sessions = top_k == 1 ? 12 : 3, n_tokens = 5;  // 12: more than are replayed in quanta
    const auto tokens = [&](uint32_t budget_us) { return generate_together(model, n_sessions, n_tokens, static_cast<int32_t>(top_k), budget_us); };
    const uint32_t before = state().replays;
    const Tokens whole = tokens(GPTQ_BUDGET_UNLIMITED);
    EXPECT_EQ(whole.size(), n_sessions * n_tokens);
    if (emulated) {
      EXPECT_GE(state().replays - before, n_tokens - 1);
      EXPECT_LE(state().replays - before, n_tokens);  // the first may be no prompt's but a single token's as well
    }
    EXPECT_EQ(tokens(1000000000), whole);  // a budget that sanitizers do not use up either: a batch that is cut has other bits
  }
}

// What sessions generate together is what each generates alone. Returns how often something was replayed while they were together.
template <class Prompt>
uint32_t expect_as_alone(const Engine& engine, uint32_t n, uint32_t n_tokens, Prompt prompt) {
  std::vector<Tokens> alone;
  for (uint32_t i = 0; i < n; ++i) {
    Session session(engine);
    alone.push_back(greedy(engine, session, prompt(i), n_tokens));
  }
  std::vector<Session> sessions;
  for (uint32_t i = 0; i < n; ++i) {
    sessions.emplace_back(engine);
    sessions.back().append(prompt(i));
    sessions.back().start(generation(n_tokens));
  }
  const uint32_t before = state().replays;
  finish(engine);
  const uint32_t replays = state().replays - before;
  for (uint32_t i = 0; i < n; ++i) EXPECT_EQ(sessions[i].read_tokens(), alone[i]) << i;
  return replays;
}

TEST_F(Cuda, SessionsTogetherGiveWhatTheyGiveAlone) {
  const Model model(runtime, text_model(), on_gpu());
  const Engine engine(model, engine_of(GPTQ_ENGINE_EXACT, 3));
  expect_as_alone(engine, 3, 6, [](uint32_t i) { return some_tokens(3 + 20 * i, i + 1); });
}

// From 9 on their layers are replayed by the next multiple of 8, with rows of the shortest added.
TEST_F(Cuda, ManySessionsTogetherAreReplayed) {
  constexpr uint32_t n = 9, n_tokens = 3;
  const Model model(runtime, text_model(), on_gpu());
  const Engine engine(model, engine_of(GPTQ_ENGINE_EXACT, n));
  const uint32_t replays = expect_as_alone(engine, n, n_tokens, [](uint32_t i) { return some_tokens(2 + i, i + 1); });
  EXPECT_EQ(replays, emulated ? n_tokens - 1 : 0);  // a quantum of layers for every token behind the prompts
}

// So are those of a family whose embedding is scaled, the added rows' too.
TEST_F(Cuda, ManySessionsOfAScaledEmbeddingAreReplayed) {
  constexpr uint32_t n = 9, n_tokens = 3;
  const auto folders = family_folders();
  const auto gemma = std::find_if(folders.begin(), folders.end(), [](const std::string& folder) { return name_of(folder).find("gemma") != std::string::npos; });
  if (gemma == folders.end()) GTEST_SKIP() << "the project's own families have none";
  const Model model(runtime, converted(*gemma), on_gpu());
  const Engine engine(model, engine_of(GPTQ_ENGINE_EXACT, n));
  const auto prompt = [&](uint32_t i) {
    Tokens ids = some_tokens(2 + i, i + 1);
    for (int32_t& id : ids) id %= static_cast<int32_t>(model.info().n_vocab);
    return ids;
  };
  expect_as_alone(engine, n, n_tokens, prompt);
}

TEST_F(Cuda, StepNeverWaitsForABusyGpu) {
  if (!emulated) GTEST_SKIP() << "a real GPU is not busy on demand";
  const Model model(runtime, text_model(), on_gpu());
  Engine engine(model, engine_of(0));
  Session session(engine);
  session.append(some_tokens(5));
  session.start(generation(3));
  set_fault({.polls = 1000});
  int steps = 0;
  while (engine.step(1) == GPTQ_MORE) ++steps;
  EXPECT_GT(steps, 100);
  EXPECT_EQ(session.read_tokens().size(), 3u);
}

TEST_F(Cuda, LostDeviceEndsSessionsAndLeavesTheCpu) {
  if (!emulated) GTEST_SKIP() << "a real GPU is not lost on demand";
  const Model model(runtime, text_model(), on_gpu());
  Engine engine(model, engine_of(0));
  Session session(engine);
  session.append(some_tokens(5));
  session.start(generation(3));
  set_fault({.lost = true});
  EXPECT_EQ(gptq_engine_step(engine.get(), GPTQ_BUDGET_UNLIMITED, nullptr), GPTQ_E_DEVICE_LOST);
  EXPECT_EQ(session.info().state, GPTQ_SESSION_IDLE);
  EXPECT_EQ(session.info().status, GPTQ_E_DEVICE_LOST);
  const Model on_cpu(runtime, text_model());
  const Engine cpu(on_cpu, engine_of(0));
  Session other(cpu);
  EXPECT_EQ(greedy(cpu, other, some_tokens(5), 3).size(), 3u);
}

// A draft model here or there; that its GPU is lost ends nobody's generation.
TEST_F(Cuda, DraftModelsGiveTheSameTokens) {
  const auto cpu = make<gptq_model_params>();
  const auto tokens = [&](const gptq_model_params& place, const gptq_model_params* draft_place, uint32_t n = 7, bool lost = false) {
    const Model model(runtime, text_model(), place);
    Engine engine(model, engine_of(GPTQ_ENGINE_EXACT, 2));
    std::optional<Model> draft;
    if (draft_place) engine.set_draft(&draft.emplace(runtime, text_model(), *draft_place));
    Session sessions[] = {Session(engine), Session(engine)};
    for (Session& s : sessions) {
      s.append(some_tokens(&s == sessions ? 12 : 9));
      s.start(generation(n, GPTQ_GEN_IGNORE_EOS | (draft_place ? GPTQ_GEN_SPECULATE : 0)));
    }
    if (lost) {
      while (sessions[0].info().n_generated < 10) engine.step(1000);
      set_fault({.lost = true});
    }
    finish(engine);
    Tokens all;
    for (Session& s : sessions) {
      EXPECT_EQ(s.info().status, GPTQ_OK);
      if (draft_place && !lost) {
        EXPECT_GT(s.info().n_guessed_right, 0u);
      }
      for (const gptq_token token : s.read_tokens()) all.push_back(token);
    }
    set_fault({});
    return all;
  };
  const auto gpu = on_gpu();
  const Tokens here = tokens(cpu, nullptr), there = tokens(gpu, nullptr);
  EXPECT_EQ(tokens(cpu, &gpu), here);
  EXPECT_EQ(tokens(gpu, &cpu), there);
  EXPECT_EQ(tokens(gpu, &gpu), there);
  if (!emulated) return;
  EXPECT_EQ(tokens(cpu, &gpu, 100, true), tokens(cpu, nullptr, 100));
}

// A host's stream is worked in, but only one of the model's context: memory of another is not there.
TEST_F(Cuda, HostStreamsAreOfTheModelsContext) {
  if (!emulated) GTEST_SKIP() << "the host's streams are the emulator's";
  EmulatedHostStream own{7}, other{8};
  gptq_ext_cuda_stream extension{};
  extension.ext.type = GPTQ_EXT_CUDA_STREAM;
  extension.ext.struct_size = sizeof extension;
  auto params = engine_of(GPTQ_ENGINE_EXACT);
  params.next = &extension.ext;
  set_fault({.context = 7});
  const Model model(runtime, text_model(), on_gpu());
  set_fault({});
  const Engine plain(model, engine_of(GPTQ_ENGINE_EXACT));
  EXPECT_EQ(state().host_stream, nullptr);
  Session a(plain);
  const Tokens expected = greedy(plain, a, some_tokens(5), 6);
  extension.stream = &own;
  {
    const Engine engine(model, params);
    EXPECT_EQ(state().host_stream, &own);
    Session b(engine);
    EXPECT_EQ(greedy(engine, b, some_tokens(5), 6), expected);
  }
  extension.stream = &other;
  auto error = make<gptq_error>();
  gptq_engine* refused = nullptr;
  EXPECT_EQ(gptq_engine_create(model.get(), &params, &refused, &error), GPTQ_E_BACKEND);
  EXPECT_NE(std::string_view(error.message).find("context"), std::string_view::npos) << error.message;
}

TEST_F(Cuda, RecordingThatCannotBeginLaunchesNothing) {
  if (!emulated) GTEST_SKIP() << "a real GPU records on demand";
  const Model model(runtime, text_model(), on_gpu());
  const EmulatedState before = state();
  set_fault({.no_recording = true});
  auto error = make<gptq_error>();
  gptq_engine* refused = nullptr;
  const auto params = engine_of(0);
  EXPECT_EQ(gptq_engine_create(model.get(), &params, &refused, &error), GPTQ_E_BACKEND);
  EXPECT_NE(std::string_view(error.message).find("capturing"), std::string_view::npos) << error.message;
  EXPECT_EQ(state().launches, before.launches);
  EXPECT_EQ(state().streams, before.streams);
  EXPECT_EQ(state().bytes, before.bytes);
  set_fault({});
  const Engine engine(model, params);
  EXPECT_EQ(state().launches, before.launches) << "what is recorded is not done";
}

TEST_F(Cuda, BudgetsHold) {
  const uint64_t before = state().bytes;
  gptq_model* refused = nullptr;
  const auto little = on_gpu(1000, 4096);
  EXPECT_EQ(gptq_model_load(runtime.get(), text_model().c_str(), GPTQ_NTS, &little, &refused, nullptr), GPTQ_E_BUDGET_EXCEEDED);
  EXPECT_EQ(state().bytes, before);
  {
    const Model model(runtime, text_model(), on_gpu(0, 4096));  // as many as fit: none
    EXPECT_EQ(model.info().device_layers, 0u);
  }
  {
    const Model model(runtime, text_model(), on_gpu(0));
    EXPECT_EQ(model.info().device_layers, model.info().n_layers);
    auto source = make<gptq_source>();
    source.path = text_model().c_str();
    source.path_size = GPTQ_NTS;
    auto estimate = make<gptq_memory_estimate>();
    const auto params = on_gpu(0);
    const auto engine_params = engine_of(0);
    check(gptq_model_estimate(runtime.get(), &source, &params, &engine_params, &estimate, nullptr));
    EXPECT_EQ(estimate.device_weights, model.info().device_bytes);
    const Engine engine(model, engine_params);
    auto memory = make<gptq_memory_info>();
    check(gptq_engine_memory(engine.get(), &memory));
    EXPECT_EQ(memory.device_bytes, estimate.device_weights + estimate.device_kv + estimate.device_scratch);
  }
  EXPECT_EQ(state().bytes, before);
  EXPECT_EQ(state().streams, 0u);
}

// As large as the context and 2048 allow, and as a small part of the GPU's memory does.
TEST_F(Cuda, ChunksAreLargeWhereThereIsRoom) {
  if (!emulated) GTEST_SKIP() << "for a GPU of one gibibyte";
  const auto scratch = [&](uint32_t batch_tokens, uint64_t bytes_max) {
    auto source = make<gptq_source>();
    source.path = text_model().c_str();
    source.path_size = GPTQ_NTS;
    auto estimate = make<gptq_memory_estimate>();
    const auto params = on_gpu(1000, bytes_max);
    auto engine_params = engine_of(0);
    engine_params.ctx_tokens = 1000;
    engine_params.batch_tokens = batch_tokens;
    check(gptq_model_estimate(runtime.get(), &source, &params, &engine_params, &estimate, nullptr));
    return estimate.device_scratch;
  };
  EXPECT_EQ(scratch(0, 0), scratch(1000, 0));
  EXPECT_GT(scratch(0, 0), scratch(256, 0));
  EXPECT_EQ(scratch(0, 1u << 20), scratch(256, 1u << 20));
}

TEST(CudaBackend, WrongFilesAreRefused) {
  const Runtime runtime(with_threads(1));
  auto error = make<gptq_error>();
  EXPECT_EQ(gptq_runtime_load_backend(runtime.get(), "/nowhere/libgptq_cuda.so", GPTQ_NTS, &error), GPTQ_E_BACKEND);
  EXPECT_NE(std::string(error.message).find("/nowhere/libgptq_cuda.so"), std::string::npos);
  const auto params = on_gpu();
  gptq_model* model = nullptr;
  EXPECT_EQ(gptq_model_load(runtime.get(), tiny_model().c_str(), GPTQ_NTS, &params, &model, &error), GPTQ_E_BACKEND);
  EXPECT_NE(std::string(error.message).find("gptq_runtime_load_backend"), std::string::npos);
}

}  // namespace
}  // namespace gptq::test
