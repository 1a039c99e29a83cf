// SPDX-License-Identifier: Apache-2.0
// Products with up to 8 rows of activations: bound by the weights' way from memory. A thread block a multiprocessor takes a run of the
// 16-row blocks; its warps share out K, so that each packs the activations of its own range alone and no barrier stands before the first
// product. Weights go to registers as one stream over (block, tile), and before that, further ahead, to the L2 cache: the first of them
// while the kernel before still makes the activations, so that memory is never idle.
//
// That every thread block packs for itself costs L2 traffic of 4 bytes a column and row (8 with norm or up): for Llama-3-8B's 4096 x 4096
// at one row 2 of 8.7 MB, and a kernel that packs once would cost a launch in every product instead.
#include "kernels/cuda/fragments.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/pack.h"
#include "kernels/cuda/stream.h"

namespace gptq::cuda {
namespace {

constexpr uint32_t warps = 16, threads = warps * warp_size;
constexpr uint32_t pack_pairs = 7;         // of tiles that a warp packs in registers
constexpr uint32_t shared_least = 64 << 10, shared_most = 96 << 10;  // what every GPU has; every one since Ampere
constexpr uint32_t sector_bytes = 32;

// How activations become columns of an operand. Pairs: up to 4 rows, their high halves, then their low ones. Singles: up to 8 rows'
// high halves. Both: up to 8 rows, high halves as one operand, low ones as another.
enum class Columns { pairs, singles, both };
constexpr uint32_t halves_of(Columns c) { return c == Columns::singles ? 1 : 2; }
constexpr uint32_t operands_of(Columns c) { return c == Columns::both ? 2 : 1; }
constexpr uint32_t rows_of(Columns c) { return c == Columns::pairs ? 4 : 8; }

// Shared memory: activations [tile][row][halves][128 bytes], the sums of each scale's columns [pair of tiles][scale][operand][8 columns],
// the warps' results [2][slots][warp][16][rows], and for every warp and row what results are multiplied with and the sum of squares.
struct Layout {
  uint32_t rows, halves, pair_sums;
  constexpr uint32_t tile_bytes() const { return rows * halves * packed_bytes; }
  constexpr uint32_t slots() const { return rows == 1 ? 4 : rows == 2 ? 2 : 1; }  // blocks between two barriers
  constexpr uint32_t slot_floats() const { return warps * block_rows * rows; }
  constexpr uint32_t fixed_bytes() const { return (2 * slots() * slot_floats() + 2 * warps * rows) * 4; }
  constexpr uint32_t pair_bytes() const { return 2 * tile_bytes() + pair_sums * 4; }
  constexpr uint32_t bytes(uint32_t pairs) const { return pairs * pair_bytes() + fixed_bytes(); }
  constexpr uint32_t pairs_max(uint32_t bytes_max) const {
    const uint32_t fit = (bytes_max - fixed_bytes()) / pair_bytes();
    return fit < warps * pack_pairs ? fit : warps * pack_pairs;
  }
};
constexpr Layout layout_of(Columns c, uint32_t rows, uint32_t n_scales) { return {rows, halves_of(c), n_scales * operands_of(c) * 8}; }

struct Shared {
  Layout layout;
  uint8_t* packed;
  float *sums, *results, *factors, *squares;
};

GPTQ_DEVICE Shared shared_of(const Layout& layout, uint32_t pairs) {
  Shared s;
  s.layout = layout;
  s.packed = shared_memory();
  s.sums = reinterpret_cast<float*>(s.packed + 2 * pairs * layout.tile_bytes());
  s.results = s.sums + pairs * layout.pair_sums;
  s.factors = s.results + 2 * layout.slots() * layout.slot_floats();
  s.squares = s.factors + warps * layout.rows;
  return s;
}

struct Four {
  float v[4];
};
GPTQ_DEVICE Four load_four(const float* p) {
  const Vec4 bits = *reinterpret_cast<const Vec4*>(p);
  return {{float_of_bits(bits.v[0]), float_of_bits(bits.v[1]), float_of_bits(bits.v[2]), float_of_bits(bits.v[3])}};
}

// A lane's values of a warp's pairs of tiles, four columns of each; zeros behind k. Loads of one kind are under way together.
GPTQ_DEVICE void load_inputs(const Job& job, uint32_t token, uint32_t first_column, uint32_t pairs, Four (&v)[pack_pairs], float& squares) {
  const auto load = [&](const float* from, uint32_t p) {
    const uint32_t column = first_column + p * 2 * tile_columns;
    return p < pairs && column < job.k ? load_four(from + column) : Four{};
  };
  const float* const x = job.input.x + uint64_t{token} * job.k;
  GPTQ_UNROLL for (uint32_t p = 0; p < pack_pairs; ++p) v[p] = load(x, p);
  if (!job.input.norm && !job.input.up) return;
  const float* const other = job.input.norm ? job.input.norm : job.input.up + uint64_t{token} * job.k;
  constexpr uint32_t at_once = 4;  // registers have no room for more
  GPTQ_UNROLL for (uint32_t first = 0; first < pack_pairs; first += at_once) {
    Four others[at_once];
    GPTQ_UNROLL for (uint32_t p = 0; p < at_once; ++p)
      if (first + p < pack_pairs) others[p] = load(other, first + p);
    order_loads();
    GPTQ_UNROLL for (uint32_t p = first; p < first + at_once && p < pack_pairs; ++p)
      GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) {
        float& value = v[p].v[i];
        squares = fused(value, value, squares);
        value = (job.input.up ? silu(value) : value) * others[p - first].v[i];
      }
  }
}

// Four columns of a token, from the first of them on, to their place.
template <Columns columns>
GPTQ_DEVICE void store_four(uint8_t* to, const Four& v, float times) {
  const Split even = split_pair(v.v[0] * times, v.v[2] * times), odd = split_pair(v.v[1] * times, v.v[3] * times);
  *reinterpret_cast<Vec2*>(to) = {{even.high, odd.high}};
  if (columns != Columns::singles) *reinterpret_cast<Vec2*>(to + packed_bytes) = {{even.low, odd.low}};
}

// One row of a warp's range.
template <Columns columns, bool quantized>
GPTQ_DEVICE void pack_row(const Job& job, const Shared& s, uint32_t token, Range tiles, uint32_t first_tile) {
  const uint32_t lane = lane_index(), pairs = (tiles.last - tiles.first) / 2, first_column = tiles.first * tile_columns + lane * 4;
  // Columns 4i to 4i + 3 of a tile are two words side by side.
  const uint32_t word = packed_word(lane % 4 * 8 + lane / 4 % 4 * 2, token);
  uint8_t* to = s.packed + (tiles.first - first_tile + lane / 16) * s.layout.tile_bytes() + token * s.layout.halves * packed_bytes + word * 4;
  float squares = 0.0f, largest = 0.0f;
  const auto scale = [&] {
    const int exponent = scale_exponent(warp_max(largest));
    if (job.input.norm) squares = warp_sum(squares);
    if (lane == 0) {
      s.factors[warp_index() * job.rows + token] = power_of_two((quantized ? 24 : 0) - exponent);
      s.squares[warp_index() * job.rows + token] = squares;
    }
    return power_of_two(exponent);
  };
  if (job.fours) {
    Four v[pack_pairs];
    load_inputs(job, token, first_column, pairs, v, squares);
    GPTQ_UNROLL for (uint32_t p = 0; p < pack_pairs; ++p)
      GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) largest = fmaxf(largest, fabsf(v[p].v[i]));
    const float times = scale();
    GPTQ_UNROLL for (uint32_t p = 0; p < pack_pairs; ++p)
      if (p < pairs) store_four<columns>(to + 2 * p * s.layout.tile_bytes(), v[p], times);
    return;
  }
  // Else one by one and twice: for the scale, and to be packed.
  const auto read = [&](uint32_t p, float& sum) {
    Four v;
    GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) {
      const uint32_t column = first_column + p * 2 * tile_columns + i;
      v.v[i] = column < job.tiles * tile_columns ? input_value(job, token, column, sum) : 0.0f;
    }
    return v;
  };
  for (uint32_t p = 0; p < pairs; ++p) {
    const Four v = read(p, squares);
    GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) largest = fmaxf(largest, fabsf(v.v[i]));
  }
  const float times = scale();
  float unused = 0.0f;
  for (uint32_t p = 0; p < pairs; ++p) store_four<columns>(to + 2 * p * s.layout.tile_bytes(), read(p, unused), times);
}

