// SPDX-License-Identifier: Apache-2.0
// matmul_int8 against sums in float64 of the plain numbers.
#include "matrices.h"

namespace gptq::kernels {
namespace {

KERNEL_SUITE(matmul_int8, MatmulArgs);

// Random int8 activations of m tokens, and their values.
struct TestActivations {
  Int8Activations x8{};
  std::vector<double> value;  // [m][k_padded]
  std::vector<int8_t> q;
  std::vector<float> scale, sum;

  TestActivations(uint32_t m, const Matrix& w, std::mt19937& random) {
    const uint32_t sum_block = activation_sum_block(w.group), n_scales = w.k_padded / activation_block, n_sums = (w.k_padded + sum_block - 1) / sum_block;
    value.resize(size_t{m} * w.k_padded);
    q.resize(value.size());
    scale.resize(size_t{m} * n_scales);
    std::vector<double> total(size_t{m} * n_sums);
    for (float& s : scale) s = std::uniform_real_distribution<float>(0.001f, 0.1f)(random);
    for (uint32_t i = 0; i < m; ++i)
      for (uint32_t column = 0; column < w.k_padded; ++column) {
        const bool extreme = random() % 4 == 0;
        const int code = extreme ? (random() % 2 ? 127 : -127) : static_cast<int>(random() % 255) - 127;
        const float s = scale[size_t{i} * n_scales + column / activation_block];
        q[size_t{i} * w.k_padded + column / 64 * 64 + line_byte(column % 64)] = static_cast<int8_t>(code);
        value[size_t{i} * w.k_padded + column] = static_cast<double>(s) * code;
        total[size_t{i} * n_sums + column / sum_block] += static_cast<double>(s) * code;
      }
    sum.assign(total.begin(), total.end());
    x8 = {q.data(), scale.data(), sum.data(), w.k_padded, sum_block};
  }

  Int8Activations from(uint32_t token) const {
    Int8Activations x = x8;
    x.q += size_t{token} * x.k_padded;
    x.scale += token * (x.k_padded / activation_block);
    x.sum += token * ((x.k_padded + x.sum_block - 1) / x.sum_block);
    return x;
  }
};

void expect_close(const TestMatrix& w, const TestActivations& x, uint32_t token, uint32_t row, float y, double base) {
  double sum = base, size = std::fabs(base);
  for (uint32_t column = 0; column < w.w.k_padded; ++column) {
    const double value = x.value[size_t{token} * w.w.k_padded + column];
    sum += w.weight[size_t{row} * w.w.k_padded + column] * value;
    size += w.magnitude[size_t{row} * w.w.k_padded + column] * std::fabs(value);
  }
  EXPECT_NEAR(y, sum, 1e-6 * size) << "token " << token << " row " << row;
}

TEST_P(matmul_int8, matches_float64) {
  for (const MatrixShape& shape : matrix_shapes(random)) {
    SCOPED_TRACE(testing::PrintToString(shape));
    const TestMatrix w(shape, random);
    const uint32_t m = 1 + below(9), stride = shape.n + below(3);
    const TestActivations x(m, w.w, random);
    const std::vector<float> bias = floats(shape.n);
    const bool with_bias = below(2), accumulate = below(2);
    Guarded<float> y(size_t{m - 1} * stride + shape.n);
    const std::vector<float> before = floats(y.size());
    if (accumulate) memcpy(y.data(), before.data(), before.size() * sizeof(float));
    run({&w.w, x.x8, nullptr, y.data(), m, stride, 0, n_blocks(shape.n), with_bias ? bias.data() : nullptr, accumulate});
    ASSERT_TRUE(y.intact());
    for (uint32_t i = 0; i < m; ++i)
      for (uint32_t row = 0; row < shape.n; ++row)
        expect_close(w, x, i, row, y[i * stride + row], (with_bias ? bias[row] : 0) + (accumulate ? before[i * stride + row] : 0));
    if (HasFailure()) return;
  }
}

TEST_P(matmul_int8, same_bits_for_any_tokens_and_blocks) {
  for (const MatrixShape& shape : matrix_shapes(random)) {
    if (shape.k < 576 || below(2)) continue;
    SCOPED_TRACE(testing::PrintToString(shape));
    const TestMatrix w(shape, random);
    const uint32_t m = 33, n = shape.n, blocks = n_blocks(n);
    const TestActivations x(m, w.w, random);
    Guarded<float> together(size_t{m} * n), apart(size_t{m} * n);
    run({&w.w, x.x8, nullptr, together.data(), m, n, 0, blocks, nullptr, false});
    for (uint32_t block = 0; block < blocks; ++block)
      for (uint32_t i = 0; i < m;) {
        const uint32_t tokens = std::min(1 + below(5), m - i);
        run({&w.w, x.from(i), nullptr, apart.data() + size_t{i} * n, tokens, n, block, block + 1, nullptr, false});
        i += tokens;
      }
    ASSERT_TRUE(together == apart);
  }
}

TEST_P(matmul_int8, leaves_other_blocks_alone) {
  const TestMatrix w({Kind::q4, 50, 192, 64}, random);
  const TestActivations x(5, w.w, random);
  Guarded<float> y(5 * 50);
  run({&w.w, x.x8, nullptr, y.data(), 5, 50, 1, 3, nullptr, false});
  ASSERT_TRUE(y.intact());
  for (uint32_t i = 0; i < 5 * 50; ++i) EXPECT_EQ(Guarded<float>::poisoned(y[i]), i % 50 < 16 || i % 50 >= 48) << i;
}

TEST_P(matmul_int8, many_tokens) {
  const TestMatrix w({Kind::q4, 20, 1300, 128}, random);
  const TestActivations x(300, w.w, random);
  Guarded<float> y(300 * 20);
  run({&w.w, x.x8, nullptr, y.data(), 300, 20, 0, 2, nullptr, false});
  for (uint32_t i = 0; i < 300; i += 7)
    for (uint32_t row = 0; row < 20; ++row) expect_close(w, x, i, row, y[i * 20 + row], 0);
}

}  // namespace
}  // namespace gptq::kernels
