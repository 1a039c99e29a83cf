// SPDX-License-Identifier: Apache-2.0
// store_kv: every element in its place, rounded to nearest, and nothing else touched.
#include <limits>

#include "kv_cache.h"

namespace gptq::kernels {
namespace {

KERNEL_SUITE(store_kv, StoreKvArgs);

// Of a row between least and most.
float tolerance(KvKind kind, float x, float least, float most) {
  switch (kind) {
    case KvKind::f32: return 0;
    case KvKind::f16: return std::max(std::fabs(x) / 2048, 0x1p-25f);
    case KvKind::i8: return std::max(-least, most) / 254 * 1.0001f;
    case KvKind::i4: break;
  }
  return (most - least) / 30 * 1.01f + std::max(std::fabs(least), std::fabs(most)) / 200;  // half a step, and what scale and offset are rounded by
}

TEST_P(store_kv, writes_its_positions_only) {
  constexpr std::pair<uint32_t, uint32_t> dims[] = {{1, 1}, {8, 8}, {24, 40}, {37, 1}, {64, 64}, {80, 80}, {192, 128}, {576, 512}, {16, 576}};
  for (const auto& [key_dim, value_dim] : dims)
    for (uint32_t pair = 0; pair < 16; ++pair) {
      const KvKinds kinds = {static_cast<KvKind>(pair % 4), static_cast<KvKind>(pair / 4)};
      SCOPED_TRACE(testing::Message() << "keys " << key_dim << " values " << value_dim << " " << name_of(kinds));
      const uint32_t heads = 1 + below(4), m = 1 + below(40), first = kinds.keys == KvKind::i4 ? below(4) * 16 : below(50);
      const uint32_t k_stride = heads * key_dim + below(5), v_stride = heads * value_dim + below(5);
      TestCache cache(first + m, 16, heads, key_dim, value_dim, kinds, random), expected(first + m, 16, heads, key_dim, value_dim, kinds, random);
      expected.view.pages = cache.view.pages;
      const std::vector<float> k = floats(size_t{m} * k_stride, 100), v = floats(size_t{m} * v_stride, 1e-5f);
      run({.k = k.data(), .v = v.data(), .m = m, .k_stride = k_stride, .v_stride = v_stride, .first_position = first, .kv = cache.view});
      for (uint32_t i = 0; i < m; ++i)
        for (uint32_t head = 0; head < heads; ++head)
          for (const bool value : {false, true}) {
            const uint32_t dim = value ? value_dim : key_dim;
            const float* from = value ? v.data() + i * v_stride + head * dim : k.data() + i * k_stride + head * dim;
            expected.set(first + i, head, value, from);
            std::vector<float> row(from, from + dim);
            if (!value && kinds.keys == KvKind::i4 && (first + i) % 16)
              for (uint32_t d = 0; d < dim; ++d) row[d] -= cache.get((first + i) / 16 * 16, head, d, value);
            const auto [least, most] = std::minmax_element(row.begin(), row.end());
            for (uint32_t d = 0; d < dim; ++d)
              ASSERT_NEAR(cache.get(first + i, head, d, value), from[d], tolerance(value ? kinds.values : kinds.keys, from[d], *least, *most));
          }
      ASSERT_TRUE(cache.bytes() == expected.bytes());
    }
}

// Keys in int4 are relative to one of another call.
TEST_P(store_kv, in_pieces_the_same) {
  for (uint32_t pair = 0; pair < 16; ++pair) {
    const KvKinds kinds = {static_cast<KvKind>(pair % 4), static_cast<KvKind>(pair / 4)};
    constexpr uint32_t heads = 2, dim = 40, m = 50, stride = heads * dim;
    TestCache whole(m, 16, heads, dim, dim, kinds, random), pieces(m, 16, heads, dim, dim, kinds, random);
    pieces.view.pages = whole.view.pages;
    const std::vector<float> k = floats(size_t{m} * stride, 3), v = floats(size_t{m} * stride, 3);
    const auto store = [&](const TestCache& cache, uint32_t first, uint32_t n) {
      run({.k = k.data() + first * stride, .v = v.data() + first * stride, .m = n, .k_stride = stride, .v_stride = stride, .first_position = first, .kv = cache.view});
    };
    store(whole, 0, m);
    for (uint32_t first = 0, n; first < m; first += n) store(pieces, first, n = std::min(1 + below(9), m - first));
    ASSERT_TRUE(pieces.bytes() == whole.bytes()) << name_of(kinds);
    store(pieces, 21, 8);  // once more, as behind a rewind
    ASSERT_TRUE(pieces.bytes() == whole.bytes()) << name_of(kinds);
  }
}

TEST_P(store_kv, codes_keep_what_is_not_finite_visible) {
  for (const float x : {std::numeric_limits<float>::quiet_NaN(), -INFINITY, INFINITY})
    for (const KvKind kind : {KvKind::i8, KvKind::i4}) {
      TestCache cache(1, 16, 1, 24, 24, alike(kind), random);
      std::vector<float> k = floats(24), v(24);
      k[21] = x;
      run({.k = k.data(), .v = v.data(), .m = 1, .k_stride = 24, .v_stride = 24, .first_position = 0, .kv = cache.view});
      EXPECT_FALSE(std::isfinite(cache.get(0, 0, 21, false)));
      for (uint32_t d = 0; d < 24; ++d) EXPECT_EQ(cache.get(0, 0, d, true), 0);
    }
}

}  // namespace
}  // namespace gptq::kernels
