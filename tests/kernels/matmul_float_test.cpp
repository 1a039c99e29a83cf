// SPDX-License-Identifier: Apache-2.0
// matmul_float against sums in float64 of the plain numbers.
#include "matrices.h"

namespace gptq::kernels {
namespace {

KERNEL_SUITE(matmul_float, MatmulArgs);

std::vector<MatrixShape> shapes(std::mt19937& random) {
  std::vector<MatrixShape> all = matrix_shapes(random);
  for (const Kind kind : {Kind::f32, Kind::f16, Kind::bf16})
    for (const uint32_t n : {1u, 15u, 16u, 17u, 49u})
      for (const uint32_t k : {1u, 7u, 37u, 64u, 255u, 256u, 257u, 576u, 1000u}) all.push_back({kind, n, k});
  return all;
}

// Tokens as the kernel wants them for this matrix.
std::vector<float> placed(const std::vector<float>& x, const Matrix& w) {
  if (!is_quantized(w.kind)) return x;
  std::vector<float> out(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const uint32_t c = i % 64;
    out[i / 64 * 64 + c % 4 * 16 + c % 16 / 4 * 4 + c / 16] = x[i];
  }
  return out;
}

TEST_P(matmul_float, matches_float64) {
  for (const MatrixShape& shape : shapes(random)) {
    SCOPED_TRACE(testing::PrintToString(shape));
    const TestMatrix w(shape, random);
    const uint32_t m = 1 + below(9), stride = shape.n + below(3);
    const std::vector<float> x = floats(size_t{m} * w.w.k_padded), bias = floats(shape.n);
    const bool with_bias = below(2), accumulate = below(2);
    Guarded<float> y(size_t{m - 1} * stride + shape.n);
    const std::vector<float> before = floats(y.size());
    if (accumulate) memcpy(y.data(), before.data(), before.size() * sizeof(float));
    run({&w.w, {}, placed(x, w.w).data(), nullptr, y.data(), m, stride, 0, n_blocks(shape.n), with_bias ? bias.data() : nullptr, accumulate});
    ASSERT_TRUE(y.intact());
    for (uint32_t i = 0; i < m; ++i)
      for (uint32_t row = 0; row < shape.n; ++row)
        expect_close(w, x, i, row, y[i * stride + row], (with_bias ? bias[row] : 0) + (accumulate ? before[i * stride + row] : 0));
    if (HasFailure()) return;
  }
}

TEST_P(matmul_float, same_bits_for_any_tokens_and_blocks) {
  for (const MatrixShape& shape : shapes(random)) {
    if (shape.k < 37 || below(2)) continue;
    SCOPED_TRACE(testing::PrintToString(shape));
    const TestMatrix w(shape, random);
    const uint32_t m = 33, n = shape.n, blocks = n_blocks(n), k = w.w.k_padded;
    const std::vector<float> x = floats(size_t{m} * k);
    Guarded<float> together(size_t{m} * n), apart(size_t{m} * n);
    run({&w.w, {}, x.data(), nullptr, together.data(), m, n, 0, blocks, nullptr, false});
    for (uint32_t block = 0; block < blocks; ++block)
      for (uint32_t i = 0; i < m;) {
        const uint32_t tokens = std::min(1 + below(5), m - i);
        run({&w.w, {}, x.data() + size_t{i} * k, nullptr, apart.data() + size_t{i} * n, tokens, n, block, block + 1, nullptr, false});
        i += tokens;
      }
    ASSERT_TRUE(together == apart);
  }
}

TEST_P(matmul_float, leaves_other_blocks_alone) {
  const TestMatrix w({Kind::f16, 50, 100}, random);
  const std::vector<float> x = floats(5 * 100);
  Guarded<float> y(5 * 50);
  run({&w.w, {}, x.data(), nullptr, y.data(), 5, 50, 1, 3, nullptr, false});
  ASSERT_TRUE(y.intact());
  for (uint32_t i = 0; i < 5 * 50; ++i) EXPECT_EQ(Guarded<float>::poisoned(y[i]), i % 50 < 16 || i % 50 >= 48) << i;
}

}  // namespace
}  // namespace gptq::kernels
