// SPDX-License-Identifier: Apache-2.0
// gptq_quantize: what comes out loads and is right, the same whatever happens on the way; what cannot be done leaves nothing behind.
#include <filesystem>
#include <functional>

#include "quantize_job.h"

namespace gptq::test {
namespace {

namespace fs = std::filesystem;

const Bytes& expected() {
  static const Bytes bytes = [] {
    const Target target;
    Job job;
    EXPECT_EQ(job.run(dense_model(), target.path()), GPTQ_OK);
    return read_bytes(target.path());
  }();
  return bytes;
}

TEST(Quantize, MakesAModelThatAnswers) {
  const Target target;
  Job job;
  ASSERT_EQ(job.run(dense_model(), target.path()), GPTQ_OK);
  EXPECT_EQ(target.entries(), 1u);
  EXPECT_EQ(job.reported.size(), 3u * 7);
  EXPECT_GT(job.error / 21, 0);
  EXPECT_LT(job.error / 21, 0.02);
  const Runtime runtime;
  const Model model(runtime, target.path());
  EXPECT_EQ(model.info().bits, 4u);
  EXPECT_EQ(model.info().group_size, 32);
  const Model original(runtime, dense_model());
  EXPECT_EQ(original.info().bits, 16u);
  EXPECT_LT(model.info().host_bytes, original.info().host_bytes);
}

TEST(Quantize, EverySettingGivesAModel) {
#ifdef GPTQ_SANITIZED
  constexpr uint32_t stride = 5;  // still every value of each, and every order with every group size
#else
  constexpr uint32_t stride = 1;
#endif
  uint32_t setting = 0;
  for (const uint32_t bits : {2u, 3u, 4u, 8u})
    for (const uint32_t flags : {0u, uint32_t(GPTQ_QUANT_ASYMMETRIC)})
      for (const int32_t order : {GPTQ_ORDER_GROUP_AWARE, GPTQ_ORDER_NATURAL, GPTQ_ORDER_ACT})
        for (const int32_t group : {24, -1}) {
          if (setting++ % stride) continue;
          const Target target;
          Job job;
          job.params.defaults.bits = bits;
          job.params.defaults.flags = flags;
          job.params.defaults.order = order;
          job.params.defaults.group_size = group;
          job.params.head_bits = order == GPTQ_ORDER_NATURAL ? 8 : 0;
          ASSERT_EQ(job.run(dense_model(), target.path()), GPTQ_OK);
          const Runtime runtime;
          EXPECT_EQ(Model(runtime, target.path()).info().bits, bits);
          EXPECT_LT(job.error / static_cast<double>(job.reported.size()), bits == 2 ? 0.3 : bits == 3 ? 0.08 : 0.02);
        }
}

TEST(Quantize, ThreadsAndMemoryDoNotMatter) {
  for (const uint32_t threads : {1u, 3u}) {
    const Target target;
    Job job;
    ASSERT_EQ(job.run(dense_model(), target.path(), threads), GPTQ_OK);
    EXPECT_TRUE(read_bytes(target.path()) == expected()) << threads;
  }
  std::string message;
  for (uint64_t limit = 1 << 20; limit <= 64 << 20; limit *= 2) {  // refused, then with activations on disk, then in memory
    const Target target;
    Job job;
    const gptq_status status = job.run(dense_model(), target.path(), 1, limit, &message);
    if (status == GPTQ_OK) {
      EXPECT_TRUE(read_bytes(target.path()) == expected()) << limit;
    } else {
      EXPECT_EQ(status, GPTQ_E_BUDGET_EXCEEDED) << message;
    }
    if (limit == 64 << 20) {
      EXPECT_EQ(status, GPTQ_OK) << message;
    }
  }
}

TEST(Quantize, GoesOnWhereItWasCancelled) {
  const Target target;
  size_t reported = 0;
  for (const uint32_t at : {100u, 450u, 800u}) {
    Job job;
    job.on_progress = [&](uint32_t permille) { return permille >= at; };
    EXPECT_EQ(job.run(dense_model(), target.path()), GPTQ_E_CANCELLED);
    EXPECT_FALSE(fs::exists(target.path()));
    EXPECT_GE(job.reported.size(), reported);
    reported = job.reported.size();
  }
  Job job;
  ASSERT_EQ(job.run(dense_model(), target.path(), 3), GPTQ_OK);
  EXPECT_EQ(job.reported.size(), 21u);
  EXPECT_TRUE(read_bytes(target.path()) == expected());
  EXPECT_EQ(target.entries(), 1u);
}

TEST(Quantize, AimedIsTheSameWhateverHappens) {
  const auto aimed = [] {
    Job job;
    job.params.flags = GPTQ_QUANTIZE_AIM;
    return job;
  };
  const Target whole, parts;
  ASSERT_EQ(aimed().run(dense_model(), whole.path(), 3), GPTQ_OK);
  const Bytes bytes = read_bytes(whole.path());
  EXPECT_FALSE(bytes == expected());
  for (const uint32_t at : {100u, 450u, 800u}) {
    if (is_left_out(at, 450)) continue;
    Job job = aimed();
    job.on_progress = [&](uint32_t permille) { return permille >= at; };
    EXPECT_EQ(job.run(dense_model(), parts.path()), GPTQ_E_CANCELLED);
  }
  ASSERT_EQ(aimed().run(dense_model(), parts.path(), 1), GPTQ_OK);
  EXPECT_TRUE(read_bytes(parts.path()) == bytes);
  const Target small;  // the first limit that is enough, with both streams in files
  std::string message;
  for (uint64_t limit = 1 << 20;; limit += limit / 4) {
    ASSERT_LT(limit, 64 << 20) << message;
    const gptq_status status = aimed().run(dense_model(), small.path(), 1, limit, &message);
    if (status == GPTQ_OK) break;
    ASSERT_EQ(status, GPTQ_E_BUDGET_EXCEEDED) << message;
  }
  EXPECT_TRUE(read_bytes(small.path()) == bytes);
  Job both = aimed();
  both.params.flags |= GPTQ_QUANTIZE_REFERENCE | GPTQ_QUANTIZE_REPLACE;
  EXPECT_EQ(both.run(dense_model(), small.path()), GPTQ_E_INVALID_ARGUMENT);
}

TEST(Quantize, OtherSettingsStartAnew) {
  const Target target;
  Job job;
  job.params.defaults.bits = 8;
  job.on_progress = [](uint32_t permille) { return permille > 600; };
  EXPECT_EQ(job.run(dense_model(), target.path()), GPTQ_E_CANCELLED);
  Job other;
  ASSERT_EQ(other.run(dense_model(), target.path()), GPTQ_OK);
  EXPECT_TRUE(read_bytes(target.path()) == expected());
}

TEST(Quantize, OneJobATarget) {
  const Target target;
  Job job;
  gptq_status inner = GPTQ_OK;
  job.on_progress = [&](uint32_t) {
    Job second;
    inner = second.run(dense_model(), target.path(), 1);
    return 1;
  };
  EXPECT_EQ(job.run(dense_model(), target.path()), GPTQ_E_CANCELLED);
  EXPECT_EQ(inner, GPTQ_E_INVALID_STATE);
}

TEST(Quantize, MatricesByName) {
  const Target target;
  Job job;
  job.on_module = [](gptq_quantize_module& m) {
    const std::string_view name(m.name, m.name_size);
    EXPECT_GT(m.n * m.k, 0u);
    if (name.ends_with(".down")) m.bits = 8;
    if (name == "layers.1.q") m.flags |= GPTQ_QUANT_KEEP;
    if (name == "layers.1.gate") m.group_size = -1;
  };
  ASSERT_EQ(job.run(dense_model(), target.path()), GPTQ_OK);
  EXPECT_EQ(job.reported.size(), 20u);
  const Runtime runtime;
  EXPECT_EQ(Model(runtime, target.path()).info().group_size, -1);  // of the middle layer's gate
}

TEST(Quantize, SamplesItsOwnText) {
  Bytes first;
  for (const uint32_t threads : {1u, 2u}) {
    const Target target;
    Job job;
    job.params.tokens = nullptr;
    job.params.n_tokens = 0;
    job.params.rows = 20;
    job.params.row_tokens = 24;
    job.params.progress = nullptr;
    ASSERT_EQ(job.run(dense_model(), target.path(), threads), GPTQ_OK);
    if (first.empty()) first = read_bytes(target.path());
    EXPECT_TRUE(read_bytes(target.path()) == first);
  }
  EXPECT_FALSE(first == expected());
}

TEST(Quantize, SamplingThatFailsGivesItsMemoryBack) {
  const Target target;
  Host host;
  const Runtime runtime(host.desc());
  const int64_t before = host.live;
  const std::string model = overflowing_model();
  auto from = make<gptq_source>();
  from.path = model.data(), from.path_size = model.size();
  auto params = make<gptq_quantize_params>();
  params.rows = 4, params.row_tokens = 24;
  auto error = make<gptq_error>();
  EXPECT_EQ(gptq_quantize(runtime.get(), &from, target.path().c_str(), GPTQ_NTS, &params, &error), GPTQ_E_NUMERIC);
  EXPECT_NE(std::string(error.message).find("broke off"), std::string::npos) << error.message;
  EXPECT_EQ(host.live, before);
}

TEST(Quantize, TextAndCallback) {
  const Target target;
  Job job;
  job.params.tokens = nullptr;
  job.params.n_tokens = 0;
  job.params.text = "some text to learn from";
  job.params.text_size = GPTQ_NTS;
  EXPECT_EQ(job.run(dense_model(), target.path()), GPTQ_OK);
  const Target second;
  Job rows;
  rows.params.tokens = nullptr;
  rows.params.n_tokens = 0;
  rows.params.calibration = [](void*, uint32_t row, gptq_token* out, size_t cap) -> int64_t {
    const int64_t n = row == 3 ? 0 : 10 + row;
    EXPECT_GE(cap, static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) out[i] = static_cast<gptq_token>(10 + i * 3);
    return n;
  };
  EXPECT_EQ(rows.run(dense_model(), second.path()), GPTQ_OK);
}

TEST(Quantize, OneTokenIsEnough) {
  const Target target;
  Job job;
  job.params.n_tokens = 1;
  EXPECT_EQ(job.run(dense_model(), target.path()), GPTQ_OK);
}

TEST(Quantize, RefusalsLeaveNothing) {
  const auto refused = [](gptq_status wanted, const std::string& source, const std::function<void(Job&)>& change, const char* words) {
    const Target target;
    Job job;
    change(job);
    std::string message;
    EXPECT_EQ(job.run(source, target.path(), 1, 0, &message), wanted) << message;
    EXPECT_NE(message.find(words), std::string::npos) << message;
    EXPECT_EQ(target.entries(), 0u);
  };
  refused(GPTQ_E_UNSUPPORTED, text_model(), [](Job&) {}, "quantized to 4 bits already");
  refused(GPTQ_E_INVALID_ARGUMENT, dense_model(), [](Job& job) { job.tokens[5] = 100000; }, "outside the vocabulary");
  refused(GPTQ_E_INVALID_ARGUMENT, dense_model(), [](Job& job) { job.params.n_tokens = 0; }, "calibration");
  refused(GPTQ_E_INVALID_ARGUMENT, dense_model(), [](Job& job) { job.params.defaults.bits = 5; }, "bits");
  refused(GPTQ_E_INVALID_ARGUMENT, dense_model(), [](Job& job) { job.params.defaults.damp = -1; }, "damp");
  refused(GPTQ_E_INVALID_ARGUMENT, dense_model(), [](Job& job) { job.params.text = "x"; }, "one of");
  refused(GPTQ_E_CANCELLED, dense_model(), [](Job& job) { job.on_progress = [](uint32_t) { return 1; }; }, "cancelled");
}

TEST(Quantize, NamesWhatIsNotFinite) {
  const Target target;
  Job job;
  std::string message;
  EXPECT_EQ(job.run(overflowing_model(), target.path(), 1, 0, &message), GPTQ_E_NUMERIC);
  EXPECT_NE(message.find("layers.1.gate"), std::string::npos) << message;
  EXPECT_FALSE(fs::exists(target.path()));
}

TEST(Quantize, WarnsOfLittleText) {
  std::string log;
  auto desc = with_threads(1);
  desc.log = [](void* user, int32_t level, const char* text, size_t size) {
    if (level == GPTQ_LOG_WARN) static_cast<std::string*>(user)->append(text, size);
  };
  desc.log_user = &log;
  const Runtime runtime(desc);
  auto from = make<gptq_source>();
  from.path = dense_model().c_str();
  from.path_size = GPTQ_NTS;
  const Tokens tokens(2100, 9);
  for (const size_t n : {size_t{100}, tokens.size()}) {
    log.clear();
    const Target target;
    Job job;
    job.params.module = nullptr;
    job.params.report = nullptr;
    job.params.progress = nullptr;
    job.params.tokens = tokens.data();
    job.params.n_tokens = n;
    ASSERT_EQ(gptq_quantize(runtime.get(), &from, target.path().c_str(), GPTQ_NTS, &job.params, nullptr), GPTQ_OK);
    EXPECT_EQ(log.find("only 60 calibration tokens") == 0, n == 100) << log;
  }
}

TEST(Quantize, TargetsThatCannotBeWritten) {
  const Target target;
  std::string message;
  Job job;
  EXPECT_EQ(job.run(dense_model(), (target.folder() / "no" / "out.gptq").string(), 1, 0, &message), GPTQ_E_IO);
  EXPECT_NE(message.find("no"), std::string::npos) << message;
  ASSERT_EQ(job.run(dense_model(), target.path()), GPTQ_OK);
  Job again;
  EXPECT_EQ(again.run(dense_model(), target.path(), 1, 0, &message), GPTQ_E_IO);
  EXPECT_NE(message.find("exists"), std::string::npos) << message;
  again.params.flags = GPTQ_QUANTIZE_REPLACE;
  EXPECT_EQ(again.run(dense_model(), target.path()), GPTQ_OK);
}

TEST(Quantize, EstimateIsNearTheTruth) {
  const Runtime runtime;
  auto source = make<gptq_source>();
  source.path = dense_model().c_str();
  source.path_size = GPTQ_NTS;
  Job job;
  job.params.module = nullptr;
  auto estimate = make<gptq_quantize_estimate>();
  ASSERT_EQ(gptq_quantize_estimate_get(runtime.get(), &source, &job.params, &estimate, nullptr), GPTQ_OK);
  EXPECT_EQ(estimate.n_modules, 21u);
  const double bytes = static_cast<double>(expected().size());
  EXPECT_NEAR(static_cast<double>(estimate.file_bytes), bytes, 0.2 * bytes);
  EXPECT_GT(estimate.seconds, 0);
}

}  // namespace
}  // namespace gptq::test
