// SPDX-License-Identifier: Apache-2.0
// What a warp does for attention: 16 (query, head) pairs against 16 positions at a time. In all fragments lane = 4g + t works for pairs g
// and g + 8; for S = Q K^T it brings two keys, for P V the values of positions 4t .. 4t+3 of dimensions g, 8 + g, ...
#pragma once
#include <math.h>

#include "kernels/cuda/ops.h"
#include "kernels/cuda/simt.h"

namespace gptq::cuda {

constexpr uint32_t block_positions = 16;
constexpr float log2_e = 1.44269504f;
constexpr uint32_t query_bytes(uint32_t dims) { return dims * 64; }

struct alignas(8) Two {
  float v[2];
};

GPTQ_DEVICE uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }
GPTQ_DEVICE uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }
GPTQ_DEVICE float larger(float a, float b) { return b > a ? b : a; }

// The lane's two pairs. Where a tile ends early its last pair stands in, and is not written.
struct Pairs {
  uint32_t count, first_page;
  uint32_t head[2];                                 // batch row * n_heads + query head
  uint32_t first[2], position[2];                   // what the pair sees: first .. position
  uint32_t first_block, last_block, last_position;  // what any pair of the tile sees
};

GPTQ_DEVICE bool is_empty(const AttentionArgs& a, const Tile& tile) { return tile.first_pair >= tile.n_rows * (a.n_heads / a.kv.n_kv_heads); }

// Where a pair's query and output are: batch row * n_heads + query head.
GPTQ_DEVICE uint32_t head_of(const AttentionArgs& a, const Tile& tile, uint32_t kv_head, uint32_t pair_of_tile) {
  const uint32_t group = a.n_heads / a.kv.n_kv_heads, pair = tile.first_pair + pair_of_tile;
  return (tile.first_row + pair / group) * a.n_heads + kv_head * group + pair % group;
}

template <bool bends>
GPTQ_DEVICE Pairs pairs_of(const AttentionArgs& a, const Tile& tile, uint32_t kv_head) {
  const uint32_t group = a.n_heads / a.kv.n_kv_heads;
  Pairs p;
  p.count = smaller(tile.n_rows * group - tile.first_pair, tile_pairs);
  p.first_page = a.batch.rows[tile.first_row].first_page;
  p.last_position = 0;
  uint32_t first = ~0u;
  for (uint32_t r = 0; r < 2; ++r) {
    const uint32_t pair = smaller(lane_index() / 4 + 8 * r, p.count - 1), row = tile.first_row + (tile.first_pair + pair) / group;
    p.head[r] = head_of(a, tile, kv_head, pair);
    p.position[r] = a.batch.rows[row].position;
    p.first[r] = a.window && p.position[r] >= a.window ? p.position[r] - a.window + 1 : 0;
    if (bends && a.chunk) p.first[r] = larger(p.first[r], p.position[r] - p.position[r] % a.chunk);
    first = smaller(first, p.first[r]);
    p.last_position = larger(p.last_position, p.position[r]);
  }
  for (uint32_t mask = 4; mask < warp_size; mask *= 2) {
    first = smaller(first, shuffle_xor(first, mask));
    p.last_position = larger(p.last_position, shuffle_xor(p.last_position, mask));
  }
  p.first_block = first / block_positions;
  p.last_block = p.last_position / block_positions;
  return p;
}

// What of the scales a lane needs for a block: those of positions 4t .. 4t+3. Of float16 none.
struct NoScales {};
struct Scales {
  Vec4 keys, value_exponents;
};

// How the cache is kept: 8 dimensions of a key and 4 positions of a value as they lie, and pairs of float16 made of half a key or a value.
struct Halves {
  static constexpr uint32_t bytes = 2;
  using Key = Vec4;
  using Value = Vec2;
  using Scales = NoScales;
  static GPTQ_MEMBER void operand(const Key& key, uint32_t half, uint32_t (&b)[2]) {
    b[0] = key.v[2 * half];
    b[1] = key.v[2 * half + 1];
  }
  static GPTQ_MEMBER void operand(const Value& value, uint32_t (&b)[2]) {
    b[0] = value.v[0];
    b[1] = value.v[1];
  }
};
struct Bytes {
  static constexpr uint32_t bytes = 1;
  using Key = Vec2;
  using Value = uint32_t;
  using Scales = cuda::Scales;
  // A byte is the low end of the float16 1024 + byte; 1152 less it is the code.
  static GPTQ_MEMBER void operand(uint32_t four, uint32_t (&b)[2]) {
    b[0] = half2_minus((four & 0x00ff00ff) | 0x64006400, 0x64806480);
    b[1] = half2_minus((four >> 8 & 0x00ff00ff) | 0x64006400, 0x64806480);
  }
  static GPTQ_MEMBER void operand(const Key& key, uint32_t half, uint32_t (&b)[2]) { operand(key.v[half], b); }
};

