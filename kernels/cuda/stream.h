// SPDX-License-Identifier: Apache-2.0
// Where an operation's kernels go: a CUDA stream, or with the emulator the CPU, at once.
#pragma once
#include <stdint.h>

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#else
#include <functional>

#include "kernels/cuda/emulator.h"
#endif

namespace gptq::cuda {

class Gemm;

struct LaunchShape {
  uint32_t x, y, z;        // blocks
  uint32_t threads;        // of a block
  uint32_t shared_bytes;   // dynamic shared memory
};

class Stream {
 public:
  uint32_t n_processors = 1;       // multiprocessors; the first member: tests set it through any backend
  uint32_t capability = 75;
  uint32_t cache_bytes = 4 << 20;  // of the L2 cache
  Gemm* gemm = nullptr;            // gemm.h; NULL where it cannot be used
#if defined(__CUDACC__)
  cudaStream_t handle = nullptr;
  cudaError_t error = cudaSuccess;  // the first, until somebody looks
  // kernel(args) over the shape's threads.
  template <class Args>
  void launch(void (*kernel)(Args), const LaunchShape& shape, const Args& args) {
    if (shape.shared_bytes > 48 << 10) note(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared_bytes)));
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(shape.x, shape.y, shape.z);
    config.blockDim = dim3(shape.threads);
    config.dynamicSmemBytes = shape.shared_bytes;
    config.stream = handle;
    config.attrs = &attribute;
    config.numAttrs = capability >= 90 ? 1 : 0;  // programmatic dependent launch
    note(cudaLaunchKernelEx(&config, kernel, args));
  }
  void note(cudaError_t e) {
    if (error == cudaSuccess) error = e;
  }
#else
  void* handle = nullptr;
  std::function<void(std::function<void()>)> record;  // set: launches are kept for later instead of run
  template <class Args>
  void launch(void (*kernel)(Args), const LaunchShape& shape, const Args& args) {
    auto work = [=] { emulator::run({shape.x, shape.y, shape.z}, shape.threads, shape.shared_bytes, [=] { kernel(args); }); };
    record ? record(work) : work();
  }
#endif
};

}  // namespace gptq::cuda
