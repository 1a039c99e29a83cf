// SPDX-License-Identifier: Apache-2.0
// Products with up to 32 rows of activations, packed before, which weights' way from memory still bounds. A thread block a multiprocessor
// takes a run of the 16-row blocks; its warps share out K and, where half of them are enough for that, take two blocks at a time. The
// activations of all of K lie in shared memory, each warp's brought by itself, so that no barrier stands before the first product. Columns
// (tokens; with exact their high and low halves) go by 16 or by 32, as thread blocks of their own. Weights are asked for before the
// activations are there: the first into registers, more into the L2 cache.
#include "kernels/cuda/fragments.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/pack.h"
#include "kernels/cuda/stream.h"

namespace gptq::cuda {
namespace {

constexpr uint32_t columns_max = 32, width_max = 32;
// Of 16 rows, a multiprocessor: with more, tiles are quicker, which read activations half as often (an H200, 64 rows of 28672 x 4096: 92
// against 116 us; fewer rows were not timed that way).
constexpr uint32_t blocks_max = 8;
constexpr uint32_t token_stride = block_rows + 4;  // of results: so that all banks are met
constexpr uint64_t partials_max = 128 << 10;       // bytes a multiprocessor
constexpr uint32_t ahead_max = 160 << 10;          // bytes a thread block asks the L2 cache for

// As many as registers allow. n_scales: of two tiles.
constexpr uint32_t warps_of(uint32_t n_scales, uint32_t width) {
  return width == 16 && n_scales == 1 ? 16 : 8;
}

struct RowsJob {
  Job job;
  uint32_t splits;  // of a thread block's K among its warps: all, or half of them
};

// Shared memory: activations [tile][column][128 bytes]; for every scale's columns, what products begin with [operand][t][4] (see Sums); the
// warps' results [2][warp][column][row].
struct Layout {
  uint32_t width, n_scales, warps;
  constexpr uint32_t tile_bytes() const { return width * packed_bytes; }
  constexpr uint32_t scale_floats() const { return width * 2; }
  constexpr uint32_t pair_floats() const { return n_scales * scale_floats(); }
  constexpr uint32_t result_floats() const { return width * token_stride; }
  constexpr uint32_t fixed_bytes() const { return 2 * warps * result_floats() * 4; }
  constexpr uint32_t pair_bytes() const { return 2 * tile_bytes() + pair_floats() * 4; }
  constexpr uint32_t bytes(uint32_t pairs) const { return pairs * pair_bytes() + fixed_bytes(); }
};

// A warp's activations to shared memory; a tile past the last is 0.
template <uint32_t width>
GPTQ_DEVICE void copy_tiles(const Job& job, Range tiles, uint32_t first_column, uint8_t* packed) {
  constexpr uint32_t chunks = width * packed_bytes / 16;
  for (uint32_t tile = tiles.first; tile < tiles.last; ++tile, packed += chunks * 16) {
    const uint8_t* const from = job.packed + (uint64_t{tile} * job.columns + first_column) * packed_bytes;
    GPTQ_UNROLL for (uint32_t i = lane_index(); i < chunks; i += warp_size) {
      if (tile < job.tiles) copy_async(packed + i * 16, from + i * 16);
      else reinterpret_cast<Vec4*>(packed)[i] = {};
    }
  }
  copy_commit();
}

// Sums of the activations of each scale's columns, of two columns side by side, and 16 times that for rows g + 8; where all zeros are one,
// that times -1 already: a product begins with it.
template <uint32_t width, uint32_t n_scales>
GPTQ_DEVICE void copy_sums(const Job& job, Range tiles, uint32_t first_column, float lower_rows, float* sums) {
  constexpr uint32_t each = width / 2, rows = n_scales > 2 ? n_scales : 2;  // rows of sums in two tiles
  const float times = job.symmetric_zero ? -static_cast<float>(job.symmetric_zero) : 1.0f;
  const uint32_t row_end = job.tiles * rows / 2;
  for (uint32_t i = lane_index(); i < (tiles.last - tiles.first) / 2 * n_scales * each; i += warp_size) {
    const uint32_t scale = i / each, column = first_column + i % each * 2;
    float even = 0.0f, odd = 0.0f;
    GPTQ_UNROLL for (uint32_t r = 0; r < rows / n_scales; ++r) {
      const uint32_t row = tiles.first / 2 * rows + scale * (rows / n_scales) + r;
      if (row >= row_end) continue;
      const Vec2 two = *reinterpret_cast<const Vec2*>(job.sums + uint64_t{row} * job.columns + column);
      even += float_of_bits(two.v[0]);
      odd += float_of_bits(two.v[1]);
    }
    even *= times;
    odd *= times;
    reinterpret_cast<Vec4*>(sums)[i] = {
        {bits_of_float(even), bits_of_float(odd), bits_of_float(even * lower_rows), bits_of_float(odd * lower_rows)}};
  }
}

// A warp's weights of some blocks of one target, every `step`-th, piece by piece.
template <class Form, uint32_t n_scales>
struct Blocks {
  static constexpr uint32_t tiles = Form::decode_tiles, steps_of_scale = n_scales ? tiles * tile_steps / n_scales : tiles * tile_steps;
  static constexpr uint32_t n_kept = n_scales ? n_scales : 1;
  struct Piece {
    typename Form::Raw raw[tiles];
    uint32_t scale[n_kept], zero[n_kept];  // even lanes hold those of row g, odd ones of row g + 8
  };
  Form form;
  const uint8_t *scales, *zeros;
  uint32_t scale_bytes;              // of a group: 16 scales
  uint32_t left, first_left;         // pieces of the block
  uint32_t steps_left, first_steps;  // columns' steps of the group
  uint32_t code_jump, group_jump;    // to the next block: bytes, groups
  bool odd;                          // the last piece of a block has one tile

