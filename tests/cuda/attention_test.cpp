// SPDX-License-Identifier: Apache-2.0
#include "cache.h"
#include "tests/sanitized.h"
#include "tests/seed.h"

namespace gptq::cuda {
namespace {

struct Case {
  uint32_t head_dim, n_kv_heads, group, page_tokens;
  std::vector<Sequence> sequences;
  uint32_t window = 0, n_positions = 0;   // 0: as many as needed
  uint32_t n_processors = 64;             // 0: those of the GPU
  bool int8 = false;
  uint32_t chunk = 0;
  float softcap = 0;
  bool alibi = false, sinks = false;
};

class CudaAttention : public GpuTest {
 protected:
  std::mt19937 random{test::seed(17)};
  double largest = 0;  // error over tolerance, of everything checked
  uint32_t cases = 0;

  static float slope_of(uint32_t head) { return std::exp2(-1 - static_cast<float>(head) / 2); }
  static float sink_of(uint32_t head) { return 4 - static_cast<float>(head % 5); }
  static uint32_t first_seen(const Case& c, uint32_t position) {
    const uint32_t first = c.window && position >= c.window ? position - c.window + 1 : 0;
    return c.chunk ? std::max(first, position / c.chunk * c.chunk) : first;
  }

  float half_rounded(float size) {
    return kernels::float_from_half(kernels::half_from_float(std::uniform_real_distribution<float>(-size, size)(random)));
  }

  // What a sequence stored: [position][head][dim].
  struct Stored {
    std::vector<float> k, v;
  };

  // Scales that differ much, and rows of zeros.
  Stored store_bytes(TestCache& cache, const Case& c, const Sequence& s, uint32_t first_page) {
    Stored stored;
    for (uint32_t p = 0; p < s.first_position + s.n_rows; ++p)
      for (uint32_t head = 0; head < c.n_kv_heads; ++head) {
        const float exponent = random() % 9 ? std::uniform_real_distribution<float>(-14, 1)(random) : -100;
        const float key_scale = cache.key_scale(first_page, head, p) = std::uniform_real_distribution<float>(0, 0.008f)(random);
        cache.value_exponent(first_page, head, p) = exponent;
        for (uint32_t d = 0; d < kv_dims(c.head_dim); ++d) {
          const int k = d < c.head_dim ? static_cast<int>(random() % 255) - 127 : 0, v = d < c.head_dim && exponent > -100 ? static_cast<int>(random() % 255) - 127 : 0;
          cache.key_byte(first_page, head, p, d) = static_cast<uint8_t>(k + 128);
          cache.value_byte(first_page, head, p, d) = static_cast<uint8_t>(v + 128);
          if (d >= c.head_dim) continue;
          stored.k.push_back(static_cast<float>(k) * key_scale);
          stored.v.push_back(static_cast<float>(v) * std::exp2(exponent));
        }
      }
    return stored;
  }

  Stored store(TestCache& cache, const Case& c, const Sequence& s, uint32_t first_page) {
    if (c.int8) return store_bytes(cache, c, s, first_page);
    const uint32_t positions = s.first_position + s.n_rows;
    Stored stored;
    for (uint32_t p = 0; p < positions; ++p)
      for (uint32_t head = 0; head < c.n_kv_heads; ++head)
        for (uint32_t d = 0; d < kv_dims(c.head_dim); ++d) {
          const float k = d < c.head_dim ? half_rounded(1) : 0, v = d < c.head_dim ? half_rounded(2) : 0;
          cache.key(first_page, head, p, d) = kernels::half_from_float(k);
          cache.value(first_page, head, p, d) = kernels::half_from_float(v);
          if (d >= c.head_dim) continue;
          stored.k.push_back(k);
          stored.v.push_back(v);
        }
    return stored;
  }

  static std::vector<Tile> tiles_of(const Case& c) {
    std::vector<Tile> tiles;
    uint32_t first_row = 0;
    for (const Sequence& s : c.sequences) {
      for (uint32_t pair = 0; pair < s.n_rows * c.group; pair += tile_pairs) tiles.push_back({first_row, s.n_rows, pair});
      first_row += s.n_rows;
    }
    tiles.push_back({0, 0, 0});  // a tile of nothing
    return tiles;
  }