// One KV head of a sequence, in blocks of 16 positions; block_bytes of keys and as many of values.
struct Cache {
  const uint8_t* base;    // of the layer and the head
  const uint8_t* scales;
  const uint32_t* pages;
  uint64_t page_stride, value_offset;
  uint32_t page_blocks, block_bytes, dims;
};

template <class Form>
GPTQ_DEVICE Cache cache_of(const AttentionArgs& a, const Pairs& pairs, uint32_t kv_head) {
  const KvCache& kv = a.kv;
  const uint32_t dims = kv_dims(kv.head_dim), page_blocks = kv.page_tokens / block_positions, block_bytes = dims * block_positions * Form::bytes;
  const uint8_t* layer = kv.base + a.layer * kv.layer_stride;
  return {layer + uint64_t{kv_head} * page_blocks * block_bytes, layer + kv_elements(kv) + uint64_t{kv_head} * kv.page_tokens * 4,
          a.batch.pages + pairs.first_page, kv.page_stride, kv.value_offset, page_blocks, block_bytes, dims};
}

GPTQ_DEVICE const uint8_t* block_at(const Cache& c, uint32_t page, uint32_t block) {
  return c.base + page * c.page_stride + block % c.page_blocks * c.block_bytes;
}

GPTQ_DEVICE void load_scales(NoScales&, const Cache&, uint32_t, uint32_t) {}
GPTQ_DEVICE void load_scales(Scales& scales, const Cache& c, uint32_t page, uint32_t block) {
  const uint8_t* at = c.scales + page * c.page_stride + block % c.page_blocks * block_positions * 4 + lane_index() % 4 * 16;
  scales = {*reinterpret_cast<const Vec4*>(at), *reinterpret_cast<const Vec4*>(at + c.value_offset)};
}

// Chunks of 32 dimensions: the lane has 8t .. 8t+7 of each, of two keys: those that make its columns of S be positions 4t .. 4t+3.
template <class Form, uint32_t count>
GPTQ_DEVICE void load_keys(typename Form::Key (&keys)[count][2], const Cache& c, const uint8_t* block, uint32_t first) {
  using Key = typename Form::Key;
  const uint32_t g = lane_index() / 4, t = lane_index() % 4;
  const uint8_t* key = block + ((g / 2 * 4 + g % 2) * c.dims + t * 8) * Form::bytes;
#pragma unroll
  for (uint32_t i = 0; i < count; ++i)
#pragma unroll
    for (uint32_t n = 0; n < 2; ++n)
      keys[i][n] = (first + i) * 32 < c.dims ? *reinterpret_cast<const Key*>(key + (n * c.dims * 2 + (first + i) * 32) * Form::bytes) : Key{};
}

// n8 tiles first .. first + count - 1 of the dimensions.
template <class Form, uint32_t count>
GPTQ_DEVICE void load_values(typename Form::Value (&values)[count], const Cache& c, const uint8_t* block, uint32_t first) {
  using Value = typename Form::Value;
  const uint8_t* value = block + c.value_offset + lane_index() * 4 * Form::bytes;
#pragma unroll
  for (uint32_t j = 0; j < count; ++j)
    values[j] = (first + j) * 8 < c.dims ? *reinterpret_cast<const Value*>(value + (first + j) * 128 * Form::bytes) : Value{};
}