  const Target* target;              // for floating kinds, which go row by row
  uint32_t block, step, first_tile;

  GPTQ_MEMBER Blocks(const Job& job, const Target& of, Range columns, uint32_t first_block, uint32_t each)
      : target(&of), block(first_block), step(each), first_tile(columns.first) {
    odd = columns.last > job.tiles;
    left = first_left = (columns.last - columns.first) / tiles;
    form.open(job, of, block, columns.first);
    const uint32_t n_tiles = columns.last - columns.first - odd;
    code_jump = (step * job.tiles - n_tiles) * kernels::tile_bytes(job.kind);
    if constexpr (n_scales > 0) {
      const uint32_t group = columns.first * tile_steps / job.group_steps, end_group = (columns.first + n_tiles) * tile_steps / job.group_steps;
      steps_left = first_steps = (group + 1) * job.group_steps - columns.first * tile_steps;
      group_jump = step * job.groups - (n_scales == 1 ? left : end_group - group);
      scale_bytes = block_rows * (job.scales_f32 ? 4 : 2);
      const uint64_t at = (uint64_t{block} * job.groups + group) * block_rows + lane_index() % 2 * 8 + lane_index() / 4;
      scales = of.scales + at * (scale_bytes / block_rows);
      zeros = job.symmetric_zero ? of.scales : of.zeros + at;
    }
  }
  GPTQ_MEMBER void next(const Job& job, Piece& piece) {
    const bool whole = !odd || left > 1;
    GPTQ_UNROLL for (uint32_t i = 0; i < tiles; ++i) {
      if (i == 0 || whole) form.next(job, piece.raw[i]); else piece.raw[i] = {};
    }
    if constexpr (n_scales > 0) {
      GPTQ_UNROLL for (uint32_t i = 0; i < n_scales; ++i)
        next_scale(job, piece.scale[i], piece.zero[i], i * steps_of_scale < tile_steps || whole);
    }
    if (--left) return;
    left = first_left;
    if constexpr (Form::quantized) {
      form.codes += code_jump;
      steps_left = first_steps;
      scales += group_jump * scale_bytes;
      zeros += group_jump * block_rows;
    } else {
      block += step;
      form.open(job, *target, block, first_tile);
    }
  }
  GPTQ_MEMBER void next_scale(const Job& job, uint32_t& scale, uint32_t& zero, bool exists) {
    if (!exists) {
      scale = zero = 0;
      return;
    }
    take_scale(job, scales, zeros, scale, zero);
    if constexpr (n_scales != 1) {  // where it is 1 every piece is a group
      steps_left -= steps_of_scale;
      if (steps_left) return;
      steps_left = job.group_steps;
    }
    scales += scale_bytes;
    zeros += block_rows;
  }
};

template <class Form, uint32_t n_scales, uint32_t width>
struct BlockProduct {  // a block's 16 rows times the columns, over the warp's range of K
  using Piece = typename Blocks<Form, n_scales>::Piece;
  static constexpr uint32_t operands = width / 8, tiles = Form::decode_tiles, steps = tiles * tile_steps;
  static constexpr uint32_t steps_of_scale = Blocks<Form, n_scales>::steps_of_scale;
  static constexpr Layout layout{width, n_scales, warps_of(n_scales, width)};
  float sum[operands][4];

