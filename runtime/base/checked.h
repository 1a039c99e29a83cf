// SPDX-License-Identifier: Apache-2.0
// Sizes that came from a file or a caller: every product and sum is checked before anything is allocated.
#pragma once
#include "base/failure.h"

namespace gptq::base {

inline uint64_t mul(uint64_t a, uint64_t b) {
  uint64_t r;
  if (__builtin_mul_overflow(a, b, &r)) fail(GPTQ_E_FORMAT, "size overflow: ", a, " * ", b);
  return r;
}

inline uint64_t add(uint64_t a, uint64_t b) {
  uint64_t r;
  if (__builtin_add_overflow(a, b, &r)) fail(GPTQ_E_FORMAT, "size overflow: ", a, " + ", b);
  return r;
}

template <class... More>
uint64_t mul(uint64_t a, uint64_t b, More... more) { return mul(mul(a, b), more...); }

constexpr uint64_t divide_up(uint64_t a, uint64_t b) { return a / b + (a % b != 0); }
inline uint64_t round_up(uint64_t a, uint64_t multiple) { return mul(divide_up(a, multiple), multiple); }

// A size that must be addressable here.
inline size_t to_size(uint64_t n) {
  if (n > SIZE_MAX / 2) fail(GPTQ_E_OUT_OF_MEMORY, n, " bytes do not fit the address space");
  return static_cast<size_t>(n);
}

}  // namespace gptq::base
