// SPDX-License-Identifier: Apache-2.0
// Products with more rows than matmul_rows.cu takes, packed before: a thread block takes 128 rows of weights and 32 or 64 columns
// (tokens; with exact their high and low halves), a warp 32 of the rows. Weights go straight to registers, activations through shared
// memory, both some tiles ahead. Where that makes too few thread blocks, K is split and finish_kernel adds the parts up.
#include "kernels/cuda/fragments.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/pack.h"
#include "kernels/cuda/stream.h"

namespace gptq::cuda {
namespace {

constexpr uint32_t warps = 4, threads = warps * warp_size, warp_blocks = 2, thread_block_blocks = warps * warp_blocks;
constexpr uint32_t stages = 4;
constexpr uint32_t columns_max = 64;
constexpr uint32_t blocks_per_processor = 2;

template <uint32_t columns, uint32_t per_tile>
struct Stage {
  static constexpr uint32_t packed = columns * packed_bytes, bytes = packed + columns * 4 * per_tile;
};

// A tile's activations and their sums, 16 bytes a copy.
template <uint32_t columns, uint32_t per_tile>
GPTQ_DEVICE void copy_stage(const Job& job, uint8_t* stage, uint32_t tile) {
  const uint32_t first = block_y() * columns;
  const uint8_t* packed = job.packed + (uint64_t{tile} * job.columns + first) * packed_bytes;
  for (uint32_t i = thread_index(); i < columns * packed_bytes / 16; i += threads) copy_async(stage + i * 16, packed + i * 16);
  if constexpr (per_tile > 0) {
    const float* sums = job.sums + uint64_t{tile} * per_tile * job.columns + first;
    for (uint32_t i = thread_index(); i < columns * per_tile / 4; i += threads) {
      const uint32_t row = i / (columns / 4), four = i % (columns / 4);
      copy_async(stage + Stage<columns, per_tile>::packed + i * 16, sums + row * job.columns + four * 4);
    }
  }
}

template <class Form, uint32_t per_tile, uint32_t columns>
struct WarpTile {  // 32 rows of weights times the columns
  using Reader = cuda::Reader<Form, 1, per_tile>;
  using Pieces = typename Reader::Piece[warp_blocks];
  static constexpr uint32_t operands = columns / 8;
  float sum[operands][warp_blocks][4];

  GPTQ_MEMBER void clear() {
    GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o)
      GPTQ_UNROLL for (uint32_t b = 0; b < warp_blocks; ++b)
        GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) sum[o][b][i] = 0.0f;
  }

  // Two operands at a time, so that four products are under way.
  GPTQ_MEMBER void add(const Job& job, const Pieces& pieces, const uint8_t* stage) {
    uint32_t a[warp_blocks][tile_steps][4];
    Scale scales[warp_blocks][per_tile ? per_tile : 1];
    GPTQ_UNROLL for (uint32_t b = 0; b < warp_blocks; ++b) {
      GPTQ_UNROLL for (uint32_t c = 0; c < tile_steps; ++c) Form::operand(job, pieces[b].raw[0], c, a[b][c]);
      if constexpr (per_tile > 0) {
        GPTQ_UNROLL for (uint32_t i = 0; i < per_tile; ++i) scales[b][i] = Reader::scale_of(job, pieces[b].scale[i], pieces[b].zero[i]);
      }
    }
    const uint32_t g = lane_index() / 4, t = lane_index() % 4;
    const float* sums = reinterpret_cast<const float*>(stage + Stage<columns, per_tile>::packed) + 2 * t;
    GPTQ_UNROLL for (uint32_t first = 0; first < operands; first += 2) {
      Vec4 x[2][2];
      GPTQ_UNROLL for (uint32_t o = 0; o < 2; ++o)
        GPTQ_UNROLL for (uint32_t i = 0; i < 2; ++i)
          x[o][i] = *reinterpret_cast<const Vec4*>(stage + ((first + o) * 8 + g) * packed_bytes + (2 * t + (i ^ g % 2)) * 16);
      float acc[2][warp_blocks][4] = {};
      GPTQ_UNROLL for (uint32_t c = 0; c < tile_steps; ++c) {
        GPTQ_UNROLL for (uint32_t o = 0; o < 2; ++o)
          GPTQ_UNROLL for (uint32_t b = 0; b < warp_blocks; ++b) mma(acc[o][b], a[b][c], x[o][c / 2].v + c % 2 * 2);
        if (per_tile != tile_steps && c + 1 < tile_steps) continue;
        GPTQ_UNROLL for (uint32_t o = 0; o < 2; ++o) take(first + o, acc[o], scales, per_tile == tile_steps ? c : 0, sums);
      }
    }
  }

