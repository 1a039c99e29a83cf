// SPDX-License-Identifier: Apache-2.0
// Keys and values into the pages of a KV cache: the specification.
#include "kernels/element.h"

namespace gptq::kernels {
namespace {

void store_row(std::byte* to, const float* from, const KvView& kv) {
  for (uint32_t j = 0; j < kv.head_dim; ++j) {
    if (kv.f32) {
      reinterpret_cast<float*>(to)[j] = from[j];
    } else {
      reinterpret_cast<uint16_t*>(to)[j] = half_from_float(from[j]);
    }
  }
}

}  // namespace

void store_kv_ref(const StoreKvArgs& a) {
  for (uint32_t i = 0; i < a.m; ++i)
    for (uint32_t head = 0; head < a.kv.n_kv_heads; ++head) {
      const uint64_t from = uint64_t{i} * a.stride + uint64_t{head} * a.kv.head_dim;
      std::byte* to = a.kv.base + kv_row(a.kv, head, a.first_position + i);
      store_row(to, a.k + from, a.kv);
      store_row(to + a.kv.value_offset, a.v + from, a.kv);
    }
}

}  // namespace gptq::kernels
