// SPDX-License-Identifier: Apache-2.0
// Norm and rotation of queries and keys, keys and values into the cache. A warp takes one head of one row.
#include "kernels/cuda/heads.h"
#include "kernels/cuda/stream.h"

namespace gptq::cuda {
namespace {

constexpr uint32_t warps = 4, threads = warps * warp_size;

GPTQ_KERNEL_FITS(threads, 8) void append_kv_kernel(AppendKvArgs a) {
  let_next_begin();
  wait_for_previous();
  const uint32_t n_kv = a.kv.n_kv_heads, n = a.kv.head_dim, heads = a.n_heads + 2 * n_kv;
  const uint32_t index = block_x() * warps + warp_index(), row = index / heads, at = index % heads;
  if (row >= a.batch.n_rows) return;
  const Part part = at < a.n_heads ? Part::query : at < a.n_heads + n_kv ? Part::key : Part::value;
  const uint32_t head = part == Part::query ? at : (at - a.n_heads) % n_kv;
  const uint64_t first = part == Part::query ? (uint64_t{row} * a.n_heads + head) * n : (uint64_t{row} * n_kv + head) * n;
  const float* from = (part == Part::query ? a.q : part == Part::key ? a.k : a.v) + first;
  float* x = reinterpret_cast<float*>(shared_memory()) + warp_index() * n;
  const Row own = a.batch.rows[row];
#pragma unroll 4
  for (uint32_t d = lane_index(); d < n; d += warp_size) x[d] = from[d];
  const uint32_t page = part == Part::query ? 0 : page_of(a, own);
  const uint64_t angles = uint64_t{row} * (a.rope_dim / 2);
  turn_head<true>(x, a, part, head, own.position, a.batch.cos + angles, a.batch.sin + angles);
  for (uint32_t d = lane_index(); part != Part::value && d < n; d += warp_size) (part == Part::query ? a.q : a.k)[first + d] = x[d];
  if (part == Part::query) return;
  const bool value = part == Part::value;
  a.kv.int8 ? store_cached<true>(a, page, own.position, head, value, x) : store_cached<false>(a, page, own.position, head, value, x);
}

}  // namespace

void append_kv(const AppendKvArgs& args, Stream& stream) {
  const uint32_t heads = args.batch.n_rows * (args.n_heads + 2 * args.kv.n_kv_heads);
  stream.launch(append_kv_kernel, {(heads + warps - 1) / warps, 1, 1, threads, warps * args.kv.head_dim * 4}, args);
}

}  // namespace gptq::cuda
