// SPDX-License-Identifier: Apache-2.0
// pack_int8: every code within half a step, scales and sums as kernels.h says.
#include "matrices.h"

namespace gptq::kernels {
namespace {

KERNEL_SUITE(pack_int8, PackInt8Args);

struct Packed {
  Int8Activations x8;
  Guarded<int8_t> q;
  Guarded<float> scale, sum;
  Packed(uint32_t m, uint32_t k_padded, uint32_t group)
      : q(size_t{m} * k_padded),
        scale(size_t{m} * (k_padded / activation_block)),
        sum(size_t{m} * ((k_padded + activation_sum_block(group) - 1) / activation_sum_block(group))) {
    x8 = {q.data(), scale.data(), sum.data(), k_padded, activation_sum_block(group)};
  }
  bool intact() const { return q.intact() && scale.intact() && sum.intact(); }
};

// Adds the block's part of the sums to sums.
void expect_block(const std::vector<float>& x, const Int8Activations& out, uint32_t i, uint32_t begin, std::vector<double>& sums) {
  const uint32_t end = begin + activation_block;
  const float scale = out.scale[i * (out.k_padded / activation_block) + begin / activation_block];
  float max = 0;
  for (uint32_t column = begin; column < end; ++column) max = std::max(max, std::fabs(x[column]));
  EXPECT_NEAR(scale, max / 127, max * 1e-8);
  for (uint32_t column = begin; column < end; ++column) {
    const uint32_t c = column % 64 / 16, t = column % 16 / 4;
    const int q = out.q[size_t{i} * out.k_padded + column / 64 * 64 + 16 * t + 4 * c + column % 4];
    EXPECT_LE(std::abs(q), 127);
    EXPECT_NEAR(x[column], static_cast<double>(scale) * q, scale * 0.50001) << "token " << i << " column " << column;
    sums[column / out.sum_block] += static_cast<double>(scale) * q;
  }
}

TEST_P(pack_int8, codes_scales_and_sums) {
  for (const uint32_t k : {1u, 16u, 63u, 64u, 65u, 128u, 130u, 576u, 1000u})
    for (const uint32_t group : {16u, 48u, 64u, 128u, 192u, 256u})
      for (const bool permuted : {false, true}) {
        SCOPED_TRACE(testing::PrintToString(std::vector<uint32_t>{k, group, permuted}));
        const uint32_t m = 1 + below(3), k_padded = (k + 63) / 64 * 64;
        const TestMatrix w({Kind::q2, 1, k, group, false, false, permuted}, random);
        std::vector<float> x = floats(size_t{m} * k, std::exp(uniform(-20, 20)));
        Packed out(m, k_padded, group);
        run({x.data(), m, k, w.w.perm, out.x8});
        ASSERT_TRUE(out.intact());
        for (uint32_t i = 0; i < m; ++i) {
          std::vector<float> columns(k_padded);
          for (uint32_t c = 0; c < k_padded; ++c) {
            const int from = permuted ? w.perm[c] : c < k ? static_cast<int>(c) : -1;
            columns[c] = from < 0 ? 0 : x[size_t{i} * k + static_cast<uint32_t>(from)];
          }
          std::vector<double> sums((k_padded + out.x8.sum_block - 1) / out.x8.sum_block);
          for (uint32_t begin = 0; begin < k_padded; begin += activation_block) expect_block(columns, out.x8, i, begin, sums);
          for (size_t s = 0; s < sums.size(); ++s) EXPECT_NEAR(out.x8.sum[i * sums.size() + s], sums[s], out.x8.scale[0] * 127 * 128 * 1e-5 + std::fabs(sums[s]) * 1e-5);
        }
        if (HasFailure()) return;
      }
}

TEST_P(pack_int8, zeros_and_tiny_values_are_zero) {
  std::vector<float> x(128, 0.0f);
  x[3] = 1e-38f;
  x[70] = -1e-42f;
  Packed out(1, 128, 64);
  run({x.data(), 1, 128, nullptr, out.x8});
  for (uint32_t i = 0; i < 128; ++i) EXPECT_EQ(out.q[i], 0);
  for (uint32_t b = 0; b < 2; ++b) {
    EXPECT_EQ(out.scale[b], 0);
    EXPECT_EQ(out.sum[b], 0);
  }
}

TEST_P(pack_int8, nan_and_infinity_reach_the_scale) {
  for (const float bad : {std::nanf(""), -std::nanf(""), HUGE_VALF, -HUGE_VALF})
    for (uint32_t at = 0; at < 64; ++at) {
      std::vector<float> x = floats(64);
      x[at] = bad;
      Packed out(1, 64, 64);
      run({x.data(), 1, 64, nullptr, out.x8});
      EXPECT_FALSE(std::isfinite(out.scale[at / activation_block])) << at;
    }
}

}  // namespace
}  // namespace gptq::kernels
