// SPDX-License-Identifier: Apache-2.0
// Keys and values into the pages of a KV cache: the specification.
#include "kernels/store_kv/row_ref.h"

namespace gptq::kernels {

void store_kv_ref(const StoreKvArgs& a) {
  for (uint32_t i = 0; i < a.m; ++i)
    for (uint32_t head = 0; head < a.kv.n_kv_heads; ++head) {
      const uint32_t position = a.first_position + i, k_dim = a.kv.key_dim, v_dim = a.kv.value_dim;
      const float* k = a.k + uint64_t{i} * a.k_stride + uint64_t{head} * k_dim;
      const float* v = a.v + uint64_t{i} * a.v_stride + uint64_t{head} * v_dim;
      float difference[largest_head];
      if (kv_key_is_relative(a.kv, position)) {
        const uint32_t first = position / 16 * 16;
        read_key_4(kv_key(a.kv, head, first), k_dim, *kv_key_scales(a.kv, head, first), difference);
        for (uint32_t d = 0; d < k_dim; ++d) difference[d] = k[d] - difference[d];
        k = difference;
      }
      store_row(kv_key(a.kv, head, position), 16, k, k_dim, a.kv.kinds.keys, kv_key_scales(a.kv, head, position));
      store_row(kv_value(a.kv, head, position), 1, v, v_dim, a.kv.kinds.values, kv_value_scales(a.kv, head, position));
    }
}

}  // namespace gptq::kernels
