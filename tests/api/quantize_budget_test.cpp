// SPDX-License-Identifier: Apache-2.0
// gptq_quantize with a budget: it is kept to, spent well, and the same whatever happens on the way.
#include <cmath>
#include <filesystem>
#include <regex>
#include <set>

#include "format/container.h"
#include "quantize_job.h"

namespace gptq::test {
namespace {

Job budgeted(double bits, uint64_t bytes = 0) {
  Job job;
  job.params.bits_per_weight = bits;
  job.params.file_bytes_max = bytes;
  job.params.defaults.group_size = 0;
  return job;
}

double bits_of(const Job& job, double* weights = nullptr) {
  double bytes = 0, all = 0;
  for (const auto& [name, r] : job.reports) {
    if (!name.starts_with("layers.")) continue;
    const double n = r.n, k = r.k;
    bytes += n * k * r.bits / 8 + n * std::ceil(k / r.group_size) * 2;
    all += n * k;
  }
  if (weights) *weights = all;
  return 8 * bytes / all;
}

std::string part_of(const std::string& name) {
  return std::regex_replace(std::regex_replace(name, std::regex("\\.[qkv]$"), ".qkv"), std::regex("\\.(gate|up)$"), ".gate_up");
}

TEST(QuantizeBudget, MeanBitsAreKeptTo) {
  double before = 1e9;
  for (const double bits : {2.6, 3.5, 4.7, 7.0}) {
    const Target target;
    Job job = budgeted(bits);
    ASSERT_EQ(job.run(dense_model(), target.path()), GPTQ_OK);
    EXPECT_LE(bits_of(job), bits);
    EXPECT_GT(bits_of(job), bits - 0.25);  // the golden model has few matrices, and they are large steps
    EXPECT_LT(job.error, before);          // more of them err less
    before = job.error;
    std::map<std::string, std::set<std::pair<uint32_t, int32_t>>> settings;
    for (const auto& [name, r] : job.reports) settings[part_of(name)].emplace(r.bits, r.group_size);
    for (const auto& [part, of] : settings) EXPECT_EQ(of.size(), 1u) << part << ": fused kernels want one setting";
    const Runtime runtime;
    EXPECT_GT(Model(runtime, target.path()).info().n_params, 0u);
  }
}

TEST(QuantizeBudget, FilesAreNoLargerThanAsked) {
  const Target largest;
  ASSERT_EQ(budgeted(0, 1 << 30).run(dense_model(), largest.path()), GPTQ_OK);
  const auto most = std::filesystem::file_size(largest.path());
  uint64_t before = 0;
  for (const double share : {0.62, 0.75, 0.9}) {
    const Target target;
    const auto bytes = static_cast<uint64_t>(share * static_cast<double>(most));
    std::string message;
    Job job = budgeted(0, bytes);
    ASSERT_EQ(job.run(dense_model(), target.path(), 2, 0, &message), GPTQ_OK) << message;
    const auto size = std::filesystem::file_size(target.path());
    EXPECT_LE(size, bytes);
    EXPECT_GT(size, before);
    before = size;
  }
}

TEST(QuantizeBudget, WhatCannotBeHadIsRefusedWithTheLeast) {
  const Target target;
  std::string message;
  EXPECT_EQ(budgeted(2.1).run(dense_model(), target.path(), 2, 0, &message), GPTQ_E_INVALID_ARGUMENT);
  std::smatch found;
  ASSERT_TRUE(std::regex_search(message, found, std::regex("the least is ([0-9.]+)"))) << message;
  EXPECT_EQ(budgeted(std::stod(found[1]) + 0.001).run(dense_model(), target.path()), GPTQ_OK);
  const Target other;
  EXPECT_EQ(budgeted(0, 30000).run(dense_model(), other.path(), 2, 0, &message), GPTQ_E_INVALID_ARGUMENT);
  EXPECT_EQ(other.entries(), 0u);
  EXPECT_EQ(budgeted(3, 1 << 20).run(dense_model(), other.path()), GPTQ_E_INVALID_ARGUMENT);
  EXPECT_EQ(budgeted(1).run(dense_model(), other.path()), GPTQ_E_INVALID_ARGUMENT);
  EXPECT_EQ(budgeted(17).run(dense_model(), other.path()), GPTQ_E_INVALID_ARGUMENT);
}

TEST(QuantizeBudget, OwnSettingsStay) {
  const Target target;
  Job job = budgeted(3.5);
  job.on_module = [](gptq_quantize_module& m) {
    const std::string_view name(m.name, m.name_size);
    if (name == "layers.1.down") m.bits = 8, m.group_size = 16;
    if (name == "layers.0.o") m.flags |= GPTQ_QUANT_KEEP;
  };
  ASSERT_EQ(job.run(dense_model(), target.path()), GPTQ_OK);
  EXPECT_EQ(job.reports["layers.1.down"].bits, 8u);
  EXPECT_EQ(job.reports["layers.1.down"].group_size, 16);
  EXPECT_FALSE(job.reports.contains("layers.0.o"));
}

TEST(QuantizeBudget, GroupSizesThatWereAskedForStay) {
  const Target target;
  Job job = budgeted(4);
  job.params.defaults.group_size = 64;
  ASSERT_EQ(job.run(dense_model(), target.path()), GPTQ_OK);
  for (const auto& [name, r] : job.reports) EXPECT_EQ(r.group_size, 64) << name;
}

TEST(QuantizeBudget, TheSameWhateverHappens) {
  const Target whole, parts;
  ASSERT_EQ(budgeted(3.5).run(dense_model(), whole.path(), 3), GPTQ_OK);
  for (const uint32_t phase : {uint32_t(GPTQ_PHASE_MEASURE), uint32_t(GPTQ_PHASE_QUANTIZE)})
    for (const uint32_t at : {200u, 800u}) {
      Job job = budgeted(3.5);
      job.on_progress = [&](uint32_t permille) { return job.phase == phase && permille >= at; };
      EXPECT_EQ(job.run(dense_model(), parts.path()), GPTQ_E_CANCELLED);
    }
  ASSERT_EQ(budgeted(3.5).run(dense_model(), parts.path(), 1), GPTQ_OK);
  EXPECT_TRUE(read_bytes(parts.path()) == read_bytes(whole.path()));
  EXPECT_EQ(parts.entries(), 1u);
}

}  // namespace
}  // namespace gptq::test
