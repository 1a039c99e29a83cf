// SPDX-License-Identifier: Apache-2.0
// Weights from memory to the A operand of mma, for every kind. Lane 4g + t holds rows g and g + 8, columns 16c + 4t + i of a tile, as
// pairs i = {0, 2}, {1, 3}. Codes become float16 by masks alone: as subnormals they are code * 2^-24, and tensor cores count those exactly.
#pragma once
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/pack.h"

namespace gptq::cuda {

// 4-bit codes of both rows in a word: row g + 8 comes out 16 times as large.
GPTQ_DEVICE void nibble_operand(uint32_t word, uint32_t a[4]) {
  a[0] = word & 0x000f000f;
  a[1] = word & 0x00f000f0;
  a[2] = word >> 8 & 0x000f000f;
  a[3] = word >> 8 & 0x00f000f0;
}

struct Q4 {
  static constexpr kernels::Kind kind = kernels::Kind::q4;
  static constexpr bool quantized = true;
  static constexpr float lower_rows = 16;  // how many times too large rows g + 8 come out
  static constexpr uint32_t decode_tiles = 2;  // tiles of a piece
  static constexpr uint32_t rows_depth = 3;                      // pieces ahead with 17 rows and more
  static constexpr bool small = true;                            // few registers: twice as many warps then
  static constexpr uint32_t widest = 64;                         // tile of columns that registers allow
  struct Raw {
    Vec4 w;
  };
  const uint8_t* codes;

  static GPTQ_MEMBER uint32_t tile_bytes(const Job&) { return 512; }
  static GPTQ_MEMBER Raw of_tile(const uint8_t* tile, const Job&) { return {*reinterpret_cast<const Vec4*>(tile + lane_index() * 16)}; }
  GPTQ_MEMBER void open(const Job& job, const Target& target, uint32_t block, uint32_t tile) {
    codes = target.codes + (uint64_t{block} * job.tiles + tile) * 512 + lane_index() * 16;
  }
  GPTQ_MEMBER void next(const Job&, Raw& raw) {
    raw.w = load_once(reinterpret_cast<const Vec4*>(codes));
    codes += 512;
  }
  static GPTQ_MEMBER void operand(const Job&, const Raw& raw, uint32_t c, uint32_t a[4]) { nibble_operand(raw.w.v[c], a); }
};

// 2 and 3 bit.
struct Q23 {
  static constexpr kernels::Kind kind = kernels::Kind::q3;
  static constexpr bool quantized = true;
  static constexpr float lower_rows = 16;
  static constexpr uint32_t decode_tiles = 2, widest = 32, rows_depth = 4;
  static constexpr bool small = false;
  struct Raw {
    Vec4 low, high;
  };
  const uint8_t* codes;

  static GPTQ_MEMBER uint32_t tile_bytes(const Job& job) { return has_high(job) ? 384 : 256; }
  static GPTQ_MEMBER Raw of_tile(const uint8_t* tile, const Job& job) {
    const uint32_t line = lane_index() / 4;
    tile += lane_index() % 4 * 16;
    Raw raw{*reinterpret_cast<const Vec4*>(tile + line % 4 * 64), {}};
    if (has_high(job)) raw.high = *reinterpret_cast<const Vec4*>(tile + 256 + line / 4 * 64);
    return raw;
  }
  static GPTQ_MEMBER bool has_high(const Job& job) { return job.kind == kernels::Kind::q3; }
  GPTQ_MEMBER void open(const Job& job, const Target& target, uint32_t block, uint32_t tile) {
    codes = target.codes + (uint64_t{block} * job.tiles + tile) * (has_high(job) ? 384 : 256) + lane_index() % 4 * 16;
  }
  GPTQ_MEMBER void next(const Job& job, Raw& raw) {
    const uint32_t line = lane_index() / 4;
    raw.low = load_once(reinterpret_cast<const Vec4*>(codes + line % 4 * 64));
    if (has_high(job)) raw.high = load_once(reinterpret_cast<const Vec4*>(codes + 256 + line / 4 * 64));
    codes += has_high(job) ? 384 : 256;
  }
  static GPTQ_MEMBER void operand(const Job& job, const Raw& raw, uint32_t c, uint32_t a[4]) {
    const uint32_t line = lane_index() / 4;
    uint32_t word = raw.low.v[c] >> line / 4 * 2 & 0x33333333;
    if (has_high(job)) word |= (raw.high.v[c] >> line % 4 & 0x11111111) << 2;
    nibble_operand(word, a);
  }
};

struct Q8 {
  static constexpr kernels::Kind kind = kernels::Kind::q8;
  static constexpr bool quantized = true;
  static constexpr float lower_rows = 1;
  static constexpr uint32_t decode_tiles = 2, widest = 32, rows_depth = 3;  // 64 spills on sm_75
  static constexpr bool small = false;
  struct Raw {
    Vec4 rows[2];
  };
  const uint8_t* codes;

