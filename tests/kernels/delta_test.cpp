// SPDX-License-Identifier: Apache-2.0
// The gated delta rule against float64; the same bits however rows and heads are cut.
#include <algorithm>

#include "kernel_test.h"

namespace gptq::kernels {
namespace {

struct Case {
  uint32_t m, n_key_heads, n_value_heads, key_dim, value_dim;
  bool state;
  size_t width() const { return 2 * n_key_heads * key_dim + n_value_heads * value_dim + 5; }
  size_t out_width() const { return size_t{n_value_heads} * value_dim; }
  size_t state_size() const { return out_width() * key_dim; }
};

struct Buffers {
  std::vector<float> mixed, a, b, z, rate, dt_bias, weight, state;
};

class delta : public KernelTest<DeltaArgs> {
 protected:
  Buffers buffers(const Case& c) {
    Buffers b = {floats(c.m * c.width(), 2),
                 floats(size_t{c.m} * (c.n_value_heads + 2), 4),
                 floats(size_t{c.m} * (c.n_value_heads + 2), 4),
                 floats(c.m * (c.out_width() + 1), 3),
                 floats(c.n_value_heads),
                 floats(c.n_value_heads, 2),
                 floats(c.value_dim, 2),
                 floats(c.state_size())};
    for (float& rate : b.rate) rate = std::exp(uniform(-6, 2));
    return b;
  }
  DeltaArgs args(const Case& c, const Buffers& b, float* next_state, float* y) {
    const float* q = b.mixed.data();
    return {.q = q,
            .k = q + c.n_key_heads * c.key_dim,
            .v = q + 2 * c.n_key_heads * c.key_dim,
            .a = b.a.data(),
            .b = b.b.data(),
            .rate = b.rate.data(),
            .dt_bias = b.dt_bias.data(),
            .z = b.z.data(),
            .weight = b.weight.data(),
            .state = c.state ? b.state.data() : nullptr,
            .next_state = next_state,
            .y = y,
            .m = c.m,
            .stride = static_cast<uint32_t>(c.width()),
            .gate_stride = c.n_value_heads + 2,
            .z_stride = static_cast<uint32_t>(c.out_width() + 1),
            .n_key_heads = c.n_key_heads,
            .n_value_heads = c.n_value_heads,
            .key_dim = c.key_dim,
            .value_dim = c.value_dim,
            .first_head = 0,
            .last_head = c.n_value_heads,
            .eps = 1e-6f};
  }
};
INSTANTIATE_TEST_SUITE_P(kernels, delta, testing::ValuesIn(variants_of("delta")),
                         [](const testing::TestParamInfo<Variant>& info) { return level_name(info.param.level); });

std::vector<double> unit(const float* x, uint32_t n, double scale) {
  double squares = 0;
  for (uint32_t j = 0; j < n; ++j) squares += double{x[j]} * x[j];
  std::vector<double> y(x, x + n);
  for (double& v : y) v *= scale / std::sqrt(squares + 1e-6);
  return y;
}

// The definition, as the models' own code has it: S decays, learns what it did not know of v, and is asked.
struct Expected {
  std::vector<double> state, y;
  Expected(const Case& c, const DeltaArgs& a) : state(c.state_size()), y(c.m * c.out_width()) {
    if (a.state) state.assign(a.state, a.state + c.state_size());
    for (uint32_t row = 0; row < c.m; ++row)
      for (uint32_t h = 0; h < c.n_value_heads; ++h) step(c, a, row, h);
  }
  void step(const Case& c, const DeltaArgs& a, size_t row, size_t h) {
    const size_t key_head = h * c.n_key_heads / c.n_value_heads, gate = row * a.gate_stride + h;
    const std::vector<double> q = unit(a.q + row * a.stride + key_head * c.key_dim, c.key_dim, 1 / std::sqrt(c.key_dim));
    const std::vector<double> k = unit(a.k + row * a.stride + key_head * c.key_dim, c.key_dim, 1);
    const double decay = std::exp(-a.rate[h] * std::log1p(std::exp(double{a.a[gate]} + a.dt_bias[h])));
    const double beta = 1 / (1 + std::exp(-double{a.b[gate]}));
    double* s = state.data() + h * c.key_dim * c.value_dim;
    double* out = y.data() + row * c.out_width() + h * c.value_dim;
    for (size_t j = 0; j < size_t{c.key_dim} * c.value_dim; ++j) s[j] *= decay;
    double squares = 0;
    for (uint32_t d = 0; d < c.value_dim; ++d) {
      double known = 0;
      for (uint32_t j = 0; j < c.key_dim; ++j) known += s[j * c.value_dim + d] * k[j];
      const double change = beta * (a.v[row * a.stride + h * c.value_dim + d] - known);
      for (uint32_t j = 0; j < c.key_dim; ++j) s[j * c.value_dim + d] += k[j] * change;
      for (uint32_t j = 0; j < c.key_dim; ++j) out[d] += s[j * c.value_dim + d] * q[j];
      squares += out[d] * out[d];
    }
    for (uint32_t d = 0; d < c.value_dim; ++d) {
      const double z = a.z[row * a.z_stride + h * c.value_dim + d];
      out[d] *= a.weight[d] / std::sqrt(squares / c.value_dim + a.eps) * z / (1 + std::exp(-z));
    }
  }
};

TEST_P(delta, matches_float64) {
  for (const Case& c : {Case{1, 1, 1, 1, 1, true}, Case{3, 1, 3, 5, 7, false}, Case{70, 2, 4, 16, 32, true}, Case{9, 2, 2, 20, 37, true},
                        Case{150, 1, 2, 128, 128, false}, Case{1, 2, 6, 64, 96, true}, Case{65, 1, 1, 8, 130, true}}) {
    const Buffers b = buffers(c);
    Guarded<float> next_state(c.state_size()), y(c.m * c.out_width());
    const DeltaArgs a = args(c, b, next_state.data(), y.data());
    run(a);
    ASSERT_TRUE(next_state.intact() && y.intact());
    const Expected expected(c, a);
    for (size_t j = 0; j < c.state_size(); ++j) ASSERT_NEAR(next_state[j], expected.state[j], 1e-5) << "m " << c.m << " at " << j;
    for (size_t j = 0; j < y.size(); ++j) ASSERT_NEAR(y[j], expected.y[j], 1e-4) << "m " << c.m << " at " << j;
  }
}

TEST_P(delta, same_bits_however_it_is_cut) {
  for (const Case& c : {Case{140, 2, 4, 32, 48, true}, Case{23, 1, 3, 7, 21, true}}) {
    const Buffers b = buffers(c);
    Guarded<float> next_state(c.state_size()), y(c.m * c.out_width());
    run(args(c, b, next_state.data(), y.data()));
    std::vector<float> state = b.state, parts(y.size());
    for (uint32_t row = 0; row < c.m;) {
      const uint32_t rows = std::min(c.m - row, 1 + below(90));
      for (uint32_t head = 0; head < c.n_value_heads;) {
        DeltaArgs part = args(c, b, state.data(), parts.data() + row * c.out_width());
        part.q += size_t{row} * part.stride;
        part.k += size_t{row} * part.stride;
        part.v += size_t{row} * part.stride;
        part.a += size_t{row} * part.gate_stride;
        part.b += size_t{row} * part.gate_stride;
        part.z += size_t{row} * part.z_stride;
        part.state = state.data();
        part.m = rows;
        part.first_head = head;
        part.last_head = head = std::min(c.n_value_heads, head + 1 + below(3));
        run(part);
      }
      row += rows;
    }
    EXPECT_EQ(memcmp(parts.data(), y.data(), y.size() * sizeof(float)), 0);
    EXPECT_EQ(memcmp(state.data(), next_state.data(), next_state.size() * sizeof(float)), 0);
  }
}

}  // namespace
}  // namespace gptq::kernels
