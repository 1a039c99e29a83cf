// SPDX-License-Identifier: Apache-2.0
// Greedy sampling: blocks share a row of logits, and the last to be done takes the best of what they found.
#include "kernels/cuda/ops.h"
#include "kernels/cuda/simt.h"
#include "kernels/cuda/stream.h"

namespace gptq::cuda {
namespace {

constexpr uint32_t threads = 1024, unrolled = 4;
constexpr uint32_t least_each = 4 * threads;  // logits of a block, where there are more

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

// Of n logits, the first of which is number `begin` of its row.
GPTQ_DEVICE Best best_of_thread(const float* logits, uint32_t begin, uint32_t n) {
  Best best = {-3.4028235e38f, ~0u, 0};
  const uint32_t misplaced = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(logits) / 4 % 4), lead = (4 - misplaced) % 4;
  const auto* words = reinterpret_cast<const uint32_t*>(logits);
  const uint32_t head = lead < n ? lead : n, n_vectors = (n - head) / 4;
  const auto* vectors = reinterpret_cast<const Vec4*>(logits + head);
  if (thread_index() < head) consider(best, words[thread_index()], begin + thread_index());
  for (uint32_t i = thread_index(); i < n_vectors; i += threads * unrolled) {
    Vec4 v[unrolled];
    for (uint32_t u = 0; u < unrolled; ++u)
      if (i + u * threads < n_vectors) v[u] = vectors[i + u * threads];
    for (uint32_t u = 0; u < unrolled; ++u)
      for (uint32_t e = 0; e < 4 && i + u * threads < n_vectors; ++e) consider(best, v[u].v[e], begin + head + (i + u * threads) * 4 + e);
  }
  const uint32_t tail = head + n_vectors * 4 + thread_index();
  if (tail < n) consider(best, words[tail], begin + tail);
  return best;
}

// Block (row, part of it).
GPTQ_KERNEL(threads) void best_token_kernel(BestTokenArgs a) {
  let_next_begin();
  wait_for_previous();
  constexpr uint32_t warps = threads / warp_size;
  Best* of_warps = reinterpret_cast<Best*>(shared_memory());
  const uint32_t each = (a.n + grid_y() - 1) / grid_y(), begin = block_y() * each, end = begin + each < a.n ? begin + each : a.n;
  const Best mine = best_of_warp(best_of_thread(a.logits + uint64_t{block_x()} * a.n + begin, begin, end - begin));
  if (lane_index() == 0) of_warps[warp_index()] = mine;
  sync_block();
  Best best = of_warps[lane_index()];
  if (warp_index() == 0) best = best_of_warp(best);
  if (grid_y() > 1) {
    auto* found = reinterpret_cast<Vec4*>(a.workspace.data) + block_x() * grid_y();
    if (thread_index() == 0) found[block_y()] = {{bits_of_float(best.value), best.index, best.bad, 0}};
    if (!last_of(grid_y(), a.workspace.counters + block_x(), reinterpret_cast<uint32_t*>(of_warps + warps)) || warp_index() > 0) return;
    const Vec4 v = load_fresh(found + (lane_index() < grid_y() ? lane_index() : 0));
    best = best_of_warp({float_of_bits(v.v[0]), v.v[1], v.v[2]});
  }
  if (thread_index() == 0) a.token[block_x()] = best.bad ? -1 : static_cast<int32_t>(best.index);
}

}  // namespace

void best_token(const BestTokenArgs& args, Stream& stream) {
  constexpr uint32_t bytes = threads / warp_size * static_cast<uint32_t>(sizeof(Best)) + 4;
  const uint32_t parts = sampling_parts(args.rows, args.n, least_each, stream.n_processors);
  stream.launch(best_token_kernel, {args.rows, parts, 1, threads, bytes}, args);
}

}  // namespace gptq::cuda