// Where a lane finds its activations in a tile: of columns 0..31; those of 32..63 are second_words further. Columns of no row repeat the
// last row's; nobody looks at what they give.
template <Columns columns>
struct LanePlace {
  uint32_t words;
  int second_words;
  uint32_t tokens[2];  // of results 0 and 2, 1 and 3

  GPTQ_MEMBER explicit LanePlace(uint32_t rows) {
    constexpr uint32_t in_operand = rows_of(columns);
    const uint32_t g = lane_index() / 4, t = lane_index() % 4, wanted = g % in_operand, token = wanted < rows ? wanted : rows - 1;
    words = (token * halves_of(columns) + (columns == Columns::pairs ? g / 4 : 0)) * packed_bytes + (2 * t + token % 2) * 16;
    second_words = token % 2 ? -16 : 16;
    GPTQ_UNROLL for (uint32_t i = 0; i < 2; ++i) tokens[i] = (2 * t + i) % in_operand;
  }
};

// The sums of each scale's columns over a warp's range, as products with ones, so that they lie as results do.
template <Columns columns, uint32_t n_scales>
GPTQ_DEVICE void sum_columns(const Shared& s, Range tiles, uint32_t first_tile, const LanePlace<columns>& place) {
  constexpr uint32_t operands = operands_of(columns), steps = 2 * tile_steps / n_scales, at_once = n_scales > 2 ? 1 : 4;
  const uint32_t ones[4] = {0x00010001, 0x00010001, 0x00010001, 0x00010001};
  const uint32_t pairs = (tiles.last - tiles.first) / 2, first_pair = (tiles.first - first_tile) / 2;
  for (uint32_t p = 0; p < pairs; p += at_once) {
    GPTQ_UNROLL for (uint32_t i = 0; i < at_once; ++i) {
      const uint32_t pair = first_pair + (p + i < pairs ? p + i : pairs - 1);  // without a branch, so that chains run side by side
      const uint8_t* x = s.packed + 2 * pair * s.layout.tile_bytes() + place.words;
      GPTQ_UNROLL for (uint32_t scale = 0; scale < n_scales; ++scale)
        GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o) {
          float sum[4] = {};
          GPTQ_UNROLL for (uint32_t step = scale * steps; step < (scale + 1) * steps; ++step) {
            const uint32_t c = step % tile_steps;
            const uint8_t* words = x + step / tile_steps * s.layout.tile_bytes() + (c >= 2 ? place.second_words : 0) + o * packed_bytes + c % 2 * 8;
            mma(sum, ones, reinterpret_cast<const Vec2*>(words)->v);
          }
          if (lane_index() >= 4) continue;
          float* to = s.sums + pair * s.layout.pair_sums + (scale * operands + o) * 8 + lane_index() * 2;
          *reinterpret_cast<Vec2*>(to) = {{bits_of_float(sum[0]), bits_of_float(sum[1])}};
        }
    }
  }
}

