// SPDX-License-Identifier: Apache-2.0
// The activations of matmul_decode.cu in a thread block's shared memory: packed there, or brought from where they were packed before.
#pragma once
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/pack.h"

namespace gptq::cuda {

constexpr uint32_t warps = 16, threads = warps * warp_size;
constexpr uint32_t pack_pairs = 7;  // of tiles that a warp packs in registers

// How activations become columns of operands. Pairs: up to 4 rows, their high halves, then their low ones. Both: up to 8 rows, high halves
// as one operand, low ones as another. Eight, sixteen: so many rows' high halves, which were packed before.
enum class Columns { pairs, both, eight, sixteen };
constexpr bool packed_before(Columns c) { return c == Columns::eight || c == Columns::sixteen; }
constexpr uint32_t operands_of(Columns c) { return c == Columns::both || c == Columns::sixteen ? 2 : 1; }
constexpr uint32_t operand_bytes(Columns c) { return c == Columns::sixteen ? 8 * packed_bytes : packed_bytes; }  // from one's to the next's
constexpr uint32_t rows_max(Columns c) { return c == Columns::pairs ? 4 : c == Columns::sixteen ? 16 : 8; }

// Shared memory: activations [tile][row][high, low][128 bytes], or those packed before [tile][8 or 16 rows][128 bytes]; the sums of each
// scale's columns [pair of tiles][scale][operand][8 columns]; what the warps leave of blocks that they share [warp][2][16][rows]; for every
// row what results are multiplied with; the warps' largest values and sums of squares. Then weights on their way.
struct Layout {
  uint32_t rows, columns, pair_sums;
  constexpr uint32_t tile_bytes() const { return columns * packed_bytes; }
  constexpr uint32_t left_floats() const { return block_rows * rows; }
  constexpr uint32_t fixed_bytes() const { return (warps * 2 * left_floats() + (rows + 3) / 4 * 4 + 2 * warps) * 4; }
  constexpr uint32_t pair_bytes() const { return 2 * tile_bytes() + pair_sums * 4; }
  constexpr uint32_t bytes(uint32_t pairs) const { return pairs * pair_bytes() + fixed_bytes(); }
  constexpr uint32_t pairs_max(uint32_t bytes_max) const { return bytes_max > fixed_bytes() ? (bytes_max - fixed_bytes()) / pair_bytes() : 0; }
};
constexpr Layout layout_of(Columns c, uint32_t rows, uint32_t n_scales) {
  return {rows, packed_before(c) ? rows_max(c) : 2 * rows, n_scales * operands_of(c) * 8};
}

struct Shared {
  Layout layout;
  uint8_t* packed;
  float *sums, *left, *factors, *largest, *squares;
  uint8_t* stages;
};

GPTQ_DEVICE Shared shared_of(const Layout& layout, uint32_t pairs) {
  Shared s;
  s.layout = layout;
  s.packed = shared_memory();
  s.sums = reinterpret_cast<float*>(s.packed + 2 * pairs * layout.tile_bytes());
  s.left = s.sums + pairs * layout.pair_sums;
  s.factors = s.left + warps * 2 * layout.left_floats();
  s.largest = s.factors + (layout.rows + 3) / 4 * 4;
  s.squares = s.largest + warps;
  s.stages = s.packed + layout.bytes(pairs);
  return s;
}

struct Four {
  float v[4];
};
GPTQ_DEVICE Four load_four(const float* p) {
  const Vec4 bits = *reinterpret_cast<const Vec4*>(p);
  return {{float_of_bits(bits.v[0]), float_of_bits(bits.v[1]), float_of_bits(bits.v[2]), float_of_bits(bits.v[3])}};
}

// A lane's values of some pairs of tiles, four columns of each; zeros behind k. All loads are under way together.
GPTQ_DEVICE void load_inputs(const Job& job, uint32_t token, uint32_t first_column, uint32_t pairs, Four (&v)[pack_pairs], float& squares) {
  const auto load = [&](const float* from, uint32_t p) {
    const uint32_t column = first_column + p * 2 * tile_columns;
    return p < pairs && column < job.k ? load_four(from + column) : Four{};
  };
  const uint64_t row = uint64_t{token} * job.k;
  const float* const other = job.input.norm ? job.input.norm : job.input.up + row;
  Four others[pack_pairs];
  GPTQ_UNROLL for (uint32_t p = 0; p < pack_pairs; ++p) v[p] = load(job.input.x + row, p);
  if (!job.input.norm && !job.input.up) return;
  GPTQ_UNROLL for (uint32_t p = 0; p < pack_pairs; ++p) others[p] = load(other, p);
  GPTQ_UNROLL for (uint32_t p = 0; p < pack_pairs; ++p) {
    if (p >= pairs) return;
    GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) {
      float& value = v[p].v[i];
      squares = fused(value, value, squares);
      value = (job.input.up ? silu(value) : value) * others[p].v[i];
    }
  }
}

