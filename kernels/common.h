// SPDX-License-Identifier: Apache-2.0
// What the kernels of all instruction sets share. Everything is static: these files are compiled once per instruction set.
#pragma once
#include "kernels/half.h"
#include "kernels/kernels.h"

#define GPTQ_INLINE static inline __attribute__((always_inline))

namespace gptq::kernels {

// Calls f<kind>(); with_quantized_kind does nothing for other kinds.
template <class F>
GPTQ_INLINE void with_quantized_kind(Kind kind, F f) {
  switch (kind) {
    case Kind::q2: return f.template operator()<Kind::q2>();
    case Kind::q3: return f.template operator()<Kind::q3>();
    case Kind::q4: return f.template operator()<Kind::q4>();
    case Kind::q8: return f.template operator()<Kind::q8>();
    default: return;
  }
}

template <class F>
GPTQ_INLINE void with_kind(Kind kind, F f) {
  switch (kind) {
    case Kind::f32: return f.template operator()<Kind::f32>();
    case Kind::f16: return f.template operator()<Kind::f16>();
    case Kind::bf16: return f.template operator()<Kind::bf16>();
    default: return with_quantized_kind(kind, f);
  }
}

GPTQ_INLINE void prefetch(const void* data) { __builtin_prefetch(data); }

// Of consecutive parts of `bytes`, the one with this index.
template <uint32_t bytes>
GPTQ_INLINE void prefetch_part(const uint8_t* data, uint32_t index) {
  for (uint32_t at = 0; at < bytes; at += 64) prefetch(data + index * bytes + at);
}

}  // namespace gptq::kernels
