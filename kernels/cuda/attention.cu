// SPDX-License-Identifier: Apache-2.0
// Attention over pages of keys and values. Few tiles: positions are split over blocks and the 4 warps of a block, and of the blocks that share a
// tile the last to be done adds up what all found. Many tiles: a warp takes a tile and all its positions, the warps of a block read the same ones.
#include <algorithm>

#include "kernels/cuda/attention_tile.h"
#include "kernels/cuda/heads.h"
#include "kernels/cuda/stream.h"

namespace gptq::cuda {
namespace {

constexpr uint32_t warps = 4, threads = warps * warp_size;
constexpr uint32_t unit_blocks = warps, units_least = 2, splits_max = 64;  // a split is of whole units, and of so many at least where it can be
// Blocks of one long sequence alone, a multiprocessor: as many as run at once. And what the workspace has room for, with all pairs.
constexpr uint32_t blocks_at_once = 2, blocks_each = 16;

struct alignas(16) Four {
  float v[4];
};

struct Launch {
  AttentionArgs a;
  AppendKvArgs append;
  bool appends;        // `append` is done as well: every sequence has one row
  uint32_t splits;     // of a tile, at most
  uint32_t pairs_max;  // of a tile
  uint32_t shared_bytes;
};

constexpr uint32_t padded(uint32_t head_dim) { return head_dim <= 64 ? 64 : head_dim <= 96 ? 96 : head_dim <= 128 ? 128 : 256; }
// What a split leaves: sums [pairs][dims], then maximum and total [pairs].
constexpr uint32_t partial_floats(uint32_t dims, uint32_t pairs) { return pairs * dims + (pairs * 2 + 3) / 4 * 4; }

// Shared memory: the query's fragments, and before them the heads as they come, with k and v, and the row's angles; or what the warps found of
// `part` dimensions, rows of which begin in different banks, and maximum and total.
constexpr uint32_t part_of(uint32_t dims) { return dims < 128 ? dims : 128; }
constexpr uint32_t found_floats(uint32_t dims) { return part_of(dims) + 8; }
uint32_t shared_bytes(const Launch& l, uint32_t dims) {
  const uint32_t queries = query_bytes(dims) + (l.appends ? (l.pairs_max + 2) * l.a.kv.head_dim * 4 + l.append.rope_dim * 4 : 0);
  return std::max(queries, warps * l.pairs_max * (found_floats(dims) + 2) * 4) + sizeof(Vec4);
}

GPTQ_DEVICE float* partial_at(const Launch& l, uint32_t dims, uint32_t split) {
  const uint64_t place = (uint64_t{block_z()} * l.a.kv.n_kv_heads + block_y()) * l.splits + split;
  return reinterpret_cast<float*>(l.a.workspace.data) + place * partial_floats(dims, l.pairs_max);
}

GPTQ_DEVICE const float* query_at(const AttentionArgs& a, uint32_t head) { return a.q + uint64_t{head} * a.kv.head_dim; }

// Four dimensions of a pair, of several parts: each with weights 2^(score - its own maximum).
struct Mix {
  Four out;
  float max, total;
};

// Always in the parts' order. part(i): its sums; last(i): its maximum and total.
template <uint32_t at_once, class Part, class Last>
GPTQ_DEVICE Mix mix(uint32_t n, Part part, Last last) {
  Mix m = {{{0, 0, 0, 0}}, -INFINITY, 0};
  GPTQ_ROLLED for (uint32_t first = 0; first < n; first += at_once) {
    Four parts[at_once];
    Two lasts[at_once];
#pragma unroll
    for (uint32_t i = 0; i < at_once; ++i) {
      parts[i] = {{0, 0, 0, 0}};
      lasts[i] = {{-INFINITY, 0}};
      if (first + i >= n) continue;
      lasts[i] = last(first + i);
      parts[i] = part(first + i);
    }
    float max = m.max;
#pragma unroll
    for (uint32_t i = 0; i < at_once; ++i) max = larger(max, lasts[i].v[0]);
    const float base = base_of(max), by = exp2_of(m.max - base);
    m.total *= by;
#pragma unroll
    for (uint32_t d = 0; d < 4; ++d) m.out.v[d] *= by;
#pragma unroll
    for (uint32_t i = 0; i < at_once; ++i) {
      const float weight = exp2_of(lasts[i].v[0] - base);
      m.total = fused(lasts[i].v[1], weight, m.total);
#pragma unroll
      for (uint32_t d = 0; d < 4; ++d) m.out.v[d] = fused(parts[i].v[d], weight, m.out.v[d]);
    }
    m.max = max;
  }
  return m;
}

template <bool bends>
GPTQ_DEVICE float inverse_total(const AttentionArgs& a, uint32_t head, float max, float total) {
  if (bends && a.sinks) total += exp2_of(a.sinks[head % a.n_heads] * log2_e - base_of(max));
  return 1.0f / total;
}

// Dimensions d .. d+3 of a head; there may be fewer.
template <bool bends>
GPTQ_DEVICE void write_four(const AttentionArgs& a, uint32_t head, uint32_t d, const Mix& m) {
  float* out = a.out + uint64_t{head} * a.kv.head_dim + d;
  const float inverse = inverse_total<bends>(a, head, m.max, m.total);
  for (uint32_t i = 0; i < 4; i += 2)
    if (d + i < a.kv.head_dim) *reinterpret_cast<Two*>(out + i) = {m.out.v[i] * inverse, m.out.v[i + 1] * inverse};
}

// A warp's own: n8 tile j of the dimensions is out[j].
template <bool bends, uint32_t dims>
GPTQ_DEVICE void write_out(const AttentionArgs& a, const Pairs& pairs, const Sums<dims>& s) {
#pragma unroll
  for (uint32_t r = 0; r < 2; ++r) {
    if (lane_index() / 4 + 8 * r >= pairs.count) continue;
    float* out = a.out + uint64_t{pairs.head[r]} * a.kv.head_dim;
    const float inverse = inverse_total<bends>(a, pairs.head[r], s.max[r], s.total[r]);
#pragma unroll
    for (uint32_t j = 0; j < dims / 8; ++j) {
      const uint32_t d = j * 8 + lane_index() % 4 * 2;
      if (d < a.kv.head_dim) *reinterpret_cast<Two*>(out + d) = {s.out[j][2 * r] * inverse, s.out[j][2 * r + 1] * inverse};
    }
  }
}

// What a block knows from the beginning, in shared memory: registers are few.
struct Block {
  uint32_t arrived, splits, pairs;
};

// What the warps found to shared memory, and the sums of it to use(pair, dimension, mix).
template <uint32_t dims, class Use>
GPTQ_DEVICE void mix_warps(const Launch& l, const Block& block, const Sums<dims>& s, Use use) {
  constexpr uint32_t part = part_of(dims), row = found_floats(dims), quads = part / 4;
  float* const found = reinterpret_cast<float*>(shared_memory());
  Two* const lasts = reinterpret_cast<Two*>(found + warps * l.pairs_max * row);
#pragma unroll
  for (uint32_t first = 0; first < dims; first += part) {
    sync_block();
#pragma unroll
    for (uint32_t r = 0; r < 2; ++r) {
      const uint32_t pair = lane_index() / 4 + 8 * r, at = warp_index() * l.pairs_max + pair;
      if (pair >= block.pairs) continue;
      float* to = found + at * row + lane_index() % 4 * 2;
#pragma unroll
      for (uint32_t j = 0; j < part / 8; ++j)
        *reinterpret_cast<Two*>(to + j * 8) = {s.out[first / 8 + j][2 * r], s.out[first / 8 + j][2 * r + 1]};
      if (lane_index() % 4 == 0) lasts[at] = {s.max[r], s.total[r]};
    }
    sync_block();
    GPTQ_ROLLED for (uint32_t i = thread_index(); i < block.pairs * quads; i += threads) {
      const uint32_t pair = i / quads, d = i % quads * 4;
      use(pair, first + d, mix<warps>(warps, [&](uint32_t w) { return *reinterpret_cast<const Four*>(found + (w * l.pairs_max + pair) * row + d); },
                                      [&](uint32_t w) { return lasts[w * l.pairs_max + pair]; }));
    }
  }
}

// Queries are turned by every block that needs them; k and v by the one that has the row's own position, which stores them.
template <class Form>
GPTQ_DEVICE void append_row(const Launch& l, const Tile& tile, const Pairs& pairs, bool stores, float* heads) {
  const AppendKvArgs& p = l.append;
  const uint32_t n = p.kv.head_dim, half = p.rope_dim / 2, row = tile.first_row, own = row * p.kv.n_kv_heads + block_y();
  const uint32_t n_heads = pairs.count + (stores ? 2 : 0), of_queries = pairs.count * n;
  const uint32_t first_head = block_y() * (p.n_heads / p.kv.n_kv_heads) + tile.first_pair;
  float *const cos = heads + (l.pairs_max + 2) * n, *const sin = cos + half;
  GPTQ_ROLLED for (uint32_t i = thread_index(); i < half; i += threads) {
    cos[i] = p.batch.cos[uint64_t{row} * half + i];
    sin[i] = p.batch.sin[uint64_t{row} * half + i];
  }
  const Row at{pairs.last_position, pairs.first_page};
  const uint32_t page = stores ? page_of(p, at) : 0;
  wait_for_previous();
  const float *q = p.q + (uint64_t{row} * p.n_heads + first_head) * n, *k = p.k + uint64_t{own} * n, *v = p.v + uint64_t{own} * n;
  constexpr uint32_t at_once = 4;
  GPTQ_ROLLED for (uint32_t first = thread_index() * 2; first < n_heads * n; first += at_once * threads * 2) {
    Vec2 x[at_once];
#pragma unroll
    for (uint32_t i = 0; i < at_once; ++i) {
      const uint32_t d = first + i * threads * 2;
      const float* from = d < of_queries ? q + d : d < of_queries + n ? k + (d - of_queries) : v + (d - of_queries - n);
      if (d < n_heads * n) x[i] = load_fresh(reinterpret_cast<const Vec2*>(from));
    }
#pragma unroll
    for (uint32_t i = 0; i < at_once; ++i)
      if (first + i * threads * 2 < n_heads * n) *reinterpret_cast<Vec2*>(heads + first + i * threads * 2) = x[i];
  }
  sync_block();
  GPTQ_ROLLED for (uint32_t i = warp_index(); i < n_heads; i += warps) {
    const Part part = i < pairs.count ? Part::query : i == pairs.count ? Part::key : Part::value;
    turn_head(heads + i * n, p, part, part == Part::query ? first_head + i : block_y(), at.position, cos, sin);
    if (part != Part::query) store_cached<Form::bytes == 1>(p, page, at.position, block_y(), part == Part::value, heads + i * n);
  }
  sync_block();
}

// Splits of a tile that sees so many units. Of nothing but these and the launch's most: a row's bits do not depend on what else there is.
constexpr uint32_t splits_of(uint32_t units, uint32_t most) { 
  const uint32_t wanted = (units + units_least - 1) / units_least;
  return wanted < most ? wanted : most;
}

// Block (split, KV head, tile).
template <class Form, uint32_t dims, bool bends>
GPTQ_KERNEL_FITS(threads, dims == 96 || (dims == 128 && !bends) ? 3 : 1) void split_kernel(Launch l) {
  let_next_begin();
  const AttentionArgs& a = l.a;
  const Tile tile = a.batch.tiles[block_z()];
  if (is_empty(a, tile)) return;
  const Pairs pairs = pairs_of<bends>(a, tile, block_y());
  const uint32_t units = (pairs.last_block - pairs.first_block) / unit_blocks + 1, splits = splits_of(units, l.splits);
  if (block_x() >= splits) return;
  const uint32_t begin = pairs.first_block + units * block_x() / splits * unit_blocks;
  const uint32_t end = smaller(pairs.first_block + units * (block_x() + 1) / splits * unit_blocks, pairs.last_block + 1);
  if (!l.appends) wait_for_previous();  // what was read so far no kernel wrote: it is the batch
  auto& block = *reinterpret_cast<Block*>(shared_memory() + l.shared_bytes - sizeof(Vec4));
  if (thread_index() == 0) block = {0, splits, pairs.count};
  auto* query = reinterpret_cast<Vec4*>(shared_memory());
  Sums<dims> s;
  walk<Form, false, bends, false>(s, a, cache_of<Form>(a, pairs, block_y()), pairs, query, {begin + warp_index(), end, warps}, l.appends, [&] {
    const float* queries[2] = {query_at(a, pairs.head[0]), query_at(a, pairs.head[1])};
    if (l.appends) {
      float* heads = reinterpret_cast<float*>(shared_memory() + query_bytes(dims));
      append_row<Form>(l, tile, pairs, end == pairs.last_block + 1, heads);
      for (uint32_t r = 0; r < 2; ++r) queries[r] = heads + smaller(lane_index() / 4 + 8 * r, pairs.count - 1) * a.kv.head_dim;
    }
    for (uint32_t i = warp_index(); i < dims / 16; i += warps) put_query(query, a, queries, i);
    sync_block();
  });
  reduce(s);
  mix_warps(l, block, s, [&](uint32_t pair, uint32_t d, const Mix& m) {
    if (block.splits == 1) return write_four<bends>(a, head_of(a, tile, block_y(), pair), d, m);
    float* const partial = partial_at(l, dims, block_x());
    *reinterpret_cast<Four*>(partial + pair * dims + d) = m.out;
    if (d == 0) *reinterpret_cast<Two*>(partial + l.pairs_max * dims + pair * 2) = {m.max, m.total};
  });
  if (block.splits == 1) return;
  if (!last_of(block.splits, a.workspace.counters + block_z() * a.kv.n_kv_heads + block_y(), &block.arrived)) return;
  const float* const partials = partial_at(l, dims, 0);
  const uint32_t stride = partial_floats(dims, l.pairs_max);
  GPTQ_ROLLED for (uint32_t i = thread_index(); i < block.pairs * (dims / 4); i += threads) {
    const uint32_t pair = i / (dims / 4), d = i % (dims / 4) * 4;
    const auto part = [&](uint32_t split) {
      const Vec4 v = load_fresh(reinterpret_cast<const Vec4*>(partials + (split * stride + pair * dims + d)));
      return Four{{float_of_bits(v.v[0]), float_of_bits(v.v[1]), float_of_bits(v.v[2]), float_of_bits(v.v[3])}};
    };
    const auto last = [&](uint32_t split) {
      const Vec2 v = load_fresh(reinterpret_cast<const Vec2*>(partials + (split * stride + l.pairs_max * dims + pair * 2)));
      return Two{{float_of_bits(v.v[0]), float_of_bits(v.v[1])}};
    };
    write_four<bends>(a, head_of(a, tile, block_y(), pair), d, mix<dims < 256 ? 16 : 8>(block.splits, part, last));
  }
}

// Block (4 tiles, KV head), the last tiles first: they have the most positions. Its warps go over all blocks of positions that any of them sees, and
// wait for each other at each.
template <class Form, uint32_t dims, bool bends>
GPTQ_KERNEL(threads) void whole_kernel(AttentionArgs a) {
  let_next_begin();
  const uint32_t index = (grid_x() - 1 - block_x()) * warps + warp_index();
  Vec4* query = reinterpret_cast<Vec4*>(shared_memory()) + warp_index() * (query_bytes(dims) / 16);
  auto* ends = reinterpret_cast<uint32_t*>(shared_memory() + warps * query_bytes(dims));  // [warps] first blocks, [warps] those behind the last
  const Tile tile = index < a.batch.n_tiles ? a.batch.tiles[index] : Tile{0, 0, 0};
  const bool none = is_empty(a, tile);
  const Pairs pairs = none ? Pairs{} : pairs_of<bends>(a, tile, block_y());
  if (lane_index() == 0) {
    ends[warp_index()] = none ? ~0u : pairs.first_block;
    ends[warps + warp_index()] = none ? 0 : pairs.last_block + 1;
  }
  sync_block();
  uint32_t begin = ends[0], end = 0;
  for (uint32_t w = 1; w < warps; ++w) begin = smaller(begin, ends[w]);
  if (none) return;
  wait_for_previous();
  Sums<dims> s;
  for (; begin < pairs.first_block; ++begin) sync_block();
  walk<Form, dims <= 128, bends, true>(s, a, cache_of<Form>(a, pairs, block_y()), pairs, query, {pairs.first_block, pairs.last_block + 1, 1}, false, [&] {
    const float* queries[2] = {query_at(a, pairs.head[0]), query_at(a, pairs.head[1])};
    for (uint32_t i = 0; i < dims / 16; ++i) put_query(query, a, queries, i);
    sync_warp();
  });
  for (uint32_t w = 0; w < warps; ++w) end = larger(end, ends[warps + w]);
  for (uint32_t block = ends[warps + warp_index()]; block < end; ++block) sync_block();
  reduce(s);
  write_out<bends>(a, pairs, s);
}

// Tiles by themselves where there are enough of them to fill the processors, and they are mostly full: prompts, not single tokens of
// sequences that may differ much in length.
bool takes_whole(const AttentionArgs& a, uint32_t n_processors) {
  const uint64_t pairs = uint64_t{a.batch.n_rows} * (a.n_heads / a.kv.n_kv_heads);
  return uint64_t{a.batch.n_tiles} * a.kv.n_kv_heads >= uint64_t{warps} * n_processors && pairs >= uint64_t{a.batch.n_tiles} * (tile_pairs / 2);
}

uint64_t partials_bytes(uint32_t head_dim, uint32_t n_processors) {
  return uint64_t{blocks_each} * n_processors * partial_floats(padded(head_dim), tile_pairs) * sizeof(float);
}

// The most splits of a tile are the GPU's and the model's, unless the tiles are so many that the workspace is too small for them.
Launch with_splits(const AttentionArgs& a, const AppendKvArgs* append, uint32_t n_processors) {
  const uint32_t tiles = a.batch.n_tiles * a.kv.n_kv_heads, dims = padded(a.kv.head_dim), group = a.n_heads / a.kv.n_kv_heads;
  Launch l{.a = a, .append = append ? *append : AppendKvArgs{}, .appends = append != nullptr, .splits = 0,
           .pairs_max = append ? std::min(group, tile_pairs) : tile_pairs, .shared_bytes = 0};
  const uint64_t room = partials_bytes(a.kv.head_dim, n_processors) / (partial_floats(dims, l.pairs_max) * sizeof(float)) / tiles;
  l.splits = std::clamp(blocks_at_once * n_processors / a.kv.n_kv_heads, 1u, splits_max);
  l.splits = static_cast<uint32_t>(std::clamp<uint64_t>(room, 1, l.splits));
  l.shared_bytes = shared_bytes(l, dims);
  return l;
}

// What any tile of the launch can want.
uint32_t grid_splits(const Launch& l) {
  const AttentionArgs& a = l.a;
  uint32_t positions = a.batch.n_positions;
  if (l.appends && a.window) positions = std::min(positions, a.window + block_positions);
  const uint32_t unit = unit_blocks * block_positions;
  return splits_of((positions + unit - 1) / unit, l.splits);
}

template <class Form, uint32_t dims, bool bends>
void run_bent(const AttentionArgs& a, const AppendKvArgs* append, Stream& stream) {
  const uint32_t heads = a.kv.n_kv_heads, tiles = a.batch.n_tiles;
  if (takes_whole(a, stream.n_processors)) {
    if (append) append_kv(*append, stream);
    return stream.launch(whole_kernel<Form, dims, bends>, {(tiles + warps - 1) / warps, heads, 1, threads, warps * query_bytes(dims) + 2 * warps * 4}, a, 50);
  }
  const Launch l = with_splits(a, append, stream.n_processors);
  stream.launch(split_kernel<Form, dims, bends>, {grid_splits(l), heads, tiles, threads, l.shared_bytes}, l);
}

// Capped scores, slopes, sinks and chunks have kernels of their own: they take registers that the others need.
template <class Form, uint32_t dims>
void run(const AttentionArgs& a, const AppendKvArgs* append, Stream& stream) {
  [[maybe_unused]] const bool bends = a.softcap != 0 || a.alibi_slopes || a.sinks || a.chunk;
  if constexpr (dims > 128) return run_bent<Form, dims, true>(a, append, stream);  // these have no registers to gain
  else bends ? run_bent<Form, dims, true>(a, append, stream) : run_bent<Form, dims, false>(a, append, stream);
}

template <class Form>
void run_padded(const AttentionArgs& a, const AppendKvArgs* append, Stream& stream) {
  switch (padded(a.kv.head_dim)) {
    case 64: return run<Form, 64>(a, append, stream);
    case 96: return run<Form, 96>(a, append, stream);
    case 128: return run<Form, 128>(a, append, stream);
    default: return run<Form, 256>(a, append, stream);
  }
}

void run_any(const AttentionArgs& a, const AppendKvArgs* append, Stream& stream) {
  a.kv.int8 ? run_padded<Bytes>(a, append, stream) : run_padded<Halves>(a, append, stream);
}

}  // namespace

void attention(const AttentionArgs& args, Stream& stream) { run_any(args, nullptr, stream); }
void append_attention(const AppendAttentionArgs& args, Stream& stream) { run_any(args.attention, &args.append, stream); }

uint64_t attention_workspace(const Shape& shape, const Stream& stream) { return partials_bytes(shape.head_dim, stream.n_processors); }

}  // namespace gptq::cuda
