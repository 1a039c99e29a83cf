// SPDX-License-Identifier: Apache-2.0
// pack_int8: every code within half a step, scales and sums as kernels.h says.
#include "matrices.h"

namespace gptq::kernels {
namespace {

KERNEL_SUITE(pack_int8, PackInt8Args);

struct Packed {
  Int8Activations x8;
  Guarded<Record> records;
  Guarded<float> scale, sum;
  Packed(uint32_t m, uint32_t k_padded, uint32_t group)
      : records(size_t{m} * (k_padded / record_columns)),
        scale(m),
        sum(size_t{m} * (k_padded / activation_sum_block(group))) {
    x8 = {records.data(), scale.data(), sum.data(), m, k_padded, activation_sum_block(group)};
  }
  bool intact() const { return records.intact() && scale.intact() && sum.intact(); }
};

// Token i of a record; x: its 64 columns.
void expect_record(const float* x, const Record& record, double scale) {
  float max[4] = {};
  for (uint32_t c = 0; c < record_columns; ++c) max[c / 16] = std::max(max[c / 16], std::fabs(x[c]));
  for (uint32_t b = 0; b < 4; ++b) {
    const int multiplier = record.multiplier[b][0];
    EXPECT_EQ(multiplier, record.multiplier[b][1]);
    EXPECT_TRUE(multiplier >= 1 && multiplier <= largest_multiplier);
    EXPECT_LE(max[b], scale * multiplier * 127 * 1.000001);
    EXPECT_GE(max[b], scale * (multiplier - 1) * 127 * 0.999999);
  }
  for (uint32_t c = 0; c < record_columns; ++c) {
    const int q = record.q[c % 16 / 4 * 16 + c / 16 * 4 + c % 4];
    const double step = scale * record.multiplier[c / 16][0];
    EXPECT_LE(std::abs(q), 127);
    EXPECT_NEAR(x[c], step * q, step * 0.50001) << "column " << c;
  }
}

// The sum of multiplier * q of a token's columns first .. last - 1.
double sum_of(const Int8Activations& out, uint32_t i, uint32_t first, uint32_t last) {
  double sum = 0;
  for (uint32_t c = first; c < last; ++c) {
    const Record& record = out.records[size_t{c} / record_columns * out.rows + i];
    sum += record.q[line_byte(c % 64)] * record.multiplier[c % 64 / 16][0];
  }
  return sum;
}

TEST_P(pack_int8, codes_scales_and_sums) {
  for (const uint32_t k : {1u, 16u, 63u, 64u, 65u, 128u, 130u, 576u, 1000u})
    for (const uint32_t group : {16u, 48u, 64u, 128u, 192u, 256u})
      for (const bool permuted : {false, true}) {
        SCOPED_TRACE(testing::PrintToString(std::vector<uint32_t>{k, group, permuted}));
        const uint32_t m = 1 + below(3), k_padded = (k + 63) / 64 * 64;
        const TestMatrix w({Kind::q2, 1, k, group, false, false, permuted}, random);
        std::vector<float> x = floats(size_t{m} * k, std::exp(uniform(-20, 20)));
        Packed out(m + 1, k_padded, group);  // one row is left alone
        run({x.data(), m, k, w.w.perm, out.x8});
        ASSERT_TRUE(out.intact());
        EXPECT_TRUE(Guarded<float>::poisoned(out.scale[m]));
        for (uint32_t i = 0; i < m; ++i) {
          std::vector<float> columns(k_padded);
          for (uint32_t c = 0; c < k_padded; ++c) {
            const int from = permuted ? w.perm[c] : c < k ? static_cast<int>(c) : -1;
            columns[c] = from < 0 ? 0 : x[size_t{i} * k + static_cast<uint32_t>(from)];
          }
          const float max = std::fabs(*std::max_element(columns.begin(), columns.end(), [](float a, float b) { return std::fabs(a) < std::fabs(b); }));
          EXPECT_NEAR(out.scale[i], max / 127 / largest_multiplier, max * 1e-12);
          for (uint32_t r = 0; r < k_padded / record_columns; ++r)
            expect_record(columns.data() + r * record_columns, out.records[r * (m + 1) + i], double{max} / 127 / largest_multiplier);
          for (uint32_t begin = 0; begin < k_padded; begin += out.x8.sum_block) {
            const double sum = sum_of(out.x8, i, begin, begin + out.x8.sum_block);
            EXPECT_NEAR(out.sum[begin / out.x8.sum_block * (m + 1) + i], sum, std::fabs(sum) * 1e-7);
          }
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
  for (uint32_t r = 0; r < 2; ++r)
    for (const int8_t q : out.records[r].q) EXPECT_EQ(q, 0);
  EXPECT_EQ(out.scale[0], 0);
  EXPECT_EQ(out.sum[0], 0);
  EXPECT_EQ(out.sum[1], 0);
}

TEST_P(pack_int8, nan_and_infinity_reach_the_scale) {
  for (const float bad : {std::nanf(""), -std::nanf(""), HUGE_VALF, -HUGE_VALF})
    for (uint32_t at = 0; at < 64; ++at) {
      std::vector<float> x = floats(64);
      x[at] = bad;
      Packed out(1, 64, 64);
      run({x.data(), 1, 64, nullptr, out.x8});
      EXPECT_FALSE(std::isfinite(out.scale[0])) << at;
    }
}

}  // namespace
}  // namespace gptq::kernels
