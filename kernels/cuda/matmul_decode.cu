// SPDX-License-Identifier: Apache-2.0
// Products with up to 16 rows of activations: bound by the weights' way from memory. A thread block a multiprocessor takes a run of the
// 16-row blocks; its warps share out the run's weights, (block, pair of tiles) by (block, pair of tiles), as one stream each, so that a
// warp stores most blocks alone and nobody waits for another but at the end. Weights come through a ring of shared memory, the first of
// them while the kernel before still makes the activations.
//
// Up to 4 rows a thread block packs for itself: that costs L2 traffic of 4 bytes a column and row (8 with norm or up), for Llama-3-8B's
// 4096 x 4096 at one row 2 of 8.7 MB, where a kernel that packs once would cost a launch in every product. More rows are packed before.
#include <algorithm>

#include "kernels/cuda/decode_input.h"
#include "kernels/cuda/feed.h"
#include "kernels/cuda/stream.h"

namespace gptq::cuda {
namespace {

constexpr uint32_t stages_least = 2, stages_most = 8;  // of weights on their way

template <class Form, uint32_t n_scales, bool plain>
struct FeedOf {
  using Type = RingFeed<Form, n_scales, plain>;
};
template <class Form, bool plain>
struct FeedOf<Form, 0, plain> {
  using Type = RegisterFeed<Form>;
};

template <class Form, uint32_t n_scales, Columns columns, bool plain>
struct Product16 {  // a block's 16 rows times the warp's pieces of it
  using Feed = typename FeedOf<Form, n_scales, plain>::Type;
  static constexpr uint32_t operands = operands_of(columns);
  float sum[operands][4];

  GPTQ_MEMBER void clear() {
    GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o)
      GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) sum[o][i] = 0.0f;
  }

  // packed, sums: of the piece and the lane. tile_bytes: from one tile to the next.
  GPTQ_MEMBER void add(const Job& job, const typename Feed::Piece& piece, const uint8_t* packed, const float* sums, uint32_t tile_bytes,
                       int second_words) {
    float acc[operands][4] = {};
    GPTQ_UNROLL for (uint32_t tile = 0; tile < Feed::tiles; ++tile) {
      const typename Form::Raw raw = piece.raw(job, tile);
      GPTQ_UNROLL for (uint32_t half = 0; half < 2; ++half) {
        Vec4 x[operands];
        GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o)
          x[o] = *reinterpret_cast<const Vec4*>(packed + tile * tile_bytes + (half ? second_words : 0) + o * operand_bytes(columns));
        GPTQ_UNROLL for (uint32_t c = 2 * half; c < 2 * half + 2; ++c) {
          const uint32_t step = tile * tile_steps + c;
          uint32_t a[4];
          Form::operand(job, raw, c, a);
          GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o) mma(acc[o], a, x[o].v + c % 2 * 2);
          if ((step + 1) % Feed::steps_of_scale == 0) take(job, piece, acc, sums, step / Feed::steps_of_scale);
        }
      }
    }
  }

  // Adds what came of a scale's columns, and clears it.
  GPTQ_MEMBER void take(const Job& job, const typename Feed::Piece& piece, float (&acc)[operands][4], const float* sums, uint32_t scale) {
    if constexpr (n_scales == 0) {
      GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o)
        GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) sum[o][i] += acc[o][i];
    } else {
      const Scale s = piece.scale(job, scale);
      GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o) {
        const Vec2 x = *reinterpret_cast<const Vec2*>(sums + (scale * operands + o) * 8);
        add_scaled(sum[o], acc[o], s, float_of_bits(x.v[0]), float_of_bits(x.v[1]));
      }
    }
    GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o)
      GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) acc[o][i] = 0.0f;
  }

  // Calls f(row of the block, token, value) for the lane's results.
  template <class F>
  GPTQ_MEMBER void each(uint32_t rows, const LanePlace<columns>& lane, F f) const {
    GPTQ_UNROLL for (uint32_t o = 0; o < (columns == Columns::sixteen ? 2 : 1); ++o)
      GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) {
        float value = sum[o][i];
        if (columns == Columns::both) value = fused(sum[operands - 1][i], low_unit, value);
        if (columns == Columns::pairs) value = fused(shuffle_xor(value, 2), low_unit, value);
        const uint32_t token = o * 8 + lane.tokens[i % 2];
        if (token < rows && (columns != Columns::pairs || lane_index() % 4 < 2)) f(lane_index() / 4 + i / 2 * 8, token, value);
      }
  }
};

