// SPDX-License-Identifier: Apache-2.0
// Rows into the pages of a latent cache: the specification.
#include "kernels/store_kv/row_ref.h"

namespace gptq::kernels {

void store_latent_ref(const StoreLatentArgs& a) {
  const uint32_t rank = a.kv.rank, width = a.kv.width;
  for (uint32_t i = 0; i < a.m; ++i) {
    float row[largest_head];
    for (uint32_t d = 0; d < width; ++d)
      row[d] = d < rank ? a.latent[uint64_t{i} * a.latent_stride + d] : a.rope[uint64_t{i} * a.rope_stride + d - rank];
    const uint32_t position = a.first_position + i;
    store_row(latent_row(a.kv, position), 1, row, width, a.kv.kind, latent_scale(a.kv, position));
  }
}

}  // namespace gptq::kernels
