// SPDX-License-Identifier: Apache-2.0
// lora_shrink and lora_expand against float64, and that a row's numbers depend neither on the others nor on the ranges.
#include "kernel_test.h"

namespace gptq::kernels {
namespace {

KERNEL_SUITE(lora_shrink, LoraShrinkArgs);
KERNEL_SUITE(lora_expand, LoraExpandArgs);

std::vector<int8_t> codes(std::mt19937& random, size_t count) {
  std::vector<int8_t> out(count);
  for (int8_t& x : out) x = static_cast<int8_t>(static_cast<int>(random() % 255) - 127);
  return out;
}

TEST_P(lora_shrink, matches_float64) {
  const uint32_t sizes[] = {1, 3, 8, 16, 17, 33, 64, 100, 192, 576, 600};
  for (int round = 0; round < 60; ++round) {
    const uint32_t k = sizes[below(11)], rank = 4 * (1 + below(8)), ms[] = {1, 2, 3, 4, 5, 9, 33}, m = ms[below(7)];
    const uint32_t first = 4 * below(rank / 4), last = first + 4 * (1 + below((rank - first) / 4));
    SCOPED_TRACE(testing::Message() << "k " << k << " rank " << rank << " m " << m << " ranks " << first << ".." << last);
    const std::vector<int8_t> a = codes(random, size_t{rank} * k);
    const std::vector<float> x = floats(size_t{m} * k), scale = floats(rank);
    Guarded<float> y(size_t{m} * rank), other(y.size());
    LoraShrinkArgs args = {.a = a.data(), .scale = scale.data(), .x = x.data(), .y = y.data(), .m = m, .k = k, .rank = rank, .first_rank = first, .last_rank = last, .factor = 0.3f};
    run(args);
    ASSERT_TRUE(y.intact());
    for (uint32_t i = 0; i < m; ++i)
      for (uint32_t r = 0; r < rank; ++r) {
        if (r < first || r >= last) {
          ASSERT_TRUE(Guarded<float>::poisoned(y[i * rank + r])) << r;
          continue;
        }
        double right = 0;
        for (uint32_t c = 0; c < k; ++c) right += double{x[i * k + c]} * a[r * k + c];
        ASSERT_NEAR(y[i * rank + r], right * scale[r] * 0.3f, 1e-4 * std::sqrt(k)) << "token " << i << " rank " << r;
      }
    args.m = 1;
    for (uint32_t i = 0; i < m; ++i)
      for (uint32_t r = first; r < last; r += 4) {
        args.x = x.data() + size_t{i} * k;
        args.y = other.data() + size_t{i} * rank;
        args.first_rank = r, args.last_rank = r + 4;
        run(args);
      }
    ASSERT_TRUE(y == other);
  }
}

TEST_P(lora_expand, matches_float64) {
  const uint32_t sizes[] = {1, 5, 8, 15, 16, 17, 24, 33, 64, 100, 192};
  for (int round = 0; round < 60; ++round) {
    const uint32_t n = sizes[below(11)], rank = 4 * (1 + below(8)), ms[] = {1, 2, 3, 7, 8, 9, 33}, m = ms[below(7)];
    const uint32_t blocks = (n + 15) / 16, first = below(blocks), last = first + 1 + below(blocks - first);
    SCOPED_TRACE(testing::Message() << "n " << n << " rank " << rank << " m " << m << " blocks " << first << ".." << last);
    const std::vector<int8_t> b = codes(random, size_t{blocks} * rank * 16);
    const std::vector<float> x = floats(size_t{m} * rank), before = floats(size_t{m} * n);
    Guarded<float> y(size_t{m} * n), other(y.size());
    std::copy(before.begin(), before.end(), y.data());
    std::copy(before.begin(), before.end(), other.data());
    LoraExpandArgs args = {.b = b.data(), .x = x.data(), .y = y.data(), .m = m, .n = n, .rank = rank, .first_block = first, .last_block = last};
    run(args);
    ASSERT_TRUE(y.intact());
    for (uint32_t i = 0; i < m; ++i)
      for (uint32_t row = 0; row < n; ++row) {
        double right = before[i * n + row];
        const bool there = row / 16 >= first && row / 16 < last;
        for (uint32_t r = 0; there && r < rank; ++r) right += double{x[i * rank + r]} * b[(row / 16 * rank + r) * 16 + row % 16];
        ASSERT_NEAR(y[i * n + row], right, there ? 1e-3 : 0) << "token " << i << " row " << row;
      }
    args.m = 1;
    for (uint32_t i = 0; i < m; ++i)
      for (uint32_t block = first; block < last; ++block) {
        args.x = x.data() + size_t{i} * rank;
        args.y = other.data() + size_t{i} * n;
        args.first_block = block, args.last_block = block + 1;
        run(args);
      }
    ASSERT_TRUE(y == other);
  }
}

}  // namespace
}  // namespace gptq::kernels
