// SPDX-License-Identifier: Apache-2.0
// The operations of kernels/gpu/ops.h on CUDA: one function each.
#pragma once
#include "kernels/gpu/ops.h"

namespace gptq::cuda {

using namespace gpu;

#define X(op, Args) void op(const Args& args, Stream& stream);
GPTQ_GPU_OPS(X)
#undef X

uint64_t matmul_workspace(const Shape& shape, const Stream& stream);
uint64_t attention_workspace(const Shape& shape, const Stream& stream);
// Whether rows are enough for cuBLASLt to be of use.
bool wants_library(const Shape& shape, const Stream& stream);

// Blocks that share a row of n logits.
constexpr uint32_t sampling_parts(uint32_t rows, uint32_t n, uint32_t least_each, uint32_t n_processors) {
  uint32_t parts = (n + least_each - 1) / least_each;
  if (parts > n_processors / rows) parts = n_processors / rows;
  return parts < 1 ? 1 : parts > sampling_parts_max ? sampling_parts_max : parts;
}

}  // namespace gptq::cuda
