// SPDX-License-Identifier: Apache-2.0
// Products with 9 to 64 rows of activations, packed before, which weights' way from memory still bounds. As in decoding a thread block a
// multiprocessor takes a run of the 16-row blocks and its warps share out K; the activations of all of it lie in shared memory, each warp's
// brought by itself, so that no barrier stands before the first product. Columns (tokens; with exact their high and low halves) go by 16
// or by 32, as thread blocks of their own. Weights are asked for before the activations are there: the first into registers, more into
// the L2 cache.
#include "kernels/cuda/fragments.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/pack.h"
#include "kernels/cuda/stream.h"

namespace gptq::cuda {
namespace {

constexpr uint32_t warps = 8, threads = warps * warp_size;
constexpr uint32_t columns_max = 64, width_max = 32;
constexpr uint32_t token_stride = block_rows + 4;  // of results: so that all banks are met
constexpr uint64_t partials_max = 128 << 10;       // bytes a multiprocessor
constexpr uint32_t ahead_max = 20 << 10;           // bytes a warp asks the L2 cache for

constexpr uint32_t shared_max(uint32_t capability) {  // bytes of a thread block
  const bool large = capability >= 90 && capability < 110, medium = capability == 80 || capability == 87;
  return large ? 227 << 10 : medium ? 163 << 10 : capability > 80 ? 99 << 10 : 64 << 10;
}

// Shared memory: activations [tile][column][128 bytes], their sums [tile][1 or 4][column], the warps' results [2][warp][column][row].
struct Layout {
  uint32_t width, tile_sums;
  constexpr uint32_t tile_bytes() const { return width * packed_bytes; }
  constexpr uint32_t sum_floats() const { return width * tile_sums; }
  constexpr uint32_t result_floats() const { return width * token_stride; }
  constexpr uint32_t fixed_bytes() const { return 2 * warps * result_floats() * 4; }
  constexpr uint32_t bytes(uint32_t tiles) const { return tiles * (tile_bytes() + sum_floats() * 4) + fixed_bytes(); }
  constexpr uint32_t pairs_max(uint32_t all) const { return (all - fixed_bytes()) / (2 * (tile_bytes() + sum_floats() * 4)); }
};

// A warp's activations and their sums to shared memory; a tile past the last is 0.
GPTQ_DEVICE void copy_tiles(const Job& job, const Layout& layout, Range tiles, uint32_t first_column, uint8_t* packed, float* sums) {
  const uint32_t lane = lane_index();
  for (uint32_t tile = tiles.first; tile < tiles.last; ++tile, packed += layout.tile_bytes(), sums += layout.sum_floats()) {
    const bool exists = tile < job.tiles;
    const uint8_t* const from = job.packed + (uint64_t{tile} * job.columns + first_column) * packed_bytes;
    for (uint32_t i = lane; i < layout.tile_bytes() / 16; i += warp_size) {
      if (exists) copy_async(packed + i * 16, from + i * 16);
      else reinterpret_cast<Vec4*>(packed)[i] = {};
    }
    for (uint32_t i = lane; i < layout.sum_floats() / 4; i += warp_size) {
      const uint32_t row = i / (layout.width / 4), four = i % (layout.width / 4);
      if (exists) copy_async(sums + i * 4, job.sums + (uint64_t{tile} * layout.tile_sums + row) * job.columns + first_column + four * 4);
      else reinterpret_cast<Vec4*>(sums)[i] = {};
    }
  }
  copy_commit();
}

// Asks for the weights of the blocks to come.
GPTQ_DEVICE void prefetch_blocks(const Job& job, Range blocks, Range tiles) {
  const uint32_t tile_bytes = kernels::tile_bytes(job.kind), bytes = (tiles.last - tiles.first) * tile_bytes;
  uint32_t left = ahead_max;
  for (uint32_t block = blocks.first; block < blocks.last && left >= bytes; ++block, left -= bytes) {
    const Target& target = job.targets[target_of(job, block)];
    const uint8_t* const codes = target.codes + (uint64_t{block - target.first_block} * job.tiles + tiles.first) * tile_bytes;
    for (uint32_t at = lane_index() * 128; at < bytes; at += warp_size * 128) prefetch_l2(codes + at);
  }
}

template <class Form, uint32_t n_scales, uint32_t width>
struct BlockProduct {  // a block's 16 rows times the columns, over the warp's range of K
  using Reader = cuda::Reader<Form, Form::decode_tiles, n_scales>;
  static constexpr uint32_t operands = width / 8, steps = Form::decode_tiles * tile_steps, steps_of_scale = Reader::steps_of_scale;
  static constexpr uint32_t tile_sums = n_scales == 0 ? 0 : n_scales > 2 ? tile_steps : 1;
  static constexpr uint32_t chains = operands < 4 && steps_of_scale > 1 ? 2 : 1;  // of products that wait for each other
  static constexpr Layout layout{width, tile_sums};
  float sum[operands][4];

  GPTQ_MEMBER void clear() {
    GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o)
      GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) sum[o][i] = 0.0f;
  }

