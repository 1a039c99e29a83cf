// SPDX-License-Identifier: Apache-2.0
#include "gpu.h"

#include <dlfcn.h>

#include <cstdlib>
#include <stdexcept>

#include "kernels/cuda/stream.h"

namespace gptq::cuda {

uint32_t Gpu::pretend(uint32_t n) {
  static const uint32_t own = table->n_processors(stream);
  return stream->n_processors = n ? n : own;  // Stream's first member, whoever compiled it
}

void* Gpu::put(const void* data, size_t bytes, void* out) {
  if (!bytes) return nullptr;
  Block block{nullptr, std::vector<uint8_t>(bytes + 2 * guard, 0xff), out};
  memcpy(block.content.data() + guard, data, bytes);
  Failure failure{};
  if (table->allocate(stream, block.content.size(), &block.device, &failure) != Result::ok) throw std::runtime_error(failure.text);
  table->copy_in(stream, block.device, block.content.data(), block.content.size());
  return blocks_.emplace_back(std::move(block)).device + guard;  // the vector's memory stays where it is
}

kernels::Matrix Gpu::in(const kernels::TestMatrix& m) {
  kernels::Matrix w = m.w;
  w.codes = in(m.codes), w.scales = in(m.scales), w.zeros = w.zeros ? in(m.zeros) : nullptr, w.perm = in(m.perm);
  return w;
}

void Gpu::finish() {
  for (auto& [device, content, out] : blocks_) {
    now_ = content;
    table->copy_out(stream, now_.data(), device, content.size());
    Failure failure{};
    EXPECT_EQ(table->finish(stream, UINT32_MAX, &failure), Result::ok) << failure.text;
    const size_t bytes = content.size() - 2 * guard;
    if (out) for (void* to : {out, static_cast<void*>(&content[guard])}) memcpy(to, &now_[guard], bytes);
    EXPECT_TRUE(content == now_) << "written past an output or into an input of " << bytes << " bytes";
    table->release(stream, device);
  }
  blocks_.clear();
}

void GpuTest::SetUp() {
  const char *emulated = std::getenv("GPTQ_EMULATED_CUDA"), *named = std::getenv("GPTQ_CUDA_BACKEND"), *path = named ? named : emulated;
  ASSERT_TRUE(path) << "neither GPTQ_CUDA_BACKEND nor GPTQ_EMULATED_CUDA names a backend";
  void* object = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  ASSERT_TRUE(object) << dlerror();
  const auto function = reinterpret_cast<BackendFunction>(dlsym(object, backend_symbol));
  ASSERT_TRUE(function && function()->version == backend_version) << path << " is no backend of this version";
  gpu.table = function();
  gpu.real = !dlsym(object, "gptq_emulated_state");
  Failure failure{};
  const Result result = gpu.table->open(0, nullptr, nullptr, 0, &gpu.stream, &failure);
  if (result == Result::no_device) GTEST_SKIP() << failure.text;
  ASSERT_EQ(result, Result::ok) << failure.text;
}

void GpuTest::TearDown() {
  if (!gpu.stream) return;
  gpu.finish();
  gpu.table->close(gpu.stream);
}

}  // namespace gptq::cuda
