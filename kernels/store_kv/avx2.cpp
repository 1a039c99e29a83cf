// SPDX-License-Identifier: Apache-2.0
// Keys and values into the pages of a KV cache: rows are converted as a whole, then put in their places.
#include "kernels/kv.h"
#include "kernels/x86.h"

namespace gptq::kernels {
namespace {

constexpr uint32_t max_head_dim = 512;

// Row elements `step` apart, zeros behind the n there are.
template <class T>
void put(std::byte* to, uint32_t step, const T* row, uint32_t n, uint32_t padded) {
  auto* elements = reinterpret_cast<T*>(to);
  if (step == 1) {
    memcpy(to, row, n * sizeof(T));
    memset(elements + n, 0, (padded - n) * sizeof(T));
    return;
  }
  for (uint32_t d = 0; d < n; ++d) elements[d * step] = row[d];
  for (uint32_t d = n; d < padded; ++d) elements[d * step] = 0;
}

void to_half(const float* from, uint32_t n, uint16_t* to) {
  const auto convert = [](__m256 v) { return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT); };
  uint32_t d = 0;
  for (; d + 8 <= n; d += 8) _mm_storeu_si128(reinterpret_cast<__m128i*>(to + d), convert(_mm256_loadu_ps(from + d)));
  if (d < n) _mm_storeu_si128(reinterpret_cast<__m128i*>(to + d), convert(load_some<Kind::f32>(from, d, n - d)));
}

// Returns the scale. Magnitudes are compared as integers, where NaN is largest, so that it reaches the outputs.
float to_int8(const float* from, uint32_t n, int8_t* to) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  const auto row = [&](uint32_t d) { return d + 8 <= n ? _mm256_loadu_ps(from + d) : load_some<Kind::f32>(from, d, n - d); };
  __m256i most = _mm256_setzero_si256();
  for (uint32_t d = 0; d < n; d += 8) most = _mm256_max_epi32(most, _mm256_and_si256(_mm256_castps_si256(row(d)), magnitude));
  __m128i half = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
  half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0x4e));
  const float max = float_from_bits(static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_max_epi32(half, _mm_shuffle_epi32(half, 0xb1)))));
  const __m256 inverse = _mm256_set1_ps(max < 1e-30f ? 0 : 127 / max);
  for (uint32_t d = 0; d < n; d += 8) {
    const __m256i codes = _mm256_cvtps_epi32(_mm256_mul_ps(row(d), inverse));
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to + d), _mm_packs_epi16(words, words));
  }
  return max < 1e-30f ? 0 : max / 127;
}

void store_row(std::byte* to, uint32_t step, const float* from, const KvView& kv, float* int8_scale) {
  const uint32_t n = kv.head_dim, padded = kv_row_elements(n);
  uint16_t halves[max_head_dim];
  int8_t codes[max_head_dim];
  switch (kv.kind) {
    case KvKind::f32: return put(to, step, from, n, padded);
    case KvKind::f16: to_half(from, n, halves); return put(to, step, halves, n, padded);
    case KvKind::i8: *int8_scale = to_int8(from, n, codes); return put(to, step, codes, n, padded);
  }
}

}  // namespace

void store_kv_avx2(const StoreKvArgs& a) {
  for (uint32_t i = 0; i < a.m; ++i)
    for (uint32_t head = 0; head < a.kv.n_kv_heads; ++head) {
      const uint64_t from = uint64_t{i} * a.stride + uint64_t{head} * a.kv.head_dim;
      const uint32_t position = a.first_position + i;
      store_row(kv_key(a.kv, head, position), 16, a.k + from, a.kv, kv_key_scales(a.kv, head, position));
      store_row(kv_value(a.kv, head, position), 1, a.v + from, a.kv, kv_value_scales(a.kv, head, position));
    }
}

}  // namespace gptq::kernels
