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

// Shared memory: activations [tile][row][high, low][128 bytes], the sums of each scale's columns [tile][scale][high, low][row] (a piece of
// two tiles and one scale: in the place of the first), the warps' results [2][slots][warp][16][rows], and for every warp and row what
// results are multiplied with and the sum of squares.
struct Layout {
  uint32_t rows, tile_scales;
  constexpr uint32_t tile_bytes() const { return rows * 2 * packed_bytes; }
  constexpr uint32_t tile_sums() const { return rows * 2 * tile_scales; }
  constexpr uint32_t slots() const { return rows == 1 ? 4 : rows == 2 ? 2 : 1; }  // blocks between two barriers
  constexpr uint32_t slot_floats() const { return warps * block_rows * rows; }
  constexpr uint32_t fixed_bytes() const { return (2 * slots() * slot_floats() + 2 * warps * rows) * 4; }
  constexpr uint32_t bytes(uint32_t tiles) const { return tiles * (tile_bytes() + tile_sums() * 4) + fixed_bytes(); }
  constexpr uint32_t pairs_max() const { return (shared_max - fixed_bytes()) / (2 * (tile_bytes() + tile_sums() * 4)); }
};

struct Shared {
  Layout layout;
  uint8_t* packed;
  float *sums, *results, *factors, *squares;
};

GPTQ_DEVICE Shared shared_of(uint32_t rows, uint32_t tiles, uint32_t tile_scales) {
  Shared s;
  s.layout = {rows, tile_scales};
  s.packed = shared_memory();
  s.sums = reinterpret_cast<float*>(s.packed + tiles * s.layout.tile_bytes());
  s.results = s.sums + tiles * s.layout.tile_sums();
  s.factors = s.results + 2 * s.layout.slots() * s.layout.slot_floats();
  s.squares = s.factors + warps * rows;
  return s;
}

// One row of a warp's range of tiles: first the values as float32, where the halves will lie, then these. n_scales: of two tiles.
template <uint32_t n_scales>
GPTQ_DEVICE void pack_row(const Job& job, const Shared& s, uint32_t token, Range tiles, uint32_t first_tile) {
  const uint32_t lane = lane_index(), column = lane_column(lane);
  const auto place = [&](uint32_t tile) { return s.packed + (tile - first_tile) * s.layout.tile_bytes() + token * 2 * packed_bytes; };
  float largest = 0.0f, squares = 0.0f;
  for (uint32_t tile = tiles.first; tile < tiles.last; tile += 2) {
    float v[2][2];
    GPTQ_UNROLL for (uint32_t i = 0; i < 2; ++i)
      GPTQ_UNROLL for (uint32_t p = 0; p < 2; ++p)
        v[i][p] = tile + i < job.tiles ? input_value(job, token, (tile + i) * tile_columns + column + 2 * p, squares) : 0.0f;
    GPTQ_UNROLL for (uint32_t i = 0; i < 2; ++i) {
      *reinterpret_cast<Vec2*>(place(tile + i) + lane * 8) = {{bits_of_float(v[i][0]), bits_of_float(v[i][1])}};
      largest = fmaxf(largest, fmaxf(fabsf(v[i][0]), fabsf(v[i][1])));
    }
  }
  squares = warp_sum(squares);
  const int exponent = scale_exponent(warp_max(largest));
  if (lane == 0) {
    s.factors[warp_index() * job.rows + token] = power_of_two((n_scales ? 24 : 0) - exponent);
    s.squares[warp_index() * job.rows + token] = squares;
  }
  const float times = power_of_two(exponent);
  float high = 0.0f, low = 0.0f;
  for (uint32_t tile = tiles.first; tile < tiles.last; ++tile) {
    const Vec2 v = *reinterpret_cast<const Vec2*>(place(tile) + lane * 8);
    const Split split = split_pair(float_of_bits(v.v[0]) * times, float_of_bits(v.v[1]) * times);
    sync_warp();
    uint32_t* words = reinterpret_cast<uint32_t*>(place(tile)) + packed_word(lane, token);
    words[0] = split.high;
    words[packed_bytes / 4] = split.low;
    if (!n_scales) continue;
    const bool second = n_scales == 1 && (tile - tiles.first) % 2;
    high = second ? high + split.high_sum : split.high_sum;
    low = second ? low + split.low_sum : split.low_sum;
    if (n_scales == 1 && !second) continue;
    constexpr uint32_t steps = n_scales <= 2 ? tile_steps : 2 * tile_steps / n_scales;
    const float high_sum = columns_sum(high, steps) * 0x1p-24f, low_sum = columns_sum(low, steps) * 0x1p-24f;
    if (!has_sum(lane, steps)) continue;
    float* sums = s.sums + (tile - second - first_tile) * s.layout.tile_sums() + lane / 2 / steps * 2 * job.rows + token;
    sums[0] = high_sum;
    sums[job.rows] = low_sum;
  }
}