  GPTQ_MEMBER void clear() {
    GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o)
      GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) sum[o][i] = 0.0f;
  }

  // x: the lane's 16 bytes of the first half of a tile, those of the second are other_half further. sums: the lane's. Both of the piece.
  GPTQ_MEMBER void add(const Job& job, const Piece& piece, const uint8_t* x, int other_half, const float* sums) {
    float acc[operands][4], scale[2] = {1.0f, 1.0f};
    Vec4 b[operands];
    GPTQ_UNROLL for (uint32_t step = 0; step < steps; ++step) {
      const uint32_t tile = step / tile_steps, c = step % tile_steps;
      if (step % steps_of_scale == 0) begin(job, piece, sums, step / steps_of_scale, acc, scale);
      if (c % 2 == 0) {
        GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o)
          b[o] = *reinterpret_cast<const Vec4*>(x + (c ? other_half : 0) + tile * layout.tile_bytes() + o * 8 * packed_bytes);
      }
      uint32_t a[4];
      Form::operand(job, piece.raw[tile], c, a);
      GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o) mma(acc[o], a, b[o].v + c % 2 * 2);
      if ((step + 1) % steps_of_scale) continue;
      GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o)
        GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i)
          sum[o][i] = n_scales ? fused(scale[i / 2], acc[o][i], sum[o][i]) : sum[o][i] + acc[o][i];
    }
  }

  // Products come out 2^-24 times as large, those of rows g + 8 `lower_rows` times that.
  GPTQ_MEMBER void begin(const Job& job, const Piece& piece, const float* sums, uint32_t i, float (&acc)[operands][4], float (&scale)[2]) {
    float zero[2] = {1.0f, 1.0f};
    if constexpr (n_scales > 0) {
      const uint32_t even = lane_index() / 2 * 2, odd = even + 1;
      const float own = job.scales_f32 ? float_of_bits(piece.scale[i]) : half_value(static_cast<uint16_t>(piece.scale[i]));
      scale[0] = shuffle(own, even);
      scale[1] = shuffle(own, odd) * (1 / Form::lower_rows);
      if (!job.symmetric_zero) {
        zero[0] = -static_cast<float>(shuffle(piece.zero[i], even));
        zero[1] = -static_cast<float>(shuffle(piece.zero[i], odd));
      }
    }
    GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o) {
      Vec4 first{};
      if constexpr (n_scales > 0) first = *reinterpret_cast<const Vec4*>(sums + i * layout.scale_floats() + o * 16);
      GPTQ_UNROLL for (uint32_t j = 0; j < 4; ++j) acc[o][j] = float_of_bits(first.v[j]);
      if (n_scales > 0 && !job.symmetric_zero) {
        GPTQ_UNROLL for (uint32_t j = 0; j < 4; ++j) acc[o][j] *= zero[j / 2];
      }
    }
  }

  GPTQ_MEMBER void leave(float* results) const {
    GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o)
      GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) results[(o * 8 + i % 2) * token_stride + i / 2 * 8] = sum[o][i];
  }
};

