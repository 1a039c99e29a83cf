// SPDX-License-Identifier: Apache-2.0
// The best of a row's logits, in their order: blocks share the row, each keeps what beats the worst of the best so far in a list, and
// sorts the list whenever it is half full; the last to be done does the same with what all found. No two keys are equal, so that the
// result does not depend on how the work is shared.
#include "kernels/cuda/ops.h"
#include "kernels/cuda/simt.h"
#include "kernels/cuda/stream.h"

namespace gptq::cuda {
namespace {

constexpr uint32_t threads = 1024, warps = threads / warp_size, list_keys = 2 * threads, unrolled = 4;
constexpr uint32_t least_each = 8 * threads;  // logits of a block, where there are more
static_assert(candidates_max <= threads && warps == warp_size);

// The logit's rank among floats, both zeros as one, then the lower token: larger is better. 0 is none.
GPTQ_DEVICE uint64_t key_of(float logit, uint32_t token) {
  const uint32_t bits = logit == 0.0f ? 0 : bits_of_float(logit);
  return uint64_t{bits >> 31 ? ~bits : bits | 0x80000000u} << 32 | ~token;
}
GPTQ_DEVICE float logit_of(uint64_t key) {
  const uint32_t rank = static_cast<uint32_t>(key >> 32);
  return float_of_bits(rank >> 31 ? rank & 0x7fffffffu : ~rank);
}

GPTQ_DEVICE uint32_t warp_total(uint32_t v) {
  for (uint32_t mask = warp_size / 2; mask; mask /= 2) v += shuffle_xor(v, mask);
  return v;
}

struct List {
  uint64_t* keys;      // [list_keys]
  uint32_t* counts;    // [2][warps], in turn
  uint32_t filled, turn;
  uint64_t least;      // keys up to it are not wanted any more

  // All threads come, each with a key or 0.
  GPTQ_MEMBER void add(uint64_t key) {
    const uint32_t those = ballot(key > least);
    uint32_t* of_warps = counts + turn * warps;
    if (lane_index() == 0) of_warps[warp_index()] = count_bits(those);
    sync_block();
    turn ^= 1;
    const uint32_t count = of_warps[lane_index()];
    const uint32_t sums = warp_total(lane_index() < warp_index() ? count << 16 | count : count);  // before this warp, all
    if (key > least) keys[filled + (sums >> 16) + count_bits(those & ((1u << lane_index()) - 1))] = key;
    filled += sums & 0xffff;
  }

  // The best to the front, in order (a bitonic network).
  GPTQ_MEMBER void sort() {
    sync_block();
    for (uint32_t i = filled + thread_index(); i < list_keys; i += threads) keys[i] = 0;
    for (uint32_t size = 2; size <= list_keys; size *= 2)
      for (uint32_t stride = size / 2; stride; stride /= 2) {
        sync_block();
        const uint32_t i = 2 * thread_index() - thread_index() % stride;
        const uint64_t a = keys[i], b = keys[i + stride];
        if ((a < b) != ((i & size) == 0)) continue;
        keys[i] = b;
        keys[i + stride] = a;
      }
    sync_block();
  }

  GPTQ_MEMBER void keep(uint32_t n) {
    sort();
    filled = n;
    least = keys[n - 1];
    sync_block();
  }
};

// Whether it is so for any thread.
GPTQ_DEVICE bool any_of_block(bool v, uint32_t* words) {
  const uint32_t lanes = ballot(v);
  sync_block();
  if (lane_index() == 0) words[warp_index()] = lanes;
  sync_block();
  return ballot(words[lane_index()] != 0) != 0;
}

// Block (row, part of it).
GPTQ_KERNEL(threads) void candidates_kernel(CandidatesArgs a) {
  let_next_begin();
  wait_for_previous();
  const float* logits = a.logits + uint64_t{block_x()} * a.n;
  auto* keys = reinterpret_cast<uint64_t*>(shared_memory());
  List list{keys, reinterpret_cast<uint32_t*>(keys + list_keys), 0, 0, 0};
  const uint32_t each = (a.n + grid_y() - 1) / grid_y(), begin = block_y() * each, end = begin + each < a.n ? begin + each : a.n;
  bool bad = false;
  for (uint32_t first = begin; first < end; first += threads * unrolled) {
    float v[unrolled];
    GPTQ_UNROLL for (uint32_t u = 0; u < unrolled; ++u) {
      const uint32_t token = first + u * threads + thread_index();
      v[u] = token < end ? logits[token] : 0.0f;
    }
    for (uint32_t u = 0; u < unrolled && first + u * threads < end; ++u) {
      const uint32_t token = first + u * threads + thread_index();
      bad |= (bits_of_float(v[u]) & 0x7f800000) == 0x7f800000;
      list.add(token < end ? key_of(v[u], token) : 0);
      if (list.filled > threads) list.keep(a.count);
    }
  }
  list.sort();
  bad = any_of_block(bad, list.counts);
  if (grid_y() > 1) {
    const uint32_t each_found = a.count + 1;  // and whether it is bad
    uint64_t* const found = reinterpret_cast<uint64_t*>(a.workspace.data) + uint64_t{block_x()} * grid_y() * each_found;
    uint64_t* const own = found + block_y() * each_found;
    for (uint32_t i = thread_index(); i < a.count; i += threads) own[i] = keys[i];
    if (thread_index() == 0) own[a.count] = bad;
    if (!last_of(grid_y(), a.workspace.counters + block_x(), list.counts + 2 * warps)) return;
    list = {keys, list.counts, 0, 0, 0};
    const uint32_t n = grid_y() * each_found;
    for (uint32_t first = 0; first < n; first += threads) {
      const uint32_t i = first + thread_index();
      Vec2 word{};
      if (i < n) word = load_fresh(reinterpret_cast<const Vec2*>(found + i));
      const bool flag = i < n && i % each_found == a.count;
      bad |= flag && word.v[0];
      list.add(flag ? 0 : word.v[0] | uint64_t{word.v[1]} << 32);
      if (list.filled > threads) list.keep(a.count);
    }
    list.sort();
    bad = any_of_block(bad, list.counts);
  }
  Candidate* best = a.best + uint64_t{block_x()} * a.count;
  for (uint32_t i = thread_index(); i < a.count; i += threads)
    best[i] = {logit_of(keys[i]), bad && i == 0 ? -1 : static_cast<int32_t>(~static_cast<uint32_t>(keys[i]))};
}

}  // namespace

void candidates(const CandidatesArgs& args, Stream& stream) {
  const uint32_t parts = sampling_parts(args.rows, args.n, least_each, stream.n_processors);
  stream.launch(candidates_kernel, {args.rows, parts, 1, threads, list_keys * 8 + 2 * warps * 4 + 4}, args);
}

}  // namespace gptq::cuda