// Where a lane finds its activations in a tile, and the sums that belong to its results. With up to 4 rows one operand of 8 columns
// holds high halves and low ones, else there are two operands. Columns of no row repeat the last row's; nobody looks at what they give.
template <bool wide>
struct LanePlace {
  uint32_t words;      // bytes: of columns 0..31; those of 32..63 and of the low operand follow
  int second_words;
  uint32_t sums[2];
  uint32_t tokens[2];  // of results 0 and 2, 1 and 3

  GPTQ_MEMBER explicit LanePlace(uint32_t rows) {
    const uint32_t g = lane_index() / 4, t = lane_index() % 4, in_operand = wide ? 8 : 4;
    const auto clamped = [&](uint32_t token) { return token < rows ? token : rows - 1; };
    const uint32_t token = clamped(g % in_operand);
    words = (token * 2 + (wide ? 0 : g / 4)) * packed_bytes + (2 * t + token % 2) * 16;
    second_words = token % 2 ? -16 : 16;
    GPTQ_UNROLL for (uint32_t i = 0; i < 2; ++i) {
      tokens[i] = (2 * t + i) % in_operand;
      sums[i] = (wide ? 0 : t / 2 * rows) + clamped(tokens[i]);
    }
  }
};

template <class Form, uint32_t n_scales, bool wide>
struct Product16 {  // a block's 16 rows times the warp's range
  using Reader = cuda::Reader<Form, Form::decode_tiles, n_scales>;
  static constexpr uint32_t operands = wide ? 2 : 1, steps = Form::decode_tiles * tile_steps, steps_of_scale = Reader::steps_of_scale;
  static constexpr uint32_t chains = steps_of_scale > 1 ? 2 : 1;  // of products that wait for each other
  float sum[operands][4];

  GPTQ_MEMBER void clear() {
    GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o)
      GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) sum[o][i] = 0.0f;
  }

  // packed, even, odd: of the piece and the lane. tile_bytes, rows: from one tile, or high half, to the next.
  GPTQ_MEMBER void add(const Job& job, const typename Reader::Piece& piece, const uint8_t* packed, const float* even, const float* odd,
                       uint32_t tile_bytes, int second_words) {
    float acc[operands][chains][4] = {};
    Vec4 x[operands];
    GPTQ_UNROLL for (uint32_t step = 0; step < steps; ++step) {
      const uint32_t tile = step / tile_steps, c = step % tile_steps;
      if (c % 2 == 0) {
        GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o)
          x[o] = *reinterpret_cast<const Vec4*>(packed + tile * tile_bytes + (c ? second_words : 0) + o * packed_bytes);
      }
      uint32_t a[4];
      Form::operand(job, piece.raw[tile], c, a);
      GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o) mma(acc[o][step % chains], a, x[o].v + c % 2 * 2);
      if ((step + 1) % steps_of_scale == 0) take(job, piece, acc, even, odd, step / steps_of_scale);
    }
  }

  // Adds what came of a scale's columns, and clears it.
  GPTQ_MEMBER void take(const Job& job, const typename Reader::Piece& piece, float (&acc)[operands][chains][4], const float* even,
                        const float* odd, uint32_t scale) {
    if constexpr (chains == 2) {
      GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o)
        GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) acc[o][0][i] += acc[o][1][i];
    }
    if constexpr (n_scales == 0) {
      GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o)
        GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) sum[o][i] += acc[o][0][i];
    } else {
      const Scale s = Reader::scale_of(job, piece.scale[scale], piece.zero[scale]);
      GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o) {
        const uint32_t at = (2 * scale + o) * job.rows;
        add_scaled(sum[o], acc[o][0], s, even[at], odd[at]);
      }
    }
    GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o)
      GPTQ_UNROLL for (uint32_t chain = 0; chain < chains; ++chain)
        GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) acc[o][chain][i] = 0.0f;
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

