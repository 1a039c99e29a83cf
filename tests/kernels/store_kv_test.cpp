// SPDX-License-Identifier: Apache-2.0
// store_kv: every element in its place, rounded to nearest, and nothing else touched.
#include "kv_cache.h"

namespace gptq::kernels {
namespace {

KERNEL_SUITE(store_kv, StoreKvArgs);

TEST_P(store_kv, writes_its_positions_only) {
  for (const uint32_t head_dim : {1u, 8u, 24u, 37u, 64u, 80u})
    for (const bool f32 : {false, true}) {
      const uint32_t heads = 1 + below(4), m = 1 + below(40), first = below(50), stride = heads * head_dim + below(5);
      TestCache cache(first + m, 16, heads, head_dim, f32, random), expected(first + m, 16, heads, head_dim, f32, random);
      expected.view.pages = cache.view.pages;
      const std::vector<float> k = floats(size_t{m} * stride, 100), v = floats(size_t{m} * stride, 1e-5f);
      run({k.data(), v.data(), m, stride, first, cache.view});
      for (uint32_t i = 0; i < m; ++i)
        for (uint32_t j = 0; j < heads * head_dim; ++j)
          for (const bool value : {false, true}) {
            const float from = value ? v[i * stride + j] : k[i * stride + j];
            expected.set(first + i, j / head_dim, j % head_dim, value, from);
            const float got = cache.get(first + i, j / head_dim, j % head_dim, value);
            ASSERT_NEAR(got, from, f32 ? 0 : std::max(std::fabs(from) / 2048, 0x1p-25f)) << "head_dim " << head_dim;
          }
      ASSERT_TRUE(cache.bytes() == expected.bytes()) << "head_dim " << head_dim;
    }
}

}  // namespace
}  // namespace gptq::kernels
