// SPDX-License-Identifier: Apache-2.0
// Rows of the embedding table. A thread takes four columns: four bytes of a line, one scale.
#include "kernels/cuda/ops.h"
#include "kernels/cuda/stream.h"
#include "kernels/cuda/weights.h"

namespace gptq::cuda {
namespace {

constexpr uint32_t threads = 256, columns_each = 4;

GPTQ_KERNEL(threads) void embed_kernel(EmbedArgs a) {
  let_next_begin();
  wait_for_previous();
  const kernels::Matrix& w = a.table;
  float* x = a.x + uint64_t{block_x()} * w.k;
  const uint32_t begin = (block_y() * threads + thread_index()) * columns_each;
  each_of_four(w, static_cast<uint32_t>(a.batch.tokens[block_x()]), begin, [&](uint32_t input, float weight) { x[input] = weight; });
}

}  // namespace

void embed(const EmbedArgs& args, Stream& stream) {
  const uint32_t columns = threads * columns_each;
  stream.launch(embed_kernel, {args.batch.n_rows, (args.table.k_padded + columns - 1) / columns, 1, threads, 0}, args);
}

}  // namespace gptq::cuda