// Two of them fit a multiprocessor, so that the next product's begins while this one's ends; but many scales take many registers.
template <class Form, uint32_t n_scales, bool wide>
GPTQ_KERNEL_FITS(threads, n_scales > 1 ? 1 : 2) void decode_kernel(Job job) {
  using Product = Product16<Form, n_scales, wide>;
  using Reader = typename Product::Reader;
  constexpr uint32_t depth = n_scales > 1 ? (Form::decode_depth + 1) / 2 : Form::decode_depth - (wide ? 1 : 0), piece_tiles = Form::decode_tiles;
  const Range part = share((job.tiles + 1) / 2, block_y(), job.parts);  // in pairs of tiles, as all ranges
  const uint32_t part_pairs = part.last - part.first, first_tile = 2 * part.first;
  const Range pairs = share(part_pairs, warp_index(), warps);
  const Range tiles{first_tile + 2 * pairs.first, first_tile + 2 * pairs.last};
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

  const Shared s = shared_of(job.rows, 2 * part_pairs, (n_scales + 1) / 2);
  wait_for_previous();
  for (uint32_t token = 0; token < job.rows; ++token) pack_row<n_scales>(job, s, token, tiles, first_tile);
  sync_warp();
  let_next_begin();

  const LanePlace<wide> lane(job.rows);
  const uint8_t* const packed = s.packed + (tiles.first - first_tile) * s.layout.tile_bytes() + lane.words;
  const float* const sums = s.sums + (tiles.first - first_tile) * s.layout.tile_sums();
  const uint8_t* x = packed;
  const float *even = sums + lane.sums[0], *odd = sums + lane.sums[1];
  Product product;
  product.clear();
  uint32_t left = n_pieces, block = blocks.first, slot = 0, buffer = 0;
  const auto end_block = [&] {
    float* results = s.results + buffer * s.layout.slots() * s.layout.slot_floats();
    product.leave(job, results + slot * s.layout.slot_floats() + warp_index() * block_rows * job.rows, s.factors + warp_index() * job.rows, lane);
    product.clear();
    left = n_pieces;
    x = packed;
    even = sums + lane.sums[0];
    odd = sums + lane.sums[1];
    ++block;
    if (++slot < s.layout.slots() && block < blocks.last) return;
    sync_block();  // the other buffer was read before the last one
    finish_slots(job, s, results, block - slot, slot);
    slot = 0;
    buffer ^= 1;
  };
  if (!n_pieces)
    while (block < blocks.last) end_block();
  for (uint32_t done = 0; done < total; done += depth) {
    GPTQ_UNROLL for (uint32_t i = 0; i < depth; ++i) {
      if (done + i >= total) break;
      product.add(job, ring[i], x, even, odd, s.layout.tile_bytes(), lane.second_words);
      read(ring[i]);
      x += piece_tiles * s.layout.tile_bytes();
      even += piece_tiles * s.layout.tile_sums();
      odd += piece_tiles * s.layout.tile_sums();
      if (!--left) end_block();
    }
  }
}

// Scales of two tiles.
uint32_t decode_scales(const Job& job) {
  return !kernels::is_quantized(job.kind) ? 0 : job.group_steps % (2 * tile_steps) ? 2 * tile_steps : 1;
}

uint32_t parts_of(uint32_t rows, uint32_t tiles, uint32_t tile_scales) {
  const uint32_t pairs = (tiles + 1) / 2, most = Layout{rows, tile_scales}.pairs_max();
  return (pairs + most - 1) / most;
}

template <class Form, uint32_t n_scales>
void launch(const Job& job, Stream& stream) {
  const uint32_t pairs = ((job.tiles + 1) / 2 + job.parts - 1) / job.parts, wanted = stream.n_processors / job.parts;
  const LaunchShape shape{wanted < 1 ? 1 : wanted < job.n_blocks ? wanted : job.n_blocks, job.parts, 1, threads,
                          Layout{job.rows, (n_scales + 1) / 2}.bytes(2 * pairs)};
  job.rows > 4 ? stream.launch(decode_kernel<Form, n_scales, true>, shape, job) : stream.launch(decode_kernel<Form, n_scales, false>, shape, job);
}

template <class Form>
void launch_scaled(const Job& job, Stream& stream) {
  decode_scales(job) == 1 ? launch<Form, 1>(job, stream) : launch<Form, 2 * tile_steps>(job, stream);
}

}  // namespace

uint32_t decode_parts(const Job& job) { return parts_of(job.rows, job.tiles, (decode_scales(job) + 1) / 2); }
uint32_t decode_parts_max(uint32_t rows, uint32_t tiles) { return parts_of(rows, tiles, tile_steps); }

void decode(const Job& job, Stream& stream) {
  switch (job.kind) {
    case kernels::Kind::q4: return launch_scaled<Q4>(job, stream);
    case kernels::Kind::q2:
    case kernels::Kind::q3: return launch_scaled<Q23>(job, stream);
    case kernels::Kind::q8: return launch_scaled<Q8>(job, stream);
    default: return launch<Dense, 0>(job, stream);
  }
}

}  // namespace gptq::cuda
