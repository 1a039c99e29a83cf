// SPDX-License-Identifier: Apache-2.0
// What a warp does with one head of a row: norm and rotation of a query or a key, and a key or a value into the cache.
#pragma once
#include <math.h>

#include "kernels/cuda/ops.h"
#include "kernels/cuda/simt.h"

namespace gptq::cuda {

// Element d becomes x[d] / sqrt(mean(x^2) + eps) * weight[d] + bias[d]; centered: of x less its mean.
GPTQ_DEVICE void norm_head(float* x, const float* weight, const float* bias, uint32_t n, float eps, bool centered) {
  float squares = 0;
  if (centered) {
    float sum = 0;
    GPTQ_ROLLED for (uint32_t d = lane_index(); d < n; d += warp_size) sum += x[d];
    const float mean = warp_sum(sum) / static_cast<float>(n);
    GPTQ_ROLLED for (uint32_t d = lane_index(); d < n; d += warp_size) x[d] -= mean;
  }
  GPTQ_ROLLED for (uint32_t d = lane_index(); d < n; d += warp_size) squares = fused(x[d], x[d], squares);
  const float factor = 1.0f / sqrt_of(warp_sum(squares) / static_cast<float>(n) + eps);
  GPTQ_ROLLED for (uint32_t d = lane_index(); d < n; d += warp_size) x[d] = weight ? x[d] * factor * weight[d] : x[d] * factor;
  GPTQ_ROLLED for (uint32_t d = lane_index(); bias && d < n; d += warp_size) x[d] += bias[d];
}

// NaN stays.
GPTQ_DEVICE void clip(float* x, uint32_t n, float most) {
  GPTQ_ROLLED for (uint32_t d = lane_index(); d < n; d += warp_size) x[d] = x[d] > most ? most : x[d] < -most ? -most : x[d];
}

GPTQ_DEVICE void scale_query(float* x, uint32_t n, const AppendKvArgs& a, uint32_t position) {
  const float floors = floorf((static_cast<float>(position) + a.query_offset) / a.query_floor);
  const float factor = 1 + a.query_factor * log1pf(floors);
  GPTQ_ROLLED for (uint32_t d = lane_index(); d < n; d += warp_size) x[d] *= factor;
}

GPTQ_DEVICE void rotate_pair(float* x, const float* cos, const float* sin, uint32_t half, uint32_t j) {
  const float low = x[j], high = x[j + half], c = cos[j], s = sin[j];
  x[j] = low * c - high * s;
  x[j + half] = fused(high, c, low * s);
}

// Unrolled: several angles are on their way at once, where they come from far.
template <bool unrolled>
GPTQ_DEVICE void rotate(float* x, const float* cos, const float* sin, uint32_t half) {
  if constexpr (unrolled) {
#pragma unroll 4
    for (uint32_t j = lane_index(); j < half; j += warp_size) rotate_pair(x, cos, sin, half, j);
  } else {
    GPTQ_ROLLED for (uint32_t j = lane_index(); j < half; j += warp_size) rotate_pair(x, cos, sin, half, j);
  }
}

GPTQ_DEVICE float larger_or_nan(float a, float b) { return b <= a || a != a ? a : b; }

// As on the CPU: NaN wins, and shows by the scale.
GPTQ_DEVICE float largest(const float* x, uint32_t n) {
  float most = 0.0f;
  GPTQ_ROLLED for (uint32_t d = lane_index(); d < n; d += warp_size) most = larger_or_nan(most, fabsf(x[d]));
  GPTQ_ROLLED for (uint32_t mask = warp_size / 2; mask; mask /= 2) most = larger_or_nan(most, shuffle_xor(most, mask));
  return most;
}

GPTQ_DEVICE uint8_t code(float q) { return fabsf(q) <= 127.5f ? static_cast<uint8_t>(static_cast<int>(nearest(q)) + 128) : uint8_t{128}; }

// A key, whose elements lie together, or a value, which shares 16 positions' elements: `at` of them is its own.
struct Place {
  uint64_t first;      // of the 16 positions, which are together either way
  uint32_t at, dims;
  bool value;
  GPTQ_MEMBER uint64_t of(uint32_t d) const { return value ? first * dims + d * 16 + at : (first + at) * dims + d; }
  GPTQ_MEMBER uint64_t of_byte(uint32_t d) const {
    return value ? first * dims + d * 16 + kv_byte_place(at) : (first + at) * dims + kv_byte_place(d);
  }
};

GPTQ_DEVICE void store_bytes(const KvCache& kv, uint8_t* half, const Place& place, const float* x) {
  const float most = largest(x, kv.head_dim), inverse = most < 1e-30f ? 0.0f : 127 / most;
  GPTQ_ROLLED for (uint32_t d = lane_index(); d < place.dims; d += warp_size) half[place.of_byte(d)] = d < kv.head_dim ? code(x[d] * inverse) : uint8_t{128};
  if (lane_index() > 0) return;
  const float scale = most < 1e-30f ? 0.0f : most / 127, exponent = most < 1e-30f ? -100.0f : log2_of(scale);
  reinterpret_cast<float*>(half + kv_elements(kv))[place.first + place.at] = place.value ? exponent : scale;
}

GPTQ_DEVICE uint32_t page_of(const AppendKvArgs& a, const Row& at) { return a.batch.pages[at.first_page + at.position / a.kv.page_tokens]; }

// Zeros behind the head's dimensions. int8: as the cache is.
template <bool int8>
GPTQ_DEVICE void store_cached(const AppendKvArgs& a, uint32_t page, uint32_t position, uint32_t head, bool value, const float* x) {
  const KvCache& kv = a.kv;
  uint8_t* half = kv.base + page * kv.page_stride + a.layer * kv.layer_stride + (value ? kv.value_offset : 0);
  const uint32_t in_page = position % kv.page_tokens;
  const Place place{uint64_t{head} * kv.page_tokens + in_page / 16 * 16, in_page % 16, kv_dims(kv.head_dim), value};
  if constexpr (int8) {
    store_bytes(kv, half, place, x);
  } else {
    GPTQ_ROLLED for (uint32_t d = lane_index(); d < place.dims; d += warp_size)
      reinterpret_cast<uint16_t*>(half)[place.of(d)] = d < kv.head_dim ? half_bits(x[d]) : uint16_t{0};
  }
}

enum class Part { query, key, value };

// x, in shared memory, becomes what attention uses; cos and sin are of its row.
template <bool unrolled = false>
GPTQ_DEVICE void turn_head(float* x, const AppendKvArgs& a, Part part, uint32_t head, uint32_t position, const float* cos,
                           const float* sin) {
  const bool query = part == Part::query, value = part == Part::value;
  const uint32_t n = a.kv.head_dim, of_head = a.each_head ? head * n : 0;
  const float *weight = query ? a.q_norm : a.k_norm, *bias = query ? a.q_bias : a.k_bias;
  if (weight) weight += of_head;
  if (bias) bias += of_head;
  const bool normed = !value && (weight || a.unit);
  GPTQ_ROLLED for (uint32_t turned = 0; turned < 2; ++turned) {  // the norm is before the rotation or behind it
    if (normed && a.norm_last == turned) norm_head(x, weight, bias, n, a.eps, a.centered);
    if (turned) break;
    if (a.clip > 0) clip(x, n, a.clip);
    sync_warp();
    if (!value) rotate<unrolled>(x, cos, sin, a.rope_dim / 2);
    sync_warp();
  }
  if (query && a.query_factor != 0) scale_query(x, n, a, position);
  sync_warp();
}

}  // namespace gptq::cuda
