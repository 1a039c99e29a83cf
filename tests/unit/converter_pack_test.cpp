// SPDX-License-Identifier: Apache-2.0
// Packed weights read back by the reference kernel: every kind, group size and order of columns.
#include <cmath>
#include <random>

#include "converter/pack.h"
#include "converter/round.h"
#include "converter/unpack.h"
#include "converter_fixture.h"
#include "tests/seed.h"

namespace gptq::test {
namespace {

using namespace convert;
using model::pack_quantized;

struct Shape {
  uint32_t n, k, bits;
  int32_t group_size;
  bool symmetric, shuffled;
  float scale_step;
};

uint32_t group_of(const QuantizedWeight& w, uint32_t i, uint32_t k) {
  return w.g_idx.empty() ? i / (w.group_size > 0 ? static_cast<uint32_t>(w.group_size) : k) : static_cast<uint32_t>(w.g_idx[i]);
}

QuantizedWeight random_weight(const Shape& s) {
  std::mt19937 random(s.n * 31 + s.k * 7 + s.bits);
  const uint32_t size = s.group_size > 0 ? static_cast<uint32_t>(s.group_size) : s.k;
  QuantizedWeight w;
  w.bits = s.bits;
  w.group_size = s.group_size;
  w.n_groups = (s.k + size - 1) / size;
  for (uint64_t i = 0; i < uint64_t{s.n} * s.k; ++i) w.codes.push_back(static_cast<uint8_t>(random() & ((1u << s.bits) - 1)));
  for (uint32_t i = 0; i < s.n * w.n_groups; ++i) w.scales.push_back(s.scale_step * (static_cast<float>(random() % 512) - 256));
  if (!s.symmetric)
    for (uint32_t i = 0; i < s.n * w.n_groups; ++i) w.zeros.push_back(static_cast<uint8_t>(random() & ((1u << s.bits) - 1)));
  if (s.shuffled) {
    for (uint32_t i = 0; i < s.k; ++i) w.g_idx.push_back(static_cast<int32_t>(i / size));
    std::shuffle(w.g_idx.begin(), w.g_idx.end(), random);
  }
  return w;
}

base::Pool& pool() {
  static base::Pool one(1, nullptr, nullptr, std::pmr::get_default_resource());
  return one;
}

void expect_same_values(const QuantizedWeight& w, const PackedTensor& packed, uint32_t n, uint32_t k) {
  const kernels::Matrix matrix = packed.matrix(n, k);
  const auto dequantize = kernels::select_kernels(GPTQ_CPU_REFERENCE).dequantize_row;
  std::vector<float> row(k);
  for (uint32_t r = 0; r < n; ++r) {
    dequantize({&matrix, r, row.data()});
    for (uint32_t i = 0; i < k; ++i) {
      const uint64_t at = uint64_t{r} * w.n_groups + group_of(w, i, k);
      const int zero = w.zeros.empty() ? 1 << (w.bits - 1) : w.zeros[at];
      ASSERT_EQ(row[i], w.scales[at] * static_cast<float>(w.codes[uint64_t{r} * k + i] - zero)) << r << " " << i;
    }
  }
}

// Unpacking gives the weight that was packed, with what it left unsaid.
void expect_unpacked_same(const QuantizedWeight& w, const PackedTensor& packed, uint32_t n, uint32_t k) {
  const QuantizedWeight again = unpack_quantized(packed.matrix(n, k), w.group_size, "t", pool());
  EXPECT_EQ(again.bits, w.bits);
  EXPECT_EQ(again.n_groups, w.n_groups);
  EXPECT_EQ(again.codes, w.codes);
  EXPECT_EQ(again.scales, w.scales);
  const std::pmr::vector<uint8_t> middle(w.zeros.size(), static_cast<uint8_t>(1u << (w.bits - 1)));
  EXPECT_EQ(again.zeros, w.zeros == middle ? std::pmr::vector<uint8_t>() : w.zeros);
  ASSERT_EQ(again.g_idx.size(), k);
  for (uint32_t i = 0; i < k; ++i) ASSERT_EQ(static_cast<uint32_t>(again.g_idx[i]), group_of(w, i, k)) << i;
}

TEST(Pack, EveryShape) {
  for (const uint32_t bits : {2u, 3u, 4u, 8u})
    for (const auto& [n, k] : {std::pair(16u, 64u), {5u, 40u}, {33u, 100u}, {48u, 352u}, {17u, 1u}})
      for (const int32_t group : {-1, 7, 16, 24, 32, 48, 64, 128, 1000})
        for (const bool symmetric : {true, false})
          for (const bool shuffled : {false, true}) {
            const Shape shape{n, k, bits, group, symmetric, shuffled, 0.25f};
            SCOPED_TRACE(std::to_string(n) + "x" + std::to_string(k) + " bits " + std::to_string(bits) + " group " + std::to_string(group) +
                         (shuffled ? " shuffled" : ""));
            const QuantizedWeight w = random_weight(shape);
            const PackedTensor packed = pack_quantized("t", w, n, k, pool());
            EXPECT_EQ(packed.group % 16, 0u);
            EXPECT_LE(packed.group, packed.k_padded);
            EXPECT_EQ(packed.k_padded % 64, 0u);
            EXPECT_FALSE(packed.scales_f32);
            expect_same_values(w, packed, n, k);
            expect_unpacked_same(w, packed, n, k);
            if (::testing::Test::HasFatalFailure()) return;
          }
}

TEST(Pack, OrderedColumnsHaveNoPermutation) {
  for (const int32_t group : {-1, 16, 32, 64, 128}) {
    const Shape shape{16, 352, 4, group, true, false, 0.5f};
    QuantizedWeight w = random_weight(shape);
    EXPECT_TRUE(pack_quantized("t", w, 16, 352, pool()).perm.empty());
    for (uint32_t i = 0; i < 352; ++i)
      w.g_idx.push_back(static_cast<int32_t>(group_of(w, 0, 352) + i / (group > 0 ? static_cast<uint32_t>(group) : 352)));
    EXPECT_TRUE(pack_quantized("t", w, 16, 352, pool()).perm.empty());  // said explicitly, still in order
  }
  EXPECT_FALSE(pack_quantized("t", random_weight({16, 352, 4, 24, true, false, 0.5f}), 16, 352, pool()).perm.empty());
}

TEST(Pack, ScalesThatAreNoHalfStayFloat) {
  const QuantizedWeight w = random_weight({20, 64, 4, 32, true, false, 0.1f});
  const PackedTensor packed = pack_quantized("t", w, 20, 64, pool());
  EXPECT_TRUE(packed.scales_f32);
  expect_same_values(w, packed, 20, 64);
}

TEST(Pack, PaddingIsNeutral) {
  const QuantizedWeight w = random_weight({3, 40, 4, 16, false, false, 0.5f});
  const PackedTensor packed = pack_quantized("t", w, 3, 40, pool());
  const auto* scales = reinterpret_cast<const uint16_t*>(packed.scales.data());
  for (uint32_t g = 0; g < 4; ++g)
    for (uint32_t row = 0; row < 16; ++row)
      EXPECT_TRUE(scales[g * 16 + row] == 0 || (row < 3 && g < 3)) << row << " " << g;
}

TEST(Pack, SymmetricZerosAreDropped) {
  QuantizedWeight w = random_weight({16, 64, 4, 32, true, false, 1});
  w.zeros.assign(32, 8);
  EXPECT_TRUE(pack_quantized("t", w, 16, 64, pool()).zeros.empty());
}

TEST(Pack, RefusesWhatDoesNotFit) {
  const QuantizedWeight good = random_weight({16, 64, 4, 32, false, true, 1});
  const auto broken = [&](auto&& change) {
    QuantizedWeight w = good;
    change(w);
    return failure_of([&] { pack_quantized("t", w, 16, 64, pool()); });
  };
  EXPECT_NE(broken([](auto& w) { w.codes.pop_back(); }), "");
  EXPECT_NE(broken([](auto& w) { w.scales.pop_back(); }), "");
  EXPECT_NE(broken([](auto& w) { w.zeros.pop_back(); }), "");
  EXPECT_NE(broken([](auto& w) { w.g_idx.pop_back(); }), "");
  EXPECT_NE(broken([](auto& w) { w.g_idx[3] = 2; }), "");
  EXPECT_NE(broken([](auto& w) { w.g_idx[3] = -1; }), "");
  EXPECT_NE(broken([](auto& w) { w.bits = 5; }), "");
  EXPECT_NE(broken([](auto& w) { w.n_groups = 0; }), "");
}

// All inputs in one of many groups: padding each group to that size would take memory without limit.
TEST(Pack, RefusesUnevenGroups) {
  QuantizedWeight w = random_weight({1, 4096, 4, 2, true, false, 1});
  for (uint32_t i = 0; i < 4096; ++i) w.g_idx.push_back(i == 0);
  EXPECT_NE(failure_of([&] { pack_quantized("t", w, 1, 4096, pool()); }).find("one of its 2048 groups"), std::string::npos);
}

TEST(Pack, Dense) {
  DenseWeight half{kernels::Kind::f16, std::vector<std::byte>(12)};
  EXPECT_EQ(pack_dense("t", half, 2, 3).codes.size(), 12u);
  EXPECT_REFUSED(pack_dense("t", half, 2, 4), "do not fit");
  const uint16_t bf16[] = {0x3F80, 0xC000};
  DenseWeight vector{kernels::Kind::bf16, {}};
  vector.bytes.resize(4);
  std::memcpy(vector.bytes.data(), bf16, 4);
  const PackedTensor packed = pack_vector("t", vector, 2);
  float values[2];
  ASSERT_EQ(packed.codes.size(), 8u);
  std::memcpy(values, packed.codes.data(), 8);
  EXPECT_EQ(values[0], 1);
  EXPECT_EQ(values[1], -2);
  EXPECT_REFUSED(pack_vector("t", vector, 3), "do not fit");
}

DenseWeight dense_of(const std::vector<float>& values) {
  DenseWeight weight{kernels::Kind::f32, std::vector<std::byte>(values.size() * sizeof(float))};
  std::memcpy(weight.bytes.data(), values.data(), weight.bytes.size());
  return weight;
}

TEST(Pack, RoundsToNearest) {
  constexpr uint32_t n = 5, k = 100;
  std::mt19937 random(test::seed(3));
  std::normal_distribution<float> number;
  for (const uint32_t bits : {4u, 8u})
    for (const float size : {1e-9f, 1.0f, 1e6f}) {
      std::vector<float> values(n * k);
      for (float& v : values) v = size * number(random);
      const QuantizedWeight w = round_to_nearest("head", dense_of(values), n, k, bits, pool());
      double error = 0, power = 0;
      for (uint32_t i = 0; i < n * k; ++i) {
        const float scale = w.scales[i / k * w.n_groups + i % k / static_cast<uint32_t>(w.group_size)];
        const int code = w.codes[i] - (1 << (bits - 1));
        const double difference = values[i] - static_cast<double>(scale) * code;
        const bool cut = w.codes[i] == 0 || w.codes[i] == (1 << bits) - 1;
        if (!cut) {
          EXPECT_LE(std::fabs(difference), std::fabs(scale) * 0.50001);
        }
        error += difference * difference;
        power += static_cast<double>(values[i]) * values[i];
      }
      EXPECT_LT(error / power, bits == 4 ? 0.008 : 0.00004) << bits << " bits, size " << size;
      EXPECT_NO_THROW(pack_quantized("head", w, n, k, pool()));
    }
}

TEST(Pack, RoundingRefusesNan) {
  std::vector<float> values(64, 1.0f);
  values[63] = NAN;
  EXPECT_THROW(round_to_nearest("head", dense_of(values), 1, 64, 8, pool()), base::Failure);
}

}  // namespace
}  // namespace gptq::test