template <class Form, uint32_t n_scales, Columns columns>
struct Product16 {  // a block's 16 rows times the warp's range
  using Reader = cuda::Reader<Form, Form::decode_tiles, n_scales>;
  static constexpr uint32_t operands = operands_of(columns), steps = Form::decode_tiles * tile_steps, steps_of_scale = Reader::steps_of_scale;
  static constexpr uint32_t chains = steps_of_scale > 1 ? 2 : 1;  // of products that wait for each other
  float sum[operands][4];

  GPTQ_MEMBER void clear() {
    GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o)
      GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) sum[o][i] = 0.0f;
  }

  // packed, sums: of the piece and the lane. tile_bytes: from one tile to the next.
  GPTQ_MEMBER void add(const Job& job, const typename Reader::Piece& piece, const uint8_t* packed, const float* sums, uint32_t tile_bytes,
                       int second_words) {
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
      if ((step + 1) % steps_of_scale == 0) take(job, piece, acc, sums, step / steps_of_scale);
    }
  }

  // Adds what came of a scale's columns, and clears it.
  GPTQ_MEMBER void take(const Job& job, const typename Reader::Piece& piece, float (&acc)[operands][chains][4], const float* sums, uint32_t scale) {
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
        const Vec2 x = *reinterpret_cast<const Vec2*>(sums + (scale * operands + o) * 8);
        add_scaled(sum[o], acc[o][0], s, float_of_bits(x.v[0]), float_of_bits(x.v[1]));
      }
    }
    GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o)
      GPTQ_UNROLL for (uint32_t chain = 0; chain < chains; ++chain)
        GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) acc[o][chain][i] = 0.0f;
  }

  // To shared memory [16][rows], true to scale.
  GPTQ_MEMBER void leave(const Job& job, float* results, const float* factors, const LanePlace<columns>& lane) const {
    GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) {
      float value = sum[0][i];
      if (columns == Columns::both) value = fused(sum[operands - 1][i], low_unit, value);
      if (columns == Columns::pairs) value = fused(shuffle_xor(sum[0][i], 2), low_unit, value);
      const uint32_t token = lane.tokens[i % 2];
      if (token >= job.rows || (columns == Columns::pairs && lane_index() % 4 >= 2)) continue;
      results[(lane_index() / 4 + i / 2 * 8) * job.rows + token] = value * factors[token];
    }
  }
};

