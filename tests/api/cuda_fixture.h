// SPDX-License-Identifier: Apache-2.0
// What tests of models on GPUs share: the backend that GPTQ_CUDA_BACKEND names, otherwise the emulated one, told to fail or not.
#pragma once
#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "tests/api/fixture.h"
#include "tests/cuda/emulated_backend.h"

namespace gptq::test {

inline const char* backend() {
  const char* real = std::getenv("GPTQ_CUDA_BACKEND");
  return real ? real : std::getenv("GPTQ_EMULATED_CUDA");
}

// NULL: a real backend's.
template <class F>
inline F* symbol(const char* name) {
  void* object = dlopen(backend(), RTLD_NOW | RTLD_LOCAL);
  return object ? reinterpret_cast<F*>(dlsym(object, name)) : nullptr;
}
inline bool set_fault(const EmulatedFault& fault) {
  auto* const set = symbol<void(const EmulatedFault*)>("gptq_emulated_fault");
  if (set) set(&fault);
  return set;
}
inline EmulatedState state() {
  EmulatedState state{};
  if (auto* const get = symbol<void(EmulatedState*)>("gptq_emulated_state")) get(&state);
  return state;
}

inline gptq_model_params on_gpu(uint32_t layers = 1000, uint64_t bytes_max = 0) {
  auto params = make<gptq_model_params>();
  params.device_kind = GPTQ_DEVICE_CUDA;
  params.device_layers = layers;
  params.device_bytes_max = bytes_max;
  return params;
}

class Cuda : public testing::Test {
 protected:
  void SetUp() override {
    if (!backend()) GTEST_SKIP() << "GPTQ_EMULATED_CUDA names the emulated backend";
    emulated = set_fault({});
    check(gptq_runtime_load_backend(runtime.get(), backend(), GPTQ_NTS, nullptr));
    auto info = make<gptq_device_info>();
    auto error = make<gptq_error>();
    if (gptq_runtime_device(runtime.get(), 0, &info, &error) == GPTQ_E_NOT_FOUND) GTEST_SKIP() << error.message;
  }
  void TearDown() override {
    if (backend()) set_fault({});
  }
  Runtime runtime{with_threads(1)};
  bool emulated = false;
};

// rows: computed together. 12 are more than the 8 from which on another kernel multiplies, then fewer.
inline std::vector<float> logits_of(const Runtime& runtime, const std::string& path, const gptq_model_params& params, uint32_t flags, const Tokens& ids,
                             uint32_t rows = 12, int32_t kv_type = GPTQ_KV_F16) {
  const Model model(runtime, path, params);
  auto p = engine_of(flags);
  p.logits_rows = rows;
  p.kv_type = kv_type;
  const Engine engine(model, p);
  Session session(engine);
  return all_logits(model, engine, session, ids);
}

// The largest difference, as a part of the range of what should be there.
inline double worst(const std::vector<float>& is, const std::vector<float>& should) {
  EXPECT_EQ(is.size(), should.size());
  double range = 0, most = 0;
  for (size_t i = 0; i < should.size(); ++i) {
    range = std::max(range, std::abs(double{should[i]}));
    most = std::max(most, std::isfinite(is[i]) ? std::abs(double{is[i]} - should[i]) : INFINITY);
  }
  return most / range;
}

}  // namespace gptq::test
