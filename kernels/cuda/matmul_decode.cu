// SPDX-License-Identifier: Apache-2.0
// Products with up to 8 rows of activations: bound by the weights' way from memory. A thread block a multiprocessor takes a run of the
// 16-row blocks; its warps share out K, so that each packs the activations of its own range alone and no barrier stands before the first
// product. Weights go to registers as one stream over (block, tile), several tiles ahead; the first are asked for before the kernel that
// makes the activations ends.
//
// That every thread block packs for itself costs L2 traffic of 4 bytes a column and row (8 with norm or up): for Llama-3-8B's 4096 x 4096
// at one row 2 of 8.7 MB, and a kernel that packs once would cost a launch in every product instead.
#include "kernels/cuda/fragments.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/pack.h"
#include "kernels/cuda/stream.h"

namespace gptq::cuda {
namespace {

constexpr uint32_t warps = 8, threads = warps * warp_size;
constexpr uint32_t shared_max = 64 << 10;  // what every GPU has

// Shared memory: activations [tile][row][high, low][128 bytes], their sums [tile][per tile][high, low][row], the warps' results
// [2][slots][warp][16][rows], and for every warp and row what results are multiplied with and the sum of squares.
struct Layout {
  uint32_t rows, sums_of_tile;
  constexpr uint32_t tile_bytes() const { return rows * 2 * packed_bytes; }
  constexpr uint32_t tile_sums() const { return rows * 2 * sums_of_tile; }
  constexpr uint32_t slots() const { return rows < 4 ? 4 / rows : 1; }  // blocks between two barriers
  constexpr uint32_t slot_floats() const { return warps * block_rows * rows; }
  constexpr uint32_t fixed_bytes() const { return (2 * slots() * slot_floats() + 2 * warps * rows) * 4; }
  constexpr uint32_t bytes(uint32_t tiles) const { return tiles * (tile_bytes() + tile_sums() * 4) + fixed_bytes(); }
  constexpr uint32_t tiles_max() const { return (shared_max - fixed_bytes()) / (tile_bytes() + tile_sums() * 4); }
};

struct Shared {
  Layout layout;
  uint8_t* packed;
  float *sums, *results, *factors, *squares;
};

GPTQ_DEVICE Shared shared_of(const Job& job, uint32_t tiles, uint32_t sums_of_tile) {
  Shared s;
  s.layout = {job.rows, sums_of_tile};
  s.packed = shared_memory();
  s.sums = reinterpret_cast<float*>(s.packed + tiles * s.layout.tile_bytes());
  s.results = s.sums + tiles * s.layout.tile_sums();
  s.factors = s.results + 2 * s.layout.slots() * s.layout.slot_floats();
  s.squares = s.factors + warps * job.rows;
  return s;
}

struct Range {
  uint32_t first, last;
};
GPTQ_DEVICE Range share(uint32_t count, uint32_t index, uint32_t of) {
  return {static_cast<uint32_t>(uint64_t{count} * index / of), static_cast<uint32_t>(uint64_t{count} * (index + 1) / of)};
}

// One row of a warp's range of tiles: first the values as float32, where the halves will lie, then these.
template <bool quantized>
GPTQ_DEVICE void pack_row(const Job& job, const Shared& s, uint32_t token, Range tiles, uint32_t first_tile) {
  constexpr uint32_t batch = 4;
  const uint32_t lane = lane_index(), column = lane_column(lane);
  const auto place = [&](uint32_t tile) { return s.packed + (tile - first_tile) * s.layout.tile_bytes() + token * 2 * packed_bytes; };
  float largest = 0.0f, squares = 0.0f;
  for (uint32_t tile = tiles.first; tile < tiles.last; tile += batch) {
    float v[batch][2];
    GPTQ_UNROLL for (uint32_t i = 0; i < batch; ++i)
      GPTQ_UNROLL for (uint32_t p = 0; p < 2; ++p)
        v[i][p] = tile + i < tiles.last ? input_value(job, token, (tile + i) * tile_columns + column + 2 * p, squares) : 0.0f;
    GPTQ_UNROLL for (uint32_t i = 0; i < batch; ++i) {
      if (tile + i >= tiles.last) break;
      *reinterpret_cast<Vec2*>(place(tile + i) + lane * 8) = {{bits_of_float(v[i][0]), bits_of_float(v[i][1])}};
      largest = fmaxf(largest, fmaxf(fabsf(v[i][0]), fabsf(v[i][1])));
    }
  }
  squares = warp_sum(squares);
  const int exponent = scale_exponent(warp_max(largest));
  if (lane == 0) {
    s.factors[warp_index() * job.rows + token] = power_of_two((quantized ? 24 : 0) - exponent);
    s.squares[warp_index() * job.rows + token] = squares;
  }
  const float times = power_of_two(exponent);
  for (uint32_t tile = tiles.first; tile < tiles.last; ++tile) {
    const Vec2 v = *reinterpret_cast<const Vec2*>(place(tile) + lane * 8);
    const Split split = split_pair(float_of_bits(v.v[0]) * times, float_of_bits(v.v[1]) * times);
    sync_warp();
    uint32_t* words = reinterpret_cast<uint32_t*>(place(tile)) + packed_word(lane, token);
    words[0] = split.high;
    words[packed_bytes / 4] = split.low;
    if (!quantized) continue;
    const bool whole = s.layout.sums_of_tile == 1;
    const float high = columns_sum(split.high_sum, whole) * 0x1p-24f, low = columns_sum(split.low_sum, whole) * 0x1p-24f;
    if (!has_sum(lane, s.layout.sums_of_tile)) continue;
    float* sums = s.sums + (tile - first_tile) * s.layout.tile_sums() + lane / 2 * 2 * job.rows + token;
    sums[0] = high;
    sums[job.rows] = low;
  }
}

// Where a lane finds its activations in a tile, and the sums of the columns of its results. With up to 4 rows one operand of 8 columns
// holds high halves and low ones, else there are two operands. Columns of no row repeat the last row's; nobody looks at what they give.
template <bool wide>
struct LanePlace {
  static constexpr uint32_t operands = wide ? 2 : 1;
  uint32_t words[operands][2];  // bytes: of columns 0..31, 32..63
  uint32_t sums[operands][2];
  uint32_t tokens[2];           // of results 0 and 2, 1 and 3

