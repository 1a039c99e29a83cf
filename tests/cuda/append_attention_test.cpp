// SPDX-License-Identifier: Apache-2.0
// A token's keys and values stored and its attention in one launch: to the bit what the two operations give.
#include "cache.h"
#include "tests/seed.h"

namespace gptq::cuda {
namespace {

struct Case {
  uint32_t head_dim, rope_dim, n_kv_heads, group;
  std::vector<uint32_t> positions;  // of the sequences' only rows
  uint32_t window = 0, n_positions = 0, n_processors = 64;
  bool int8 = false, norm = false, norm_last = false;
  float softcap = 0, query_factor = 0;
};

class CudaAppendAttention : public GpuTest {
 protected:
  std::mt19937 random{test::seed(41)};

  std::vector<float> floats(size_t n, float size) {
    std::vector<float> v(n);
    for (float& f : v) f = std::uniform_real_distribution<float>(-size, size)(random);
    return v;
  }

  struct Result {
    std::vector<float> out;
    std::vector<uint16_t> cache;
  };
  struct Inputs {
    std::vector<float> q, k, v, cos, sin, norm;
    std::vector<Tile> tiles;
  };

  Inputs inputs_of(const Case& c) {
    const size_t rows = c.positions.size(), n_heads = size_t{c.n_kv_heads} * c.group, kv = rows * c.n_kv_heads * c.head_dim;
    Inputs in{floats(rows * n_heads * c.head_dim, 9), floats(kv, 3), floats(kv, 3), floats(rows * c.rope_dim / 2, 1), floats(rows * c.rope_dim / 2, 1),
              floats(c.head_dim, 2), {}};
    for (uint32_t row = 0; row < rows; ++row)
      for (uint32_t pair = 0; pair < c.group; pair += tile_pairs) in.tiles.push_back({row, 1, pair});
    return in;
  }

  Result run(const Case& c, TestCache& cache, Inputs in, bool together) {
    const uint32_t n_heads = c.n_kv_heads * c.group;
    const auto before = cache.memory();
    gpu.pretend(c.n_processors);
    Batch batch = cache.batch(gpu);
    batch.tiles = gpu.in(in.tiles);
    batch.n_tiles = static_cast<uint32_t>(in.tiles.size());
    if (c.n_positions) batch.n_positions = c.n_positions;
    Batch turned = batch;
    turned.cos = gpu.in(in.cos);
    turned.sin = gpu.in(in.sin);
    Shape shape{};
    shape.head_dim = c.head_dim;
    std::vector<uint8_t> workspace(gpu.table->attention_workspace(shape, *gpu.stream), 0xff);
    std::vector<uint32_t> counters(attention_counters(batch.n_tiles, c.n_kv_heads));
    Result result;
    result.out.assign(in.q.size(), NAN);
    float* q = gpu.out(in.q);
    const float* norm = c.norm ? gpu.in(in.norm) : nullptr;
    const KvCache kv = cache.out(gpu);
    const AppendKvArgs append{.batch = turned,
                              .kv = kv,
                              .q = q,
                              .k = gpu.out(in.k),
                              .v = gpu.in(in.v),
                              .q_norm = norm,
                              .k_norm = norm,
                              .eps = 1e-5f,
                              .n_heads = n_heads,
                              .rope_dim = c.rope_dim,
                              .layer = TestCache::layer,
                              .norm_last = c.norm_last,
                              .query_floor = 16,
                              .query_factor = c.query_factor};
    const AttentionArgs attention{.batch = batch,
                                  .kv = kv,
                                  .q = q,
                                  .out = gpu.out(result.out),
                                  .n_heads = n_heads,
                                  .layer = TestCache::layer,
                                  .window = c.window,
                                  .scale = 0.1f,
                                  .workspace = {gpu.out(workspace), workspace.size(), gpu.out(counters)},
                                  .softcap = c.softcap};
    if (together) {
      gpu.table->append_attention({append, attention}, *gpu.stream);
    } else {
      gpu.table->append_kv(append, *gpu.stream);
      gpu.table->attention(attention, *gpu.stream);
    }
    gpu.finish();
    EXPECT_EQ(std::count(counters.begin(), counters.end(), 0u), std::ptrdiff_t(counters.size()));
    result.cache = cache.memory();
    cache.memory() = before;
    return result;
  }

  std::vector<Sequence> sequences_of(const Case& c) {
    std::vector<Sequence> sequences;
    for (const uint32_t position : c.positions) sequences.push_back({position, 1});
    return sequences;
  }