// What a thread finishes of every round of blocks: a row of one token or of two.
template <uint32_t width>
struct Outputs {
  static constexpr uint32_t each = width == 16 ? 1 : 2;
  float* y[each];  // NULL: nowhere
  const float* bias;
  float factor[each], before[each], added;
  uint32_t from[each];  // of the results
  uint32_t row, row_end, step;

  // Of a target's blocks `first` and every at_once-th up to `last`; where two are done at once halves of the threads take one each.
  GPTQ_MEMBER Outputs(const Job& job, const Target& target, uint32_t group, uint32_t first, uint32_t last, uint32_t at_once, uint32_t n_threads,
                      uint32_t splits) {
    const uint32_t tokens = job.exact ? width / 2 : width, thread = thread_index() % n_threads, half = thread_index() / n_threads;
    row = (first + half) * block_rows + thread % block_rows;
    row_end = last * block_rows < target.n ? last * block_rows : target.n;
    step = at_once * block_rows;
    bias = job.parts == 1 ? target.bias : nullptr;
    GPTQ_UNROLL for (uint32_t j = 0; j < each; ++j) {
      const uint32_t in_group = (j * n_threads + thread) / block_rows, column = job.exact ? in_group / 8 * 16 + in_group % 8 : in_group;
      const uint32_t token = group * tokens + in_group;
      const bool exists = in_group < tokens && token < job.rows;
      from[j] = half * splits * (width * token_stride) + column * token_stride + thread % block_rows;
      factor[j] = exists ? job.factors[token] : 0.0f;
      y[j] = !exists ? nullptr
             : job.parts > 1 ? partial(job, block_y(), row + target.first_block * block_rows, token)
                             : target.y + uint64_t{token} * target.n + row;
    }
    ask(job);
  }
  // For what is added to.
  GPTQ_MEMBER void ask(const Job& job) {
    added = bias && row < row_end ? bias[row] : 0.0f;
    GPTQ_UNROLL for (uint32_t j = 0; j < each; ++j)
      before[j] = job.accumulate && job.parts == 1 && y[j] && row < row_end ? *y[j] : 0.0f;
  }
  GPTQ_MEMBER void finish(const Job& job, const float* results, uint32_t splits) {
    GPTQ_UNROLL for (uint32_t j = 0; j < each; ++j) {
      if (!y[j]) continue;
      float sum = 0.0f;
      GPTQ_ROLLED for (uint32_t h = job.exact ? 2 : 1; h-- > 0;) sum = fused(sum, low_unit, over_warps(results + from[j] + h * 8 * token_stride, splits));
      if (row < row_end) *y[j] = fused(sum, factor[j], added) + before[j];
      y[j] += step;
    }
    row += step;
    ask(job);
  }
  static GPTQ_MEMBER float over_warps(const float* at, uint32_t splits) {
    float sum = 0.0f;
    GPTQ_ROLLED for (uint32_t w = 0; w < splits; w += 8)
      GPTQ_UNROLL for (uint32_t i = 0; i < 8; ++i) sum += at[(w + i) * (width * token_stride)];
    return sum;
  }
};

// Asks for the weights of n of the warp's blocks, as many as `most` bytes are.
template <class Form, uint32_t n_scales>
GPTQ_DEVICE void prefetch_blocks(const Job& job, const Blocks<Form, n_scales>& blocks, uint32_t n, uint32_t most) {
  if constexpr (Form::quantized) {
    const uint32_t tile_bytes = kernels::tile_bytes(job.kind), bytes = blocks.first_left * Form::decode_tiles * tile_bytes;
    const uint8_t* codes = blocks.form.codes;
    for (uint32_t i = 0; i < n && bytes && most >= bytes; ++i, most -= bytes, codes += blocks.code_jump + bytes)
      for (uint32_t at = lane_index() * 128; at < bytes; at += warp_size * 128) prefetch_l2(codes + at);
  }
}

