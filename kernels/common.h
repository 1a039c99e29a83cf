// SPDX-License-Identifier: Apache-2.0
// What the kernels of all instruction sets share. Everything is static: these files are compiled once per instruction set.
#pragma once
#include "kernels/half.h"
#include "kernels/kernels.h"

#define GPTQ_INLINE static inline __attribute__((always_inline))

namespace gptq::kernels {

GPTQ_INLINE void prefetch(const void* data) { __builtin_prefetch(data); }

// Of consecutive parts of `bytes`, the one with this index.
template <uint32_t bytes>
GPTQ_INLINE void prefetch_part(const uint8_t* data, uint32_t index) {
  for (uint32_t at = 0; at < bytes; at += 64) prefetch(data + index * bytes + at);
}

}  // namespace gptq::kernels
