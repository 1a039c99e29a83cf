// SPDX-License-Identifier: Apache-2.0
// A cuBLASLt for the emulator: looks closely at what it is asked for and multiplies in float64.
#pragma once
#include "kernels/cuda/gemm.h"

namespace gptq::cuda {

struct FakeCublasLt {
  int status;          // what every product ends with
  uint32_t products;   // done so far
  uint32_t calls;      // for them: batches take one
};
extern FakeCublasLt fake_cublaslt;
lt::Library fake_library();

}  // namespace gptq::cuda