  // What was stored before; the new positions hold NaN, which must not be used.
  void fill(TestCache& cache, const Case& c) {
    for (const Row& row : cache.rows)
      for (uint32_t p = 0; p < row.position; ++p)
        for (uint32_t head = 0; head < c.n_kv_heads; ++head) {
          if (c.int8) {
            cache.key_scale(row.first_page, head, p) = 0.01f;
            cache.value_exponent(row.first_page, head, p) = -6;
          }
          for (uint32_t d = 0; d < kv_dims(c.head_dim); ++d) {
            const auto byte = [&] { return static_cast<uint8_t>(d < c.head_dim ? random() % 255 + 1 : 128); };
            const auto half = [&] { return kernels::half_from_float(d < c.head_dim ? std::uniform_real_distribution<float>(-1, 1)(random) : 0); };
            if (c.int8) cache.key_byte(row.first_page, head, p, d) = byte(), cache.value_byte(row.first_page, head, p, d) = byte();
            else cache.key(row.first_page, head, p, d) = half(), cache.value(row.first_page, head, p, d) = half();
          }
        }
  }

  void check(const Case& c) {
    SCOPED_TRACE(testing::Message() << c.head_dim << ' ' << c.rope_dim << ' ' << c.n_kv_heads << ' ' << c.group << ' ' << c.window << ' ' << c.n_processors);
    TestCache cache(c.head_dim, c.n_kv_heads, 32, sequences_of(c), random, c.int8);
    fill(cache, c);
    const Inputs in = inputs_of(c);
    const Result together = run(c, cache, in, true), apart = run(c, cache, in, false);
    for (const float f : together.out) ASSERT_TRUE(std::isfinite(f));
    EXPECT_TRUE(together.cache == apart.cache);
    // Partials have place for fewer pairs, so that where the workspace is small there are more of them.
    if (c.n_processors != 1) {
      EXPECT_EQ(memcmp(together.out.data(), apart.out.data(), apart.out.size() * sizeof(float)), 0);
    }
    for (size_t i = 0; i < apart.out.size(); ++i) ASSERT_NEAR(together.out[i], apart.out[i], 2e-3) << i;
  }
};

const std::vector<uint32_t> any_length = {0, 14, 15, 16, 63, 64, 130, 300, 700};

TEST_F(CudaAppendAttention, GivesTheSameBitsAsBoth) {
  for (const bool int8 : {false, true}) {
    check({128, 128, 2, 4, any_length, 0, 4096, 64, int8});
    check({64, 32, 1, 1, any_length, 0, 0, 64, int8});
    check({80, 80, 1, 7, any_length, 0, 0, 64, int8});
    check({256, 256, 1, 3, {0, 300}, 0, 0, 64, int8});
    check({34, 0, 1, 71, {20, 200}, 0, 0, 64, int8});
    check({96, 64, 2, 16, {500}, 0, 0, 64, int8});
  }
}

TEST_F(CudaAppendAttention, InEveryWay) {
  Case c{64, 64, 1, 4, any_length};
  c.norm = true, check(c);
  c.norm_last = true, check(c);
  c.window = 50, check(c);
  c.softcap = 20, check(c);
  c.query_factor = 0.3f, check(c);
  c.n_processors = 1, check(c);
}

// As Llama-3-8B's: too much for the emulator.
TEST_F(CudaAppendAttention, RealShapes) {
  if (!gpu.real) GTEST_SKIP() << "for a real GPU";
  for (const bool int8 : {false, true}) {
    check({128, 128, 8, 4, {2047}, 0, 131072, 0, int8});
    check({128, 128, 8, 4, {8191, 700, 4095, 0, 2048, 30, 511, 512}, 0, 0, 0, int8});
  }
}

// Whatever else is in the batch, and however long the engine's context is.
TEST_F(CudaAppendAttention, BitsDependOnTheRowsOwnLengthAlone) {
  const Case together{64, 64, 1, 4, any_length};
  TestCache cache(64, 1, 32, sequences_of(together), random);
  fill(cache, together);
  const Inputs in = inputs_of(together);
  const auto all = run(together, cache, in, true).out;
  Case longer = together;
  longer.n_positions = 100000;
  EXPECT_EQ(memcmp(run(longer, cache, in, true).out.data(), all.data(), all.size() * sizeof(float)), 0);
  for (uint32_t row = 0; row < any_length.size(); ++row) {
    Case alone = together;
    alone.positions = {any_length[row]};
    TestCache own(64, 1, 32, sequences_of(alone), random);
    for (uint32_t p = 0; p < any_length[row]; ++p)
      for (uint32_t d = 0; d < 64; ++d) {
        own.key(0, 0, p, d) = cache.key(cache.rows[row].first_page, 0, p, d);
        own.value(0, 0, p, d) = cache.value(cache.rows[row].first_page, 0, p, d);
      }
    const auto part = [&](const std::vector<float>& v, size_t n) { return std::vector<float>(v.begin() + long(row * n), v.begin() + long((row + 1) * n)); };
    const Inputs its{part(in.q, 256), part(in.k, 64), part(in.v, 64), part(in.cos, 32), part(in.sin, 32), in.norm, {{0, 1, 0}}};
    const auto out = run(alone, own, its, true).out;
    EXPECT_EQ(memcmp(out.data(), all.data() + row * 256, out.size() * sizeof(float)), 0) << any_length[row];
  }
}

}  // namespace
}  // namespace gptq::cuda