// Four columns of a token, from the first of them on, to their place.
GPTQ_DEVICE void store_four(uint8_t* to, const Four& v, float times) {
  const Split even = split_pair(v.v[0] * times, v.v[2] * times), odd = split_pair(v.v[1] * times, v.v[3] * times);
  *reinterpret_cast<Vec2*>(to) = {{even.high, odd.high}};
  *reinterpret_cast<Vec2*>(to + packed_bytes) = {{even.low, odd.low}};
}

GPTQ_DEVICE float largest_of(const Four& v, float largest) {
  return fmaxf(fmaxf(largest, fmaxf(fabsf(v.v[0]), fabsf(v.v[1]))), fmaxf(fabsf(v.v[2]), fabsf(v.v[3])));
}

// A warp's columns of one row: some pairs of tiles, and a lane's place in them.
struct Packing {
  uint32_t token, pairs, first_column;
  uint8_t* to;

  // Columns 4i to 4i + 3 of a tile are two words side by side.
  GPTQ_MEMBER Packing(const Shared& s, uint32_t of_token, Range range, uint32_t part_first)
      : token(of_token), pairs(range.last - range.first), first_column((part_first + range.first) * 2 * tile_columns + lane_index() * 4) {
    const uint32_t lane = lane_index(), word = packed_word(lane % 4 * 8 + lane / 4 % 4 * 2, token);
    to = s.packed + (2 * range.first + lane / 16) * s.layout.tile_bytes() + token * 2 * packed_bytes + word * 4;
  }
  GPTQ_MEMBER void read(const Job& job, uint32_t first, Four (&v)[pack_pairs], float& squares) const {
    load_inputs(job, token, first_column + first * 2 * tile_columns, pairs - first, v, squares);
  }
  // Where inputs cannot be read four by four.
  GPTQ_MEMBER Four read_each(const Job& job, uint32_t pair, float& squares) const {
    Four v;
    GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) {
      const uint32_t column = first_column + pair * 2 * tile_columns + i;
      v.v[i] = column < job.tiles * tile_columns ? input_value(job, token, column, squares) : 0.0f;
    }
    return v;
  }
  GPTQ_MEMBER void store(const Shared& s, uint32_t pair, const Four& v, float times) const {
    store_four(to + 2 * pair * s.layout.tile_bytes(), v, times);
  }
};

// All rows' columns of a part of K. Rows share out the warps; what does not fit a warp's registers is read twice.
template <bool quantized>
GPTQ_DEVICE void pack(const Job& job, const Shared& s, Range part, uint32_t warp) {
  const uint32_t of_row = job.rows == 1 ? warps : warps / job.rows, token = job.rows == 1 ? 0 : warp / of_row, first_warp = token * of_row;
  const bool works = token < job.rows;
  const Packing mine(s, works ? token : 0, works ? share(part.last - part.first, warp - first_warp, of_row) : Range{0, 0}, part.first);
  Four v[pack_pairs] = {};
  float squares = 0.0f, largest = 0.0f;
  uint32_t first = 0;
  if (job.fours) {
    for (;; first += pack_pairs) {
      mine.read(job, first, v, squares);
      GPTQ_UNROLL for (uint32_t p = 0; p < pack_pairs; ++p) largest = largest_of(v[p], largest);
      if (first + pack_pairs >= mine.pairs) break;
    }
  } else {
    for (uint32_t p = 0; p < mine.pairs; ++p) largest = largest_of(mine.read_each(job, p, squares), largest);
  }
  largest = warp_max(largest);
  if (job.input.norm) squares = warp_sum(squares);
  if (lane_index() == 0) {
    s.largest[warp] = largest;
    s.squares[warp] = squares;
  }
  sync_block();
  if (works) {
    const int exponent = scale_exponent(warp_max(lane_index() < of_row ? s.largest[first_warp + lane_index()] : 0.0f));
    if (warp == first_warp) {
      const float all = job.input.norm ? warp_sum(lane_index() < of_row ? s.squares[first_warp + lane_index()] : 0.0f) : 0.0f;
      const float factor = power_of_two((quantized ? 24 : 0) - exponent);
      if (lane_index() == 0) {
        s.factors[token] = job.input.norm && job.parts == 1 ? factor * inverse_rms(job, all) : factor;
        if (job.parts > 1 && block_x() == 0) job.squares[block_y() * job.rows + token] = all;
      }
    }
    const float times = power_of_two(exponent);
    float unused = 0.0f;
    if (job.fours) {
      for (;;) {
        GPTQ_UNROLL for (uint32_t p = 0; p < pack_pairs; ++p)
          if (first + p < mine.pairs) mine.store(s, first + p, v[p], times);
        if (!first) break;
        first -= pack_pairs;
        mine.read(job, first, v, unused);
      }
    } else {
      for (uint32_t p = 0; p < mine.pairs; ++p) mine.store(s, p, mine.read_each(job, p, unused), times);
    }
  }
  sync_block();
}

