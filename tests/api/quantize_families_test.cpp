// SPDX-License-Identifier: Apache-2.0
// gptq_quantize on every family: experts, latent attention, states, parallel residuals, norms behind blocks, fused projections.
#include <algorithm>
#include <cmath>
#include <random>
#include <set>

#include "converter/convert.h"
#include "converter/round.h"
#include "format/container.h"
#include "quantize_job.h"
#include "tests/sanitized.h"

namespace gptq::test {
namespace {

// A family's checkpoint as floats, or with its quantizable matrices rounded to nearest. A matrix that lies on a grid already is replaced by
// a random one of its size.
class FloatSource final : public convert::ModelSource {
 public:
  FloatSource(const std::string& folder, bool rounded) : inner_(convert::open_source(folder, {})), rounded_(rounded) {}
  const convert::ModelDescription& description() const override { return inner_->description(); }

  convert::Weight load(const model::Slot& slot) override {
    convert::Weight weight = inner_->load(slot);
    if (!slot.quantizable()) return weight;
    if (const auto* quantized = std::get_if<convert::QuantizedWeight>(&weight)) weight = random_like(*quantized, slot);
    if (!rounded_) return weight;
    base::Pool pool(1, nullptr, nullptr, std::pmr::get_default_resource());
    return convert::round_to_nearest(slot.name, std::get<convert::DenseWeight>(weight), slot.n, slot.k, 4, pool);
  }