// A result of a block to its place.
GPTQ_DEVICE void store_result(const Job& job, const Target& target, uint32_t block, uint32_t row, uint32_t token, float value) {
  if (job.parts > 1) *partial(job, block_y(), block * block_rows + row, token) = value;
  else store_row(job, target, (block - target.first_block) * block_rows + row, token, value);
}

// Adds up what warps left of the block that the warp began and others finished. ends: where each warp's pieces end.
template <Columns columns, class Ends>
GPTQ_DEVICE void join(const Job& job, const Shared& s, uint32_t warp, uint32_t block, uint32_t block_end, Ends ends) {
  constexpr uint32_t each = (rows_max(columns) * block_rows + warp_size - 1) / warp_size;
  const uint32_t n = s.layout.left_floats();
  float sums[each] = {};
  const auto add = [&](uint32_t slot) {
    GPTQ_UNROLL for (uint32_t j = 0; j < each; ++j)
      if (const uint32_t i = j * warp_size + lane_index(); i < n) sums[j] += s.left[slot * n + i];
  };
  add(warp * 2 + 1);
  for (uint32_t w = warp + 1, end = ends(warp); end < block_end; ++w) {
    const uint32_t begin = end;
    end = ends(w);
    if (end > begin) add(w * 2);
  }
  const Target& target = job.targets[target_of(job, block)];
  GPTQ_UNROLL for (uint32_t j = 0; j < each; ++j) {
    const uint32_t i = j * warp_size + lane_index(), token = i % job.rows;
    if (i < n) store_result(job, target, block, i / job.rows, token, sums[j] * s.factors[token]);
  }
}

// What the norm multiplies with was last read a token ago.
GPTQ_DEVICE void fetch_norm(const Job& job, Range part) {
  constexpr uint32_t floats = sector_bytes / 4;
  const uint32_t last = 2 * part.last * tile_columns;
  for (uint32_t at = 2 * part.first * tile_columns + thread_index() * floats; at < last && at < job.k; at += threads * floats) prefetch_l2(job.input.norm + at);
}

