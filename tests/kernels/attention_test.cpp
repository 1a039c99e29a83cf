// SPDX-License-Identifier: Apache-2.0
// Attention against float64. Everything in the cache that a query must not see is NaN.
#include "kv_cache.h"

namespace gptq::kernels {
namespace {

KERNEL_SUITE(attention, AttentionArgs);

struct Case {
  uint32_t head_dim, n_kv_heads, heads_per_kv, page_tokens, first, m, window;
  KvKind kind;
};

Case random_case(std::mt19937& random, uint32_t longest) {
  const uint32_t dims[] = {1, 8, 24, 37, 64, 80, 96, 128, 256, 512}, pages[] = {16, 32, 48, 64, 256}, windows[] = {0, 0, 0, 1, 7, 40, 300, 1000};
  const uint32_t firsts[] = {0, 1, 15, 16, 100, 254, 300, longest};
  const auto below = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
  return {dims[below(10)], 1 + below(3), 1 + below(8), pages[below(5)], firsts[below(8)], 1 + below(12), windows[below(8)], static_cast<KvKind>(below(3))};
}

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << "head_dim " << c.head_dim << " kv heads " << c.n_kv_heads << " x" << c.heads_per_kv << " page " << c.page_tokens
             << " first " << c.first << " m " << c.m << " window " << c.window << " " << name_of(c.kind);
}

uint32_t first_seen(const Case& c, uint32_t position) { return c.window && position >= c.window ? position - c.window + 1 : 0; }

void fill(TestCache& cache, const Case& c, std::mt19937& random) {
  std::uniform_real_distribution<float> number(-1, 1);
  std::vector<float> row(c.head_dim);
  for (uint32_t position = first_seen(c, c.first); position < c.first + c.m; ++position)
    for (uint32_t head = 0; head < c.n_kv_heads; ++head)
      for (const bool value : {false, true}) {
        for (float& x : row) x = number(random);
        cache.set(position, head, value, row.data());
      }
}

std::vector<double> expected(TestCache& cache, const Case& c, const float* q, uint32_t kv_head, uint32_t position, float scale) {
  std::vector<double> score, out(c.head_dim);
  const uint32_t first = first_seen(c, position);
  for (uint32_t p = first; p <= position; ++p) {
    double dot = 0;
    for (uint32_t d = 0; d < c.head_dim; ++d) dot += double{q[d]} * cache.get(p, kv_head, d, false);
    score.push_back(dot * scale);
  }
  const double max = *std::max_element(score.begin(), score.end());
  double total = 0;
  for (double& s : score) total += s = std::exp(s - max);
  for (uint32_t p = first; p <= position; ++p)
    for (uint32_t d = 0; d < c.head_dim; ++d) out[d] += score[p - first] / total * cache.get(p, kv_head, d, true);
  return out;
}

// In blocks whose partials are merged, by the merge of the same level.
void attend_in_blocks(const Variant& variant, AttentionArgs args, std::mt19937& random) {
  const uint32_t first = (args.window && args.first_position >= args.window ? args.first_position - args.window + 1 : 0) / attention_block;
  const uint32_t last = (args.first_position + args.m - 1) / attention_block + 1, partial = args.kv.head_dim + 2;
  args.block_stride = uint64_t{args.m} * args.n_heads * partial + 3;
  std::vector<float> partials((last - first) * args.block_stride, std::nanf(""));
  for (uint32_t block = first, next; block < last; block = next) {
    next = block + 1 + static_cast<uint32_t>(random() % (last - block));
    args.partials = partials.data() + (block - first) * args.block_stride;
    args.first_block = block;
    args.last_block = next;
    reinterpret_cast<void (*)(const AttentionArgs&)>(variant.function)(args);
  }
  const uint32_t queries = args.m * args.n_heads, middle = queries / 3;
  for (const Variant& merge : variants_of("merge_attention"))
    for (const auto& [from, to] : {std::pair{0u, middle}, {middle, queries}})
      if (merge.level == variant.level)
        reinterpret_cast<void (*)(const MergeAttentionArgs&)>(merge.function)(
            {partials.data(), args.block_stride, first, args.out, args.first_position, args.n_heads, args.kv.head_dim, args.window, from, to});
}

void check(const Variant& variant, const Case& c, std::mt19937& random) {
  SCOPED_TRACE(testing::PrintToString(c));
  const auto run = reinterpret_cast<void (*)(const AttentionArgs&)>(variant.function);
  TestCache cache(c.first + c.m, c.page_tokens, c.n_kv_heads, c.head_dim, c.kind, random);
  fill(cache, c, random);
  const uint32_t n_heads = c.n_kv_heads * c.heads_per_kv, row = n_heads * c.head_dim;
  const float scale = 4 / std::sqrt(static_cast<float>(c.head_dim));
  std::uniform_real_distribution<float> number(-1, 1);
  std::vector<float> q(size_t{c.m} * row);
  for (float& x : q) x = number(random);
  Guarded<float> out(q.size()), apart(q.size()), merged(q.size());
  const AttentionArgs args = {q.data(), out.data(), c.m, c.first, n_heads, 0, c.n_kv_heads, scale, c.window, cache.view, nullptr, 0, 0, 0};
  run(args);
  ASSERT_TRUE(out.intact());
  for (uint32_t i = 0; i < c.m; ++i)
    for (uint32_t head = 0; head < n_heads; ++head) {
      const size_t at = size_t{i} * row + head * c.head_dim;
      const std::vector<double> right = expected(cache, c, q.data() + at, head / c.heads_per_kv, c.first + i, scale);
      for (uint32_t d = 0; d < c.head_dim; ++d) ASSERT_NEAR(out[at + d], right[d], 4e-6) << "token " << i << " head " << head;
    }
  for (uint32_t i = 0; i < c.m;) {
    AttentionArgs part = args;
    part.m = std::min(1 + static_cast<uint32_t>(random() % 4), c.m - i);
    part.q += size_t{i} * row;
    part.out = apart.data() + size_t{i} * row;
    part.first_position += i;
    for (part.first_kv_head = 0; part.first_kv_head < c.n_kv_heads; ++part.first_kv_head) {
      part.last_kv_head = part.first_kv_head + 1;
      run(part);
    }
    i += part.m;
  }
  ASSERT_TRUE(out == apart);
  AttentionArgs blocks = args;
  blocks.out = merged.data();
  attend_in_blocks(variant, blocks, random);
  // The reference rounds its partials to float32.
  for (size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], merged[i], variant.level == Level::ref ? 2e-6 : 0);
}