// Likewise what was packed before. What lies in the columns of no row nobody looks at.
template <Columns columns>
GPTQ_DEVICE void copy_packed(const Job& job, const Shared& s, Range part) {
  constexpr uint32_t copies = rows_max(columns) * packed_bytes / sizeof(Vec4);  // of a tile
  const uint32_t first_tile = 2 * part.first, n = 2 * (part.last - part.first) * copies;
  const uint8_t* const from = job.packed + uint64_t{first_tile} * copies * sizeof(Vec4);
  for (uint32_t i = thread_index(); i < n; i += threads) {
    Vec4* to = reinterpret_cast<Vec4*>(s.packed) + i;
    if (first_tile + i / copies < job.tiles) copy_async(to, from + i * sizeof(Vec4));
    else *to = {};
  }
  copy_commit();
  if (thread_index() < job.rows) s.factors[thread_index()] = job.factors[thread_index()];
  copy_wait<0>();
  sync_block();
}

// Where a lane finds its activations in a tile: of columns 0..31; those of 32..63 are second_words further. Columns of no row repeat the
// last row's, or what lies there; nobody looks at what they give.
template <Columns columns>
struct LanePlace {
  uint32_t words;
  int second_words;
  uint32_t tokens[2];  // of results 0 and 2, 1 and 3

  GPTQ_MEMBER explicit LanePlace(uint32_t rows) {
    constexpr uint32_t in_operand = columns == Columns::pairs ? 4 : 8;
    const uint32_t g = lane_index() / 4, t = lane_index() % 4, wanted = g % in_operand, token = packed_before(columns) || wanted < rows ? wanted : rows - 1;
    words = (packed_before(columns) ? token : token * 2 + (columns == Columns::pairs ? g / 4 : 0)) * packed_bytes + (2 * t + token % 2) * 16;
    second_words = token % 2 ? -16 : 16;
    GPTQ_UNROLL for (uint32_t i = 0; i < 2; ++i) tokens[i] = (2 * t + i) % in_operand;
  }
};

// The sums of each scale's columns, as products with ones, so that they lie as results do.
template <Columns columns, uint32_t n_scales>
GPTQ_DEVICE void sum_columns(const Shared& s, uint32_t n_pairs, const LanePlace<columns>& place, uint32_t warp) {
  constexpr uint32_t operands = operands_of(columns), steps = 2 * tile_steps / n_scales, at_once = n_scales > 2 ? 1 : 4;
  const uint32_t ones[4] = {0x00010001, 0x00010001, 0x00010001, 0x00010001};
  const Range pairs = share(n_pairs, warp, warps);
  for (uint32_t p = pairs.first; p < pairs.last; p += at_once) {
    GPTQ_UNROLL for (uint32_t i = 0; i < at_once; ++i) {
      const uint32_t pair = p + i < pairs.last ? p + i : pairs.last - 1;  // without a branch, so that chains run side by side
      const uint8_t* x = s.packed + 2 * pair * s.layout.tile_bytes() + place.words;
      GPTQ_UNROLL for (uint32_t scale = 0; scale < n_scales; ++scale)
        GPTQ_UNROLL for (uint32_t o = 0; o < operands; ++o) {
          float sum[4] = {};
          GPTQ_UNROLL for (uint32_t step = scale * steps; step < (scale + 1) * steps; ++step) {
            const uint32_t c = step % tile_steps;
            const uint8_t* words = x + step / tile_steps * s.layout.tile_bytes() + (c >= 2 ? place.second_words : 0) + o * operand_bytes(columns) + c % 2 * 8;
            mma(sum, ones, reinterpret_cast<const Vec2*>(words)->v);
          }
          if (lane_index() >= 4) continue;
          float* to = s.sums + pair * s.layout.pair_sums + (scale * operands + o) * 8 + lane_index() * 2;
          *reinterpret_cast<Vec2*>(to) = {{bits_of_float(sum[0]), bits_of_float(sum[1])}};
        }
    }
  }
  sync_block();
}

}  // namespace gptq::cuda