// A thread's part of the last sums: of the results that the warps left of some blocks, one for each slot, row and token.
class Finisher {
 public:
  GPTQ_MEMBER Finisher(const Job& job, const Shared& s)
      : row_(thread_index() % block_rows), token_(thread_index() / block_rows % job.rows), slot_(thread_index() / (block_rows * job.rows)),
        from_(slot_ * s.layout.slot_floats() + row_ * job.rows + token_) {}

  // Adds up what the warps left of n blocks, in their order.
  GPTQ_MEMBER void finish(const Job& job, const Shared& s, const float* results, uint32_t first_block, uint32_t n) {
    if (slot_ >= n) return;
    float sum = 0.0f;
    GPTQ_UNROLL for (uint32_t w = 0; w < warps; ++w) sum += results[from_ + w * block_rows * job.rows];
    if (first_) read_norm(job, s);
    first_ = false;
    const uint32_t to = (first_block + slot_) * block_rows + row_;
    if (job.parts > 1) {
      *partial(job, block_y(), to, token_) = sum;
      if (to == 0) job.squares[block_y() * job.rows + token_] = norm_;
    } else {
      store_output(job, to, token_, sum * norm_);
    }
  }

 private:
  const uint32_t row_, token_, slot_, from_;
  float norm_ = 1.0f;  // what results are multiplied with; of a part of K: the sum of squares
  bool first_ = true;

  GPTQ_MEMBER void read_norm(const Job& job, const Shared& s) {
    if (!job.input.norm) return;
    float squares = 0.0f;
    GPTQ_UNROLL for (uint32_t w = 0; w < warps; ++w) squares += s.squares[w * job.rows + token_];
    norm_ = job.parts > 1 ? squares : inverse_rms(job, squares);
  }
};

// A warp's weights on their way from memory to the L2 cache, block by block.
template <class Form>
class Ahead {
 public:
  // Begins with as many blocks as fill ahead_bytes.
  GPTQ_MEMBER Ahead(const Job& job, Range tiles, Range blocks) : block_(blocks.first), last_(blocks.last) {
    const uint32_t n = 1 + job.ahead_bytes / ((job.tiles * Form::tile_bytes(job) + job.parts - 1) / job.parts);
    for (uint32_t i = 0; i < n; ++i) next(job, tiles);
  }

