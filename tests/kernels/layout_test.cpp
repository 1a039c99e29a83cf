// SPDX-License-Identifier: Apache-2.0
// The tile layout against the words of kernels.h, and the half conversions against their definitions.
#include "kernel_test.h"
#include "kernels/half.h"
#include "kernels/layout.h"
#include "tests/seed.h"

namespace gptq::kernels {
namespace {

constexpr Kind kinds[] = {Kind::q2, Kind::q3, Kind::q4, Kind::q8};

// The 4-bit line g of a tile, or line g of 8-bit codes, as kernels.h words it.
std::vector<uint32_t> line_of(const uint8_t* tile, Kind kind, uint32_t g) {
  std::vector<uint32_t> line(64);
  for (uint32_t b = 0; b < 64; ++b) {
    if (kind == Kind::q4 || kind == Kind::q8) line[b] = tile[64 * g + b];
    if (kind == Kind::q2 || kind == Kind::q3) line[b] = tile[64 * (g % 4) + b] >> 2 * (g / 4) & 0x33;
    if (kind == Kind::q3) line[b] |= (tile[256 + 64 * (g / 4) + b] >> g % 4 & 0x11u) << 2;
  }
  return line;
}

TEST(layout, tiles_are_as_described) {
  std::mt19937 random(test::seed(1));
  for (const Kind kind : kinds) {
    uint8_t codes[16][64], tile[1024], by_one[1024] = {};
    for (auto& row : codes)
      for (uint8_t& code : row) code = static_cast<uint8_t>(random() % (1u << bits_of(kind)));
    pack_tile(kind, codes, tile);
    for (uint32_t row = 0; row < 16; ++row)
      for (uint32_t column = 0; column < 64; ++column) {
        write_code(by_one, kind, row, column, codes[row][column]);
        ASSERT_EQ(read_code(tile, kind, row, column), codes[row][column]);
      }
    EXPECT_EQ(memcmp(tile, by_one, tile_bytes(kind)), 0);
    for (uint32_t row = 0; row < 16; ++row)
      for (uint32_t t = 0; t < 4; ++t)
        for (uint32_t c = 0; c < 4; ++c)
          for (uint32_t i = 0; i < 4; ++i) {
            const uint32_t byte = line_of(tile, kind, kind == Kind::q8 ? row : row % 8)[16 * t + 4 * c + i];
            const uint32_t code = kind == Kind::q8 ? byte : row < 8 ? byte & 15 : byte >> 4;
            ASSERT_EQ(code, codes[row][16 * c + 4 * t + i]) << "row " << row;
          }
  }
}

TEST(half, every_value_and_every_rounding) {
  for (uint32_t bits = 0; bits < 0x8000; ++bits) {
    const uint32_t exponent = bits >> 10, fraction = bits & 1023;
    const float got = float_from_half(static_cast<uint16_t>(bits));
    EXPECT_EQ(std::signbit(float_from_half(static_cast<uint16_t>(bits | 0x8000))), true);
    if (exponent == 31 && fraction) {
      EXPECT_TRUE(std::isnan(got));
      EXPECT_TRUE(std::isnan(float_from_half(half_from_float(got))));
      continue;
    }
    const double finite = exponent ? std::ldexp(1024.0 + fraction, static_cast<int>(exponent) - 25) : std::ldexp(fraction, -24);
    const double value = exponent == 31 ? HUGE_VAL : finite;
    ASSERT_EQ(got, value);
    ASSERT_EQ(half_from_float(got), bits);
    if (exponent == 31) continue;
    const double next = bits == 0x7bff ? 65536.0 : float_from_half(static_cast<uint16_t>(bits + 1));
    const float middle = static_cast<float>((value + next) / 2);
    ASSERT_EQ(half_from_float(middle), bits + (bits & 1)) << bits;
    ASSERT_EQ(half_from_float(std::nextafterf(middle, 0)), bits);
    ASSERT_EQ(half_from_float(std::nextafterf(middle, HUGE_VALF)), bits + 1);
    ASSERT_EQ(half_from_float(-std::nextafterf(middle, HUGE_VALF)), (bits + 1) | 0x8000);
  }
  EXPECT_EQ(half_from_float(1e30f), 0x7c00);
}

}  // namespace
}  // namespace gptq::kernels