  GPTQ_MEMBER explicit LanePlace(uint32_t rows) {
    const uint32_t g = lane_index() / 4, t = lane_index() % 4;
    const uint32_t in_operand = wide ? 8 : 4;
    const auto clamped = [&](uint32_t token) { return token < rows ? token : rows - 1; };
    const uint32_t token = clamped(g % in_operand);
    GPTQ_UNROLL for (uint32_t i = 0; i < 2; ++i) tokens[i] = (2 * t + i) % in_operand;
    GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o) {
      const uint32_t low = wide ? o : g / 4, result_low = wide ? o : t / 2;
      GPTQ_UNROLL for (uint32_t i = 0; i < 2; ++i) {
        words[o][i] = (token * 2 + low) * packed_bytes + (2 * t + (i ^ token % 2)) * 16;
        sums[o][i] = result_low * rows + clamped(tokens[i]);
      }
    }
  }
};

template <class Form, uint32_t per_tile, bool wide>
struct Product16 {  // a block's 16 rows times the warp's range
  using Reader = cuda::Reader<Form, per_tile>;
  static constexpr uint32_t operands = wide ? 2 : 1;
  float sum[operands][4];

  GPTQ_MEMBER void clear() {
    GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o)
      GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) sum[o][i] = 0.0f;
  }

  GPTQ_MEMBER void add(const Job& job, const typename Reader::Piece& piece, const uint8_t* packed, const float* sums, const LanePlace<wide>& lane) {
    constexpr uint32_t chains = per_tile == tile_steps ? tile_steps : 2;  // of products that wait for each other
    float acc[operands][chains][4] = {};
    Vec4 x[operands][2];
    GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o)
      GPTQ_UNROLL for (uint32_t i = 0; i < 2; ++i) x[o][i] = *reinterpret_cast<const Vec4*>(packed + lane.words[o][i]);
    GPTQ_UNROLL for (uint32_t c = 0; c < tile_steps; ++c) {
      uint32_t a[4];
      Form::operand(job, piece.raw, c, a);
      GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o) mma(acc[o][c % chains], a, x[o][c / 2].v + c % 2 * 2);
    }
    GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o) {
      if constexpr (per_tile != tile_steps) {
        GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) acc[o][0][i] += acc[o][1][i];
      }
      if constexpr (per_tile == 0) {
        GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) sum[o][i] += acc[o][0][i];
      }
      if constexpr (per_tile > 0) {
        GPTQ_UNROLL for (uint32_t i = 0; i < per_tile; ++i) {
          const float* of_step = sums + i * 2 * job.rows;
          add_scaled(sum[o], acc[o][i], Reader::scale_of(job, piece.scales[i]), of_step[lane.sums[o][0]], of_step[lane.sums[o][1]]);
        }
      }
    }
  }

  // To shared memory [16][rows], true to scale.
  GPTQ_MEMBER void leave(const Job& job, float* results, const float* factors, const LanePlace<wide>& lane) const {
    GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) {
      const float low = wide ? sum[operands - 1][i] : shuffle_xor(sum[0][i], 2);
      const uint32_t token = lane.tokens[i % 2];
      if (token >= job.rows || (!wide && lane_index() % 4 >= 2)) continue;
      results[(lane_index() / 4 + i / 2 * 8) * job.rows + token] = fused(low, low_unit, sum[0][i]) * factors[token];
    }
  }
};

