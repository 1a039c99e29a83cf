// SPDX-License-Identifier: Apache-2.0
// Where an operation's kernels go: a CUDA stream, or with the emulator the CPU, at once.
#pragma once
#include <stdint.h>

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#else
#include <functional>
#include <stdexcept>

#include "kernels/cuda/emulator.h"
#endif

namespace gptq::cuda {

class Gemm;

struct LaunchShape {
  uint32_t x, y, z;        // blocks
  uint32_t threads;        // of a block
  uint32_t shared_bytes;   // dynamic shared memory
};

// Bytes of shared memory that a thread block can have.
constexpr uint32_t shared_max(uint32_t capability) {
  const bool large = capability >= 90 && capability < 110, medium = capability == 80 || capability == 87;
  return large ? 227 << 10 : medium ? 163 << 10 : capability > 80 ? 99 << 10 : 64 << 10;
}

}  // namespace gptq::cuda

namespace gptq::gpu {

class Stream {
 public:
  uint32_t n_processors = 1;       // multiprocessors; the first member: tests set it through any backend
  uint32_t capability = 75;
  bool overlaps = true;            // kernels begin while those before them end, where a GPU can
  cuda::Gemm* gemm = nullptr;            // gemm.h; NULL where it cannot be used
#if defined(__CUDACC__)
  cudaStream_t handle = nullptr;
  cudaError_t error = cudaSuccess;  // the first, until somebody looks
  int shared_most = 0;              // bytes of dynamic shared memory that a block can have
  // kernel(args) over the shape's threads.
  template <class Args>
  void launch(void (*kernel)(Args), const cuda::LaunchShape& shape, const Args& args, int shared_percent = cudaSharedmemCarveoutMaxShared) {
    if (is_new(reinterpret_cast<const void*>(kernel))) {
      // A multiprocessor drains before it divides its memory anew, so all kernels have it divided alike, but for those that live by the
      // L1 cache.
      note(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, shared_percent));
      if (shared_most > 48 << 10) note(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_most));
    }
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(shape.x, shape.y, shape.z);
    config.blockDim = dim3(shape.threads);
    config.dynamicSmemBytes = shape.shared_bytes;
    config.stream = handle;
    config.attrs = &attribute;
    config.numAttrs = overlaps && capability >= 90 ? 1 : 0;  // programmatic dependent launch
    note(cudaLaunchKernelEx(&config, kernel, args));
  }
  void note(cudaError_t e) {
    if (error == cudaSuccess) error = e;
  }

 private:
  const void* launched_[256] = {};  // kernels, each at its hash or behind; one that finds no place is new every time
  bool is_new(const void* kernel) {
    uint32_t at = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(kernel) * 0x9E3779B97F4A7C15u >> 56);
    for (uint32_t i = 0; i < 256; ++i, at = (at + 1) % 256) {
      if (launched_[at] == kernel) return false;
      if (launched_[at]) continue;
      launched_[at] = kernel;
      return true;
    }
    return true;
  }
#else
  void* handle = nullptr;
  std::function<void(std::function<void()>)> record;  // set: launches are kept for later instead of run
  template <class Args>
  void launch(void (*kernel)(Args), const cuda::LaunchShape& shape, const Args& args, int = 0) {
    if (shape.shared_bytes > cuda::shared_max(capability)) throw std::logic_error("a launch asks for more shared memory than there is");
    auto work = [=] { cuda::emulator::run({shape.x, shape.y, shape.z}, shape.threads, shape.shared_bytes, [=] { kernel(args); }); };
    record ? record(work) : work();
  }
#endif
};

}  // namespace gptq::gpu

namespace gptq::cuda {
using gpu::Stream;
}  // namespace gptq::cuda
