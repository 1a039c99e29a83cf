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
  Guarded<Record> records;
  std::vector<float> scale, sum;

  TestActivations(uint32_t m, const Matrix& w, std::mt19937& random)
      : value(size_t{m} * w.k_padded), records(size_t{m} * (w.k_padded / record_columns)), scale(m) {
    const uint32_t sum_block = activation_sum_block(w.group);
    std::vector<double> total(size_t{m} * (w.k_padded / sum_block));
    for (float& s : scale) s = std::uniform_real_distribution<float>(1e-8f, 1e-6f)(random);
    memset(records.data(), 0, records.size() * sizeof(Record));
    for (size_t r = 0; r < records.size(); ++r)
      for (auto& multiplier : records[r].multiplier)
        multiplier[0] = multiplier[1] = static_cast<int16_t>(random() % 4 == 0 ? largest_multiplier : 1 + random() % largest_multiplier);
    for (uint32_t i = 0; i < m; ++i)
      for (uint32_t column = 0; column < w.k_padded; ++column) {
        const bool extreme = random() % 4 == 0;
        const int code = extreme ? (random() % 2 ? 127 : -127) : static_cast<int>(random() % 255) - 127;
        Record& record = records[size_t{column} / record_columns * m + i];
        record.q[line_byte(column % 64)] = static_cast<int8_t>(code);
        const double product = static_cast<double>(code) * record.multiplier[column % 64 / 16][0];
        value[size_t{i} * w.k_padded + column] = scale[i] * product;
        total[size_t{column} / sum_block * m + i] += product;
      }
    sum.assign(total.begin(), total.end());
    x8 = {records.data(), scale.data(), sum.data(), m, w.k_padded, sum_block};
  }

  Int8Activations from(uint32_t token) const {
    Int8Activations x = x8;
    x.records += token;
    x.scale += token;
    x.sum += token;
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
    run({&w.w, x.x8, nullptr, nullptr, y.data(), m, stride, 0, n_blocks(shape.n), with_bias ? bias.data() : nullptr, accumulate});
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
    run({&w.w, x.x8, nullptr, nullptr, together.data(), m, n, 0, blocks, nullptr, false});
    for (uint32_t block = 0; block < blocks; ++block)
      for (uint32_t i = 0; i < m;) {
        const uint32_t tokens = std::min(1 + below(5), m - i);
        run({&w.w, x.from(i), nullptr, nullptr, apart.data() + size_t{i} * n, tokens, n, block, block + 1, nullptr, false});
        i += tokens;
      }
    ASSERT_TRUE(together == apart);
  }
}

// Every product as large as it can be, all of one sign: no sum on the way may overflow.
TEST_P(matmul_int8, largest_sums) {
  const auto reference = reinterpret_cast<void (*)(const MatmulArgs&)>(variants_of("matmul_int8").front().function);
  for (const Kind kind : {Kind::q2, Kind::q3, Kind::q4, Kind::q8})
    for (const uint32_t group : {16u, 64u, 128u}) {
      SCOPED_TRACE(testing::PrintToString(MatrixShape{kind, 16, 256, group}));
      TestMatrix w({kind, 16, 256, group}, random);
      TestActivations x(2, w.w, random);
      memset(w.codes.data(), 0xff, w.codes.size());
      for (uint32_t i = 0; i < 2; ++i) {
        const int code = i ? -127 : 127;
        for (uint32_t r = 0; r < 4; ++r) {
          memset(x.records[r * 2 + i].q, code, record_columns);
          for (auto& multiplier : x.records[r * 2 + i].multiplier) multiplier[0] = multiplier[1] = largest_multiplier;
        }
        for (size_t s = i; s < x.sum.size(); s += 2) x.sum[s] = static_cast<float>(code * largest_multiplier * static_cast<int>(x.x8.sum_block));
      }
      float y[2 * 16], expected[2 * 16];
      run({&w.w, x.x8, nullptr, nullptr, y, 2, 16, 0, 1, nullptr, false});
      reference({&w.w, x.x8, nullptr, nullptr, expected, 2, 16, 0, 1, nullptr, false});
      for (uint32_t i = 0; i < 2 * 16; ++i) EXPECT_NEAR(y[i], expected[i], 1e-3 * std::fabs(expected[i])) << i;
    }
}

TEST_P(matmul_int8, leaves_other_blocks_alone) {
  const TestMatrix w({Kind::q4, 50, 192, 64}, random);
  const TestActivations x(5, w.w, random);
  Guarded<float> y(5 * 50);
  run({&w.w, x.x8, nullptr, nullptr, y.data(), 5, 50, 1, 3, nullptr, false});
  ASSERT_TRUE(y.intact());
  for (uint32_t i = 0; i < 5 * 50; ++i) EXPECT_EQ(Guarded<float>::poisoned(y[i]), i % 50 < 16 || i % 50 >= 48) << i;
}

TEST_P(matmul_int8, many_tokens) {
  const TestMatrix w({Kind::q4, 20, 1300, 128}, random);
  const TestActivations x(300, w.w, random);
  Guarded<float> y(300 * 20);
  run({&w.w, x.x8, nullptr, nullptr, y.data(), 300, 20, 0, 2, nullptr, false});
  for (uint32_t i = 0; i < 300; i += 7)
    for (uint32_t row = 0; row < 20; ++row) expect_close(w, x, i, row, y[i * 20 + row], 0);
}

}  // namespace
}  // namespace gptq::kernels
