// SPDX-License-Identifier: Apache-2.0
// Greedy sampling: a block goes over a row of logits.
#include "kernels/cuda/ops.h"
#include "kernels/cuda/simt.h"
#include "kernels/cuda/stream.h"

namespace gptq::cuda {
namespace {

constexpr uint32_t threads = 1024, unrolled = 4;

struct Best {
  float value;
  uint32_t index;  // ~0: none yet
  uint32_t bad;    // something was not finite
};

// For a thread's own logits, in order: the first of equals stays.
GPTQ_DEVICE void consider(Best& b, uint32_t bits, uint32_t index) {
  const float value = float_of_bits(bits);
  b.bad |= (bits & 0x7f800000) == 0x7f800000;
  if (b.index == ~0u || value > b.value) {
    b.value = value;
    b.index = index;
  }
}

GPTQ_DEVICE void join(Best& b, const Best& other) {
  b.bad |= other.bad;
  if (other.value > b.value || (other.value == b.value && other.index < b.index)) {
    b.value = other.value;
    b.index = other.index;
  }
}

GPTQ_DEVICE Best best_of_warp(Best b) {
  for (uint32_t mask = warp_size / 2; mask; mask /= 2)
    join(b, {shuffle_xor(b.value, mask), shuffle_xor(b.index, mask), shuffle_xor(b.bad, mask)});
  return b;
}

GPTQ_DEVICE Best best_of_thread(const float* logits, uint32_t n) {
  Best best = {-3.4028235e38f, ~0u, 0};
  const uint32_t misplaced = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(logits) / 4 % 4), lead = (4 - misplaced) % 4;
  const auto* words = reinterpret_cast<const uint32_t*>(logits);
  const uint32_t head = lead < n ? lead : n, n_vectors = (n - head) / 4;
  const auto* vectors = reinterpret_cast<const Vec4*>(logits + head);
  if (thread_index() < head) consider(best, words[thread_index()], thread_index());
  for (uint32_t i = thread_index(); i < n_vectors; i += threads * unrolled) {
    Vec4 v[unrolled];
    for (uint32_t u = 0; u < unrolled; ++u)
      if (i + u * threads < n_vectors) v[u] = vectors[i + u * threads];
    for (uint32_t u = 0; u < unrolled; ++u)
      for (uint32_t e = 0; e < 4 && i + u * threads < n_vectors; ++e) consider(best, v[u].v[e], head + (i + u * threads) * 4 + e);
  }
  const uint32_t tail = head + n_vectors * 4 + thread_index();
  if (tail < n) consider(best, words[tail], tail);
  return best;
}

GPTQ_KERNEL(threads) void best_token_kernel(BestTokenArgs a) {
  let_next_begin();
  wait_for_previous();
  Best* of_warps = reinterpret_cast<Best*>(shared_memory());
  const Best mine = best_of_warp(best_of_thread(a.logits + uint64_t{block_x()} * a.n, a.n));
  if (lane_index() == 0) of_warps[warp_index()] = mine;
  sync_block();
  if (warp_index() > 0) return;
  const Best best = best_of_warp(of_warps[lane_index()]);
  if (lane_index() == 0) a.token[block_x()] = best.bad ? -1 : static_cast<int32_t>(best.index);
}

}  // namespace

void best_token(const BestTokenArgs& args, Stream& stream) {
  stream.launch(best_token_kernel, {args.rows, 1, 1, threads, threads / warp_size * static_cast<uint32_t>(sizeof(Best))}, args);
}

}  // namespace gptq::cuda