TEST_P(attention, matches_float64_however_it_is_cut) {
  for (int round = 0; round < 60; ++round) check(GetParam(), random_case(random, 700), random);
}

TEST_P(attention, matches_float64_far_out) {
  for (const Case& c : {Case{64, 1, 3, 64, 4990, 10, 0, KvKind::f16}, Case{128, 1, 4, 32, 3000, 1, 0, KvKind::i8}, Case{64, 2, 1, 16, 4321, 2, 2222, KvKind::f32}})
    check(GetParam(), c, random);
}

TEST_P(attention, does_not_depend_on_the_page_size) {
  for (const KvKind kind : {KvKind::f16, KvKind::f32, KvKind::i8}) {
    std::vector<float> before;
    for (const uint32_t page_tokens : {16u, 48u, 256u}) {
      std::mt19937 same(1), order(2);
      const Case c = {40, 2, 2, page_tokens, 600, 4, 0, kind};
      TestCache cache(604, page_tokens, 2, 40, kind, order);
      fill(cache, c, same);
      std::vector<float> q(4 * 4 * 40, 0.5f), out(q.size());
      run({q.data(), out.data(), 4, 600, 4, 0, 2, 0.5f, 0, cache.view, nullptr, 0, 0, 0});
      if (!before.empty()) {
        ASSERT_EQ(out, before) << page_tokens;
      }
      before = out;
    }
  }
}

TEST_P(attention, leaves_other_heads_alone) {
  const Case c = {24, 3, 2, 16, 20, 3, 0, KvKind::f16};
  TestCache cache(23, 16, 3, 24, c.kind, random);
  fill(cache, c, random);
  const std::vector<float> q = floats(3 * 6 * 24);
  Guarded<float> out(q.size());
  run({q.data(), out.data(), 3, 20, 6, 1, 2, 1, 0, cache.view, nullptr, 0, 0, 0});
  for (uint32_t j = 0; j < out.size(); ++j) EXPECT_EQ(Guarded<float>::poisoned(out[j]), j / 48 % 3 != 1) << j;
}

TEST_P(attention, large_scores_stay_finite) {
  const Case c = {8, 1, 1, 16, 60, 1, 0, KvKind::f32};
  TestCache cache(61, 16, 1, 8, c.kind, random);
  fill(cache, c, random);
  const std::vector<float> q = floats(8, 1e6f);
  Guarded<float> out(8);
  run({q.data(), out.data(), 1, 60, 1, 0, 1, 1, 0, cache.view, nullptr, 0, 0, 0});
  for (uint32_t d = 0; d < 8; ++d) EXPECT_LE(std::fabs(out[d]), 1.0f);
}

TEST_P(attention, shows_nan) {
  const Case c = {64, 1, 4, 64, 500, 1, 0, KvKind::f16};
  TestCache cache(501, 64, 1, 64, c.kind, random);
  fill(cache, c, random);
  std::vector<float> q = floats(4 * 64), row(64, std::nanf(""));
  cache.set(77, 0, false, row.data());
  Guarded<float> out(4 * 64);
  run({q.data(), out.data(), 1, 500, 4, 0, 1, 1, 0, cache.view, nullptr, 0, 0, 0});
  for (uint32_t j = 0; j < 4 * 64; ++j) EXPECT_TRUE(std::isnan(out[j]));
}

}  // namespace
}  // namespace gptq::kernels
