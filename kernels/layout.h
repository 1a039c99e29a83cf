// SPDX-License-Identifier: Apache-2.0
// The n16k64 tile of kernels.h as code: where each code lies, one at a time or a whole tile at once.
#pragma once
#include <cstring>

#include "kernels/kernels.h"

namespace gptq::kernels {

// A code is low_bits bits at byte, bit shift; 3 bit: its third bit is at high_byte, bit high_shift.
struct CodePlace {
  uint32_t byte, shift, high_byte, high_shift;
};

constexpr CodePlace code_place(Kind kind, uint32_t row, uint32_t column) {
  const uint32_t line = row % 8, nibble = row / 8 * 4, at = line_byte(column);
  if (kind == Kind::q8) return {64 * row + at, 0, 0, 0};
  if (kind == Kind::q4) return {64 * line + at, nibble, 0, 0};
  return {64 * (line % 4) + at, nibble + 2 * (line / 4), 256 + 64 * (line / 4) + at, nibble + line % 4};
}

constexpr uint32_t low_bits(Kind kind) { return kind == Kind::q3 ? 2 : bits_of(kind); }

// row 0..15, column 0..63 of a tile.
constexpr uint32_t read_code(const uint8_t* tile, Kind kind, uint32_t row, uint32_t column) {
  const CodePlace p = code_place(kind, row, column);
  const uint32_t low = tile[p.byte] >> p.shift & ((1u << low_bits(kind)) - 1);
  return kind == Kind::q3 ? low | (tile[p.high_byte] >> p.high_shift & 1u) << 2 : low;
}

constexpr void write_code(uint8_t* tile, Kind kind, uint32_t row, uint32_t column, uint32_t code) {
  const CodePlace p = code_place(kind, row, column);
  const uint32_t mask = (1u << low_bits(kind)) - 1;
  tile[p.byte] = static_cast<uint8_t>((tile[p.byte] & ~(mask << p.shift)) | (code & mask) << p.shift);
  if (kind != Kind::q3) return;
  tile[p.high_byte] = static_cast<uint8_t>((tile[p.high_byte] & ~(1u << p.high_shift)) | (code >> 2 & 1) << p.high_shift);
}

// The same for all codes of a tile; writes tile_bytes(kind) bytes.
inline void pack_tile(Kind kind, const uint8_t codes[16][64], uint8_t* tile) {
  uint8_t lines[16][64];
  for (int row = 0; row < 16; ++row)
    for (int t = 0; t < 4; ++t)
      for (int c = 0; c < 4; ++c) memcpy(&lines[row][16 * t + 4 * c], &codes[row][16 * c + 4 * t], 4);
  if (kind == Kind::q8) memcpy(tile, lines, sizeof lines);
  const auto join = [](int a, int b, int c, int d) { return static_cast<uint8_t>(a | b << 2 | c << 4 | d << 6); };
  for (int at = 0; at < 64; ++at) {
    if (kind == Kind::q4)
      for (int g = 0; g < 8; ++g) tile[64 * g + at] = static_cast<uint8_t>(lines[g][at] | lines[g + 8][at] << 4);
    if (kind == Kind::q2 || kind == Kind::q3)
      for (int h = 0; h < 4; ++h)
        tile[64 * h + at] = join(lines[h][at] & 3, lines[h + 4][at] & 3, lines[h + 8][at] & 3, lines[h + 12][at] & 3);
    if (kind == Kind::q3)
      for (int p = 0; p < 2; ++p) {
        int high = 0;
        for (int s = 0; s < 4; ++s) high |= (lines[4 * p + s][at] >> 2) << s | (lines[4 * p + s + 8][at] >> 2) << (s + 4);
        tile[256 + 64 * p + at] = static_cast<uint8_t>(high);
      }
  }
}

}  // namespace gptq::kernels
