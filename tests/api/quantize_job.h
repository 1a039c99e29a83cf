// SPDX-License-Identifier: Apache-2.0
// A call of gptq_quantize, and a place for what it makes.
#pragma once
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <map>

#include "fixture.h"

namespace gptq::test {

struct Job {
  gptq_quantize_params params = make<gptq_quantize_params>();
  Tokens tokens;
  std::vector<std::string> reported;
  std::map<std::string, gptq_quantize_report> reports;  // without their names
  double error = 0;
  uint32_t phase = 0, permille = 0;
  std::function<int32_t(uint32_t)> on_progress;
  std::function<void(gptq_quantize_module&)> on_module;

  Job() {
    for (gptq_token i = 0; i < 600; ++i) tokens.push_back(8 + i * i % 97);
    params.tokens = tokens.data();
    params.n_tokens = tokens.size();
    params.row_tokens = 60;
    params.defaults.group_size = 32;
    params.progress = [](void* user, uint32_t phase, uint32_t permille) {
      auto& job = *static_cast<Job*>(user);
      if (phase == job.phase) {
        EXPECT_GE(permille, job.permille);
      }
      job.phase = phase;
      job.permille = permille;
      return job.on_progress ? job.on_progress(permille) : 0;
    };
    params.module = [](void* user, gptq_quantize_module* m) {
      auto& job = *static_cast<Job*>(user);
      if (job.on_module) job.on_module(*m);
      return 0;
    };
    params.report = [](void* user, const gptq_quantize_report* r) {
      static_cast<Job*>(user)->reported.emplace_back(r->name, r->name_size);
      static_cast<Job*>(user)->error += r->error;
      static_cast<Job*>(user)->reports[static_cast<Job*>(user)->reported.back()] = *r;
    };
  }

  gptq_status run(const std::string& source, const std::string& target, uint32_t threads = 2, uint64_t bytes_max = 0, std::string* message = nullptr) {
    params.progress_user = params.module_user = params.report_user = this;
    auto desc = with_threads(threads);
    desc.host_bytes_max = bytes_max;
    const Runtime runtime(desc);
    auto from = make<gptq_source>();
    from.path = source.c_str();
    from.path_size = GPTQ_NTS;
    auto error = make<gptq_error>();
    const gptq_status status = gptq_quantize(runtime.get(), &from, target.c_str(), GPTQ_NTS, &params, &error);
    if (message) *message = error.message;
    return status;
  }
};

// A path in a folder of its own, which goes at the end.
class Target {
 public:
  Target() : folder_(std::filesystem::temp_directory_path() / ("gptq-quantize-" + std::to_string(getpid()) + "-" + std::to_string(count_++))) { std::filesystem::create_directory(folder_); }
  ~Target() { std::filesystem::remove_all(folder_); }
  std::string path() const { return (folder_ / "out.gptq").string(); }
  size_t entries() const { return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder_), {})); }
  const std::filesystem::path& folder() const { return folder_; }

 private:
  static inline int count_ = 0;
  std::filesystem::path folder_;
};

}  // namespace gptq::test