  // Adds what came of a step or a tile, and clears it.
  GPTQ_MEMBER void take(uint32_t operand, float (&acc)[warp_blocks][4], const Scale (&scales)[warp_blocks][per_tile ? per_tile : 1], uint32_t step,
                        const float* sums) {
    GPTQ_UNROLL for (uint32_t b = 0; b < warp_blocks; ++b) {
      if constexpr (per_tile > 0) {
        const Vec2 s = *reinterpret_cast<const Vec2*>(sums + step * columns + operand * 8);
        add_scaled(sum[operand][b], acc[b], scales[b][step], float_of_bits(s.v[0]), float_of_bits(s.v[1]));
      }
      GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) {
        if constexpr (per_tile == 0) sum[operand][b][i] += acc[b][i];
        acc[b][i] = 0.0f;
      }
    }
  }

  GPTQ_MEMBER void store(const Job& job, uint32_t first_block) const {
    const uint32_t step = job.exact ? 2 : 1;
    GPTQ_UNROLL for (uint32_t b = 0; b < warp_blocks; ++b) {
      const uint32_t block = first_block + b;
      if (block >= job.n_blocks) break;
      const Target& target = job.targets[target_of(job, block)];
      const uint32_t row = block * block_rows + lane_index() / 4, first_row = target.first_block * block_rows;
      GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o) {
        if (o % step) continue;
        const uint32_t first_token = (block_y() * operands + o) / step * 8 + lane_index() % 4 * 2;
        GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) {
          const uint32_t token = first_token + i % 2, to = row + i / 2 * 8;
          if (token >= job.rows) continue;
          const float value = (job.exact ? fused(sum[o | 1][b][i], low_unit, sum[o][b][i]) : sum[o][b][i]) * job.factors[token];
          if (job.parts > 1) *partial(job, block_z(), to, token) = value; else store_row(job, target, to - first_row, token, value);
        }
      }
    }
  }
};

template <class Form, uint32_t per_tile, uint32_t columns, uint32_t depth>
GPTQ_KERNEL_FITS(threads, blocks_per_processor) void tiles_kernel(Job job) {
  using Product = WarpTile<Form, per_tile, columns>;
  constexpr uint32_t stage_bytes = Stage<columns, per_tile>::bytes;
  let_next_begin();
  const uint32_t first_block = block_x() * thread_block_blocks + warp_index() * warp_blocks;
  const Range part = share(job.tiles, block_z(), job.parts);
  const uint32_t first = part.first, n = part.last - first;

  typename Product::Reader readers[warp_blocks];
  typename Product::Pieces ring[depth];
  const auto read = [&](typename Product::Pieces& pieces) {
    GPTQ_UNROLL for (uint32_t b = 0; b < warp_blocks; ++b) readers[b].next(job, pieces[b], 1);
  };
  GPTQ_UNROLL for (uint32_t b = 0; b < warp_blocks; ++b) {  // past the last block: that one again, for nothing
    readers[b] = typename Product::Reader(job, first);
    readers[b].open(job, first_block + b < job.n_blocks ? first_block + b : job.n_blocks - 1);
  }
  GPTQ_UNROLL for (uint32_t i = 0; i < depth; ++i)
    if (i < n) read(ring[i]);

  wait_for_previous();
  uint8_t* const shared = shared_memory();
  GPTQ_UNROLL for (uint32_t i = 0; i + 1 < stages; ++i) {
    if (i < n) copy_stage<columns, per_tile>(job, shared + i * stage_bytes, first + i);
    copy_commit();
  }
  Product product;
  product.clear();
  for (uint32_t done = 0; done < n; done += depth) {
    GPTQ_UNROLL for (uint32_t i = 0; i < depth; ++i) {
      const uint32_t tile = done + i;
      if (tile >= n) break;
      copy_wait<stages - 2>();
      sync_block();
      if (tile + stages - 1 < n) copy_stage<columns, per_tile>(job, shared + (tile + stages - 1) % stages * stage_bytes, first + tile + stages - 1);
      copy_commit();
      product.add(job, ring[i], shared + tile % stages * stage_bytes);
      if (tile + depth < n) read(ring[i]);
    }
  }
  product.store(job, first_block);
}

template <class Form, uint32_t per_tile, uint32_t columns, uint32_t depth>
void launch(const Job& job, Stream& stream) {
  stream.launch(tiles_kernel<Form, per_tile, columns, depth>,
                {(job.n_blocks + thread_block_blocks - 1) / thread_block_blocks, job.columns / columns, job.parts, threads,
                 stages * Stage<columns, per_tile>::bytes},
                job);
}

template <class Form>
void launch_scaled(const Job& job, Stream& stream) {
  constexpr uint32_t ahead = Form::small ? 2 : 1;  // two would spill on sm_120
  if (by_steps(job)) return launch<Form, tile_steps, 32, ahead>(job, stream);
  if constexpr (Form::widest == columns_max)
    if (tile_width(job.columns) == columns_max) return launch<Form, 1, columns_max, 2>(job, stream);
  launch<Form, 1, 32, 3>(job, stream);
}

}  // namespace

uint32_t tile_width(uint32_t columns) { return columns <= 32 ? 32 : columns_max; }

uint32_t tile_parts(const Job& job, uint32_t n_processors) {
  const uint64_t blocks = uint64_t{(job.n_blocks + thread_block_blocks - 1) / thread_block_blocks} * (job.columns / tile_width(job.columns));
  const uint64_t parts = uint64_t{n_processors} * blocks_per_processor / blocks, most = (job.tiles + 3) / 4;
  return static_cast<uint32_t>(parts < 1 ? 1 : parts < most ? parts : most);
}

// parts * blocks <= n_processors * blocks_per_processor.
uint64_t tile_partials_bytes(uint32_t n_processors) {
  return uint64_t{n_processors} * blocks_per_processor * (thread_block_blocks * block_rows) * columns_max * sizeof(float);
}

void multiply_tiles(const Job& job, Stream& stream) {
  switch (job.kind) {
    case kernels::Kind::q4: return launch_scaled<Q4>(job, stream);
    case kernels::Kind::q2:
    case kernels::Kind::q3: return launch_scaled<Q23>(job, stream);
    case kernels::Kind::q8: return launch_scaled<Q8>(job, stream);
    default: break;
  }
  tile_width(job.columns) == 32 ? launch<Dense, 0, 32, 2>(job, stream) : launch<Dense, 0, columns_max, 1>(job, stream);
}

}  // namespace gptq::cuda
