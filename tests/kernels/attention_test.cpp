// SPDX-License-Identifier: Apache-2.0
// Attention against float64. Everything in the cache that a query must not see is NaN.
#include "kv_cache.h"

namespace gptq::kernels {
namespace {

KERNEL_SUITE(attention, AttentionArgs);

struct Case {
  uint32_t head_dim, n_kv_heads, heads_per_kv, page_tokens, first, m, window;
  bool f32;
};

Case random_case(std::mt19937& random) {
  const uint32_t dims[] = {1, 8, 24, 37, 64, 80, 128, 512}, pages[] = {1, 5, 16, 64, 256}, windows[] = {0, 0, 1, 7, 40, 1000};
  const uint32_t per[] = {1, 2, 3, 4, 7, 8}, firsts[] = {0, 1, 15, 16, 100, 300};
  const auto below = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
  return {dims[below(8)], 1 + below(3), per[below(6)], pages[below(5)], firsts[below(6)], 1 + below(12), windows[below(6)], below(3) == 0};
}

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << "head_dim " << c.head_dim << " kv heads " << c.n_kv_heads << " x" << c.heads_per_kv << " page " << c.page_tokens
             << " first " << c.first << " m " << c.m << " window " << c.window << (c.f32 ? " f32" : " f16");
}

uint32_t first_seen(const Case& c, uint32_t position) { return c.window && position >= c.window ? position - c.window + 1 : 0; }

void fill(TestCache& cache, const Case& c, std::mt19937& random) {
  std::uniform_real_distribution<float> number(-1, 1);
  for (uint32_t position = first_seen(c, c.first); position < c.first + c.m; ++position)
    for (uint32_t head = 0; head < c.n_kv_heads; ++head)
      for (uint32_t d = 0; d < c.head_dim; ++d)
        for (const bool value : {false, true}) cache.set(position, head, d, value, number(random));
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

TEST_P(attention, matches_float64_however_it_is_cut) {
  for (int round = 0; round < 60; ++round) {
    const Case c = random_case(random);
    SCOPED_TRACE(testing::PrintToString(c));
    TestCache cache(c.first + c.m, c.page_tokens, c.n_kv_heads, c.head_dim, c.f32, random);
    fill(cache, c, random);
    const uint32_t n_heads = c.n_kv_heads * c.heads_per_kv, row = n_heads * c.head_dim;
    const float scale = 4 / std::sqrt(static_cast<float>(c.head_dim));
    const std::vector<float> q = floats(size_t{c.m} * row);
    Guarded<float> out(q.size()), apart(q.size());
    run({q.data(), out.data(), c.m, c.first, n_heads, 0, c.n_kv_heads, scale, c.window, cache.view});
    ASSERT_TRUE(out.intact());
    for (uint32_t i = 0; i < c.m; ++i)
      for (uint32_t head = 0; head < n_heads; ++head) {
        const size_t at = size_t{i} * row + head * c.head_dim;
        const std::vector<double> right = expected(cache, c, q.data() + at, head / c.heads_per_kv, c.first + i, scale);
        for (uint32_t d = 0; d < c.head_dim; ++d) ASSERT_NEAR(out[at + d], right[d], 4e-6) << "token " << i << " head " << head;
      }
    for (uint32_t i = 0; i < c.m;) {
      const uint32_t m = std::min(1 + below(4), c.m - i);
      const float* from = q.data() + size_t{i} * row;
      float* to = apart.data() + size_t{i} * row;
      for (uint32_t head = 0; head < c.n_kv_heads; ++head)
        run({from, to, m, c.first + i, n_heads, head, head + 1, scale, c.window, cache.view});
      i += m;
    }
    ASSERT_TRUE(out == apart);
  }
}

TEST_P(attention, leaves_other_heads_alone) {
  const Case c = {24, 3, 2, 16, 20, 3, 0, false};
  TestCache cache(23, 16, 3, 24, false, random);
  fill(cache, c, random);
  const std::vector<float> q = floats(3 * 6 * 24);
  Guarded<float> out(q.size());
  run({q.data(), out.data(), 3, 20, 6, 1, 2, 1, 0, cache.view});
  for (uint32_t j = 0; j < out.size(); ++j) EXPECT_EQ(Guarded<float>::poisoned(out[j]), j / 48 % 3 != 1) << j;
}

TEST_P(attention, large_scores_stay_finite) {
  const Case c = {8, 1, 1, 16, 60, 1, 0, true};
  TestCache cache(61, 16, 1, 8, true, random);
  fill(cache, c, random);
  const std::vector<float> q = floats(8, 1e6f);
  Guarded<float> out(8);
  run({q.data(), out.data(), 1, 60, 1, 0, 1, 1, 0, cache.view});
  for (uint32_t d = 0; d < 8; ++d) EXPECT_LE(std::fabs(out[d]), 1.0f);
}

}  // namespace
}  // namespace gptq::kernels