  static GPTQ_MEMBER uint32_t tile_bytes(const Job&) { return 1024; }
  static GPTQ_MEMBER Raw of_tile(const uint8_t* tile, const Job&) {
    const Vec4* lane = reinterpret_cast<const Vec4*>(tile + lane_index() * 16);
    return {{lane[0], lane[warp_size]}};
  }
  GPTQ_MEMBER void open(const Job& job, const Target& target, uint32_t block, uint32_t tile) {
    codes = target.codes + (uint64_t{block} * job.tiles + tile) * 1024 + lane_index() * 16;
  }
  GPTQ_MEMBER void next(const Job&, Raw& raw) {
    raw.rows[0] = load_once(reinterpret_cast<const Vec4*>(codes));
    raw.rows[1] = load_once(reinterpret_cast<const Vec4*>(codes + 512));
    codes += 1024;
  }
  static GPTQ_MEMBER void operand(const Job&, const Raw& raw, uint32_t c, uint32_t a[4]) {
    for (uint32_t row = 0; row < 2; ++row) {
      a[row] = raw.rows[row].v[c] & 0x00ff00ff;
      a[2 + row] = raw.rows[row].v[c] >> 8 & 0x00ff00ff;
    }
  }
};

// float16, bfloat16 and float32, row by row; what float16 cannot hold becomes its largest.
struct Dense {
  static constexpr bool quantized = false;
  static constexpr float lower_rows = 1;
  static constexpr uint32_t decode_tiles = 1, rows_depth = 2;
  static constexpr bool small = false;
  struct Raw {
    Vec2 w[tile_steps][2];  // four columns in a row, 16 bits each; float32 as float16 already
  };
  const uint8_t* rows[2];   // NULL past the last
  uint32_t column = 0;

  static GPTQ_MEMBER uint32_t pair(float a, float b) { return half2_bits(fit_half(a), fit_half(b)); }
  GPTQ_MEMBER void open(const Job& job, const Target& target, uint32_t block, uint32_t tile) {
    const uint32_t first = block * block_rows + lane_index() / 4;
    for (uint32_t i = 0; i < 2; ++i) {
      const uint32_t row = first + 8 * i;
      rows[i] = row < target.n ? target.codes + uint64_t{row} * job.k * (job.kind == kernels::Kind::f32 ? 4 : 2) : nullptr;
    }
    column = tile * tile_columns + lane_index() % 4 * 4;
  }
  static GPTQ_MEMBER Vec2 four(const Job& job, const uint8_t* row, uint32_t first) {
    Vec2 w{{0, 0}};
    if (!row || first >= job.k) return w;
    const bool wide = job.kind == kernels::Kind::f32;
    const uint32_t* aligned = reinterpret_cast<const uint32_t*>(row + uint64_t{first} * (wide ? 4 : 2));
    if (job.k % 4 == 0 && !wide) return *reinterpret_cast<const Vec2*>(aligned);
    if (job.k % 4 == 0) {
      const Vec4 f = *reinterpret_cast<const Vec4*>(aligned);
      return {{pair(float_of_bits(f.v[0]), float_of_bits(f.v[1])), pair(float_of_bits(f.v[2]), float_of_bits(f.v[3]))}};
    }
    for (uint32_t i = 0; i < 4 && first + i < job.k; ++i) {
      const uint32_t bits = wide ? pair(reinterpret_cast<const float*>(row)[first + i], 0) : reinterpret_cast<const uint16_t*>(row)[first + i];
      w.v[i / 2] |= bits << i % 2 * 16;
    }
    return w;
  }
  GPTQ_MEMBER void next(const Job& job, Raw& raw) {
    GPTQ_UNROLL for (uint32_t c = 0; c < tile_steps; ++c)
      GPTQ_UNROLL for (uint32_t i = 0; i < 2; ++i) raw.w[c][i] = four(job, rows[i], column + c * step_columns);
    column += tile_columns;
  }
  static GPTQ_MEMBER void operand(const Job& job, const Raw& raw, uint32_t c, uint32_t a[4]) {
    for (uint32_t i = 0; i < 2; ++i) {
      uint32_t first = raw.w[c][i].v[0], second = raw.w[c][i].v[1];
      if (job.kind == kernels::Kind::bf16) {
        first = pair(bf16_value(first & 0xffff), bf16_value(first >> 16));
        second = pair(bf16_value(second & 0xffff), bf16_value(second >> 16));
      }
      a[i] = (first & 0xffff) | second << 16;
      a[2 + i] = first >> 16 | (second & 0xffff0000);
    }
  }
};

struct Scale {
  float scale[2], zero[2];  // of rows g and g + 8
};

// As they lie; a zero only where there are any.
GPTQ_DEVICE void take_scale(const Job& job, const uint8_t* scales, const uint8_t* zeros, uint32_t& scale, uint32_t& zero) {
  scale = job.scales_f32 ? *reinterpret_cast<const uint32_t*>(scales) : *reinterpret_cast<const uint16_t*>(scales);
  if (!job.symmetric_zero) zero = *zeros;
}

// A lane's weights of a range of columns of one block, piece by piece. A piece: 1 or 2 tiles with n_scales scales for as many columns each
// (0: none). Even lanes hold those of row g, odd ones of row g + 8 until they are used: registers limit how far ahead weights are read.
template <class Form, uint32_t tiles, uint32_t n_scales>
struct Reader {
  static constexpr uint32_t steps_of_scale = n_scales ? tiles * tile_steps / n_scales : tiles * tile_steps;
  struct Piece {
    typename Form::Raw raw[tiles];
    uint32_t scale[n_scales ? n_scales : 1], zero[n_scales ? n_scales : 1];
  };
  Form form;
  const uint8_t* scales;
  const uint8_t* zeros = nullptr;
  uint32_t steps_left;                            // of the group
  uint32_t first_tile, first_group, first_steps;  // where the range begins, what is left of that group