  // Of int8 values those weights are lost that with their scale are below 2^-25 of the largest with its: so much of a value of 127.
  // One head of one row. Weights are rounded to float16, 2^-11 of each, above and below the line: twice that of the mean |v|. Those below
  // 2^-14 of the largest are multiples of 2^-24. The rest is float32.
  void compare(const Case& c, const Stored& stored, const float* q, const float* out, uint32_t position, uint32_t head, float scale) {
    const uint32_t first = first_seen(c, position), kv_head = head / c.group;
    const auto at = [&](uint32_t p) { return (size_t{p} * c.n_kv_heads + kv_head) * c.head_dim; };
    std::vector<double> weight;
    double largest_score = -1e300, total = 0;
    for (uint32_t p = first; p <= position; ++p) {
      double score = 0;
      for (uint32_t d = 0; d < c.head_dim; ++d) score += double(q[d]) * stored.k[at(p) + d];
      score *= scale;
      if (c.softcap != 0) score = c.softcap * std::tanh(score / c.softcap);
      if (c.alibi) score -= double{slope_of(head)} * (position - p);
      weight.push_back(score);
      largest_score = std::max(largest_score, weight.back());
    }
    for (double& w : weight) total += w = std::exp(w - largest_score);
    if (c.sinks) total += std::exp(sink_of(head) - largest_score);
    double lost = 0;
    for (uint32_t p = first; c.int8 && p <= position; ++p)
      for (uint32_t d = 0; d < c.head_dim; ++d) lost = std::max(lost, weight[p - first] * std::fabs(stored.v[at(p) + d]) / total * 0x1p-24);
    for (uint32_t d = 0; d < c.head_dim; ++d) {
      double expected = 0, size = 0;
      for (uint32_t p = first; p <= position; ++p) {
        const double v = stored.v[at(p) + d] / total;
        expected += weight[p - first] * v;
        size += c.int8 ? weight[p - first] * 0x1p-11 * std::fabs(v) + lost : (weight[p - first] * 0x1p-10 + 0x1p-24) * std::fabs(v);
      }
      const double error = std::fabs(out[d] - expected), tolerance = size + 1e-6;
      largest = std::max(largest, error / tolerance);
      ASSERT_LE(error, tolerance) << "position " << position << " KV head " << kv_head << " dim " << d << ": " << out[d] << " not " << expected;
    }
  }

  void check(const Case& c) {
    if (test::is_left_out(cases++, 4)) return;
    SCOPED_TRACE(testing::Message() << "head_dim " << c.head_dim << " KV heads " << c.n_kv_heads << " group " << c.group << " pages of "
                                    << c.page_tokens << " window " << c.window << " processors " << c.n_processors);
    TestCache cache(c.head_dim, c.n_kv_heads, c.page_tokens, c.sequences, random, c.int8);
    const uint32_t n_rows = static_cast<uint32_t>(cache.rows.size()), n_heads = c.n_kv_heads * c.group;
    std::vector<Stored> stored;
    uint32_t row = 0;
    for (const Sequence& s : c.sequences) {
      stored.push_back(store(cache, c, s, cache.rows[row].first_page));
      forget(cache, c, cache.rows[row]);
      row += s.n_rows;
    }
    const float scale = 1 / std::sqrt(static_cast<float>(c.head_dim));
    std::vector<float> q(size_t{n_rows} * n_heads * c.head_dim);
    for (float& x : q) x = std::uniform_real_distribution<float>(-10, 10)(random);
    const auto out = run_twice(c, cache, q, scale);
    row = 0;
    for (size_t i = 0; i < c.sequences.size(); ++i)
      for (uint32_t r = 0; r < c.sequences[i].n_rows; ++r, ++row)
        for (uint32_t head = 0; head < n_heads; ++head) {
          const size_t from = (size_t{row} * n_heads + head) * c.head_dim;
          compare(c, stored[i], &q[from], &out[from], cache.rows[row].position, head, scale);
          if (HasFatalFailure()) return;
        }
  }

