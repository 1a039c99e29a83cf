// SPDX-License-Identifier: Apache-2.0
// Four ranks at a time, lanes hold columns. A sum goes column by column in two halves, whatever m is.
#pragma once
#include "kernels/vector.h"

namespace gptq::kernels {
namespace {

constexpr uint32_t shrink_tokens = lanes == 16 ? 4 : 2;  // tokens, as many as the registers hold sums of

GPTQ_INLINE Floats load_codes(const int8_t* p) { return load_kv<KvKind::i8>(reinterpret_cast<const std::byte*>(p)); }
GPTQ_INLINE Floats load_some_codes(const int8_t* p, uint32_t count) {
  int8_t part[lanes] = {};
  memcpy(part, p, count);
  return load_codes(part);
}

// Ranks r .. r + 3 of T tokens.
template <uint32_t T>
GPTQ_INLINE void shrink_four(const LoraShrinkArgs& a, uint32_t token, uint32_t r) {
  const int8_t* codes = a.a + uint64_t{r} * a.k;
  const float* x = a.x + uint64_t{token} * a.k;
  Floats sums[T][4][2];
#pragma GCC unroll 4
  for (uint32_t t = 0; t < T; ++t)
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) sums[t][i][0] = sums[t][i][1] = all(0);
  const auto add_columns = [&](int half, auto load_w, auto load_x) __attribute__((always_inline)) {
    Floats columns[T];
#pragma GCC unroll 4
    for (uint32_t t = 0; t < T; ++t) columns[t] = load_x(x + uint64_t{t} * a.k);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const Floats row = load_w(codes + uint64_t(i) * a.k);
#pragma GCC unroll 4
      for (uint32_t t = 0; t < T; ++t) sums[t][i][half] = fma(row, columns[t], sums[t][i][half]);
    }
  };
  const auto whole = [&](int half, uint32_t k) __attribute__((always_inline)) {
    add_columns(half, [k](const int8_t* p) __attribute__((always_inline)) { return load_codes(p + k); },
                [k](const float* p) __attribute__((always_inline)) { return load(p + k); });
  };
  uint32_t k = 0;
  for (; k + 2 * lanes <= a.k; k += 2 * lanes) whole(0, k), whole(1, k + lanes);
  if (k + lanes <= a.k) whole(0, k), k += lanes;
  if (const uint32_t rest = a.k - k)
    add_columns(1, [k, rest](const int8_t* p) { return load_some_codes(p + k, rest); }, [k, rest](const float* p) { return load_part(p + k, rest); });
#pragma GCC unroll 4
  for (uint32_t t = 0; t < T; ++t) {
    float four[4];
    sums_of(add(sums[t][0][0], sums[t][0][1]), add(sums[t][1][0], sums[t][1][1]), add(sums[t][2][0], sums[t][2][1]), add(sums[t][3][0], sums[t][3][1]), four);
    for (uint32_t i = 0; i < 4; ++i) a.y[uint64_t{token + t} * a.rank + r + i] = four[i] * (a.scale[r + i] * a.factor);
  }
}

GPTQ_INLINE void shrink(const LoraShrinkArgs& a) {
  for (uint32_t r = a.first_rank; r < a.last_rank; r += 4) {
    uint32_t token = 0;
    for (; token + shrink_tokens <= a.m; token += shrink_tokens) shrink_four<shrink_tokens>(a, token, r);
    for (; token < a.m; ++token) shrink_four<1>(a, token, r);
  }
}

}  // namespace
}  // namespace gptq::kernels
