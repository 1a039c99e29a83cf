// SPDX-License-Identifier: Apache-2.0
// What the tests of the C API share: model files made from checkpoints, a host that counts its memory, a chain of objects.
#pragma once
#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <string>
#include <vector>

#include "bindings/cpp/gptq.hpp"
#include "tests/sanitized.h"
#include "tests/thread_time.h"

namespace gptq::test {

using Tokens = std::vector<gptq_token>;
using Bytes = std::vector<std::byte>;

// Checkpoints: the project's own two, or all of GPTQ_TEST_DATA.
std::vector<std::string> checkpoint_folders();
// One checkpoint of every family at least: the project's own few, or all of GPTQ_TEST_DATA.
std::vector<std::string> family_folders();
std::string name_of(const std::string& folder);
// Its model file, made when it is first asked for.
const std::string& converted(const std::string& folder);
// Three random layers of 512 tokens, two with a window of 16, context 256; a tokenizer with byte fallback and a chat template.
const std::string& text_model();
// The same, but token 7 in the input leads to NaN.
const std::string& sick_model();
constexpr gptq_token sick_token = 7;
// Eleven times the layers, with the same logits.
const std::string& deep_model();
// The layers of text_model with random float16 weights, the same tokenizer.
const std::string& dense_model();
// The same with a norm in layer 1 so large that what it gives is infinite.
const std::string& overflowing_model();
// A few kilobytes.
const std::string& tiny_model();
Bytes read_bytes(const std::string& path);

struct Prompt {
  Tokens ids, greedy;
  std::string text;           // empty = ids only
  std::vector<float> logits;  // after each of the last ids
  double smallest_gap = 0;    // between the best two logits on the way of greedy
};
std::vector<Prompt> prompts_of(const std::string& folder);

// The host's allocator: counts, and fails when told to.
class Host {
 public:
  gptq_runtime_desc desc(uint32_t threads = 1);
  std::atomic<uint64_t> calls{0};  // allocations and frees
  std::atomic<int64_t> live{0}, peak{0};
  std::atomic<uint64_t> allocations{0};
  uint64_t fail_at = UINT64_MAX;  // this allocation fails,
  bool fail_on = false;           // and all after it

 private:
  static void* GPTQ_CALL allocate(void* user, size_t size, size_t align, uint32_t kind, uint32_t tag);
  static void GPTQ_CALL release(void* user, void* p, size_t size, size_t align, uint32_t kind, uint32_t tag);
};

// Calls of malloc and its family by any thread of the process; 0 for ever where they cannot be intercepted.
uint64_t heap_calls();

inline gptq_runtime_desc with_threads(uint32_t threads) {
  auto desc = make<gptq_runtime_desc>();
  desc.threads = threads;
  return desc;
}
inline gptq_engine_params engine_of(uint32_t flags, uint32_t max_sessions = 1) {
  auto params = make<gptq_engine_params>();
  params.flags = flags;
  params.max_sessions = max_sessions;
  return params;
}
inline gptq_generate_params generation(uint32_t max_tokens, uint32_t flags = GPTQ_GEN_IGNORE_EOS) {
  auto params = make<gptq_generate_params>();
  params.max_tokens = max_tokens;
  params.flags = flags;
  return params;
}

struct Chain {
  explicit Chain(const std::string& path, const gptq_engine_params& params = engine_of(0), const gptq_runtime_desc& desc = with_threads(1))
      : runtime(desc), model(runtime, path), engine(model, params), session(engine) {}
  Runtime runtime;
  Model model;
  Engine engine;
  Session session;
};

// Steps until nothing is left to do; returns how many steps it took.
int finish(const Engine& engine, uint32_t budget_us = GPTQ_BUDGET_UNLIMITED);
// The n tokens that follow, whatever they are.
Tokens continue_with(const Engine& engine, Session& session, uint32_t n);
Tokens greedy(const Engine& engine, Session& session, const Tokens& prompt, uint32_t n);
// What n sessions with prompts of different lengths generate together, one's tokens behind the other's.
Tokens generate_together(const Model& model, uint32_t n, uint32_t n_tokens, int32_t top_k = 1, uint32_t budget_us = GPTQ_BUDGET_UNLIMITED);
// Logits after every token: [ids.size()][n_vocab].
std::vector<float> all_logits(const Model& model, const Engine& engine, Session& session, const Tokens& ids,
                              uint32_t budget_us = GPTQ_BUDGET_UNLIMITED);
// A fixed sequence of n tokens between 3 and 511, other for every seed.
Tokens some_tokens(uint32_t n, uint32_t seed = 1);
size_t top(const float* logits, size_t n);
// How far the distribution of logits q is from that of p.
double kl(const float* p, const float* q, size_t n);

}  // namespace gptq::test