  // Pages before all that the sequence's first row sees may be anybody's, or none.
  void forget(TestCache& cache, const Case& c, const Row& row) {
    const uint32_t first = first_seen(c, row.position);
    for (uint32_t page = 0; page < first / c.page_tokens; ++page) cache.pages[row.first_page + page] = 0x7fffffff;
  }

  std::vector<float> run_twice(const Case& c, const TestCache& cache, const std::vector<float>& q, float scale) {
    const uint32_t n_heads = c.n_kv_heads * c.group;
    gpu.pretend(c.n_processors);
    const auto tiles = tiles_of(c);
    std::vector<float> outs[2], slopes, sinks;
    for (uint32_t head = 0; head < n_heads; ++head) slopes.push_back(slope_of(head)), sinks.push_back(sink_of(head));
    for (const uint8_t poison : {0xff, 0x11}) {
      Batch batch = cache.batch(gpu);
      batch.tiles = gpu.in(tiles);
      batch.n_tiles = static_cast<uint32_t>(tiles.size());
      if (c.n_positions) batch.n_positions = c.n_positions;
      Shape shape{};
      shape.rows = batch.n_rows;
      shape.n_heads = n_heads;
      shape.n_kv_heads = c.n_kv_heads;
      shape.head_dim = c.head_dim;
      shape.positions = batch.n_positions;
      std::vector<uint8_t> workspace(gpu.table->attention_workspace(shape, *gpu.stream), poison);
      std::vector<uint32_t> counters(attention_counters(batch.n_tiles, c.n_kv_heads));
      auto& out = outs[poison == 0x11];
      out.assign(q.size(), NAN);
      gpu.table->attention({batch, cache.in(gpu), gpu.in(q), gpu.out(out), n_heads, TestCache::layer, c.window, scale,
                            {gpu.out(workspace), workspace.size(), gpu.out(counters)}, c.chunk, c.softcap, c.alibi ? gpu.in(slopes) : nullptr,
                            c.sinks ? gpu.in(sinks) : nullptr}, *gpu.stream);
      gpu.finish();
      EXPECT_EQ(std::count(counters.begin(), counters.end(), 0u), std::ptrdiff_t(counters.size()));
    }
    EXPECT_EQ(memcmp(outs[0].data(), outs[1].data(), q.size() * 4), 0) << "two runs differ";
    return outs[0];
  }

