// SPDX-License-Identifier: Apache-2.0
// Each head's own matrix times its activations, for any vector width. Lanes hold columns; an output is summed over chunks of columns,
// each in order, whatever m is. For several tokens four rows at a time become float32 first.
#pragma once
#include "kernels/vector.h"

namespace gptq::kernels {
namespace {

constexpr uint32_t head_columns = 512;  // summed before they are added to y: part of the summation order
constexpr uint32_t head_tokens = lanes == 16 ? 6 : lanes == 8 ? 3 : 4;  // tokens, as many as the registers hold sums of

// A chunk of four rows; the last may be one row several times. ahead: bytes from an element to the one to ask for.
struct HeadRows {
  const char* row[4];
  uint32_t columns;
  uint64_t ahead;
};

// sums[t][r] of T tokens.
template <Kind kind, uint32_t T>
GPTQ_INLINE void dot(const HeadRows& w, const float* x, uint64_t x_stride, float (&sums)[T][4]) {
  Floats acc[T][4];
#pragma GCC unroll 6
  for (uint32_t t = 0; t < T; ++t)
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) acc[t][r] = all(0);
  const auto add_columns = [&](auto load_w, auto load_x) __attribute__((always_inline)) {
    Floats token[T];
#pragma GCC unroll 6
    for (uint32_t t = 0; t < T; ++t) token[t] = load_x(x + t * x_stride);
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      const Floats row = load_w(w.row[r]);
#pragma GCC unroll 6
      for (uint32_t t = 0; t < T; ++t) acc[t][r] = fma(row, token[t], acc[t][r]);
    }
  };
  uint32_t k = 0;
  for (; k + lanes <= w.columns; k += lanes)
    add_columns(
        [&](const char* row) __attribute__((always_inline)) {
          if constexpr (T == 1) prefetch(row + k * (bits_of(kind) / 8) + w.ahead);
          return load_as<kind>(row, k);
        },
        [&](const float* token) { return load(token + k); });
  if (const uint32_t rest = w.columns - k)
    add_columns([&](const char* row) { return load_part_as<kind>(row, k, rest); },
                [&](const float* token) { return load_part(token + k, rest); });
#pragma GCC unroll 6
  for (uint32_t t = 0; t < T; ++t) sums_of(acc[t][0], acc[t][1], acc[t][2], acc[t][3], sums[t]);
}

// Where four rows of a head go.
struct Place {
  const float* x;
  float* y;
  uint32_t rows;  // that there are
  bool first;     // chunk of columns
};

template <Kind kind, uint32_t T>
__attribute__((noinline)) void multiply_heads(const HeadMatmulArgs& a, const HeadRows& w, const Place& to, uint32_t token) {
  float sums[T][4];
  dot<kind, T>(w, to.x + token * a.x_stride, a.x_stride, sums);
  for (uint32_t t = 0; t < T; ++t) {
    float* y = to.y + (token + t) * a.y_stride;
    for (uint32_t r = 0; r < to.rows; ++r) y[r] = to.first ? sums[t][r] : y[r] + sums[t][r];
  }
}

template <Kind kind>
void multiply_rows(const HeadMatmulArgs& a, const HeadRows& w, const Place& to) {
  if (a.m < head_tokens) {
    for (uint32_t token = 0; token < a.m; ++token) multiply_heads<kind, 1>(a, w, to, token);
    return;
  }
  alignas(64) float floats[4][head_columns];
  HeadRows converted = {{}, w.columns, 0};
  for (int r = 0; r < 4; ++r) {
    converted.row[r] = reinterpret_cast<const char*>(floats[r]);
    uint32_t k = 0;
    for (; k + lanes <= w.columns; k += lanes) store(floats[r] + k, load_as<kind>(w.row[r], k));
    if (k < w.columns) store(floats[r] + k, load_part_as<kind>(w.row[r], k, w.columns - k));
  }
  uint32_t token = 0;
  for (; token + head_tokens <= a.m; token += head_tokens) multiply_heads<Kind::f32, head_tokens>(a, converted, to, token);
  for (; token < a.m; ++token) multiply_heads<Kind::f32, 1>(a, converted, to, token);
}

template <Kind kind>
void multiply_head(const HeadMatmulArgs& a, uint64_t head) {
  constexpr uint32_t size = bits_of(kind) / 8;
  const char* matrix = static_cast<const char*>(a.w) + head * a.n * a.k * size;
  for (uint32_t row = 0; row < a.n; row += 4)
    for (uint32_t k = 0; k < a.k; k += head_columns) {
      const uint32_t rows = a.n - row < 4 ? a.n - row : 4;
      HeadRows w = {{}, a.k - k < head_columns ? a.k - k : head_columns, uint64_t{a.k} * 16 * size};
      for (uint32_t r = 0; r < 4; ++r) w.row[r] = matrix + (uint64_t{row + (r < rows ? r : 0)} * a.k + k) * size;
      const float* x = a.x + head * a.x_head_stride + k;
      multiply_rows<kind>(a, w, {x, a.y + head * a.y_head_stride + row, rows, k == 0});
    }
}

GPTQ_INLINE void multiply_heads(const HeadMatmulArgs& a) {
  for (uint64_t head = a.first_head; head < a.last_head; ++head) switch (a.kind) {
      case Kind::f32: multiply_head<Kind::f32>(a, head); break;
      case Kind::f16: multiply_head<Kind::f16>(a, head); break;
      case Kind::bf16: multiply_head<Kind::bf16>(a, head); break;
      default: break;
    }
}

}  // namespace
}  // namespace gptq::kernels
