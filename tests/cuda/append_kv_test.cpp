// SPDX-License-Identifier: Apache-2.0
#include "cache.h"
#include "tests/seed.h"

namespace gptq::cuda {
namespace {

struct Case {
  uint32_t head_dim, rope_dim, n_heads, n_kv_heads, page_tokens;
  bool q_norm, k_norm, int8 = false;
  bool bias = false, unit = false, centered = false, each_head = false, norm_last = false;
  float clip = 0, query_factor = 0;
};

class CudaAppendKv : public GpuTest {
 protected:
  std::mt19937 random{test::seed(5)};
  const std::vector<Sequence> sequences = {{0, 1}, {15, 3}, {100, 20}, {31, 1}};

  std::vector<float> floats(size_t n, float size) {
    std::vector<float> v(n);
    for (float& f : v) f = std::uniform_real_distribution<float>(-size, size)(random);
    return v;
  }

  // Norm and rotation of a head in float64; `size` is what a rounding error of it is compared with.
  std::vector<double> plainly(const float* x, const Case& c, const float* weight, const float* bias, const float* cos, const float* sin, double* size) {
    std::vector<double> y(x, x + c.head_dim);
    const auto norm = [&] {
      if (!weight && !c.unit) return;
      double sum = 0, squares = 0;
      for (const double d : y) sum += d;
      if (c.centered)
        for (double& d : y) d -= sum / c.head_dim;
      for (const double d : y) squares += d * d;
      const double factor = 1 / std::sqrt(squares / c.head_dim + 1e-5);
      for (uint32_t d = 0; d < c.head_dim; ++d) y[d] = y[d] * factor * (weight ? weight[d] : 1) + (bias ? bias[d] : 0);
    };
    if (!c.norm_last) norm();
    for (double& d : y) d = c.clip > 0 ? std::clamp(d, -double{c.clip}, double{c.clip}) : d;
    *size = 0;
    for (const double d : y) *size = std::max(*size, std::fabs(d));
    const uint32_t half = c.rope_dim / 2;
    for (uint32_t j = 0; j < half; ++j) {
      const double low = y[j], high = y[j + half];
      y[j] = low * cos[j] - high * sin[j];
      y[j + half] = high * cos[j] + low * sin[j];
    }
    if (c.norm_last) norm();
    for (const double d : y) *size = std::max(*size, std::fabs(d));
    return y;
  }

  void check(const Case& c) {
    SCOPED_TRACE(testing::Message() << c.head_dim << ' ' << c.rope_dim << ' ' << c.n_heads << ' ' << c.n_kv_heads << ' ' << c.page_tokens);
    TestCache cache(c.head_dim, c.n_kv_heads, c.page_tokens, sequences, random, c.int8);
    const uint32_t rows = static_cast<uint32_t>(cache.rows.size()), half = c.rope_dim / 2;
    auto q = floats(size_t{rows} * c.n_heads * c.head_dim, 3), k = floats(size_t{rows} * c.n_kv_heads * c.head_dim, 3);
    auto v = floats(k.size(), 3);
    const size_t of_heads = c.each_head ? std::max(c.n_heads, c.n_kv_heads) : 1;
    const auto q_norm = floats(of_heads * c.head_dim, 2), k_norm = floats(q_norm.size(), 2);
    const auto q_bias = floats(q_norm.size(), 2), k_bias = floats(q_norm.size(), 2);
    std::vector<float> cos(rows * half), sin(cos.size());
    for (size_t i = 0; i < cos.size(); ++i) {
      const double angle = floats(1, 100)[0];
      cos[i] = static_cast<float>(std::cos(angle));
      sin[i] = static_cast<float>(std::sin(angle));
    }
    const auto q_before = q, k_before = k;
    Batch batch = cache.batch(gpu);
    batch.cos = gpu.in(cos);
    batch.sin = gpu.in(sin);
    gpu.table->append_kv({batch, cache.out(gpu), gpu.out(q), gpu.out(k), gpu.in(v), c.q_norm ? gpu.in(q_norm) : nullptr,
                          c.k_norm ? gpu.in(k_norm) : nullptr, 1e-5f, c.n_heads, c.rope_dim, TestCache::layer, c.bias ? gpu.in(q_bias) : nullptr,
                          c.bias ? gpu.in(k_bias) : nullptr, c.unit, c.centered, c.each_head, c.norm_last, c.clip, 16, c.query_factor, 0.5f}, *gpu.stream);
    gpu.finish();
    const auto compare = [&](const std::vector<float>& got, const std::vector<float>& before, uint32_t heads, const float* norm, const float* bias) {
      for (uint32_t i = 0; i < rows * heads; ++i) {
        double size;
        const size_t of_head = c.each_head ? size_t{i} % heads * c.head_dim : 0;
        auto y = plainly(&before[size_t{i} * c.head_dim], c, norm ? norm + of_head : nullptr, bias ? bias + of_head : nullptr,
                         cos.data() + i / heads * half, sin.data() + i / heads * half, &size);
        const double factor = &got == &q ? 1 + c.query_factor * std::log1p(std::floor((cache.rows[i / heads].position + 0.5) / 16)) : 1;
        for (double& d : y) d *= factor;
        size *= factor;
        // some ten roundings of 2^-24 each; the sum of squares' errors are divided by its length
        for (uint32_t d = 0; d < c.head_dim; ++d) ASSERT_NEAR(got[size_t{i} * c.head_dim + d], y[d], 1e-6 * size) << i << ' ' << d;
      }
    };
    compare(q, q_before, c.n_heads, c.q_norm ? q_norm.data() : nullptr, c.bias ? q_bias.data() : nullptr);
    compare(k, k_before, c.n_kv_heads, c.k_norm ? k_norm.data() : nullptr, c.bias ? k_bias.data() : nullptr);
    for (float& x : v) x = c.clip > 0 ? std::clamp(x, -c.clip, c.clip) : x;
    c.int8 ? check_bytes(cache, k, v) : check_cache(cache, k, v);
  }