template <class Form, uint32_t n_scales, Columns columns, bool plain>
GPTQ_KERNEL_FITS(threads, 1) void decode_kernel(Job job) {
  using Product = Product16<Form, n_scales, columns, plain>;
  using Feed = typename Product::Feed;
  let_next_begin();
  const uint32_t warp = uniform(warp_index()), all_pairs = (job.tiles + 1) / 2;
  const Range part = job.parts == 1 ? Range{0, all_pairs} : share(all_pairs, block_y(), job.parts);  // in pairs of tiles
  const uint32_t part_pairs = part.last - part.first, n_pieces = part_pairs * 2 / Feed::tiles;
  const Range blocks = share(job.n_blocks, block_x(), grid_x());
  const uint32_t all = n_pieces * (blocks.last - blocks.first);
  const Range mine = share(all, warp, warps);
  const uint32_t total = mine.last - mine.first, first_block = mine.first / n_pieces, first_piece = mine.first - first_block * n_pieces;
  const Shared s = shared_of(layout_of(columns, job.rows, n_scales), part_pairs);
  Feed feed(job, {blocks.first + first_block, first_piece, total, n_pieces, 2 * part.first, 2 * part.last > job.tiles ? Feed::tiles / 2 : Feed::tiles},
            s.stages + warp * job.stages * Feed::stage_bytes);
  feed.begin(job);
  if (!packed_before(columns) && job.input.norm) fetch_norm(job, part);

  wait_for_previous();
  if constexpr (packed_before(columns)) copy_packed<columns>(job, s, part);
  else pack<Form::quantized>(job, s, part, warp);
  const LanePlace<columns> lane(job.rows);
  if constexpr (n_scales > 0) sum_columns<columns, n_scales>(s, part_pairs, lane, warp);

  const uint8_t* const packed = s.packed + lane.words;
  const float* const sums = s.sums + lane_index() % 4 * 2;
  const uint8_t* x = packed + first_piece * Feed::tiles * s.layout.tile_bytes();
  const float* x_sums = sums + first_piece * s.layout.pair_sums;
  uint32_t left = n_pieces - first_piece, block = blocks.first + first_block;  // left: pieces of the block
  bool whole = !first_piece;  // all of the block is this warp's so far
  Product product;
  product.clear();
  const auto leave = [&](uint32_t slot) {
    float* to = s.left + (warp * 2 + slot) * s.layout.left_floats();
    product.each(job.rows, lane, [&](uint32_t row, uint32_t token, float value) { to[row * job.rows + token] = value; });
  };
  const auto end_block = [&] {
    if (whole) {
      const Target& target = job.targets[target_of(job, block)];
      product.each(job.rows, lane, [&](uint32_t row, uint32_t token, float value) { store_result(job, target, block, row, token, value * s.factors[token]); });
    } else {
      leave(0);
    }
    product.clear();
    whole = true;
    left = n_pieces;
    x = packed;
    x_sums = sums;
    ++block;
  };
  for (uint32_t done = 0; done < total; ++done) {
    product.add(job, feed.take(job), x, x_sums, s.layout.tile_bytes(), lane.second_words);
    x += Feed::tiles * s.layout.tile_bytes();
    x_sums += s.layout.pair_sums;
    if (!--left) end_block();
  }
  const bool begun = left < n_pieces && total;  // a block that others finish
  if (begun) leave(whole ? 1 : 0);
  sync_block();
  if (begun && whole) join<columns>(job, s, warp, block, (block + 1 - blocks.first) * n_pieces, [&](uint32_t w) { return share(all, w, warps).last; });
}

// Scales of two tiles.
uint32_t decode_scales(const Job& job) {
  return !kernels::is_quantized(job.kind) ? 0 : job.group_steps % (2 * tile_steps) == 0 ? 1 : job.group_steps % tile_steps == 0 ? 2 : 2 * tile_steps;
}

Columns columns_for(uint32_t rows, bool exact) {
  return rows <= rows_max(Columns::pairs) ? Columns::pairs : exact ? Columns::both : rows <= rows_max(Columns::eight) ? Columns::eight : Columns::sixteen;
}

// Weights on their way, of all warps.
uint32_t ring_bytes(kernels::Kind kind, uint32_t n_scales, uint32_t stages) {
  return n_scales ? warps * stages * stage_bytes(tile_bytes_max(kind), n_scales) : 0;
}

// How many parts K is cut into; 0: not even a little of it fits.
uint32_t parts_of(uint32_t tiles, const Layout& layout, uint32_t ring, uint32_t room) {
  const uint32_t pairs = (tiles + 1) / 2, most = room > ring ? layout.pairs_max(room - ring) : 0;
  return most ? (pairs + most - 1) / most : 0;
}

// As many stages as there is room for.
uint32_t stages_of(const Job& job, uint32_t bytes, uint32_t capability) {
  const uint32_t each = ring_bytes(job.kind, decode_scales(job), 1);
  return each ? std::clamp((shared_max(capability) - bytes) / each, stages_least, stages_most) : 0;
}

bool is_plain(const Job& job, uint32_t n_scales) { return !job.scales_f32 && job.symmetric_zero && job.group_steps * n_scales == 2 * tile_steps; }

