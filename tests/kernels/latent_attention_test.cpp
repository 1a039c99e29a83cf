// SPDX-License-Identifier: Apache-2.0
// Latent attention against float64. Everything in the cache that no query may see is NaN.
#include "latent_cache.h"

namespace gptq::kernels {
namespace {

KERNEL_SUITE(latent_attention, LatentAttentionArgs);

struct Case {
  uint32_t width, rank, n_heads, page_tokens, first, m;
  KvKind kind;
};

Case random_case(std::mt19937& random, uint32_t longest) {
  constexpr std::pair<uint32_t, uint32_t> shapes[] = {{576, 512}, {288, 256}, {48, 32}, {40, 32}, {20, 13}, {100, 60}, {37, 36}, {16, 8}};
  const uint32_t heads[] = {1, 3, 4, 8, 16, 20, 33, 40}, pages[] = {16, 32, 48, 64, 256}, firsts[] = {0, 1, 15, 16, 100, 254, 300, longest};
  const auto below = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
  const auto& [width, rank] = shapes[below(8)];
  return {.width = width,
          .rank = rank,
          .n_heads = heads[below(8)],
          .page_tokens = pages[below(5)],
          .first = firsts[below(8)],
          .m = 1 + below(6),
          .kind = static_cast<KvKind>(below(3))};
}

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << "width " << c.width << " rank " << c.rank << " heads " << c.n_heads << " page " << c.page_tokens << " first " << c.first << " m "
             << c.m << " " << name_of(c.kind);
}

void fill(TestLatentCache& cache, const Case& c, std::mt19937& random) {
  std::uniform_real_distribution<float> number(-1, 1);
  std::vector<float> row(c.width);
  for (uint32_t position = 0; position < c.first + c.m; ++position) {
    for (float& x : row) x = number(random);
    cache.set(position, row.data());
  }
}

std::vector<double> expected(TestLatentCache& cache, const Case& c, const float* q, uint32_t position, float scale) {
  std::vector<double> score, out(c.rank);
  for (uint32_t p = 0; p <= position; ++p) {
    double dot = 0;
    for (uint32_t d = 0; d < c.width; ++d) dot += double{q[d]} * cache.get(p, d);
    score.push_back(dot * scale);
  }
  const double max = *std::max_element(score.begin(), score.end());
  double total = 0;
  for (double& s : score) total += s = std::exp(s - max);
  for (uint32_t p = 0; p <= position; ++p)
    for (uint32_t d = 0; d < c.rank; ++d) out[d] += score[p] / total * cache.get(p, d);
  return out;
}

LatentAttentionArgs args_of(const Case& c, const LatentView& kv, const float* q, float* out, float scale) {
  return {.q = q,
          .out = out,
          .m = c.m,
          .first_position = c.first,
          .n_heads = c.n_heads,
          .first_head = 0,
          .last_head = c.n_heads,
          .scale = scale,
          .kv = kv,
          .partials = nullptr,
          .block_stride = 0,
          .first_block = 0,
          .last_block = 0};
}

void call(const Variant& variant, const LatentAttentionArgs& args) {
  reinterpret_cast<void (*)(const LatentAttentionArgs&)>(variant.function)(args);
}

// In blocks and ranges of heads, whose partials are merged by the merge of the same level.
void attend_in_blocks(const Variant& variant, const Case& c, LatentAttentionArgs args, std::mt19937& random) {
  const uint32_t last = (c.first + c.m - 1) / attention_block + 1;
  args.block_stride = uint64_t{c.m} * c.n_heads * (c.rank + 2) + 3;
  std::vector<float> partials(last * args.block_stride, std::nanf(""));
  for (uint32_t block = 0, next; block < last; block = next) {
    next = block + 1 + static_cast<uint32_t>(random() % (last - block));
    args.partials = partials.data() + block * args.block_stride;
    args.first_block = block;
    args.last_block = next;
    for (args.first_head = 0; args.first_head < c.n_heads; args.first_head = args.last_head) {
      args.last_head = args.first_head + 1 + static_cast<uint32_t>(random() % (c.n_heads - args.first_head));
      call(variant, args);
    }
  }
  for (const Variant& merge : variants_of("merge_attention"))
    if (merge.level == variant.level)
      reinterpret_cast<void (*)(const MergeAttentionArgs&)>(merge.function)({.partials = partials.data(),
                                                                             .block_stride = args.block_stride,
                                                                             .first_block = 0,
                                                                             .out = args.out,
                                                                             .first_position = c.first,
                                                                             .n_heads = c.n_heads,
                                                                             .value_dim = c.rank,
                                                                             .window = 0,
                                                                             .first_query = 0,
                                                                             .last_query = c.m * c.n_heads,
                                                                             .chunk = 0,
                                                                             .sinks = nullptr});
}

void check(const Variant& variant, const Case& c, std::mt19937& random) {
  SCOPED_TRACE(testing::PrintToString(c));
  TestLatentCache cache(c.first + c.m, c.page_tokens, c.width, c.rank, c.kind, random);
  fill(cache, c, random);
  const uint32_t q_row = c.n_heads * c.width, row = c.n_heads * c.rank;
  const float scale = 4 / std::sqrt(static_cast<float>(c.width));
  std::uniform_real_distribution<float> number(-1, 1);
  std::vector<float> q(size_t{c.m} * q_row);
  for (float& x : q) x = number(random);
  Guarded<float> out(size_t{c.m} * row), apart(out.size()), merged(out.size());
  const LatentAttentionArgs args = args_of(c, cache.view, q.data(), out.data(), scale);
  call(variant, args);
  ASSERT_TRUE(out.intact());
  for (uint32_t i = 0; i < c.m; ++i)
    for (uint32_t head = 0; head < c.n_heads; ++head) {
      if (head && random() % 4) continue;
      const std::vector<double> right = expected(cache, c, q.data() + size_t{i} * q_row + head * c.width, c.first + i, scale);
      for (uint32_t d = 0; d < c.rank; ++d) ASSERT_NEAR(out[size_t{i} * row + head * c.rank + d], right[d], 4e-6) << i << " head " << head;
    }
  for (uint32_t i = 0; i < c.m;) {
    LatentAttentionArgs part = args;
    part.m = std::min(1 + static_cast<uint32_t>(random() % 4), c.m - i);
    part.q += size_t{i} * q_row;
    part.out = apart.data() + size_t{i} * row;
    part.first_position += i;
    for (part.first_head = 0; part.first_head < c.n_heads; part.first_head = part.last_head) {
      part.last_head = part.first_head + 1 + static_cast<uint32_t>(random() % (c.n_heads - part.first_head));
      call(variant, part);
    }
    i += part.m;
  }
  ASSERT_TRUE(out == apart);
  LatentAttentionArgs blocks = args;
  blocks.out = merged.data();
  attend_in_blocks(variant, c, blocks, random);
  // The reference rounds its partials to float32.
  for (size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], merged[i], variant.level == Level::ref ? 2e-6 : 0);
}