 private:
  static convert::DenseWeight random_like(const convert::QuantizedWeight& q, const model::Slot& slot) {
    double sum = 0;
    for (size_t i = 0; i < q.codes.size(); ++i) {
      const size_t row = i / slot.k, input = i % slot.k;
      const size_t group = row * q.n_groups + (q.g_idx.empty() ? input * q.n_groups / slot.k : static_cast<size_t>(q.g_idx[input]));
      const double value = q.scales[group] * static_cast<float>(q.codes[i] - (q.zeros.empty() ? 1 << (q.bits - 1) : q.zeros[group]));
      sum += value * value;
    }
    std::mt19937 random(static_cast<uint32_t>(slot.id.key() % 1000003));
    std::normal_distribution<float> normal(0, static_cast<float>(std::sqrt(sum / static_cast<double>(q.codes.size()))));
    std::vector<float> values(q.codes.size());
    for (float& value : values) value = normal(random);
    const auto bytes = std::as_bytes(std::span(values));
    return {kernels::Kind::f32, {bytes.begin(), bytes.end()}};
  }
  std::unique_ptr<convert::ModelSource> inner_;
  bool rounded_;
};

std::string folder_of(const std::string& family) {
  for (const std::string& folder : family_folders())
    if (name_of(folder) == family) return folder;
  throw std::runtime_error("no checkpoint " + family);
}

void write_model(const std::string& folder, const std::string& path, bool rounded) {
  FloatSource source(folder, rounded);
  convert::convert(source, path, {});
}

// The float model of a family, in a folder that stays until the end.
const std::string& float_model(const std::string& folder) {
  static const Target home;
  static std::map<std::string, std::string> paths;
  std::string& path = paths[folder];
  if (path.empty()) {
    path = (home.folder() / (name_of(folder) + ".gptq")).string();
    write_model(folder, path, false);
  }
  return path;
}

Tokens tokens_below(uint32_t n_vocab, uint32_t n, uint32_t seed) {
  Tokens tokens = some_tokens(n, seed);
  for (gptq_token& token : tokens) token = 3 + token % static_cast<gptq_token>(n_vocab - 3);
  return tokens;
}

Job job_for(const std::string& model, uint32_t n_tokens) {
  const Runtime runtime;
  Job job;
  job.tokens = tokens_below(Model(runtime, model).info().n_vocab, n_tokens, 5);
  job.params.tokens = job.tokens.data();
  job.params.n_tokens = job.tokens.size();
  job.params.row_tokens = std::min(60u, n_tokens);
  return job;
}

std::vector<float> logits_of(const std::string& path, uint32_t seed) {
  auto params = engine_of(GPTQ_ENGINE_EXACT);
  params.logits_rows = 64;
  params.ctx_tokens = 128;
  Chain chain(path, params, with_threads(2));
  return all_logits(chain.model, chain.engine, chain.session, tokens_below(chain.model.info().n_vocab, 60, seed));
}

double mean_kl(const std::string& from, const std::string& path) {
  double sum = 0;
  for (const uint32_t seed : {11u, 12u, 13u, 14u}) {
    const std::vector<float> p = logits_of(from, seed), q = logits_of(path, seed);
    const size_t n = p.size() / 60;
    for (size_t i = 0; i < 60; ++i) sum += kl(p.data() + i * n, q.data() + i * n, n) / 240;
  }
  return sum;
}

class QuantizeFamilies : public testing::TestWithParam<std::string> {};

TEST_P(QuantizeFamilies, ErrLessThanRounding) {
  const Target target;
  const std::string& from = float_model(GetParam());
  Job job = job_for(from, cases_here(4800, 480));
  job.params.first_token_weight = 1;  // random weights do not lean on it
  ASSERT_EQ(job.run(from, target.path()), GPTQ_OK);
  EXPECT_EQ(std::set<std::string>(job.reported.begin(), job.reported.end()).size(), job.reported.size());
  if (cases_here(1, 0) == 0) return;  // the numbers are the same without a sanitizer, and are compared there
  const std::string rounded = (target.folder() / "rounded.gptq").string();
  write_model(GetParam(), rounded, true);
  const double ours = mean_kl(from, target.path()), theirs = mean_kl(from, rounded);
  EXPECT_LT(ours, theirs);
  if (std::getenv("GPTQ_SHOW")) std::printf("%-40s %4zu matrices, KL %.3e, rounded %.3e\n", name_of(GetParam()).c_str(), job.reported.size(), ours, theirs);
}

TEST_P(QuantizeFamilies, KeepToABudget) {
  const std::vector<std::string> all = family_folders();
  const auto place = std::find(all.begin(), all.end(), GetParam()) - all.begin();
  if (is_left_out(static_cast<uint32_t>(place), 8)) GTEST_SKIP() << "one family of eight is enough under a sanitizer";
  const Target target;
  const std::string& from = float_model(GetParam());
  Job job = job_for(from, 240);
  job.params.file_bytes_max = std::filesystem::file_size(from) / 2;
  std::string message;
  ASSERT_EQ(job.run(from, target.path(), 2, 0, &message), GPTQ_OK) << message;
  EXPECT_LE(std::filesystem::file_size(target.path()), job.params.file_bytes_max);
  const double apart = mean_kl(from, target.path());
  EXPECT_GE(apart, 0);
  EXPECT_LT(apart, 1);
}

std::string test_name(const testing::TestParamInfo<std::string>& info) {
  std::string name = name_of(info.param);
  std::replace_if(name.begin(), name.end(), [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(All, QuantizeFamilies, testing::ValuesIn(family_folders()), test_name);

// Of mixtures, with layers that attend, attend to latents, and remember by a state.
const char* const mixtures[] = {"mixtral-w4-g32", "glm4-moe-lite-w4-g32", "qwen3-next-w4-g32"};

TEST(QuantizeMixtures, NothingOnTheWayMatters) {
  for (const char* family : mixtures) {
    const std::string& from = float_model(folder_of(family));
    const Target whole, resumed, alone, little;
    Job first = job_for(from, 600);
    ASSERT_EQ(first.run(from, whole.path()), GPTQ_OK);
    const Bytes expected = read_bytes(whole.path());
    for (const uint32_t at : {200u, 500u, 700u, 950u}) {
      Job job = job_for(from, 600);
      job.on_progress = [&](uint32_t permille) { return permille >= at; };
      EXPECT_EQ(job.run(from, resumed.path()), GPTQ_E_CANCELLED) << family;
    }
    Job rest = job_for(from, 600);
    ASSERT_EQ(rest.run(from, resumed.path()), GPTQ_OK);
    EXPECT_TRUE(read_bytes(resumed.path()) == expected) << family;
    EXPECT_EQ(rest.reported, first.reported);
    for (const auto& [name, report] : rest.reports) {
      EXPECT_EQ(report.n_tokens, first.reports[name].n_tokens) << name;
      EXPECT_EQ(report.all_tokens, first.reports[name].all_tokens) << name;
    }
    Job threads = job_for(from, 600);
    ASSERT_EQ(threads.run(from, alone.path(), 1), GPTQ_OK);
    EXPECT_TRUE(read_bytes(alone.path()) == expected) << family;
    // The least memory that does: activations are in a file, and experts take turns.
    gptq_status status = GPTQ_E_BUDGET_EXCEEDED;
    for (uint64_t limit = 1 << 20; status != GPTQ_OK && limit <= 64 << 20; limit *= 2) {
      Job job = job_for(from, 600);
      status = job.run(from, little.path(), 1, limit);
    }
    ASSERT_EQ(status, GPTQ_OK);
    EXPECT_TRUE(read_bytes(little.path()) == expected) << family;
  }
}

TEST(QuantizeMixtures, AimedAreNearerThanRounded) {
  for (const char* family : mixtures) {
    const std::string folder = folder_of(family), &from = float_model(folder);
    const Target target;
    Job job = job_for(from, 4800);
    job.params.first_token_weight = 1;
    job.params.flags = GPTQ_QUANTIZE_AIM;
    ASSERT_EQ(job.run(from, target.path()), GPTQ_OK);
    const std::string rounded = (target.folder() / "rounded.gptq").string();
    write_model(folder, rounded, true);
    EXPECT_LT(mean_kl(from, target.path()), mean_kl(from, rounded)) << family;
  }
}

TEST(QuantizeMixtures, ExpertsSeeTheirOwnTokens) {
  const std::string& from = float_model(folder_of("mixtral-w4-g32"));  // 2 of its experts a token
  const Target target;
  Job job = job_for(from, 2400);
  ASSERT_EQ(job.run(from, target.path()), GPTQ_OK);
  for (const char* matrix : {"gate", "up", "down"}) {
    uint64_t tokens = 0;
    for (const auto& [name, report] : job.reports)
      if (name.starts_with("layers.0.experts.") && name.ends_with(matrix)) {
        EXPECT_FALSE(report.all_tokens) << name;
        EXPECT_LT(report.n_tokens, 2400u) << name;
        tokens += report.n_tokens;
      }
    EXPECT_EQ(tokens, 2u * 2400) << matrix;
  }
}

TEST(QuantizeMixtures, StarvedExpertsSeeAllTokens) {
  for (const char* family : mixtures) {
    const std::string& from = float_model(folder_of(family));
    const Target target;
    Job job = job_for(from, 20);  // too few for any expert
    ASSERT_EQ(job.run(from, target.path()), GPTQ_OK);
    size_t experts = 0;
    for (const auto& [name, report] : job.reports) {
      const bool of_expert = name.find(".experts.") != name.npos;
      experts += of_expert;
      EXPECT_EQ(report.all_tokens, of_expert) << name;
      EXPECT_EQ(report.n_tokens, 20u) << name;
      EXPECT_TRUE(std::isfinite(report.error)) << name;
    }
    EXPECT_GT(experts, 0u) << family;
  }
}

// What one module of a checkpoint holds together must be reordered alike.
TEST(QuantizeMixtures, SharedInputsShareTheirOrder) {
  const std::vector<std::vector<std::string>> together = {{"q", "k", "v", "z", "attn_gate"}, {"gate", "up"}, {"k_b", "v_b"},
                                                          {"shared.gate", "shared.up"}, {"experts.0.gate", "experts.0.up"}};
  std::set<std::string> seen;
  for (const char* family : mixtures) {
    const std::string& from = float_model(folder_of(family));
    const Target target;
    Job job = job_for(from, 600);
    job.params.defaults.order = GPTQ_ORDER_ACT;
    job.params.defaults.group_size = 16;  // several groups of every matrix
    ASSERT_EQ(job.run(from, target.path()), GPTQ_OK);
    const base::FileSource file(target.path());
    const format::Reader reader(file, std::pmr::get_default_resource());
    const auto order_of = [&](const std::string& name) {
      const format::fb::Tensor* tensor = reader.find(name);
      if (tensor)
        for (const format::fb::Part* part : *tensor->parts())
          if (part->role() == format::fb::Role::perm) {
            Bytes bytes(part->bytes());
            reader.read_part(*part, bytes, std::pmr::get_default_resource());
            return bytes;
          }
      return Bytes();
    };
    for (int layer = 0; layer < 4; ++layer)
      for (const auto& names : together) {
        const std::string prefix = "layers." + std::to_string(layer) + ".";
        const bool latent = reader.find(prefix + "kv_a");
        const Bytes first = order_of(prefix + names[0]);
        for (size_t i = 1; i < names.size() && !first.empty(); ++i) {
          const Bytes other = order_of(prefix + names[i]);
          if (other.empty() || (latent && names[0] == "q")) continue;
          EXPECT_TRUE(other == first) << family << " " << prefix << names[i];
          seen.insert(names[i]);
        }
      }
  }
  EXPECT_EQ(seen, (std::set<std::string>{"k", "v", "z", "attn_gate", "up", "v_b", "shared.up", "experts.0.up"}));
}

}  // namespace
}  // namespace gptq::test