template <class Form, uint32_t n_scales, uint32_t width>
GPTQ_KERNEL_FITS(warps_of(n_scales, width) * warp_size, 1) void rows_kernel(RowsJob r) {
  using Product = BlockProduct<Form, n_scales, width>;
  constexpr Layout layout = Product::layout;
  constexpr uint32_t warps = warps_of(n_scales, width), piece_tiles = Form::decode_tiles;
  constexpr uint32_t depth = n_scales > 2 ? 2 : Form::rows_depth;
  let_next_begin();
  const Job& job = r.job;
  const uint32_t split = warp_index() % r.splits, half = warp_index() / r.splits, at_once = warps / r.splits;
  const Range part = share((job.tiles + 1) / 2, block_y(), job.parts);  // in pairs of tiles, as all ranges
  const uint32_t part_pairs = part.last - part.first;
  const Range pairs = share(part_pairs, split, r.splits);
  const Range all = share(job.n_blocks, block_x(), grid_x());
  const Range columns{2 * (part.first + pairs.first), 2 * (part.first + pairs.last)};
  const uint32_t n_pieces = (columns.last - columns.first) / piece_tiles;

  float* const all_sums = reinterpret_cast<float*>(shared_memory() + 2 * part_pairs * layout.tile_bytes());
  float* const all_results = all_sums + part_pairs * layout.pair_floats();
  uint8_t* const packed = shared_memory() + 2 * pairs.first * layout.tile_bytes();
  float* const sums = all_sums + pairs.first * layout.pair_floats();
  const uint32_t g = lane_index() / 4, t = lane_index() % 4, lane_at = g * packed_bytes + (2 * t + g % 2) * 16;
  const int other_half = g % 2 ? -16 : 16;

  uint32_t buffer = 0;
  for (uint32_t begin = all.first, index = target_of(job, begin), end; begin < all.last; begin = end, ++index) {
    const Target& target = job.targets[index];
    const uint32_t behind = target.first_block + (target.n + block_rows - 1) / block_rows;
    end = behind < all.last ? behind : all.last;
    const uint32_t first = begin - target.first_block, last = end - target.first_block, rounds = (last - first + at_once - 1) / at_once;
    const uint32_t own = first + half < last ? (last - first - half + at_once - 1) / at_once : 0;  // blocks of this warp
    const uint32_t total = rounds * n_pieces, own_total = own * n_pieces;
    Blocks<Form, n_scales> blocks(job, target, columns, first + (own ? half : 0), at_once);
    typename Product::Piece ring[depth] = {};
    GPTQ_UNROLL for (uint32_t i = 0; i < depth; ++i)
      if (i < own_total) blocks.next(job, ring[i]);
    if (begin == all.first) {
      if (own_total > depth) prefetch_blocks(job, blocks, own - (depth + n_pieces - 1) / n_pieces, ahead_max / warps);
      wait_for_previous();
      copy_tiles<width>(job, columns, block_z() * width, packed);
      if constexpr (n_scales > 0) copy_sums<width, n_scales>(job, columns, block_z() * width, Form::lower_rows, sums);
      copy_wait<0>();
      sync_warp();
    }
    Outputs<width> outputs(job, target, block_z(), first, last, at_once, r.splits * warp_size, r.splits);
    const uint8_t* x = packed + lane_at;
    const float* s = sums + t * 4;
    Product product;
    product.clear();
    uint32_t left = n_pieces;
    const auto end_block = [&] {
      float* const results = all_results + buffer * warps * layout.result_floats();
      product.leave(results + warp_index() * layout.result_floats() + 2 * t * token_stride + g);
      product.clear();
      left = n_pieces;
      x = packed + lane_at;
      s = sums + t * 4;
      sync_block();  // the other buffer was read before the last one
      outputs.finish(job, results, r.splits);
      buffer ^= 1;
    };
    if (!n_pieces)
      for (uint32_t i = 0; i < rounds; ++i) end_block();
    for (uint32_t done = 0; done < total; done += depth) {
      GPTQ_UNROLL for (uint32_t i = 0; i < depth; ++i) {
        if (done + i >= total) break;
        product.add(job, ring[i], x, other_half, s);
        if (done + i + depth < own_total) blocks.next(job, ring[i]);
        x += piece_tiles * layout.tile_bytes();
        s += piece_tiles * layout.pair_floats() / 2;
        if (!--left) end_block();
      }
    }
  }
}

