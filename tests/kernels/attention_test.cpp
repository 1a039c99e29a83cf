// SPDX-License-Identifier: Apache-2.0
// Attention against float64. Everything in the cache that a query must not see is NaN.
#include "kv_cache.h"

namespace gptq::kernels {
namespace {

KERNEL_SUITE(attention, AttentionArgs);

struct Case {
  uint32_t key_dim, value_dim, n_kv_heads, heads_per_kv, page_tokens, first, m, window;
  KvKinds kinds;
  uint32_t chunk = 0;
  float softcap = 0;
  std::vector<float> slopes = {}, sinks = {};  // of each head, or none
  uint32_t n_heads() const { return n_kv_heads * heads_per_kv; }
};

Case random_case(std::mt19937& random, uint32_t longest) {
  const uint32_t dims[] = {1, 8, 20, 24, 37, 40, 64, 80, 96, 100, 112, 128, 160, 256, 512, 576}, pages[] = {16, 32, 48, 64, 256};
  const uint32_t windows[] = {0, 0, 0, 1, 7, 40, 300, 1000}, firsts[] = {0, 1, 15, 16, 100, 254, 300, longest};
  const auto below = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
  const uint32_t key_dim = dims[below(16)];
  return {.key_dim = key_dim,
          .value_dim = below(3) ? key_dim : dims[below(16)],
          .n_kv_heads = 1 + below(3),
          .heads_per_kv = 1 + below(8),
          .page_tokens = pages[below(5)],
          .first = firsts[below(8)],
          .m = 1 + below(12),
          .window = windows[below(8)],
          .kinds = {static_cast<KvKind>(below(4)), static_cast<KvKind>(below(4))}};
}

// Any of what bends logits, and of what hides them.
Case random_bent_case(std::mt19937& random, uint32_t longest) {
  Case c = random_case(random, longest);
  const auto below = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
  const uint32_t chunks[] = {0, 0, 1, 8, 37, 256, 300, 5000};
  const float caps[] = {0, 0, 0.5f, 3, 50};
  c.chunk = chunks[below(8)];
  c.softcap = caps[below(5)];
  std::uniform_real_distribution<float> slope(0.001f, 0.7f), sink(-4, 6);
  if (below(2)) c.slopes.resize(c.n_heads());
  if (below(2)) c.sinks.resize(c.n_heads());
  for (float& s : c.slopes) s = slope(random);
  for (float& s : c.sinks) s = sink(random);
  return c;
}

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << "keys " << c.key_dim << " values " << c.value_dim << " kv heads " << c.n_kv_heads << " x" << c.heads_per_kv << " page "
             << c.page_tokens << " first " << c.first << " m " << c.m << " window " << c.window << " chunk " << c.chunk << " cap " << c.softcap
             << (c.slopes.empty() ? "" : " alibi") << (c.sinks.empty() ? "" : " sinks") << " " << name_of(c.kinds);
}

uint32_t first_seen(const Case& c, uint32_t position) {
  const uint32_t of_chunk = c.chunk ? position - position % c.chunk : 0;
  return c.window && position >= c.window ? std::max(of_chunk, position - c.window + 1) : of_chunk;
}

AttentionArgs args_of(const Case& c, const KvView& kv, const float* q, float* out, float scale) {
  return {.q = q,
          .out = out,
          .m = c.m,
          .first_position = c.first,
          .n_heads = c.n_heads(),
          .first_kv_head = 0,
          .last_kv_head = c.n_kv_heads,
          .scale = scale,
          .window = c.window,
          .kv = kv,
          .partials = nullptr,
          .block_stride = 0,
          .first_block = 0,
          .last_block = 0,
          .chunk = c.chunk,
          .softcap = c.softcap,
          .alibi_slopes = c.slopes.empty() ? nullptr : c.slopes.data(),
          .sinks = c.sinks.empty() ? nullptr : c.sinks.data()};
}

TestCache cache_of(const Case& c, std::mt19937& random) {
  return TestCache(c.first + c.m, c.page_tokens, c.n_kv_heads, c.key_dim, c.value_dim, c.kinds, random);
}

void fill(TestCache& cache, const Case& c, std::mt19937& random) {
  std::uniform_real_distribution<float> number(-1, 1);
  const uint32_t first = first_seen(c, c.first), of_keys = c.kinds.keys == KvKind::i4 ? first / 16 * 16 : first;  // what keys are relative to
  for (uint32_t position = of_keys; position < c.first + c.m; position = std::max(position + 1, first))
    for (uint32_t head = 0; head < c.n_kv_heads; ++head)
      for (const bool value : {false, true}) {
        if (value && position < first) continue;
        std::vector<float> row(value ? c.value_dim : c.key_dim);
        for (float& x : row) x = number(random);
        cache.set(position, head, value, row.data());
      }
}

std::vector<double> expected(TestCache& cache, const Case& c, const float* q, uint32_t head, uint32_t position, float scale) {
  std::vector<double> score, out(c.value_dim);
  const uint32_t first = first_seen(c, position), kv_head = head / c.heads_per_kv;
  for (uint32_t p = first; p <= position; ++p) {
    double dot = 0;
    for (uint32_t d = 0; d < c.key_dim; ++d) dot += double{q[d]} * cache.get(p, kv_head, d, false);
    dot *= scale;
    if (c.softcap > 0) dot = c.softcap * std::tanh(dot / c.softcap);
    if (!c.slopes.empty()) dot += double{c.slopes[head]} * p;
    score.push_back(dot);
  }
  const double max = *std::max_element(score.begin(), score.end());
  double total = 0;
  if (!c.sinks.empty()) total = std::exp(c.sinks[head] - max + (c.slopes.empty() ? 0 : double{c.slopes[head]} * position));
  for (double& s : score) total += s = std::exp(s - max);
  for (uint32_t p = first; p <= position; ++p)
    for (uint32_t d = 0; d < c.value_dim; ++d) out[d] += score[p - first] / total * cache.get(p, kv_head, d, true);
  return out;
}

// In blocks whose partials are merged, by the merge of the same level.
void attend_in_blocks(const Variant& variant, const Case& c, AttentionArgs args, std::mt19937& random) {
  const uint32_t first = first_seen(c, c.first) / attention_block, last = (c.first + c.m - 1) / attention_block + 1;
  const uint32_t partial = c.value_dim + 2;
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
        reinterpret_cast<void (*)(const MergeAttentionArgs&)>(merge.function)({.partials = partials.data(),
                                                                               .block_stride = args.block_stride,
                                                                               .first_block = first,
                                                                               .out = args.out,
                                                                               .first_position = args.first_position,
                                                                               .n_heads = args.n_heads,
                                                                               .value_dim = c.value_dim,
                                                                               .window = args.window,
                                                                               .first_query = from,
                                                                               .last_query = to,
                                                                               .chunk = args.chunk,
                                                                               .sinks = args.sinks});
}

void check(const Variant& variant, const Case& c, std::mt19937& random) {
  SCOPED_TRACE(testing::PrintToString(c));
  const auto run = reinterpret_cast<void (*)(const AttentionArgs&)>(variant.function);
  TestCache cache = cache_of(c, random);
  fill(cache, c, random);
  const uint32_t n_heads = c.n_heads(), q_row = n_heads * c.key_dim, row = n_heads * c.value_dim;
  const float scale = 4 / std::sqrt(static_cast<float>(c.key_dim));
  std::uniform_real_distribution<float> number(-1, 1);
  std::vector<float> q(size_t{c.m} * q_row);
  for (float& x : q) x = number(random);
  Guarded<float> out(size_t{c.m} * row), apart(out.size()), merged(out.size());
  const AttentionArgs args = args_of(c, cache.view, q.data(), out.data(), scale);
  run(args);
  ASSERT_TRUE(out.intact());
  for (uint32_t i = 0; i < c.m; ++i)
    for (uint32_t head = 0; head < n_heads; ++head) {
      const float* query = q.data() + size_t{i} * q_row + head * c.key_dim;
      const std::vector<double> right = expected(cache, c, query, head, c.first + i, scale);
      for (uint32_t d = 0; d < c.value_dim; ++d)
        ASSERT_NEAR(out[size_t{i} * row + head * c.value_dim + d], right[d], 4e-6) << "token " << i << " head " << head;
    }
  for (uint32_t i = 0; i < c.m;) {
    AttentionArgs part = args;
    part.m = std::min(1 + static_cast<uint32_t>(random() % 4), c.m - i);
    part.q += size_t{i} * q_row;
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
  attend_in_blocks(variant, c, blocks, random);
  // The reference rounds its partials to float32.
  for (size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], merged[i], variant.level == Level::ref ? 2e-6 : 0);
}

TEST_P(attention, matches_float64_however_it_is_cut) {
  for (int round = 0; round < 60; ++round) check(GetParam(), random_case(random, 700), random);
}

TEST_P(attention, matches_float64_far_out) {
  for (const Case& c : {Case{64, 64, 1, 3, 64, 4990, 10, 0, alike(KvKind::f16)}, Case{128, 128, 1, 4, 32, 3000, 1, 0, alike(KvKind::i8)},
                        Case{64, 64, 2, 1, 16, 4321, 2, 2222, alike(KvKind::f32)}, Case{192, 128, 1, 2, 64, 2500, 2, 0, alike(KvKind::f16)},
                        Case{64, 64, 1, 2, 64, 4990, 10, 3000, alike(KvKind::f16), 4992, 30, {0.5f, 0.004f}, {2, -1}},
                        Case{64, 64, 1, 3, 64, 4990, 10, 0, alike(KvKind::i4)}, Case{128, 128, 1, 4, 32, 3000, 1, 0, {KvKind::f16, KvKind::i4}}})
    check(GetParam(), c, random);
}

TEST_P(attention, bends_and_hides_logits) {
  for (int round = 0; round < 80; ++round) check(GetParam(), random_bent_case(random, 700), random);
}

// Sinks far above and far below all logits, where the sum of a sink's weight must neither overflow nor be lost.
TEST_P(attention, sinks_of_any_size) {
  Case c = {16, 16, 1, 4, 16, 600, 2, 0, alike(KvKind::f32)};
  c.sinks = {-1e4f, -INFINITY, 30, 1e4f};
  check(GetParam(), c, random);
}

TEST_P(attention, does_not_depend_on_the_page_size) {
  for (const KvKind kind : {KvKind::f16, KvKind::f32, KvKind::i8, KvKind::i4}) {
    std::vector<float> before;
    for (const uint32_t page_tokens : {16u, 48u, 256u}) {
      std::mt19937 same(1), order(2);
      const Case c = {40, 40, 2, 2, page_tokens, 600, 4, 0, alike(kind)};
      TestCache cache = cache_of(c, order);
      fill(cache, c, same);
      std::vector<float> q(4 * 4 * 40, 0.5f), out(q.size());
      run(args_of(c, cache.view, q.data(), out.data(), 0.5f));
      if (!before.empty()) {
        ASSERT_EQ(out, before) << page_tokens;
      }
      before = out;
    }
  }
}

TEST_P(attention, leaves_other_heads_alone) {
  const Case c = {24, 24, 3, 2, 16, 20, 3, 0, alike(KvKind::f16)};
  TestCache cache = cache_of(c, random);
  fill(cache, c, random);
  const std::vector<float> q = floats(3 * 6 * 24);
  Guarded<float> out(q.size());
  AttentionArgs args = args_of(c, cache.view, q.data(), out.data(), 1);
  args.first_kv_head = 1;
  args.last_kv_head = 2;
  run(args);
  for (uint32_t j = 0; j < out.size(); ++j) EXPECT_EQ(Guarded<float>::poisoned(out[j]), j / 48 % 3 != 1) << j;
}

TEST_P(attention, large_scores_stay_finite) {
  const Case c = {8, 8, 1, 1, 16, 60, 1, 0, alike(KvKind::f32)};
  TestCache cache = cache_of(c, random);
  fill(cache, c, random);
  const std::vector<float> q = floats(8, 1e6f);
  Guarded<float> out(8);
  AttentionArgs args = args_of(c, cache.view, q.data(), out.data(), 1);
  for (const float softcap : {0.0f, 30.0f, 1e-20f}) {
    args.softcap = softcap;
    run(args);
    for (uint32_t d = 0; d < 8; ++d) EXPECT_LE(std::fabs(out[d]), 1.0f) << softcap;
  }
}

TEST_P(attention, every_pair_of_kinds) {
  for (uint32_t pair = 0; pair < 16; ++pair)
    check(GetParam(), {64, 64, 2, 3, 64, 300, 5, 0, {static_cast<KvKind>(pair % 4), static_cast<KvKind>(pair / 4)}}, random);
}

TEST_P(attention, shows_nan) {
  const float some[] = {1, 2, 3, 4};
  const Case c = {64, 64, 1, 4, 64, 500, 1, 0, alike(KvKind::f16)};
  TestCache cache = cache_of(c, random);
  fill(cache, c, random);
  std::vector<float> q = floats(4 * 64), row(64, std::nanf(""));
  cache.set(77, 0, false, row.data());
  Guarded<float> out(4 * 64);
  AttentionArgs args = args_of(c, cache.view, q.data(), out.data(), 1);
  run(args);
  for (uint32_t j = 0; j < 4 * 64; ++j) EXPECT_TRUE(std::isnan(out[j]));
  args.softcap = 50;
  args.alibi_slopes = args.sinks = some;
  run(args);
  for (uint32_t j = 0; j < 4 * 64; ++j) EXPECT_TRUE(std::isnan(out[j]));
}

}  // namespace
}  // namespace gptq::kernels