  // One key or value; forgets it.
  template <class Byte>
  void check_row(const KvCache& kv, const float* x, float scale, Byte byte) {
    float most = 0;
    for (uint32_t d = 0; d < kv.head_dim; ++d) most = std::max(most, std::fabs(x[d]));
    ASSERT_NEAR(scale, most / 127, most * 1e-6);
    for (uint32_t d = 0; d < kv_dims(kv.head_dim); ++d) {
      uint8_t& code = byte(d);
      if (d < kv.head_dim) ASSERT_NEAR(code - 128, x[d] / scale, 0.501); else ASSERT_EQ(code, 128);
      code = 0xff;
    }
  }
  void check_bytes(TestCache& cache, const std::vector<float>& k, const std::vector<float>& v) {
    const KvCache& kv = cache.kv;
    for (uint32_t r = 0; r < cache.rows.size(); ++r)
      for (uint32_t head = 0; head < kv.n_kv_heads; ++head) {
        const size_t from = (size_t{r} * kv.n_kv_heads + head) * kv.head_dim;
        const auto [position, first_page] = cache.rows[r];
        float &key_scale = cache.key_scale(first_page, head, position), &exponent = cache.value_exponent(first_page, head, position);
        check_row(kv, &k[from], key_scale, [&, p = position, page = first_page](uint32_t d) -> uint8_t& { return cache.key_byte(page, head, p, d); });
        check_row(kv, &v[from], std::exp2(exponent), [&, p = position, page = first_page](uint32_t d) -> uint8_t& { return cache.value_byte(page, head, p, d); });
        if (HasFatalFailure()) return;
        memset(&key_scale, 0xff, 4);
        memset(&exponent, 0xff, 4);
      }
    EXPECT_TRUE(std::all_of(cache.memory().begin(), cache.memory().end(), [](uint16_t h) { return h == 0xffff; }));
  }

