// SPDX-License-Identifier: Apache-2.0
// merge_attention against float64. Partial results of blocks that a query does not see are NaN.
#include <algorithm>

#include "kernel_test.h"

namespace gptq::kernels {
namespace {

KERNEL_SUITE(merge_attention, MergeAttentionArgs);

TEST_P(merge_attention, matches_float64) {
  for (int round = 0; round < 40; ++round) {
    const uint32_t value_dim = 1 + below(140), n_heads = 1 + below(5), m = 1 + below(4), first_position = below(3000);
    const uint32_t window = below(2) * below(1500), chunk = below(2) * below(1500);
    const auto first_seen = [&](uint32_t position) {
      return std::max(window && position >= window ? position - window + 1 : 0, chunk ? position - position % chunk : 0);
    };
    const std::vector<float> sinks = floats(n_heads, 30);
    const bool with_sinks = below(2);
    const uint32_t first_block = first_seen(first_position) / attention_block, blocks = (first_position + m - 1) / attention_block - first_block + 1;
    const uint64_t stride = uint64_t{m} * n_heads * (value_dim + 2) + below(3);
    std::vector<float> partials(blocks * stride, std::nanf(""));
    std::vector<double> right;
    for (uint32_t query = 0; query < m * n_heads; ++query) {
      const uint32_t position = first_position + query / n_heads;
      std::vector<double> sum(value_dim);
      double total = with_sinks ? std::exp(double{sinks[query % n_heads]}) : 0;
      for (uint32_t b = first_seen(position) / attention_block - first_block; b <= position / attention_block - first_block; ++b) {
        float* partial = partials.data() + b * stride + query * (value_dim + 2);
        for (uint32_t d = 0; d < value_dim + 2; ++d) partial[d] = uniform(-1, 1);
        partial[value_dim] = uniform(-30, 30);
        partial[value_dim + 1] = uniform(1, 256);
        total += std::exp2(double{partial[value_dim]}) * partial[value_dim + 1];
        for (uint32_t d = 0; d < value_dim; ++d) sum[d] += std::exp2(double{partial[value_dim]}) * partial[d];
      }
      for (const double s : sum) right.push_back(s / total);
    }
    Guarded<float> out(right.size());
    const uint32_t middle = below(m * n_heads);
    MergeAttentionArgs args = {.partials = partials.data(),
                               .block_stride = stride,
                               .first_block = first_block,
                               .out = out.data(),
                               .first_position = first_position,
                               .n_heads = n_heads,
                               .value_dim = value_dim,
                               .window = window,
                               .first_query = 0,
                               .last_query = middle,
                               .chunk = chunk,
                               .sinks = with_sinks ? sinks.data() : nullptr};
    run(args);
    args.first_query = middle;
    args.last_query = m * n_heads;
    run(args);
    ASSERT_TRUE(out.intact());
    for (size_t i = 0; i < right.size(); ++i) ASSERT_NEAR(out[i], right[i], 2e-6);
  }
}

}  // namespace
}  // namespace gptq::kernels