// Q * scale * log2(e) as two float16 each, hi + lo: fragments [k16 step][hi, lo][lane] in shared memory. Two steps make a chunk: the even
// one has dimensions 8t .. 8t+3 of lane t, the odd one 8t+4 .. 8t+7. queries: of the lane's two pairs.
GPTQ_DEVICE void put_query(Vec4* to, const AttentionArgs& a, const float* const (&queries)[2], uint32_t step) {
  const uint32_t first = step / 2 * 32 + lane_index() % 4 * 8 + step % 2 * 4;
  const float factor = a.scale * log2_e;
  Vec4 hi, lo;
#pragma unroll
  for (uint32_t i = 0; i < 4; ++i) {  // fragment registers: pair g, pair g + 8, then both two dimensions further
    const uint32_t d = first + i / 2 * 2;
    Two x = {{0, 0}};
    if (d < a.kv.head_dim) x = *reinterpret_cast<const Two*>(queries[i % 2] + d);
    x = {{x.v[0] * factor, x.v[1] * factor}};
    hi.v[i] = half2_bits(x.v[0], x.v[1]);
    lo.v[i] = half2_bits(x.v[0] - half_low(hi.v[i]), x.v[1] - half_high(hi.v[i]));
  }
  Vec4* at = to + step * 2 * warp_size + lane_index();
  at[0] = hi;
  at[warp_size] = lo;
}

// In registers, where there are enough, or read again for every block: [k16 step][hi, lo].
template <uint32_t dims, bool held>
struct Query {
  const Vec4* of_lane;
  Vec4 registers[held ? dims / 16 : 1][2];
};

template <uint32_t dims, bool held>
GPTQ_DEVICE Vec4 part_of(const Query<dims, held>& q, uint32_t step, uint32_t lo) {
  return held ? q.registers[held ? step : 0][lo] : q.of_lane[(step * 2 + lo) * warp_size];
}

template <uint32_t dims, bool held>
GPTQ_DEVICE Query<dims, held> query_of(const Vec4* memory) {
  Query<dims, held> q;
  q.of_lane = memory + lane_index();
#pragma unroll
  for (uint32_t i = 0; held && i < dims / 8; ++i) q.registers[held ? i / 2 : 0][i % 2] = q.of_lane[i * warp_size];
  return q;
}

// Columns 2t, 2t+1 of S as scores[n] are positions 4t + 2n, +1. Chunks first .. first + count - 1.
template <class Form, uint32_t dims, bool held, uint32_t count>
GPTQ_DEVICE void score(float (&scores)[2][4], const Query<dims, held>& query, const typename Form::Key (&keys)[count][2], uint32_t first) {
#pragma unroll
  for (uint32_t step = 0; step < 2 * count; ++step) {
    const Vec4 hi = part_of(query, 2 * first + step, 0), lo = part_of(query, 2 * first + step, 1);
    uint32_t b[2][2];
#pragma unroll
    for (uint32_t n = 0; n < 2; ++n) Form::operand(keys[step / 2][n], step % 2, b[n]);
#pragma unroll
    for (uint32_t n = 0; n < 2; ++n) mma(scores[n], hi.v, b[n]);
#pragma unroll
    for (uint32_t n = 0; n < 2; ++n) mma(scores[n], lo.v, b[n]);
  }
}

// Sums so far. Weights are 2^(score - max); total is of the lane's own columns until reduce().
template <uint32_t dims>
struct Sums {
  float out[dims / 8][4];
  float max[2], total[2];
};

template <uint32_t dims>
GPTQ_DEVICE void clear(Sums<dims>& s) {
#pragma unroll
  for (uint32_t j = 0; j < dims / 8; ++j)
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) s.out[j][i] = 0;
  for (uint32_t r = 0; r < 2; ++r) {
    s.max[r] = -INFINITY;
    s.total[r] = 0;
  }
}

// What exponents are taken against: a row that has seen nothing has the maximum -inf, and -inf - -inf would be NaN.
GPTQ_DEVICE float base_of(float max) { return max == -INFINITY ? 0.0f : max; }

template <uint32_t dims>
GPTQ_DEVICE void scale(Sums<dims>& s, const float (&by)[2]) {
#pragma unroll
  for (uint32_t j = 0; j < dims / 8; ++j)
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) s.out[j][i] *= by[i / 2];
  for (uint32_t r = 0; r < 2; ++r) s.total[r] *= by[r];
}