  // packed, sums: of the piece.
  GPTQ_MEMBER void add(const Job& job, const typename Reader::Piece& piece, const uint8_t* packed, const float* sums) {
    const uint32_t g = lane_index() / 4, t = lane_index() % 4;
    float acc[operands][chains][4] = {};
    Vec4 x[operands];
    GPTQ_UNROLL for (uint32_t step = 0; step < steps; ++step) {
      const uint32_t tile = step / tile_steps, c = step % tile_steps;
      if (c % 2 == 0) {
        GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o)
          x[o] = *reinterpret_cast<const Vec4*>(packed + tile * layout.tile_bytes() + (o * 8 + g) * packed_bytes + (2 * t + (c / 2 ^ g % 2)) * 16);
      }
      uint32_t a[4];
      Form::operand(job, piece.raw[tile], c, a);
      GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o) mma(acc[o][step % chains], a, x[o].v + c % 2 * 2);
      if ((step + 1) % steps_of_scale == 0) take(job, piece, acc, sums + 2 * t, step / steps_of_scale);
    }
  }

  // Adds what came of a scale's columns, and clears it.
  GPTQ_MEMBER void take(const Job& job, const typename Reader::Piece& piece, float (&acc)[operands][chains][4], const float* sums, uint32_t scale) {
    Scale s{};
    if constexpr (n_scales > 0) s = Reader::scale_of(job, piece.scale[scale], piece.zero[scale]);
    GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o) {
      if constexpr (chains == 2) {
        GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) acc[o][0][i] += acc[o][1][i];
      }
      if constexpr (n_scales > 0) {
        const float* const at = sums + scale * width + o * 8;
        float even = at[0], odd = at[1];
        if (n_scales == 1 && Form::decode_tiles == 2) even += at[width], odd += at[width + 1];
        add_scaled(sum[o], acc[o][0], s, even, odd);
      }
      GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) {
        if constexpr (n_scales == 0) sum[o][i] += acc[o][0][i];
        GPTQ_UNROLL for (uint32_t chain = 0; chain < chains; ++chain) acc[o][chain][i] = 0.0f;
      }
    }
  }

  GPTQ_MEMBER void leave(float* results) const {
    const uint32_t g = lane_index() / 4, t = lane_index() % 4;
    GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o)
      GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) results[(o * 8 + 2 * t + i % 2) * token_stride + g + i / 2 * 8] = sum[o][i];
  }
};

// What a thread finishes of every block: a row of one token or of two.
template <uint32_t width>
struct Outputs {
  static constexpr uint32_t each = width * block_rows / threads;
  uint32_t token[each], column[each];
  float factor[each], before[each], bias;
  float* y[each];  // NULL: nowhere

  GPTQ_MEMBER Outputs(const Job& job, uint32_t group) {
    const uint32_t tokens = job.exact ? width / 2 : width;
    GPTQ_UNROLL for (uint32_t j = 0; j < each; ++j) {
      const uint32_t in_group = (j * threads + thread_index()) / block_rows;
      column[j] = job.exact ? in_group / 8 * 16 + in_group % 8 : in_group;
      token[j] = in_group < tokens ? group * tokens + in_group : job.rows;
      factor[j] = token[j] < job.rows ? job.factors[token[j]] : 0.0f;
    }
  }
  // Asks for what is to be added to.
  GPTQ_MEMBER void open(const Job& job, uint32_t block) {
    const Target& target = job.targets[target_of(job, block)];
    const uint32_t row = (block - target.first_block) * block_rows + thread_index() % block_rows;
    const bool whole = job.parts == 1;
    bias = whole && target.bias && row < target.n ? target.bias[row] : 0.0f;
    GPTQ_UNROLL for (uint32_t j = 0; j < each; ++j) {
      const bool exists = token[j] < job.rows && row < target.n;
      y[j] = !exists ? nullptr : whole ? target.y + uint64_t{token[j]} * target.n + row
                                       : partial(job, block_y(), block * block_rows + thread_index() % block_rows, token[j]);
      before[j] = exists && whole && job.accumulate ? *y[j] : 0.0f;
    }
  }
  // results: the first warp's.
  GPTQ_MEMBER void finish(const Job& job, const float* results) const {
    GPTQ_UNROLL for (uint32_t j = 0; j < each; ++j) {
      if (!y[j]) continue;
      const float* const from = results + column[j] * token_stride + thread_index() % block_rows;
      float sum = 0.0f, low = 0.0f;
      GPTQ_UNROLL for (uint32_t w = 0; w < warps; ++w) sum += from[w * width * token_stride];
      if (job.exact) {
        GPTQ_UNROLL for (uint32_t w = 0; w < warps; ++w) low += from[w * width * token_stride + 8 * token_stride];
        sum = fused(low, low_unit, sum);
      }
      *y[j] = fused(sum, factor[j], bias) + before[j];
    }
  }
};

