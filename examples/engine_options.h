// SPDX-License-Identifier: Apache-2.0
// The options that choose model and engine. Files that only use them need no CLI11, which compiles slowly; tool.h says how they are given.
#pragma once
#include <cstdio>
#include <string>

#include "gptq.hpp"

namespace CLI {
class App;
}

namespace gptq::tool {

struct EngineOptions {
  std::string model;
  uint32_t threads = 0, ctx = 0;
  bool exact = false;
  int32_t kv = GPTQ_KV_F16;

  void add_to(CLI::App& app, bool with_ctx = true);
  void add_tuning_to(CLI::App& app, bool with_ctx = true);
  void add_precision_to(CLI::App& app);
  gptq_runtime_desc runtime() const {
    auto desc = make<gptq_runtime_desc>();
    desc.threads = threads;
    desc.log = [](void*, int32_t, const char* text, size_t size) { std::fprintf(stderr, "%.*s\n", static_cast<int>(size), text); };
    return desc;
  }
  gptq_engine_params engine() const {
    auto params = make<gptq_engine_params>();
    params.ctx_tokens = ctx;
    params.flags = exact ? GPTQ_ENGINE_EXACT : 0;
    params.kv_type = kv;
    return params;
  }
};

}  // namespace gptq::tool