// Scores of int8 keys become true to scale, and a value's scale goes into its weight, by the exponent.
GPTQ_DEVICE float scaled(float x, const NoScales&, uint32_t) { return x; }
GPTQ_DEVICE float scaled(float x, const Scales& s, uint32_t i) { return fused(x, float_of_bits(s.keys.v[i]), float_of_bits(s.value_exponents.v[i])); }

// The same with the score capped, and less by its distance; scores are in units of log2(e).
GPTQ_DEVICE float key_scaled(float x, const NoScales&, uint32_t) { return x; }
GPTQ_DEVICE float key_scaled(float x, const Scales& s, uint32_t i) { return x * float_of_bits(s.keys.v[i]); }
GPTQ_DEVICE float value_scaled(float x, const NoScales&, uint32_t) { return x; }
GPTQ_DEVICE float value_scaled(float x, const Scales& s, uint32_t i) { return x + float_of_bits(s.value_exponents.v[i]); }

template <class BlockScales>
GPTQ_DEVICE float bent(float x, const BlockScales& scales, uint32_t i, const AttentionArgs& a, uint32_t head, uint32_t distance) {
  x = key_scaled(x, scales, i);
  if (a.softcap != 0) x = a.softcap * log2_e * (1.0f - 2.0f / (1.0f + exp2_of(x * (2.0f / a.softcap))));  // tanh by e^2x
  if (a.alibi_slopes) x -= a.alibi_slopes[head % a.n_heads] * log2_e * static_cast<float>(distance);
  return value_scaled(x, scales, i);
}

// What two weights, as they came out, add to the total: of float16 values what multiplies these, so that its rounding cancels in part.
GPTQ_DEVICE float total_of(uint32_t pair, float, float, const NoScales&, uint32_t) { return half_low(pair) + half_high(pair); }
GPTQ_DEVICE float total_of(uint32_t, float a, float b, const Scales& s, uint32_t first) {
  const float without[2] = {exp2_of(a - float_of_bits(s.value_exponents.v[first])), exp2_of(b - float_of_bits(s.value_exponents.v[first + 1]))};
  return (a == -INFINITY ? 0.0f : without[0]) + (b == -INFINITY ? 0.0f : without[1]);
}

// Scores become weights, float16, as P's fragment: position 4t + 2n + e is its column 2t + e (+ 8n), as it was in S.
template <bool bends, uint32_t dims, class BlockScales>
GPTQ_DEVICE void weigh(uint32_t (&weights)[4], Sums<dims>& s, float (&scores)[2][4], const BlockScales& scales, const AttentionArgs& args,
                       const Pairs& pairs, uint32_t block) {
  const uint32_t position = block * block_positions + lane_index() % 4 * 4;
  float by[2];
#pragma unroll
  for (uint32_t r = 0; r < 2; ++r) {
    float max = s.max[r];
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      float& x = scores[i / 2][2 * r + i % 2];
      x = position + i - pairs.first[r] > pairs.position[r] - pairs.first[r] ? -INFINITY
          : bends ? bent(x, scales, i, args, pairs.head[r], pairs.position[r] - position - i) : scaled(x, scales, i);
      max = larger(max, x);
    }
    max = larger(max, shuffle_xor(max, 1));
    max = larger(max, shuffle_xor(max, 2));
    const float base = base_of(max);
    by[r] = exp2_of(s.max[r] - base);
    s.max[r] = max;
  }
  scale(s, by);
#pragma unroll
  for (uint32_t n = 0; n < 2; ++n)
#pragma unroll
    for (uint32_t r = 0; r < 2; ++r) {
      const float base = base_of(s.max[r]), a = scores[n][2 * r] - base, b = scores[n][2 * r + 1] - base;
      weights[2 * n + r] = half2_bits(exp2_of(a), exp2_of(b));
      s.total[r] += total_of(weights[2 * n + r], a, b, scales, 2 * n);
    }
}

// Values after the last position are whatever a page held before, maybe NaN: weight 0 would not help. No byte is NaN.
template <uint32_t count>
GPTQ_DEVICE void drop_values(uint32_t (&)[count], uint32_t) {}
template <uint32_t count>
GPTQ_DEVICE void drop_values(Vec2 (&values)[count], uint32_t n_valid) {
  const uint32_t own = lane_index() % 4 * 4, n = n_valid > own ? n_valid - own : 0;
  const uint32_t low = n >= 2 ? ~0u : n ? 0xffffu : 0, high = n >= 4 ? ~0u : n == 3 ? 0xffffu : 0;
#pragma unroll
  for (uint32_t j = 0; j < count; ++j) {
    values[j].v[0] &= low;
    values[j].v[1] &= high;
  }
}