  // Keys and values as they came out, and nothing written beside them.
  void check_cache(TestCache& cache, const std::vector<float>& k, const std::vector<float>& v) {
    const KvCache& kv = cache.kv;
    size_t written = 0;
    for (uint32_t r = 0; r < cache.rows.size(); ++r)
      for (uint32_t head = 0; head < kv.n_kv_heads; ++head)
        for (uint32_t d = 0; d < kv_dims(kv.head_dim); ++d) {
          const size_t from = (size_t{r} * kv.n_kv_heads + head) * kv.head_dim + d;
          const Row& row = cache.rows[r];
          const bool padding = d >= kv.head_dim;
          uint16_t& key = cache.key(row.first_page, head, row.position, d);
          uint16_t& value = cache.value(row.first_page, head, row.position, d);
          ASSERT_EQ(key, padding ? 0 : kernels::half_from_float(k[from])) << r << ' ' << head << ' ' << d;
          ASSERT_EQ(value, padding ? 0 : kernels::half_from_float(v[from])) << r << ' ' << head << ' ' << d;
          key = value = 0xffff;
          written += 2;
        }
    EXPECT_EQ(written, cache.rows.size() * kv.n_kv_heads * kv_dims(kv.head_dim) * 2);
    EXPECT_TRUE(std::all_of(cache.memory().begin(), cache.memory().end(), [](uint16_t h) { return h == 0xffff; }));
  }
};

TEST_F(CudaAppendKv, RotatesAndStores) {
  check({128, 128, 8, 2, 16, false, false});
  check({128, 128, 5, 5, 64, true, true});
  check({64, 64, 3, 1, 32, true, false});
  check({80, 32, 4, 2, 256, false, true});
  check({256, 64, 2, 1, 48, true, true});
  check({6, 4, 7, 1, 16, true, true});
  check({34, 0, 1, 1, 16, false, false});
  check({2, 2, 71, 1, 16, false, false});
}

TEST_F(CudaAppendKv, NormsAndScalesInEveryWay) {
  const Case plain{80, 32, 4, 2, 16, true, true};
  Case c = plain;
  c.centered = true, check(c);
  c.bias = true, check(c);
  c.each_head = true, check(c);
  c.norm_last = true, check(c);
  c = plain;
  c.q_norm = c.k_norm = false, c.unit = true, check(c);
  c.norm_last = true, c.int8 = true, check(c);
  c = plain;
  c.clip = 0.7f, check(c);
  c.query_factor = 0.3f, check(c);
}

TEST_F(CudaAppendKv, StoresBytes) {
  check({128, 128, 8, 2, 16, false, false, true});
  check({80, 32, 4, 2, 256, false, true, true});
  check({34, 0, 1, 3, 16, true, false, true});
}

// As on the CPU: rows of nothing, and NaN, which shows in the outputs by the scale.
TEST_F(CudaAppendKv, BytesHideNoNaN) {
  TestCache cache(2, 1, 16, {{3, 1}}, random, true);
  std::vector<float> q = {1, 2}, k = {1e-31f, 0};
  std::vector<float> v = {5, NAN};
  for (int turn = 0; turn < 2; ++turn) {
    gpu.table->append_kv({cache.batch(gpu), cache.out(gpu), gpu.out(q), gpu.out(k), gpu.in(v), nullptr, nullptr, 0, 1, 0, TestCache::layer}, *gpu.stream);
    gpu.finish();
    EXPECT_EQ(cache.key_byte(0, 0, 3, 0), 128);
    if (turn) EXPECT_TRUE(std::isnan(cache.key_scale(0, 0, 3))); else EXPECT_EQ(cache.key_scale(0, 0, 3), 0);
    if (turn) EXPECT_EQ(cache.value_exponent(0, 0, 3), -100); else EXPECT_TRUE(std::isnan(cache.value_exponent(0, 0, 3)));
    EXPECT_EQ(cache.value_byte(0, 0, 3, 1), 128);
    k = {NAN, 1};
    v = {0, 0};
  }
}

// As on the CPU: what float16 cannot hold becomes infinite and shows in the outputs.
TEST_F(CudaAppendKv, HidesNoOverflow) {
  TestCache cache(2, 1, 16, {{3, 1}}, random);
  std::vector<float> q = {1, 2}, k = {65519.0f, -65520.0f};
  const std::vector<float> v = {NAN, 1e30f};
  gpu.table->append_kv({cache.batch(gpu), cache.out(gpu), gpu.out(q), gpu.out(k), gpu.in(v), nullptr, nullptr, 0, 1, 0, TestCache::layer},
                       *gpu.stream);
  gpu.finish();
  EXPECT_EQ(cache.key(0, 0, 3, 0), 0x7bff);
  EXPECT_EQ(cache.key(0, 0, 3, 1), 0xfc00);
  EXPECT_TRUE(std::isnan(kernels::float_from_half(cache.value(0, 0, 3, 0))));
  EXPECT_EQ(cache.value(0, 0, 3, 1), 0x7c00);
}

}  // namespace
}  // namespace gptq::cuda