  void TearDown() override {
    RecordProperty("largest_error_over_tolerance", std::to_string(largest));
    GpuTest::TearDown();
  }
};

const std::vector<Sequence> single_tokens = {{0, 1}, {14, 1}, {15, 1}, {16, 1}, {254, 1}, {256, 1}, {699, 1}};

TEST_F(CudaAttention, DecodesSequencesOfAnyLength) {
  for (const uint32_t head_dim : {32u, 64u, 80u, 96u, 128u, 160u, 192u, 256u}) check({head_dim, head_dim == 128 ? 2u : 1u, 3, 16, single_tokens});
  check({34, 1, 2, 32, single_tokens});
  check({2, 1, 1, 32, {{40, 1}}});
}

TEST_F(CudaAttention, SharesKeysAmongAnyNumberOfHeads) {
  for (const uint32_t group : {1u, 3u, 4u, 8u, 16u, 20u, 71u}) check({64, 2, group, 64, {{37, 1}, {260, 1}, {15, 2}}});
}

TEST_F(CudaAttention, KeepsBytes) {
  for (const uint32_t head_dim : {32u, 64u, 80u, 96u, 128u, 160u, 256u}) {
    Case c{head_dim, head_dim == 128 ? 2u : 1u, 3, 16, single_tokens};
    c.int8 = true;
    check(c);
  }
  for (const uint32_t n_processors : {1u, 1000u})
    for (const uint32_t window : {0u, 17u})
      for (const uint32_t head_dim : {34u, 128u, 192u})
        check({head_dim, 1, 5, 32, {{0, 20}, {100, 33}, {271, 1}, {255, 5}}, window, 4096, n_processors, true});
}

// As in a CUDA graph: the launches are those of the longest context.
TEST_F(CudaAttention, LaunchesForMorePositionsThanThereAre) {
  for (const uint32_t n_positions : {701u, 4096u, 16384u, 40000u}) check({64, 1, 4, 16, single_tokens, 0, n_positions});
  for (const uint32_t n_processors : {1u, 2u, 3u}) check({64, 1, 4, 16, single_tokens, 0, 16384, n_processors});  // longer splits, or one
}

TEST_F(CudaAttention, TakesPromptsInChunks) {
  const std::vector<Sequence> chunks = {{0, 40}, {100, 33}, {271, 1}, {255, 5}};
  for (const uint32_t n_processors : {1u, 1000u}) {  // tiles whole, and split
    check({128, 1, 4, 32, chunks, 0, 0, n_processors});
    check({64, 2, 1, 16, chunks, 0, 0, n_processors});
    check({80, 1, 3, 16, chunks, 0, 0, n_processors});
    check({256, 1, 16, 16, {{30, 5}}, 0, 0, n_processors});
    check({192, 1, 16, 16, {{30, 5}}, 0, 0, n_processors});
    check({96, 1, 20, 16, {{30, 5}}, 0, 0, n_processors});
  }
}

TEST_F(CudaAttention, SeesOnlyTheWindow) {
  for (const uint32_t window : {1u, 16u, 17u, 100u, 100000u}) {
    check({64, 1, 4, 16, single_tokens, window});
    check({64, 1, 4, 32, {{0, 20}, {290, 30}}, window, 0, 1});
    check({64, 1, 4, 32, {{0, 20}, {290, 30}}, window, 4096, 1000});
  }
}

// Capped scores, slopes, sinks and chunks: each alone and all together, split and whole, of both kinds of cache.
TEST_F(CudaAttention, BendsScores) {
  const std::vector<Sequence> sequences = {{0, 20}, {100, 33}, {271, 1}, {255, 5}};
  for (const uint32_t n_processors : {1u, 1000u})
    for (const bool int8 : {false, true})
      for (const int option : {0, 1, 2, 3, 4}) {
        SCOPED_TRACE(option);
        Case c{option % 2 ? 64u : 256u, 1, 5, 32, sequences, 0, 4096, n_processors, int8};
        c.softcap = option == 0 || option == 4 ? 1.5f : 0;
        c.alibi = option == 1 || option == 4;
        c.sinks = option == 2 || option == 4;
        c.chunk = option == 3 || option == 4 ? 48 : 0;
        check(c);
      }
}

// As Llama-3-8B's: too much for the emulator.
TEST_F(CudaAttention, RealShapes) {
  if (!gpu.real) GTEST_SKIP() << "for a real GPU";
  for (const Sequence s : {Sequence{8191, 1}, Sequence{8176, 16}}) check({128, 8, 4, 64, {s}, 0, 0, 0});
  check({128, 8, 4, 64, {{8191, 1}, {700, 1}, {4095, 1}}, 0, 0, 0});
}

// Of rows whose keys are not finite the outputs are not finite either; others do not notice.
TEST_F(CudaAttention, HidesNoNaN) {
  for (const uint32_t n_processors : {1u, 64u}) {
    const Case c = {64, 1, 16, 16, {{9, 1}, {300, 4}}, 0, 0, n_processors};
    TestCache cache(c.head_dim, 1, 16, c.sequences, random);
    store(cache, c, c.sequences[0], cache.rows[0].first_page);
    store(cache, c, c.sequences[1], cache.rows[1].first_page);
    cache.key(cache.rows[0].first_page, 0, 4, 63) = 0x7e00;
    cache.value(cache.rows[1].first_page, 0, 303, 5) = 0x7c00;  // seen by the last row alone
    std::vector<float> q(5 * 16 * 64, 0.1f);
    const auto out = run_twice(c, cache, q, 0.125f);
    for (size_t i = 0; i < q.size(); ++i) {
      const size_t row = i / (16 * 64), d = i % 64;
      ASSERT_EQ(std::isfinite(out[i]), !(row == 0 || (row == 4 && d == 5))) << "row " << row << " dim " << d;
    }
  }
}

}  // namespace
}  // namespace gptq::cuda