  GPTQ_MEMBER void next(const Job& job, Range tiles) {
    if (block_ >= last_ || tiles.first >= tiles.last) return;
    const Target& target = job.targets[target_of(job, block_)];
    const uint64_t block = block_++ - target.first_block;
    const uint32_t last_tile = tiles.last < job.tiles ? tiles.last : job.tiles, bytes = (last_tile - tiles.first) * Form::tile_bytes(job);
    if constexpr (!Form::quantized) {
      const uint64_t element = Form::tile_bytes(job) / (block_rows * tile_columns), first = tiles.first * tile_columns;
      const uint32_t inside = job.k - first < bytes / block_rows / element ? static_cast<uint32_t>((job.k - first) * element) : bytes / block_rows;
      for (uint64_t row = block * block_rows; row < (block + 1) * block_rows && row < target.n; ++row)
        fetch(target.codes + (row * job.k + first) * element, inside);
      return;
    }
    fetch(target.codes + (block * job.tiles + tiles.first) * Form::tile_bytes(job), bytes);
    const uint32_t first_group = tiles.first * tile_steps / job.group_steps, last_group = (last_tile * tile_steps - 1) / job.group_steps;
    const uint32_t scale_bytes = block_rows * (job.scales_f32 ? 4 : 2);
    fetch(target.scales + (block * job.groups + first_group) * scale_bytes, (last_group + 1 - first_group) * scale_bytes);
  }

 private:
  uint32_t block_, last_;

  GPTQ_MEMBER static void fetch(const uint8_t* from, uint32_t bytes) {
    for (uint32_t at = lane_index() * sector_bytes; at < bytes; at += warp_size * sector_bytes) prefetch_l2(from + at);
  }
};

template <class Form, uint32_t n_scales, Columns columns>
GPTQ_KERNEL_FITS(threads, 1) void decode_kernel(Job job) {
  using Product = Product16<Form, n_scales, columns>;
  using Reader = typename Product::Reader;
  constexpr uint32_t depth = n_scales > 2 ? 1 : Form::decode_depth, piece_tiles = Form::decode_tiles;
  let_next_begin();
  const Range part = share((job.tiles + 1) / 2, block_y(), job.parts);  // in pairs of tiles, as all ranges
  const uint32_t part_pairs = part.last - part.first, first_tile = 2 * part.first;
  const Range pairs = share(part_pairs, warp_index(), warps);
  const Range tiles{first_tile + 2 * pairs.first, first_tile + 2 * pairs.last};
  const Range blocks = share(job.n_blocks, block_x(), grid_x());
  const uint32_t n_pieces = (tiles.last - tiles.first) / piece_tiles;
  const uint32_t last_tiles = tiles.last > job.tiles && piece_tiles == 2 ? 1 : piece_tiles;  // of the last piece
  const uint32_t total = n_pieces * (blocks.last - blocks.first);
  const Shared s = shared_of(layout_of(columns, job.rows, n_scales), part_pairs);

  Ahead<Form> ahead(job, tiles, blocks);
  if (job.input.norm && pairs.first < pairs.last) {  // it was last read a token ago
    const uint32_t at = tiles.first * tile_columns + lane_index() * (sector_bytes / 4);
    for (uint32_t i = 0; at + i < job.k && at + i < tiles.last * tile_columns; i += warp_size * sector_bytes / 4) prefetch_l2(job.input.norm + at + i);
  }

  Reader reader(job, tiles.first);
  typename Reader::Piece ring[depth];
  uint32_t read_block = blocks.first, read_left = 0, n_read = 0;
  const auto read = [&](typename Reader::Piece& piece) {
    if (n_read == total) return;
    ++n_read;
    if (!read_left) {
      if (n_read > 1) ahead.next(job, tiles);
      reader.open(job, read_block++);
      read_left = n_pieces;
    }
    reader.next(job, piece, --read_left ? piece_tiles : last_tiles);
  };

  GPTQ_UNROLL for (uint32_t i = 0; i < depth; ++i) read(ring[i]);

  wait_for_previous();
  for (uint32_t token = 0; token < job.rows; ++token) pack_row<columns, Form::quantized>(job, s, token, tiles, first_tile);
  sync_warp();
  const LanePlace<columns> lane(job.rows);
  if constexpr (n_scales > 0) {
    if (pairs.first < pairs.last) sum_columns<columns, n_scales>(s, tiles, first_tile, lane);
    sync_warp();
  }

  const uint8_t* const packed = s.packed + (tiles.first - first_tile) * s.layout.tile_bytes() + lane.words;
  const float* const sums = s.sums + (pairs.first * s.layout.pair_sums + lane_index() % 4 * 2);
  const uint8_t* x = packed;
  const float* x_sums = sums;
  Product product;
  product.clear();
  Finisher finisher(job, s);
  uint32_t left = n_pieces, block = blocks.first, slot = 0, buffer = 0;
  const auto end_block = [&] {
    float* results = s.results + buffer * s.layout.slots() * s.layout.slot_floats();
    product.leave(job, results + slot * s.layout.slot_floats() + warp_index() * block_rows * job.rows, s.factors + warp_index() * job.rows, lane);
    product.clear();
    left = n_pieces;
    x = packed;
    x_sums = sums;
    ++block;
    if (++slot < s.layout.slots() && block < blocks.last) return;
    sync_block();  // the other buffer was read before the last one
    finisher.finish(job, s, results, block - slot, slot);
    slot = 0;
    buffer ^= 1;
  };
  if (!n_pieces)
    while (block < blocks.last) end_block();
  for (uint32_t done = 0; done < total; done += depth) {
    GPTQ_UNROLL for (uint32_t i = 0; i < depth; ++i) {
      if (done + i >= total) break;
      product.add(job, ring[i], x, x_sums, s.layout.tile_bytes(), lane.second_words);
      read(ring[i]);
      x += piece_tiles * s.layout.tile_bytes();
      x_sums += s.layout.pair_sums;
      if (!--left) end_block();
    }
  }
}

