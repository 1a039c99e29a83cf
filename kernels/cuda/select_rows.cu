// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/ops.h"
#include "kernels/cuda/simt.h"
#include "kernels/cuda/stream.h"

namespace gptq::cuda {
namespace {

constexpr uint32_t threads = 256;

GPTQ_KERNEL(threads) void select_rows_kernel(SelectRowsArgs a) {
  let_next_begin();
  wait_for_previous();
  const float* from = a.x + uint64_t{a.rows[block_x()]} * a.n;
  float* to = a.out + uint64_t{block_x()} * a.n;
  for (uint32_t i = thread_index(); i < a.n; i += threads) to[i] = from[i];
}

}  // namespace

void select_rows(const SelectRowsArgs& args, Stream& stream) { stream.launch(select_rows_kernel, {args.count, 1, 1, threads, 0}, args); }

}  // namespace gptq::cuda
