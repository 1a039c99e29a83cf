// SPDX-License-Identifier: Apache-2.0
// Random matrices and activations in the layout of kernels.h, beside the plain numbers they stand for.
#pragma once
#include <algorithm>

#include "kernel_test.h"
#include "kernels/layout.h"

namespace gptq::kernels {

struct Half {
  uint16_t bits;
  float value;
};

// A half of size 2^-9 .. 2^-5, either sign, put together and read in different ways.
inline Half random_half(std::mt19937& random) {
  const uint32_t fraction = random() % 1024, exponent = 6 + random() % 4, sign = random() % 2;
  const double value = std::ldexp(1024.0 + fraction, static_cast<int>(exponent) - 25);
  return {static_cast<uint16_t>(sign << 15 | exponent << 10 | fraction), static_cast<float>(sign ? -value : value)};
}

struct MatrixShape {
  Kind kind;
  uint32_t n, k;
  uint32_t group = 64;
  bool zeros = false, scales_f32 = false, permuted = false;
};

inline std::ostream& operator<<(std::ostream& out, const MatrixShape& s) {
  static const char* const names[] = {"f32", "f16", "bf16", "q2", "q3", "q4", "q8"};
  return out << names[static_cast<int>(s.kind)] << " n " << s.n << " k " << s.k << " group " << s.group << (s.zeros ? " zeros" : "")
             << (s.scales_f32 ? " scales_f32" : "") << (s.permuted ? " permuted" : "");
}

struct TestMatrix {
  Matrix w{};
  std::vector<float> weight;     // [n][k_padded], columns in the order of the matrix
  std::vector<float> magnitude;  // the same with |scale| * (code + zero): what rounding errors grow with
  std::vector<uint8_t> codes, zeros;
  std::vector<std::byte> scales;
  std::vector<int32_t> perm;

  TestMatrix(const MatrixShape& shape, std::mt19937& random) {
    const uint32_t k_padded = is_quantized(shape.kind) ? (shape.k + 63) / 64 * 64 : shape.k;
    w = {shape.kind, shape.scales_f32, shape.n, shape.k, k_padded, shape.group, nullptr, nullptr, nullptr, nullptr};
    weight.resize(size_t{shape.n} * k_padded);
    magnitude.resize(weight.size());
    if (is_quantized(shape.kind)) quantized(shape, random); else floating(random);
    w.codes = codes.data();
    if (shape.permuted) permute(random);
  }
  TestMatrix(const TestMatrix&) = delete;

 private:
  void floating(std::mt19937& random) {
    const uint32_t size = bits_of(w.kind) / 8;
    codes.resize(weight.size() * size);
    for (size_t i = 0; i < weight.size(); ++i) {
      const Half half = random_half(random);
      float value = half.value;
      uint32_t bits;
      memcpy(&bits, &value, 4);
      if (w.kind == Kind::bf16) {
        bits >>= 16;
        const uint32_t wide = bits << 16;
        memcpy(&value, &wide, 4);
      }
      if (w.kind == Kind::f16) bits = half.bits;
      memcpy(&codes[i * size], &bits, size);
      weight[i] = value;
      magnitude[i] = std::fabs(value);
    }
  }

  void quantized(const MatrixShape& shape, std::mt19937& random) {
    const uint32_t blocks = n_blocks(w.n), groups = n_groups(w), tiles = w.k_padded / 64, codes_of = 1u << bits_of(w.kind);
    const size_t n_scales = size_t{blocks} * groups * 16;
    scales.resize(n_scales * (w.scales_f32 ? 4 : 2));
    zeros.resize(n_scales);
    codes.resize(size_t{blocks} * tiles * tile_bytes(w.kind));
    std::vector<float> scale(n_scales);
    for (uint32_t block = 0; block < blocks; ++block)
      for (uint32_t i = 0; i < groups * 16; ++i) {
        const size_t at = size_t{block} * groups * 16 + i;
        Half half = random_half(random);
        if (block * 16 + i % 16 >= w.n) half = {0, 0};
        scale[at] = w.scales_f32 ? half.value * 1.0001f : half.value;
        if (w.scales_f32) memcpy(&scales[at * 4], &scale[at], 4); else memcpy(&scales[at * 2], &half.bits, 2);
        zeros[at] = static_cast<uint8_t>(shape.zeros ? random() % codes_of : codes_of / 2);
      }
    w.scales = scales.data();
    w.zeros = shape.zeros ? zeros.data() : nullptr;
    for (uint32_t block = 0; block < blocks; ++block)
      for (uint32_t tile = 0; tile < tiles; ++tile) fill_tile(block, tile, scale, random);
  }

  void fill_tile(uint32_t block, uint32_t tile, const std::vector<float>& scale, std::mt19937& random) {
    uint8_t plain[16][64];
    for (uint32_t r = 0; r < 16; ++r)
      for (uint32_t c = 0; c < 64; ++c) {
        const uint32_t row = block * 16 + r, column = tile * 64 + c;
        const size_t at = (size_t{block} * n_groups(w) + column / w.group) * 16 + r;
        const bool padding = row >= w.n || column >= w.k;
        plain[r][c] = padding ? zeros[at] : static_cast<uint8_t>(random() % (1u << bits_of(w.kind)));
        if (row >= w.n) continue;
        weight[size_t{row} * w.k_padded + column] = scale[at] * static_cast<float>(plain[r][c] - zeros[at]);
        magnitude[size_t{row} * w.k_padded + column] = std::fabs(scale[at]) * static_cast<float>(plain[r][c] + zeros[at]);
      }
    pack_tile(w.kind, plain, codes.data() + (size_t{block} * (w.k_padded / 64) + tile) * tile_bytes(w.kind));
  }

  // Inputs in any order, padding anywhere.
  void permute(std::mt19937& random) {
    perm.assign(w.k_padded, -1);
    for (uint32_t i = 0; i < w.k; ++i) perm[i] = static_cast<int32_t>(i);
    std::shuffle(perm.begin(), perm.end(), random);
    w.perm = perm.data();
  }
};

// y against base + the row of W times the token, x [m][k_padded] in the order of the columns, in float64.
inline void expect_close(const TestMatrix& w, const std::vector<float>& x, uint32_t token, uint32_t row, float y, double base) {
  double sum = base, size = std::fabs(base);
  for (uint32_t column = 0; column < w.w.k_padded; ++column) {
    const double value = x[size_t{token} * w.w.k_padded + column];
    sum += w.weight[size_t{row} * w.w.k_padded + column] * value;
    size += w.magnitude[size_t{row} * w.w.k_padded + column] * std::fabs(value);
  }
  EXPECT_NEAR(y, sum, 4e-7 * size) << "token " << token << " row " << row;
}

// The shapes every matmul is tried on.
inline std::vector<MatrixShape> matrix_shapes(std::mt19937& random) {
  std::vector<MatrixShape> shapes;
  const uint32_t ns[] = {1, 15, 16, 17, 33, 64}, ks[] = {1, 63, 64, 65, 576, 1000, 1088, 2112};
  for (const Kind kind : {Kind::q2, Kind::q3, Kind::q4, Kind::q8})
    for (const uint32_t group : {16u, 32u, 48u, 64u, 80u, 128u, 192u, 256u, 0u})
      for (const uint32_t k : ks) {
        const uint32_t n = ns[random() % 6], whole = (k + 63) / 64 * 64;
        shapes.push_back({kind, n, k, group ? group : whole, random() % 2 == 0, random() % 4 == 0, false});
      }
  return shapes;
}

}  // namespace gptq::kernels
