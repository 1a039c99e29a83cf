// SPDX-License-Identifier: Apache-2.0
// A device for tests, through the backend's table: the GPU of the backend that GPTQ_CUDA_BACKEND names, otherwise the emulated one of
// GPTQ_EMULATED_CUDA. A test gives it vectors, calls operations with what it gets for them, and finishes.
#pragma once
#include "kernels/cuda/ops.h"
#include "kernels/gpu/backend.h"
#include "tests/kernels/matrices.h"

namespace gptq::cuda {

class Gpu {
 public:
  const Backend* table = nullptr;
  Stream* stream = nullptr;
  bool real = false;

  // Memory of the device with the vector's content, between bytes of 0xff. Of nothing: NULL. Vectors must stay until finish(), which copies
  // outs back, frees all, and fails the test if anything went wrong, an `in` changed, or bytes beside an `out`.
  template <class T>
  T* in(const std::vector<T>& v) { return static_cast<T*>(put(v.data(), v.size() * sizeof(T), nullptr)); }
  template <class T>
  T* out(std::vector<T>& v) { return static_cast<T*>(put(v.data(), v.size() * sizeof(T), v.data())); }
  kernels::Matrix in(const kernels::TestMatrix& m);
  void finish();
  // Launches become those of a GPU of n multiprocessors; 0: of this one. Gives their number.
  uint32_t pretend(uint32_t n);

 private:
  static constexpr size_t guard = 4096;
  struct Block {
    uint8_t* device;
    std::vector<uint8_t> content;  // guards included
    void* out;
  };
  std::vector<Block> blocks_;
  std::vector<uint8_t> now_;
  void* put(const void* data, size_t bytes, void* out);
};

// Its tests are skipped where the backend finds no GPU.
class GpuTest : public testing::Test {
 protected:
  Gpu gpu;
  void SetUp() override;
  void TearDown() override;
};

}  // namespace gptq::cuda