template <class Form, uint32_t n_scales, Columns columns, bool plain>
void launch(Job job, Stream& stream) {
  const uint32_t pairs = ((job.tiles + 1) / 2 + job.parts - 1) / job.parts, wanted = stream.n_processors / job.parts;
  const uint32_t bytes = layout_of(columns, job.rows, n_scales).bytes(pairs);
  job.stages = stages_of(job, bytes, stream.capability);
  // Two on one multiprocessor would leave another without any, so memory is asked for that leaves no room for a second.
  const uint32_t alone = shared_max(stream.capability) / 2 + 1, wanted_bytes = bytes + ring_bytes(job.kind, n_scales, job.stages);
  stream.launch(decode_kernel<Form, n_scales, columns, plain>,
                {std::clamp(wanted, 1u, job.n_blocks), job.parts, 1, threads, std::max(alone, wanted_bytes)}, job);
}

template <class Form, uint32_t n_scales, Columns columns>
void launch_plain(const Job& job, Stream& stream) {
  if constexpr (n_scales == 1 || n_scales == 2)
    if (is_plain(job, n_scales)) return launch<Form, n_scales, columns, true>(job, stream);
  launch<Form, n_scales, columns, false>(job, stream);
}

template <class Form, uint32_t n_scales>
void launch_columns(const Job& job, Stream& stream) {
  switch (columns_for(job.rows, job.exact)) {
    case Columns::pairs: return launch_plain<Form, n_scales, Columns::pairs>(job, stream);
    case Columns::both: return launch<Form, n_scales, Columns::both, false>(job, stream);
    case Columns::eight: return launch_plain<Form, n_scales, Columns::eight>(job, stream);
    case Columns::sixteen: return launch_plain<Form, n_scales, Columns::sixteen>(job, stream);
  }
}

template <class Form>
void launch_scaled(const Job& job, Stream& stream) {
  switch (decode_scales(job)) {
    case 1: return launch_columns<Form, 1>(job, stream);
    case 2: return launch_columns<Form, 2>(job, stream);
    default: return launch_columns<Form, 2 * tile_steps>(job, stream);
  }
}

bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % sizeof(Vec4) == 0; }

}  // namespace

uint32_t decode_columns(uint32_t rows, bool exact) {
  const Columns columns = columns_for(rows, exact);
  return packed_before(columns) ? rows_max(columns) : 0;
}
uint32_t decode_parts(const Job& job, const Stream& stream) {
  // 16 rows' activations are brought to every multiprocessor: for a few weights that is too much.
  const bool many = uint64_t{job.n_blocks} * job.tiles >= uint64_t{300} * stream.n_processors;
  if (job.rows > (job.exact || !many ? rows_max(Columns::both) : rows_max(Columns::sixteen))) return 0;
  const Layout layout = layout_of(columns_for(job.rows, job.exact), job.rows, decode_scales(job));
  return parts_of(job.tiles, layout, ring_bytes(job.kind, decode_scales(job), stages_least), shared_max(stream.capability));
}
uint32_t decode_parts_max(uint32_t rows, uint32_t tiles, bool exact, uint32_t capability) {
  uint32_t most = 0;
  for (const kernels::Kind kind : {kernels::Kind::q4, kernels::Kind::q3, kernels::Kind::q8})
    for (const uint32_t n_scales : {0u, 1u, 2u, 2 * tile_steps})
      most = std::max(most, parts_of(tiles, layout_of(columns_for(rows, exact), rows, n_scales), ring_bytes(kind, n_scales, stages_least), shared_max(capability)));
  return most;
}

void decode(Job job, Stream& stream) {
  job.fours = !job.perm && job.k % 4 == 0 && aligned(job.input.x) && aligned(job.input.up) && aligned(job.input.norm);
  switch (job.kind) {
    case kernels::Kind::q4: return launch_scaled<Q4>(job, stream);
    case kernels::Kind::q2:
    case kernels::Kind::q3: return launch_scaled<Q23>(job, stream);
    case kernels::Kind::q8: return launch_scaled<Q8>(job, stream);
    default: return launch_columns<Dense, 0>(job, stream);
  }
}

}  // namespace gptq::cuda
