// SPDX-License-Identifier: Apache-2.0
// Norms of rows by themselves: those that a product cannot take along. A row a thread block.
#include "kernels/cuda/ops.h"
#include "kernels/cuda/simt.h"
#include "kernels/cuda/stream.h"

namespace gptq::cuda {
namespace {

constexpr uint32_t threads = 256, warps = threads / warp_size;

GPTQ_DEVICE float block_sum(float v) {
  float* const shared = reinterpret_cast<float*>(shared_memory());
  v = warp_sum(v);
  sync_block();  // the last sum's readers are done
  if (lane_index() == 0) shared[warp_index()] = v;
  sync_block();
  float sum = 0;
  for (uint32_t w = 0; w < warps; ++w) sum += shared[w];
  return sum;
}

GPTQ_KERNEL(threads) void norm_kernel(NormArgs a) {
  let_next_begin();
  wait_for_previous();
  const float* x = a.x + uint64_t{block_x()} * a.n;
  float* y = a.y + uint64_t{block_x()} * a.n;
  float sum = 0, squares = 0;
  for (uint32_t i = thread_index(); a.centered && i < a.n; i += threads) sum += x[i];
  const float mean = a.centered ? block_sum(sum) / static_cast<float>(a.n) : 0.0f;
  for (uint32_t i = thread_index(); i < a.n; i += threads) squares = fused(x[i] - mean, x[i] - mean, squares);
  const float factor = 1.0f / sqrt_of(block_sum(squares) / static_cast<float>(a.n) + a.eps);
  for (uint32_t i = thread_index(); i < a.n; i += threads) {
    const float v = (x[i] - mean) * factor;
    y[i] = fused(v, a.weight ? a.weight[i] : 1.0f, a.bias ? a.bias[i] : 0.0f);
  }
}

}  // namespace

void norm(const NormArgs& args, Stream& stream) { stream.launch(norm_kernel, {args.rows, 1, 1, threads, warps * sizeof(float)}, args); }

}  // namespace gptq::cuda
