// SPDX-License-Identifier: Apache-2.0
// Keys and values into the pages of a KV cache.
#include "kernels/element.h"
#include "kernels/x86.h"

namespace gptq::kernels {
namespace {

GPTQ_INLINE __m128i to_half(__m256 v) { return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT); }

void store_row(std::byte* to, const float* from, const KvView& kv) {
  if (kv.f32) {
    memcpy(to, from, kv.head_dim * sizeof(float));
    return;
  }
  uint32_t j = 0;
  for (; j + 8 <= kv.head_dim; j += 8) _mm_storeu_si128(reinterpret_cast<__m128i*>(to + j * 2), to_half(_mm256_loadu_ps(from + j)));
  const __m128i tail = to_half(load_some<Kind::f32>(from, j, kv.head_dim - j));
  memcpy(to + j * 2, &tail, (kv.head_dim - j) * 2);
}

}  // namespace

void store_kv_avx2(const StoreKvArgs& a) {
  for (uint32_t i = 0; i < a.m; ++i)
    for (uint32_t head = 0; head < a.kv.n_kv_heads; ++head) {
      const uint64_t from = uint64_t{i} * a.stride + uint64_t{head} * a.kv.head_dim;
      std::byte* to = a.kv.base + kv_row(a.kv, head, a.first_position + i);
      store_row(to, a.k + from, a.kv);
      store_row(to + a.kv.value_offset, a.v + from, a.kv);
    }
}

}  // namespace gptq::kernels
