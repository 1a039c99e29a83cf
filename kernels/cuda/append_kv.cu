// SPDX-License-Identifier: Apache-2.0
// Norm and rotation of queries and keys, keys and values into the cache. A warp takes one head of one row.
#include "kernels/cuda/ops.h"
#include "kernels/cuda/simt.h"
#include "kernels/cuda/stream.h"

namespace gptq::cuda {
namespace {

constexpr uint32_t warps = 4, threads = warps * warp_size;

// Element d becomes x[d] / sqrt(mean(x^2) + eps) * weight[d].
GPTQ_DEVICE void norm(float* x, const float* weight, uint32_t n, float eps) {
  float squares = 0;
  for (uint32_t d = lane_index(); d < n; d += warp_size) squares = fused(x[d], x[d], squares);
  const float factor = 1.0f / sqrt_of(warp_sum(squares) / static_cast<float>(n) + eps);
  for (uint32_t d = lane_index(); d < n; d += warp_size) x[d] = x[d] * factor * weight[d];
}

GPTQ_DEVICE void rotate(float* x, const float* cos, const float* sin, uint32_t half) {
  for (uint32_t j = lane_index(); j < half; j += warp_size) {
    const float low = x[j], high = x[j + half];
    x[j] = low * cos[j] - high * sin[j];
    x[j + half] = fused(high, cos[j], low * sin[j]);
  }
}

// A key or value of a position: `step` float16 apart, zeros behind it.
GPTQ_DEVICE void store(uint16_t* to, uint32_t step, const float* x, uint32_t n) {
  for (uint32_t d = lane_index(); d < kv_dims(n); d += warp_size) to[d * step] = d < n ? half_bits(x[d]) : uint16_t{0};
}

GPTQ_DEVICE void store_cached(const AppendKvArgs& a, const Row& at, uint32_t head, bool value, const float* x) {
  const KvCache& kv = a.kv;
  const uint32_t place = at.position % kv.page_tokens, dims = kv_dims(kv.head_dim);
  uint8_t* page = kv.base + a.batch.pages[at.first_page + at.position / kv.page_tokens] * kv.page_stride + a.layer * kv.layer_stride;
  const uint64_t first = uint64_t{head} * kv.page_tokens + place / 16 * 16;  // of the 16 positions, which are together either way
  if (value) store(reinterpret_cast<uint16_t*>(page + kv.value_offset) + first * dims + place % 16, 16, x, kv.head_dim);
  else store(reinterpret_cast<uint16_t*>(page) + (first + place % 16) * dims, 1, x, kv.head_dim);
}

GPTQ_KERNEL(threads) void append_kv_kernel(AppendKvArgs a) {
  wait_for_previous();
  const uint32_t n_kv = a.kv.n_kv_heads, n = a.kv.head_dim, heads = a.n_heads + 2 * n_kv;
  const uint32_t index = block_x() * warps + warp_index(), row = index / heads, head = index % heads;
  if (row >= a.batch.n_rows) return;
  const bool query = head < a.n_heads, value = head >= a.n_heads + n_kv;
  const uint32_t kv_head = query ? 0 : (head - a.n_heads) % n_kv;
  const uint64_t first = query ? (uint64_t{row} * a.n_heads + head) * n : (uint64_t{row} * n_kv + kv_head) * n;
  const float* from = (query ? a.q : value ? a.v : a.k) + first;
  float* x = reinterpret_cast<float*>(shared_memory()) + warp_index() * n;
  for (uint32_t d = lane_index(); d < n; d += warp_size) x[d] = from[d];
  let_next_begin();
  const float* weight = query ? a.q_norm : a.k_norm;
  if (!value && weight) norm(x, weight, n, a.eps);
  sync_warp();
  const uint32_t half = a.rope_dim / 2;
  if (!value) rotate(x, a.batch.cos + uint64_t{row} * half, a.batch.sin + uint64_t{row} * half, half);
  sync_warp();
  for (uint32_t d = lane_index(); !value && d < n; d += warp_size) (query ? a.q : a.k)[first + d] = x[d];
  if (!query) store_cached(a, a.batch.rows[row], kv_head, value, x);
}

}  // namespace

void append_kv(const AppendKvArgs& args, Stream& stream) {
  const uint32_t heads = args.batch.n_rows * (args.n_heads + 2 * args.kv.n_kv_heads);
  stream.launch(append_kv_kernel, {(heads + warps - 1) / warps, 1, 1, threads, warps * args.kv.head_dim * 4}, args);
}

}  // namespace gptq::cuda