template <class Form, uint32_t n_scales, uint32_t width>
GPTQ_KERNEL_FITS(threads, 1) void rows_kernel(Job job) {
  using Product = BlockProduct<Form, n_scales, width>;
  using Reader = typename Product::Reader;
  constexpr Layout layout = Product::layout;
  constexpr uint32_t piece_tiles = Form::decode_tiles, depth = n_scales > 2 ? 3 : Form::rows_depth;
  let_next_begin();
  const Range part = share((job.tiles + 1) / 2, block_y(), job.parts);  // in pairs of tiles, as all ranges
  const uint32_t part_pairs = part.last - part.first;
  const Range pairs = share(part_pairs, warp_index(), warps);
  const Range tiles{2 * (part.first + pairs.first), 2 * (part.first + pairs.last)};
  const Range blocks = share(job.n_blocks, block_x(), grid_x());
  const uint32_t n_pieces = (tiles.last - tiles.first) / piece_tiles;
  const uint32_t last_tiles = tiles.last > job.tiles && piece_tiles == 2 ? 1 : piece_tiles;  // of the last piece
  const uint32_t total = n_pieces * (blocks.last - blocks.first);

  Reader reader(job, tiles.first);
  typename Reader::Piece ring[depth];
  uint32_t read_block = blocks.first, read_left = 0, n_read = 0;
  const auto read = [&](typename Reader::Piece& piece) {
    if (n_read == total) return;
    ++n_read;
    if (!read_left) {
      reader.open(job, read_block++);
      read_left = n_pieces;
    }
    reader.next(job, piece, --read_left ? piece_tiles : last_tiles);
  };
  GPTQ_UNROLL for (uint32_t i = 0; i < depth; ++i) read(ring[i]);
  if constexpr (Form::quantized) prefetch_blocks(job, {read_block, blocks.last}, tiles);

  uint8_t* const all_packed = shared_memory();
  float* const all_sums = reinterpret_cast<float*>(all_packed + 2 * part_pairs * layout.tile_bytes());
  float* const all_results = all_sums + 2 * part_pairs * layout.sum_floats();
  uint8_t* const packed = all_packed + 2 * pairs.first * layout.tile_bytes();
  float* const sums = all_sums + 2 * pairs.first * layout.sum_floats();
  wait_for_previous();
  copy_tiles(job, layout, tiles, block_z() * width, packed, sums);
  Outputs<width> outputs(job, block_z());
  outputs.open(job, blocks.first);
  copy_wait<0>();
  sync_warp();

  const uint8_t* x = packed;
  const float* s = sums;
  Product product;
  product.clear();
  uint32_t left = n_pieces, block = blocks.first, buffer = 0;
  const auto end_block = [&] {
    float* const results = all_results + buffer * warps * layout.result_floats();
    product.leave(results + warp_index() * layout.result_floats());
    product.clear();
    left = n_pieces;
    x = packed;
    s = sums;
    sync_block();  // the other buffer was read before the last one
    outputs.finish(job, results);
    if (++block < blocks.last) outputs.open(job, block);
    buffer ^= 1;
  };
  if (!n_pieces)
    while (block < blocks.last) end_block();
  for (uint32_t done = 0; done < total; done += depth) {
    GPTQ_UNROLL for (uint32_t i = 0; i < depth; ++i) {
      if (done + i >= total) break;
      product.add(job, ring[i], x, s);
      read(ring[i]);
      x += piece_tiles * layout.tile_bytes();
      s += piece_tiles * layout.sum_floats();
      if (!--left) end_block();
    }
  }
}

uint32_t width_of(const Job& job) { return job.columns <= 16 ? 16 : width_max; }
Layout layout_of(const Job& job) { return {width_of(job), sums_per_tile(job)}; }

template <class Form, uint32_t n_scales, uint32_t width>
void launch(const Job& job, Stream& stream) {
  const uint32_t pairs = ((job.tiles + 1) / 2 + job.parts - 1) / job.parts, groups = job.columns / width;
  const uint32_t wanted = stream.n_processors / (job.parts * groups);
  stream.launch(rows_kernel<Form, n_scales, width>,
                {wanted < 1 ? 1 : wanted < job.n_blocks ? wanted : job.n_blocks, job.parts, groups, threads, layout_of(job).bytes(2 * pairs)}, job);
}

template <class Form, uint32_t n_scales>
void launch_wide(const Job& job, Stream& stream) {
  width_of(job) == 16 ? launch<Form, n_scales, 16>(job, stream) : launch<Form, n_scales, width_max>(job, stream);
}

template <class Form>
void launch_scaled(const Job& job, Stream& stream) {
  if (by_steps(job)) return launch_wide<Form, 2 * tile_steps>(job, stream);
  if constexpr (Form::one_scale)
    if (job.group_steps % (2 * tile_steps) == 0) return launch_wide<Form, 1>(job, stream);
  launch_wide<Form, 2>(job, stream);
}

}  // namespace

uint32_t rows_parts(const Job& job, const Stream& stream) {
  if (job.columns > columns_max) return 0;
  const uint32_t pairs = (job.tiles + 1) / 2, most = layout_of(job).pairs_max(shared_max(stream.capability)), parts = (pairs + most - 1) / most;
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