// Scales of two tiles.
uint32_t decode_scales(const Job& job) {
  return !kernels::is_quantized(job.kind) ? 0 : job.group_steps % (2 * tile_steps) == 0 ? 1 : job.group_steps % tile_steps == 0 ? 2 : 2 * tile_steps;
}

Columns columns_for(uint32_t rows, bool exact) { return rows <= rows_of(Columns::pairs) ? Columns::pairs : exact ? Columns::both : Columns::singles; }

uint32_t parts_of(uint32_t tiles, const Layout& layout, uint32_t bytes_max) {
  const uint32_t pairs = (tiles + 1) / 2, most = layout.pairs_max(bytes_max);
  return (pairs + most - 1) / most;
}

template <class Form, uint32_t n_scales, Columns columns>
void launch(const Job& job, Stream& stream) {
  const uint32_t pairs = ((job.tiles + 1) / 2 + job.parts - 1) / job.parts, wanted = stream.n_processors / job.parts;
  stream.launch(decode_kernel<Form, n_scales, columns>,
                {wanted < 1 ? 1 : wanted < job.n_blocks ? wanted : job.n_blocks, job.parts, 1, threads, layout_of(columns, job.rows, n_scales).bytes(pairs)}, job);
}

template <class Form, uint32_t n_scales>
void launch_columns(const Job& job, Stream& stream) {
  switch (columns_for(job.rows, job.exact)) {
    case Columns::pairs: return launch<Form, n_scales, Columns::pairs>(job, stream);
    case Columns::singles: return launch<Form, n_scales, Columns::singles>(job, stream);
    case Columns::both: return launch<Form, n_scales, Columns::both>(job, stream);
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

uint32_t decode_parts(const Job& job, uint32_t capability) {
  const Layout layout = layout_of(columns_for(job.rows, job.exact), job.rows, decode_scales(job));
  return parts_of(job.tiles, layout, capability >= 80 ? shared_most : shared_least);
}
uint32_t decode_parts_max(uint32_t rows, uint32_t tiles, bool exact) {
  return parts_of(tiles, layout_of(columns_for(rows, exact), rows, 2 * tile_steps), shared_least);
}

void decode(Job job, Stream& stream) {
  job.fours = !job.perm && job.k % 4 == 0 && aligned(job.input.x) && aligned(job.input.up) && aligned(job.input.norm);
  job.ahead_bytes = stream.cache_bytes / 3 / stream.n_processors;
  switch (job.kind) {
    case kernels::Kind::q4: return launch_scaled<Q4>(job, stream);
    case kernels::Kind::q2:
    case kernels::Kind::q3: return launch_scaled<Q23>(job, stream);
    case kernels::Kind::q8: return launch_scaled<Q8>(job, stream);
    default: return launch_columns<Dense, 0>(job, stream);
  }
}

}  // namespace gptq::cuda