// Adds up what the warps left of n blocks, in their order.
GPTQ_DEVICE void finish_slots(const Job& job, const Shared& s, const float* results, uint32_t first_block, uint32_t n) {
  for (uint32_t i = thread_index(); i < n * block_rows * job.rows; i += threads) {
    const uint32_t row = i % block_rows, token = i / block_rows % job.rows, slot = i / (block_rows * job.rows);
    const float* from = results + slot * s.layout.slot_floats() + row * job.rows + token;
    float sum = 0.0f, squares = 0.0f;
    GPTQ_UNROLL for (uint32_t w = 0; w < warps; ++w) {
      sum += from[w * block_rows * job.rows];
      squares += s.squares[w * job.rows + token];
    }
    const uint32_t to = (first_block + slot) * block_rows + row;
    if (job.parts > 1) {
      *partial(job, block_y(), to, token) = sum;
      if (to == 0) job.squares[block_y() * job.rows + token] = squares;
    } else {
      store_output(job, to, token, job.input.norm ? sum * inverse_rms(job, squares) : sum);
    }
  }
}

template <class Form, uint32_t per_tile, bool wide>
GPTQ_KERNEL_FITS(threads, 2) void decode_kernel(Job job) {
  using Product = Product16<Form, per_tile, wide>;
  constexpr uint32_t depth = per_tile == tile_steps ? Form::decode_depth / 2 : Form::decode_depth;
  const Range part = share(job.tiles, block_y(), job.parts);
  Range tiles = share(part.last - part.first, warp_index(), warps);
  tiles = {tiles.first + part.first, tiles.last + part.first};
  const Range blocks = share(job.n_blocks, block_x(), grid_x());
  const uint32_t n_tiles = tiles.last - tiles.first, total = n_tiles * (blocks.last - blocks.first);

  typename Product::Reader reader{};
  typename Product::Reader::Piece ring[depth];
  uint32_t read_block = blocks.first, read_left = 0, n_read = 0;
  const auto read = [&](typename Product::Reader::Piece& piece) {
    if (n_read == total) return;
    ++n_read;
    if (!read_left) {
      reader.open(job, read_block++, tiles.first);
      read_left = n_tiles;
    }
    --read_left;
    reader.next(job, piece);
  };
  GPTQ_UNROLL for (uint32_t i = 0; i < depth; ++i) read(ring[i]);

  const Shared s = shared_of(job, part.last - part.first, per_tile);
  wait_for_previous();
  for (uint32_t token = 0; token < job.rows; ++token) pack_row<Form::quantized>(job, s, token, tiles, part.first);
  sync_warp();
  let_next_begin();

  const LanePlace<wide> lane(job.rows);
  const uint8_t* const packed = s.packed + (tiles.first - part.first) * s.layout.tile_bytes();
  const float* const sums = s.sums + (tiles.first - part.first) * s.layout.tile_sums();
  Product product;
  product.clear();
  uint32_t tile = 0, block = blocks.first, slot = 0, buffer = 0;
  const auto end_block = [&] {
    float* results = s.results + buffer * s.layout.slots() * s.layout.slot_floats();
    product.leave(job, results + slot * s.layout.slot_floats() + warp_index() * block_rows * job.rows, s.factors + warp_index() * job.rows, lane);
    product.clear();
    tile = 0;
    ++block;
    if (++slot < s.layout.slots() && block < blocks.last) return;
    sync_block();  // the other buffer was read before the last one
    finish_slots(job, s, results, block - slot, slot);
    slot = 0;
    buffer ^= 1;
  };
  if (!n_tiles)
    while (block < blocks.last) end_block();
  for (uint32_t done = 0; done < total; done += depth) {
    GPTQ_UNROLL for (uint32_t i = 0; i < depth; ++i) {
      if (done + i >= total) break;
      product.add(job, ring[i], packed + tile * s.layout.tile_bytes(), sums + tile * s.layout.tile_sums(), lane);
      read(ring[i]);
      if (++tile == n_tiles) end_block();
    }
  }
}

template <class Form, uint32_t per_tile>
void launch(const Job& job, const LaunchShape& shape, Stream& stream) {
  job.rows > 4 ? stream.launch(decode_kernel<Form, per_tile, true>, shape, job) : stream.launch(decode_kernel<Form, per_tile, false>, shape, job);
}

template <class Form>
void launch_scaled(const Job& job, const LaunchShape& shape, Stream& stream) {
  by_steps(job) ? launch<Form, tile_steps>(job, shape, stream) : launch<Form, 1>(job, shape, stream);
}

}  // namespace

uint32_t decode_parts(uint32_t rows, uint32_t tiles, uint32_t sums_of_tile) {
  const uint32_t most = Layout{rows, sums_of_tile}.tiles_max();
  return (tiles + most - 1) / most;
}

void decode(const Job& job, Stream& stream) {
  const uint32_t tiles = (job.tiles + job.parts - 1) / job.parts, wanted = stream.n_processors / job.parts;
  const LaunchShape shape{wanted < 1 ? 1 : wanted < job.n_blocks ? wanted : job.n_blocks, job.parts, 1, threads,
                          Layout{job.rows, sums_per_tile(job)}.bytes(tiles)};
  switch (job.kind) {
    case kernels::Kind::q4: return launch_scaled<Q4>(job, shape, stream);
    case kernels::Kind::q2:
    case kernels::Kind::q3: return launch_scaled<Q23>(job, shape, stream);
    case kernels::Kind::q8: return launch_scaled<Q8>(job, shape, stream);
    default: return launch<Dense, 0>(job, shape, stream);
  }
}

}  // namespace gptq::cuda
