// SPDX-License-Identifier: Apache-2.0
// matmul_bf16 against sums in float64 of the plain numbers; rounding to bfloat16 itself.
#include "kernels/half.h"
#include "matrices.h"

namespace gptq::kernels {
namespace {

KERNEL_SUITE(matmul_bf16, MatmulArgs);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(matmul_bf16);  // some processors have no such products

std::vector<uint16_t> rounded(std::vector<float>& x) {
  std::vector<uint16_t> out;
  for (float& value : x) {
    out.push_back(bf16_from_float(value));
    value = float_from_bf16(out.back());
  }
  return out;
}

TEST_P(matmul_bf16, matches_float64) {
  for (const MatrixShape& shape : matrix_shapes(random)) {
    SCOPED_TRACE(testing::PrintToString(shape));
    const TestMatrix w(shape, random);
    const uint32_t m = 1 + below(30), stride = shape.n + below(3);
    std::vector<float> x = floats(size_t{m} * w.w.k_padded);
    const std::vector<float> bias = floats(shape.n);
    const std::vector<uint16_t> x16 = rounded(x);
    const bool with_bias = below(2), accumulate = below(2);
    Guarded<float> y(size_t{m - 1} * stride + shape.n);
    const std::vector<float> before = floats(y.size());
    if (accumulate) memcpy(y.data(), before.data(), before.size() * sizeof(float));
    run({&w.w, {}, nullptr, x16.data(), y.data(), m, stride, 0, n_blocks(shape.n), with_bias ? bias.data() : nullptr, accumulate});
    ASSERT_TRUE(y.intact());
    for (uint32_t i = 0; i < m; ++i)
      for (uint32_t row = 0; row < shape.n; ++row)
        expect_close(w, x, i, row, y[i * stride + row], (with_bias ? bias[row] : 0) + (accumulate ? before[i * stride + row] : 0));
    if (HasFailure()) return;
  }
}

TEST_P(matmul_bf16, same_bits_for_any_tokens_and_blocks) {
  for (const MatrixShape& shape : matrix_shapes(random)) {
    if (below(4)) continue;
    SCOPED_TRACE(testing::PrintToString(shape));
    const TestMatrix w(shape, random);
    const uint32_t m = 33, n = shape.n, blocks = n_blocks(n), k = w.w.k_padded;
    std::vector<float> x = floats(size_t{m} * k);
    const std::vector<uint16_t> x16 = rounded(x);
    Guarded<float> together(size_t{m} * n), apart(size_t{m} * n);
    run({&w.w, {}, nullptr, x16.data(), together.data(), m, n, 0, blocks, nullptr, false});
    for (uint32_t block = 0; block < blocks; ++block)
      for (uint32_t i = 0; i < m;) {
        const uint32_t tokens = std::min(1 + below(20), m - i);
        run({&w.w, {}, nullptr, x16.data() + size_t{i} * k, apart.data() + size_t{i} * n, tokens, n, block, block + 1, nullptr, false});
        i += tokens;
      }
    ASSERT_TRUE(together == apart);
  }
}

TEST(bf16, rounds_to_nearest_even) {
  const auto again = [](float f) { return float_from_bf16(bf16_from_float(f)); };
  EXPECT_EQ(again(1 + 0x1p-8f), 1.0f);                          // halfway, to even
  EXPECT_EQ(again(1 + 3 * 0x1p-8f), 1 + 0x1p-6f);
  EXPECT_EQ(again(1 + 0x1p-8f + 0x1p-20f), 1 + 0x1p-7f);
  EXPECT_EQ(again(-1 - 0x1p-7f), -1 - 0x1p-7f);
  EXPECT_EQ(again(3.4e38f), INFINITY);
  EXPECT_EQ(again(-INFINITY), -INFINITY);
  EXPECT_EQ(again(0x1p-133f), 0x1p-133f);
  EXPECT_TRUE(std::isnan(again(NAN)));
  EXPECT_TRUE(std::isnan(again(float_from_bits(0x7f800001))));
}

}  // namespace
}  // namespace gptq::kernels
