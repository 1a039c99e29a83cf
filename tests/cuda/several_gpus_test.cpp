// SPDX-License-Identifier: Apache-2.0
// What the emulator shows of several GPUs: each has its own memory, and streams wait for each other or read what is not there.
#include <dlfcn.h>

#include <cstdlib>

#include "gpu.h"
#include "tests/cuda/emulated_backend.h"

namespace gptq::cuda {
namespace {

class SeveralGpus : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    if (gpu.real) GTEST_SKIP() << "the GPUs are the emulator's";
    void* object = dlopen(std::getenv("GPTQ_EMULATED_CUDA"), RTLD_NOW | RTLD_LOCAL);
    set_ = reinterpret_cast<void (*)(const EmulatedFault*)>(dlsym(object, "gptq_emulated_fault"));
    set({.gpus = 2});
    Failure failure{};
    ASSERT_EQ(gpu.table->open(1, nullptr, nullptr, 0, &other_, &failure), Result::ok) << failure.text;
    ASSERT_EQ(gpu.table->allocate(gpu.stream, bytes, &here_, &failure), Result::ok);
    ASSERT_EQ(gpu.table->allocate(other_, bytes, &there_, &failure), Result::ok);
  }
  void TearDown() override {
    if (other_) {
      gpu.table->release(gpu.stream, here_);
      gpu.table->release(other_, there_);
      gpu.table->close(other_);
      set({});
    }
    GpuTest::TearDown();
  }
  void set(const EmulatedFault& fault) { set_(&fault); }
  void add(float* y, const float* x, Stream* stream) {
    gpu.table->elementwise({.kind = kernels::Elementwise::add_scaled, .x = y, .y = x, .out = y, .count = 16, .factor = 1}, *stream);
  }
  Result finish(Stream* stream, Failure* failure) { return gpu.table->finish(stream, UINT32_MAX, failure); }

  static constexpr uint64_t bytes = 64;
  Stream* other_ = nullptr;
  uint8_t *here_ = nullptr, *there_ = nullptr;
  void (*set_)(const EmulatedFault*) = nullptr;
};

TEST_F(SeveralGpus, MemoryOfAnotherIsAFault) {
  std::vector<float> ones(16, 1.0f), sum(16);
  gpu.table->copy_in(gpu.stream, here_, ones.data(), bytes);
  gpu.table->copy_in(other_, there_, ones.data(), bytes);
  auto *x = reinterpret_cast<float*>(here_), *y = reinterpret_cast<float*>(there_);
  add(y, y, other_);
  gpu.table->copy_out(other_, sum.data(), there_, bytes);
  EXPECT_EQ(sum, std::vector<float>(16, 2.0f));
  EXPECT_DEATH(add(y, x, other_), "");
  EXPECT_DEATH(add(x, y, gpu.stream), "");
  EXPECT_DEATH(gpu.table->copy_out(other_, sum.data(), here_, bytes), "");
}

TEST_F(SeveralGpus, CopiesAcrossComeAfterWhatTheyRead) {
  std::vector<float> ones(16, 1.0f), got(16);
  Failure failure{};
  gpu.table->copy_in(gpu.stream, here_, ones.data(), bytes);
  gpu.table->copy_across(other_, there_, gpu.stream, here_, bytes);
  EXPECT_EQ(finish(other_, &failure), Result::failed) << "it was not waited for";
  gpu.table->wait_for(other_, gpu.stream);
  gpu.table->copy_across(other_, there_, gpu.stream, here_, bytes);
  gpu.table->copy_out(other_, got.data(), there_, bytes);
  EXPECT_EQ(finish(other_, &failure), Result::ok) << failure.text;
  EXPECT_EQ(got, ones);
}

TEST_F(SeveralGpus, OneIsLostAlone) {
  Failure failure{};
  set({.gpus = 2, .lost_gpus = 2});
  EXPECT_EQ(finish(gpu.stream, &failure), Result::ok);
  EXPECT_EQ(finish(other_, &failure), Result::lost);
}

}  // namespace
}  // namespace gptq::cuda
