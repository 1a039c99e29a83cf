// SPDX-License-Identifier: Apache-2.0
// store_latent: both parts of a row in their places, rounded to nearest, and nothing else touched.
#include <limits>

#include "latent_cache.h"

namespace gptq::kernels {
namespace {

KERNEL_SUITE(store_latent, StoreLatentArgs);

TEST_P(store_latent, writes_its_positions_only) {
  constexpr std::pair<uint32_t, uint32_t> shapes[] = {{576, 512}, {48, 32}, {20, 13}, {37, 36}, {288, 256}, {100, 60}};
  for (const auto& [width, rank] : shapes)
    for (const KvKind kind : {KvKind::f16, KvKind::f32, KvKind::i8}) {
      SCOPED_TRACE(testing::Message() << "width " << width << " rank " << rank << " " << name_of(kind));
      const uint32_t m = 1 + below(40), first = below(50), latent_stride = rank + below(5), rope_stride = width - rank + below(5);
      TestLatentCache cache(first + m, 16, width, rank, kind, random), right(first + m, 16, width, rank, kind, random);
      right.view.pages = cache.view.pages;
      const std::vector<float> latent = floats(size_t{m} * latent_stride, 3), rope = floats(size_t{m} * rope_stride, 5);
      run({.latent = latent.data(),
           .rope = rope.data(),
           .m = m,
           .latent_stride = latent_stride,
           .rope_stride = rope_stride,
           .first_position = first,
           .kv = cache.view});
      for (uint32_t i = 0; i < m; ++i) {
        std::vector<float> row(latent.data() + i * latent_stride, latent.data() + i * latent_stride + rank);
        row.insert(row.end(), rope.data() + i * rope_stride, rope.data() + i * rope_stride + width - rank);
        right.set(first + i, row.data());
        for (uint32_t d = 0; d < width; ++d) ASSERT_NEAR(cache.get(first + i, d), row[d], kind == KvKind::i8 ? 0.02 : 0.002) << d;
      }
      ASSERT_TRUE(cache.bytes() == right.bytes());
    }
}

TEST_P(store_latent, int8_keeps_what_is_not_finite_visible) {
  for (const float x : {std::numeric_limits<float>::quiet_NaN(), -INFINITY}) {
    TestLatentCache cache(1, 16, 24, 16, KvKind::i8, random);
    const std::vector<float> latent = floats(16);
    std::vector<float> rope = floats(8);
    rope[5] = x;
    run({.latent = latent.data(), .rope = rope.data(), .m = 1, .latent_stride = 16, .rope_stride = 8, .first_position = 0, .kv = cache.view});
    EXPECT_FALSE(std::isfinite(cache.get(0, 21)));
  }
}

}  // namespace
}  // namespace gptq::kernels