  GPTQ_MEMBER Reader() = default;
  GPTQ_MEMBER Reader(const Job& job, uint32_t tile) {
    first_tile = tile;
    if constexpr (n_scales > 0) {
      first_group = tile * tile_steps / job.group_steps;
      first_steps = (first_group + 1) * job.group_steps - tile * tile_steps;
    }
  }
  GPTQ_MEMBER void open(const Job& job, uint32_t block) {
    const Target& target = job.targets[target_of(job, block)];
    block -= target.first_block;
    form.open(job, target, block, first_tile);
    if constexpr (n_scales > 0) {
      steps_left = first_steps;
      const uint64_t at = (uint64_t{block} * job.groups + first_group) * block_rows + lane_index() % 2 * 8 + lane_index() / 4;
      scales = target.scales + at * (job.scales_f32 ? 4 : 2);
      if (!job.symmetric_zero) zeros = target.zeros + at;
    }
  }
  // n: tiles of the piece that exist; past them weights and scales are 0.
  GPTQ_MEMBER void next(const Job& job, Piece& piece, uint32_t n) {
    GPTQ_UNROLL for (uint32_t i = 0; i < tiles; ++i) {
      if (i == 0 || i < n) form.next(job, piece.raw[i]); else piece.raw[i] = {};
    }
    if constexpr (n_scales > 0) {
      GPTQ_UNROLL for (uint32_t i = 0; i < n_scales; ++i) next_scale(job, piece.scale[i], piece.zero[i], i * steps_of_scale < n * tile_steps);
    }
  }
  GPTQ_MEMBER void next_scale(const Job& job, uint32_t& scale, uint32_t& zero, bool exists) {
    if (!exists) {
      scale = zero = 0;
      return;
    }
    take_scale(job, scales, zeros, scale, zero);
    steps_left -= steps_of_scale;
    if (steps_left) return;
    steps_left = job.group_steps;
    scales += block_rows * (job.scales_f32 ? 4 : 2);
    if (!job.symmetric_zero) zeros += block_rows;
  }
  // Products come out 2^-24 times as large, those of rows g + 8 `lower_rows` times that.
  static GPTQ_MEMBER Scale scale_of(const Job& job, uint32_t raw_scale, uint32_t raw_zero) {
    const uint32_t even = lane_index() / 2 * 2, odd = even + 1;
    const float own = job.scales_f32 ? float_of_bits(raw_scale) : half_value(static_cast<uint16_t>(raw_scale));
    const float symmetric = static_cast<float>(job.symmetric_zero);
    Scale s{{shuffle(own, even), shuffle(own, odd) * (1 / Form::lower_rows)}, {symmetric, symmetric * Form::lower_rows}};
    if (!job.symmetric_zero) {
      s.zero[0] = static_cast<float>(shuffle(raw_zero, even));
      s.zero[1] = static_cast<float>(shuffle(raw_zero, odd)) * Form::lower_rows;
    }
    return s;
  }
};

// sum += scale * (acc - zero * sums of the columns' activations), as fragments: elements 0, 1 rows g, 2, 3 rows g + 8.
GPTQ_DEVICE void add_scaled(float sum[4], const float acc[4], const Scale& s, float sum_even, float sum_odd) {
  GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) sum[i] = fused(s.scale[i / 2], fused(-s.zero[i / 2], i % 2 ? sum_odd : sum_even, acc[i]), sum[i]);
}

}  // namespace gptq::cuda