template <class Form, uint32_t dims, uint32_t count>
GPTQ_DEVICE void add_values(Sums<dims>& s, const uint32_t (&weights)[4], typename Form::Value (&values)[count], const Pairs& pairs, uint32_t block,
                            uint32_t first) {
  if (block == pairs.last_block) drop_values(values, pairs.last_position % block_positions + 1);
#pragma unroll
  for (uint32_t j = 0; j < count; ++j) {
    uint32_t b[2];
    Form::operand(values[j], b);
    mma(s.out[first + j], weights, b);
  }
}

struct Blocks {  // begin, begin + stride, ... before end
  uint32_t begin, end, stride;
};

// What a block needs next is on its way while one is worked on: keys from when the last ones were multiplied, values from when the last ones
// were. Where that takes too many registers, they come in parts when they are needed. put_queries(), which every warp must do, fills `memory`
// while the first keys and values come; where it `appends`, the tile's last position is there only afterwards.
// together: all warps of the block come to every block of positions at once, so that they find each other's loads in the L1 cache.
template <class Form, bool held, bool bends, bool together, uint32_t dims, class PutQueries>
GPTQ_DEVICE void walk(Sums<dims>& s, const AttentionArgs& a, const Cache& c, const Pairs& pairs, const Vec4* memory, const Blocks& blocks,
                      bool appends, PutQueries put_queries) {
  constexpr bool ahead = dims <= 128;
  constexpr uint32_t chunks = dims / 32, key_part = ahead ? chunks : 2 * Form::bytes, value_part = ahead ? chunks * 4 : 8;
  const bool any = blocks.begin < blocks.end;
  typename Form::Key keys[key_part][2];
  typename Form::Value values[value_part];
  typename Form::Scales scales;
  uint32_t page = any ? c.pages[blocks.begin / c.page_blocks] : 0;
  const auto load_first = [&] {
    const uint8_t* at = block_at(c, page, blocks.begin);
    load_keys<Form>(keys, c, at, 0);
    load_values<Form>(values, c, at, 0);
    load_scales(scales, c, page, blocks.begin);
  };
  if (ahead && any) load_first();
  put_queries();
  if (ahead && any && appends && blocks.begin == pairs.last_block) load_first();
  clear(s);
  const auto query = query_of<dims, held>(memory);
  for (uint32_t block = blocks.begin; block < blocks.end; block += blocks.stride) {
    if (together) sync_block();
    const uint32_t next = block + blocks.stride;
    const bool more = ahead && next < blocks.end;
    if (!ahead) page = c.pages[block / c.page_blocks];
    const uint8_t* now = block_at(c, page, block);
    if (more) page = c.pages[next / c.page_blocks];
    const uint8_t* then = block_at(c, page, next);
    float scores[2][4] = {};
#pragma unroll
    for (uint32_t first = 0; first < chunks; first += key_part) {
      if (!ahead) load_keys<Form>(keys, c, now, first);
      score<Form>(scores, query, keys, first);
    }
    if (more) load_keys<Form>(keys, c, then, 0);
    if (!ahead) load_values<Form>(values, c, now, 0);
    if (!ahead) load_scales(scales, c, page, block);
    uint32_t weights[4];
    weigh<bends>(weights, s, scores, scales, a, pairs, block);
#pragma unroll
    for (uint32_t first = 0; first < chunks * 4; first += value_part) {
      if (first) load_values<Form>(values, c, now, first);
      add_values<Form>(s, weights, values, pairs, block, first);
    }
    if (more) load_values<Form>(values, c, then, 0);
    if (more) load_scales(scales, c, page, next);
  }
}

template <uint32_t dims>
GPTQ_DEVICE void reduce(Sums<dims>& s) {
  for (uint32_t r = 0; r < 2; ++r)
    for (uint32_t mask = 1; mask < 4; mask *= 2) s.total[r] += shuffle_xor(s.total[r], mask);
}

}  // namespace gptq::cuda
