// SPDX-License-Identifier: Apache-2.0
// Attention over pages of keys and values. Few tiles: positions are split over blocks and the 4 warps of a block, and a second
// kernel merges the splits. Many tiles: a warp takes a tile and all its positions, the warps of a block read the same ones.
#include <algorithm>

#include "kernels/cuda/attention_tile.h"
#include "kernels/cuda/stream.h"

namespace gptq::cuda {
namespace {

constexpr uint32_t warps = 4, threads = warps * warp_size;
constexpr uint32_t split_unit = warps * block_positions, splits_max = 64;
// Blocks per multiprocessor: as many as run at once for one long sequence; more for many sequences, which may differ in length, or be
// shorter than the launch is for; what the workspace has room for.
constexpr uint32_t blocks_at_once = 2, splits_of_many = 16, blocks_each = 16;

struct alignas(16) Four {
  float v[4];
};

struct Launch {
  AttentionArgs a;
  uint32_t splits, split_positions;  // splits > 1: results go to the workspace
};

// Partial results of (tile, KV head, split): out [dims/8][2][32 lanes] pairs of floats, then max and total [16 pairs].
constexpr uint32_t partial_bytes(uint32_t dims) { return dims * 64 + tile_pairs * 8; }
constexpr uint32_t sums_bytes(uint32_t dims) { return (dims / 8 + 1) * warp_size * 16; }
constexpr uint32_t padded(uint32_t head_dim) { return head_dim <= 64 ? 64 : head_dim <= 96 ? 96 : head_dim <= 128 ? 128 : 256; }

GPTQ_DEVICE Two* partial_at(const Launch& l, uint32_t dims, uint32_t tile, uint32_t kv_head, uint32_t split) {
  const uint64_t place = (uint64_t{tile} * l.a.kv.n_kv_heads + kv_head) * l.splits + split;
  return reinterpret_cast<Two*>(l.a.workspace.data + place * partial_bytes(dims));
}

// s += other, of which part(j) is out[j].
template <uint32_t dims, class Part>
GPTQ_DEVICE void add(Sums<dims>& s, const float (&max)[2], const float (&total)[2], Part part) {
  float mine[2], others[2];
  for (uint32_t r = 0; r < 2; ++r) {
    const float both = larger(s.max[r], max[r]), base = base_of(both);
    mine[r] = exp2_of(s.max[r] - base);
    others[r] = exp2_of(max[r] - base);
    s.max[r] = both;
  }
  scale(s, mine);
#pragma unroll
  for (uint32_t j = 0; j < dims / 8; ++j) {
    const Four other = part(j);
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) s.out[j][i] = fused(other.v[i], others[i / 2], s.out[j][i]);
  }
  for (uint32_t r = 0; r < 2; ++r) s.total[r] = fused(total[r], others[r], s.total[r]);
}

// The four warps' sums into the first's: 2 to 0 and 3 to 1, then 1 to 0, by shared memory [dims/8 + 1][32 lanes] for each of two.
template <uint32_t dims>
GPTQ_DEVICE void merge_warps(Sums<dims>& s, Four* memory) {
  Four* of_lane = memory + warp_index() % 2 * (dims / 8 + 1) * warp_size + lane_index();
  for (uint32_t half = warps / 2; half; half /= 2) {
    if (half == 1) of_lane = memory + lane_index();
    sync_block();
    if (warp_index() >= half && warp_index() < 2 * half) {
#pragma unroll
      for (uint32_t j = 0; j < dims / 8; ++j) of_lane[j * warp_size] = {s.out[j][0], s.out[j][1], s.out[j][2], s.out[j][3]};
      of_lane[dims / 8 * warp_size] = {s.max[0], s.max[1], s.total[0], s.total[1]};
    }
    sync_block();
    if (warp_index() >= half) continue;
    const Four last = of_lane[dims / 8 * warp_size];
    add(s, {last.v[0], last.v[1]}, {last.v[2], last.v[3]}, [&](uint32_t j) { return of_lane[j * warp_size]; });
  }
}

// n8 tile first + j of the dimensions is out[j].
template <bool bends, uint32_t dims>
GPTQ_DEVICE void write_out(const AttentionArgs& a, const Pairs& pairs, const Sums<dims>& s, uint32_t first) {
#pragma unroll
  for (uint32_t r = 0; r < 2; ++r) {
    if (lane_index() / 4 + 8 * r >= pairs.count) continue;
    float* out = a.out + uint64_t{pairs.head[r]} * a.kv.head_dim;
    float total = s.total[r];
    if (bends && a.sinks) total += exp2_of(a.sinks[pairs.head[r] % a.n_heads] * log2_e - base_of(s.max[r]));
    const float inverse = 1.0f / total;
#pragma unroll
    for (uint32_t j = 0; j < dims / 8; ++j) {
      const uint32_t d = (first + j) * 8 + lane_index() % 4 * 2;
      if (d < a.kv.head_dim) *reinterpret_cast<Two*>(out + d) = {s.out[j][2 * r] * inverse, s.out[j][2 * r + 1] * inverse};
    }
  }
}

template <uint32_t dims>
GPTQ_DEVICE void write_partial(Two* out, const Pairs& pairs, const Sums<dims>& s) {
  Two* last = out + dims * 8;
#pragma unroll
  for (uint32_t r = 0; r < 2; ++r) {
    const uint32_t pair = lane_index() / 4 + 8 * r;
    if (pair >= pairs.count) continue;
#pragma unroll
    for (uint32_t j = 0; j < dims / 8; ++j) out[(j * 2 + r) * warp_size + lane_index()] = {s.out[j][2 * r], s.out[j][2 * r + 1]};
    if (lane_index() % 4 == 0) last[pair] = {s.max[r], s.total[r]};
  }
}

// Block (split, KV head, tile).
template <class Form, uint32_t dims, bool bends>
GPTQ_KERNEL(threads) void split_kernel(Launch l) {
  const AttentionArgs& a = l.a;
  const Tile tile = a.batch.tiles[block_z()];
  if (is_empty(a, tile)) return;
  const Pairs pairs = pairs_of<bends>(a, tile, block_y());
  const uint32_t split_blocks = l.split_positions / block_positions, first = block_x() * split_blocks;
  const uint32_t begin = larger(first, pairs.first_block), end = smaller(first + split_blocks, pairs.last_block + 1);
  if (begin >= end) return;
  if (dims < 256) let_next_begin();  // in the largest it takes a register too many
  wait_for_previous();  // what was read so far no kernel wrote: it is the batch
  auto* query = reinterpret_cast<Vec4*>(shared_memory());
  Sums<dims> s;
  clear(s);
  walk<Form, false, bends>(s, a, cache_of<Form>(a, pairs, block_y()), pairs, query, {begin + warp_index(), end, warps}, [&] {
    for (uint32_t i = warp_index(); i < dims / 16; i += warps) put_query(query, a, pairs, i);
    sync_block();
  });
  if (dims == 256) let_next_begin();
  reduce(s);
  merge_warps(s, reinterpret_cast<Four*>(shared_memory()));
  if (warp_index() > 0) return;
  if (l.splits > 1) write_partial(partial_at(l, dims, block_z(), block_y(), block_x()), pairs, s);
  else write_out<bends>(a, pairs, s, 0);
}

// Block (8 dimensions, KV head, tile): warps take turns by splits.
GPTQ_KERNEL(threads) void merge_kernel(Launch l) {
  let_next_begin();
  wait_for_previous();
  const AttentionArgs& a = l.a;
  const Tile tile = a.batch.tiles[block_z()];
  if (is_empty(a, tile)) return;
  const Pairs pairs = pairs_of<true>(a, tile, block_y());
  const uint32_t split_blocks = l.split_positions / block_positions, dims = padded(a.kv.head_dim);
  Sums<8> s;
  clear(s);
#pragma unroll 4
  for (uint32_t split = pairs.first_block / split_blocks + warp_index(); split <= pairs.last_block / split_blocks; split += warps) {
    const Two* out = partial_at(l, dims, block_z(), block_y(), split);
    Two part[2] = {{0, 0}, {0, 0}}, last[2] = {{-INFINITY, 0}, {-INFINITY, 0}};
    for (uint32_t r = 0; r < 2; ++r) {
      const uint32_t pair = lane_index() / 4 + 8 * r;
      if (pair >= pairs.count) continue;
      part[r] = out[(block_x() * 2 + r) * warp_size + lane_index()];
      last[r] = out[dims * 8 + pair];
    }
    const Four out8 = {part[0].v[0], part[0].v[1], part[1].v[0], part[1].v[1]};
    add(s, {last[0].v[0], last[1].v[0]}, {last[0].v[1], last[1].v[1]}, [&](uint32_t) { return out8; });
  }
  merge_warps(s, reinterpret_cast<Four*>(shared_memory()));
  if (warp_index() == 0) write_out<true>(a, pairs, s, block_x());
}

// Block (4 tiles, KV head), the last tiles first: they have the most positions.
template <class Form, uint32_t dims, bool bends>
GPTQ_KERNEL(threads) void whole_kernel(AttentionArgs a) {
  let_next_begin();
  const uint32_t index = (grid_x() - 1 - block_x()) * warps + warp_index();
  if (index >= a.batch.n_tiles) return;
  const Tile tile = a.batch.tiles[index];
  if (is_empty(a, tile)) return;
  const Pairs pairs = pairs_of<bends>(a, tile, block_y());
  wait_for_previous();
  Vec4* query = reinterpret_cast<Vec4*>(shared_memory()) + warp_index() * (query_bytes(dims) / 16);
  Sums<dims> s;
  clear(s);
  walk<Form, dims <= 128, bends>(s, a, cache_of<Form>(a, pairs, block_y()), pairs, query, {pairs.first_block, pairs.last_block + 1, 1}, [&] {
    for (uint32_t i = 0; i < dims / 16; ++i) put_query(query, a, pairs, i);
    sync_warp();
  });
  reduce(s);
  write_out<bends>(a, pairs, s, 0);
}

// Tiles by themselves where there are enough of them to fill the processors, and they are mostly full: prompts, not single tokens of
// sequences that may differ much in length.
bool takes_whole(const AttentionArgs& a, uint32_t n_processors) {
  const uint64_t pairs = uint64_t{a.batch.n_rows} * (a.n_heads / a.kv.n_kv_heads);
  return uint64_t{a.batch.n_tiles} * a.kv.n_kv_heads >= uint64_t{warps} * n_processors && pairs >= uint64_t{a.batch.n_tiles} * (tile_pairs / 2);
}

Launch with_splits(const AttentionArgs& a, uint32_t n_processors) {
  const uint32_t tiles = a.batch.n_tiles * a.kv.n_kv_heads, units = (a.batch.n_positions + split_unit - 1) / split_unit;
  const uint32_t wanted = std::clamp(blocks_at_once * n_processors / tiles, splits_of_many, splits_max);
  const uint32_t most = std::clamp(blocks_each * n_processors / tiles, 1u, wanted), units_each = (units + most - 1) / most;
  return {a, (units + units_each - 1) / units_each, units_each * split_unit};
}

template <class Form, uint32_t dims, bool bends>
void run_bent(const AttentionArgs& a, Stream& stream) {
  const uint32_t heads = a.kv.n_kv_heads, tiles = a.batch.n_tiles;
  if (takes_whole(a, stream.n_processors))
    return stream.launch(whole_kernel<Form, dims, bends>, {(tiles + warps - 1) / warps, heads, 1, threads, warps * query_bytes(dims)}, a);
  const Launch l = with_splits(a, stream.n_processors);
  stream.launch(split_kernel<Form, dims, bends>, {l.splits, heads, tiles, threads, 2 * sums_bytes(dims)}, l);
  if (l.splits > 1) stream.launch(merge_kernel, {(a.kv.head_dim + 7) / 8, heads, tiles, threads, 2 * sums_bytes(8)}, l);
}

// Capped scores, slopes, sinks and chunks have kernels of their own: they take registers that the others need.
template <class Form, uint32_t dims>
void run(const AttentionArgs& a, Stream& stream) {
  const bool bends = a.softcap != 0 || a.alibi_slopes || a.sinks || a.chunk;
  bends ? run_bent<Form, dims, true>(a, stream) : run_bent<Form, dims, false>(a, stream);
}

template <class Form>
void run_padded(const AttentionArgs& a, Stream& stream) {
  switch (padded(a.kv.head_dim)) {
    case 64: return run<Form, 64>(a, stream);
    case 96: return run<Form, 96>(a, stream);
    case 128: return run<Form, 128>(a, stream);
    default: return run<Form, 256>(a, stream);
  }
}

}  // namespace

void attention(const AttentionArgs& args, Stream& stream) {
  args.kv.int8 ? run_padded<Bytes>(args, stream) : run_padded<Halves>(args, stream);
}

uint64_t attention_workspace(const Shape& shape, const Stream& stream) {
  return uint64_t{blocks_each} * stream.n_processors * partial_bytes(padded(shape.head_dim));
}

}  // namespace gptq::cuda