TEST_P(latent_attention, matches_float64_however_it_is_cut) {
  for (int round = 0; round < 30; ++round) check(GetParam(), random_case(random, 400), random);
}

TEST_P(latent_attention, matches_float64_far_out) {
  for (const Case& c : {Case{576, 512, 4, 64, 2990, 2, KvKind::f16}, Case{48, 32, 128, 64, 700, 1, KvKind::f32}, Case{64, 48, 16, 64, 1000, 9, KvKind::i8}})
    check(GetParam(), c, random);
}

TEST_P(latent_attention, leaves_other_heads_alone) {
  const Case c = {24, 16, 6, 16, 20, 3, KvKind::f16};
  TestLatentCache cache(23, 16, 24, 16, c.kind, random);
  fill(cache, c, random);
  const std::vector<float> q = floats(3 * 6 * 24);
  Guarded<float> out(3 * 6 * 16);
  LatentAttentionArgs args = args_of(c, cache.view, q.data(), out.data(), 1);
  args.first_head = 2;
  args.last_head = 4;
  run(args);
  for (uint32_t j = 0; j < out.size(); ++j) EXPECT_EQ(Guarded<float>::poisoned(out[j]), j / 32 % 3 != 1) << j;
}

// A NaN reaches the queries that see it and no other, though they are worked on together.
TEST_P(latent_attention, shows_nan_to_those_that_see_it) {
  const Case c = {64, 48, 5, 64, 300, 4, KvKind::f16};
  TestLatentCache cache(304, 64, 64, 48, c.kind, random);
  fill(cache, c, random);
  const std::vector<float> q = floats(4 * 5 * 64), row(64, std::nanf(""));
  cache.set(302, row.data());
  Guarded<float> out(4 * 5 * 48);
  run(args_of(c, cache.view, q.data(), out.data(), 1));
  for (uint32_t j = 0; j < out.size(); ++j) EXPECT_EQ(std::isnan(out[j]), j / (5 * 48) >= 2) << j;
}

}  // namespace
}  // namespace gptq::kernels
