// SPDX-License-Identifier: Apache-2.0
// Lanes hold the 16 rows of a block. A row's sum goes rank by rank in two halves and is then added to y, whatever m is.
#pragma once
#include "kernels/vector.h"

namespace gptq::kernels {
namespace {

constexpr uint32_t parts = 16 / lanes;
constexpr uint32_t expand_tokens = lanes == 16 ? 8 : lanes == 8 ? 4 : 2;  // tokens

// Ranks with even numbers and those with odd ones are summed apart: one sum after another waits for the one before.
template <uint32_t T>
GPTQ_INLINE void expand_block(const LoraExpandArgs& a, uint32_t block, uint32_t token) {
  const int8_t* codes = a.b + uint64_t{block} * a.rank * 16;
  const float* x = a.x + uint64_t{token} * a.rank;
  Floats sums[T][parts], odd[T][parts];
#pragma GCC unroll 8
  for (uint32_t t = 0; t < T; ++t)
#pragma GCC unroll 4
    for (uint32_t p = 0; p < parts; ++p) sums[t][p] = odd[t][p] = all(0);
  const auto add_rank = [&](Floats (&to)[T][parts], uint32_t r) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (uint32_t p = 0; p < parts; ++p) {
      const Floats rows = load_kv<KvKind::i8>(reinterpret_cast<const std::byte*>(codes + r * 16 + p * lanes));
#pragma GCC unroll 8
      for (uint32_t t = 0; t < T; ++t) to[t][p] = fma(rows, all(x[uint64_t{t} * a.rank + r]), to[t][p]);
    }
  };
  for (uint32_t r = 0; r < a.rank; r += 4) add_rank(sums, r), add_rank(odd, r + 1), add_rank(sums, r + 2), add_rank(odd, r + 3);
#pragma GCC unroll 8
  for (uint32_t t = 0; t < T; ++t)
#pragma GCC unroll 4
    for (uint32_t p = 0; p < parts; ++p) sums[t][p] = add(sums[t][p], odd[t][p]);
  const uint32_t n = a.n - block * 16;
#pragma GCC unroll 8
  for (uint32_t t = 0; t < T; ++t)
#pragma GCC unroll 4
    for (uint32_t p = 0; p < parts; ++p) {
      float* y = a.y + uint64_t{token + t} * a.n + block * 16 + p * lanes;
      if (n >= (p + 1) * lanes) {
        store(y, add(load(y), sums[t][p]));
      } else if (n > p * lanes) {
        const uint32_t rest = n - p * lanes;
        store_part(y, add(load_part(y, rest), sums[t][p]), rest);
      }
    }
}

GPTQ_INLINE void expand(const LoraExpandArgs& a) {
  for (uint32_t block = a.first_block; block < a.last_block; ++block) {
    uint32_t token = 0;
    for (; token + expand_tokens <= a.m; token += expand_tokens) expand_block<expand_tokens>(a, block, token);
    for (; token < a.m; ++token) expand_block<1>(a, block, token);
  }
}

}  // namespace
}  // namespace gptq::kernels
