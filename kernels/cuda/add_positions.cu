// SPDX-License-Identifier: Apache-2.0
// Learned positions: rows of a table, added to the embeddings. A thread takes four columns.
#include "kernels/cuda/ops.h"
#include "kernels/cuda/stream.h"
#include "kernels/cuda/weights.h"

namespace gptq::cuda {
namespace {

constexpr uint32_t threads = 256, columns_each = 4;

GPTQ_KERNEL(threads) void add_positions_kernel(AddPositionsArgs a) {
  let_next_begin();
  wait_for_previous();
  const kernels::Matrix& w = a.table;
  float* x = a.x + uint64_t{block_x()} * w.k;
  const uint32_t begin = (block_y() * threads + thread_index()) * columns_each;
  const uint32_t position = a.batch.rows[block_x()].position + a.offset;
  each_of_four(w, position < w.n ? position : w.n - 1, begin, [&](uint32_t input, float weight) { x[input] += weight; });
}

}  // namespace

void add_positions(const AddPositionsArgs& args, Stream& stream) {
  const uint32_t columns = threads * columns_each;
  stream.launch(add_positions_kernel, {args.batch.n_rows, (args.table.k_padded + columns - 1) / columns, 1, threads, 0}, args);
}

}  // namespace gptq::cuda