uint32_t width_of(const Job& job) { return job.columns <= 16 || by_steps(job) ? 16 : width_max; }

// Scales of two tiles. 1: a group of 128 each.
template <class Form>
uint32_t scales_of(const Job& job) {
  return !Form::quantized ? 0 : by_steps(job) ? 2 * tile_steps : Form::small && job.group_steps == 2 * tile_steps ? 1 : 2;
}
template <class Form>
Layout layout_of(const Job& job) {
  return {width_of(job), scales_of<Form>(job), warps_of(scales_of<Form>(job), width_of(job))};
}
Layout layout_of(const Job& job) {
  return job.kind == kernels::Kind::q4 ? layout_of<Q4>(job) : kernels::is_quantized(job.kind) ? layout_of<Q8>(job) : layout_of<Dense>(job);
}

uint32_t thread_blocks(const Job& job, uint32_t n_processors) {
  const uint32_t wanted = n_processors / (job.parts * (job.columns / width_of(job)));
  return wanted < 1 ? 1 : wanted < job.n_blocks ? wanted : job.n_blocks;
}

template <class Form, uint32_t n_scales, uint32_t width>
void launch(const Job& job, Stream& stream) {
  constexpr uint32_t warps = warps_of(n_scales, width);
  const uint32_t pairs = ((job.tiles + 1) / 2 + job.parts - 1) / job.parts, x = thread_blocks(job, stream.n_processors);
  // Two blocks at a time, where that leaves no round half empty: of an odd number of a few blocks.
  const uint32_t most = (job.n_blocks + x - 1) / x, splits = warps > 8 && (most % 2 == 0 || most > 8) ? 8 : warps;
  stream.launch(rows_kernel<Form, n_scales, width>, {x, job.parts, job.columns / width, warps * warp_size, layout_of(job).bytes(pairs)},
                RowsJob{job, splits});
}

template <class Form, uint32_t n_scales>
void launch_wide(const Job& job, Stream& stream) {
  width_of(job) == 16 ? launch<Form, n_scales, 16>(job, stream) : launch<Form, n_scales, width_max>(job, stream);
}

template <class Form>
void launch_scaled(const Job& job, Stream& stream) {
  if (scales_of<Form>(job) > 2) return launch<Form, 2 * tile_steps, 16>(job, stream);
  if constexpr (Form::small)
    if (scales_of<Form>(job) == 1) return launch_wide<Form, 1>(job, stream);
  launch_wide<Form, 2>(job, stream);
}

}  // namespace

uint32_t rows_parts(const Job& job, const Stream& stream) {
  if (job.columns > columns_max || (job.columns > 16 && job.n_blocks > blocks_max * stream.n_processors)) return 0;
  const Layout layout = layout_of(job);
  const uint32_t most = (shared_max(stream.capability) - layout.fixed_bytes()) / layout.pair_bytes();
  const uint32_t pairs = (job.tiles + 1) / 2, parts = (pairs + most - 1) / most;
  const uint64_t partials = parts > 1 ? uint64_t{parts} * job.rows * job.n_blocks * block_rows * sizeof(float) : 0;
  return partials <= rows_partials_bytes(stream.n_processors) ? parts : 0;
}

uint64_t rows_partials_bytes(uint32_t n_processors) { return n_processors * partials_max; }

void multiply_rows(const Job& job, Stream& stream) {
  switch (job.kind) {
    case kernels::Kind::q4: return launch_scaled<Q4>(job, stream);
    case kernels::Kind::q2:
    case kernels::Kind::q3: return launch_scaled<Q23>(job, stream);
    case kernels::Kind::q8: return launch_scaled<Q8>(job, stream);
    default: return launch_wide<Dense, 0>(job, stream);
  }
}

}  // namespace gptq::cuda
