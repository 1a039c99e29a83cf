// SPDX-License-Identifier: Apache-2.0
// Rows into the pages of a latent cache.
#pragma once
#include "kernels/store_kv/simd.h"

namespace gptq::kernels {
namespace {

GPTQ_INLINE void store_latent_rows(const StoreLatentArgs& a) {
  const uint32_t rank = a.kv.rank, width = a.kv.width;
  for (uint32_t i = 0; i < a.m; ++i) {
    float row[largest_head];
    memcpy(row, a.latent + uint64_t{i} * a.latent_stride, rank * sizeof(float));
    memcpy(row + rank, a.rope + uint64_t{i} * a.rope_stride, (width - rank) * sizeof(float));
    const uint32_t position = a.first_position + i;
    store_row(latent_row(a.kv, position), 1, row, width, a.kv.kind, latent_scale(a.kv, position));
  }
}

}  // namespace
}  // namespace gptq::kernels
