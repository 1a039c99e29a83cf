// SPDX-License-Identifier: Apache-2.0
// The small model of tests/golden, loaded once, whose folder GPTQ_GOLDEN names; and the statuses a call may end with.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <string>

#include "bindings/cpp/gptq.hpp"

namespace gptq::fuzz {

inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: %s does not hold\n", what);
  std::abort();
}

// What says that the library itself is wrong.
inline gptq_status no_bug(gptq_status status) {
  require(status != GPTQ_E_INTERNAL && status <= GPTQ_REPLAYED, "a status of the outside");
  return status;
}

struct Tiny {
  Tiny() : runtime(one_thread()), model(runtime, path()) {}
  static gptq_runtime_desc one_thread() {
    auto desc = make<gptq_runtime_desc>();
    desc.threads = 1;
    return desc;
  }
  static std::string path() {
    const char* folder = std::getenv("GPTQ_GOLDEN");
    if (!folder) std::fprintf(stderr, "set GPTQ_GOLDEN to tests/golden\n"), std::exit(2);
    return std::string(folder) + "/tiny-1.0.gptq";
  }
  Runtime runtime;
  Model model;
};

inline const Tiny& tiny() {
  static const Tiny model;
  return model;
}

inline gptq_engine_params small(uint32_t sessions, uint32_t ctx = 32) {
  auto params = make<gptq_engine_params>();
  params.max_sessions = sessions;
  params.ctx_tokens = ctx;
  params.batch_tokens = 16;
  params.page_tokens = 16;
  return params;
}

}  // namespace gptq::fuzz
