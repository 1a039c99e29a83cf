// SPDX-License-Identifier: Apache-2.0
// Norms, activations, learned positions and what is done number by number, against float64.
#include "gpu.h"
#include "kernels/element.h"
#include "tests/seed.h"

namespace gptq::cuda {
namespace {

using kernels::Activation, kernels::Elementwise;

class CudaRows : public GpuTest {
 protected:
  std::mt19937 random{test::seed(23)};
  std::vector<float> floats(size_t n, float from, float to) {
    std::vector<float> v(n);
    for (float& f : v) f = std::uniform_real_distribution<float>(from, to)(random);
    return v;
  }
};

TEST_F(CudaRows, Norms) {
  constexpr uint32_t rows = 3;
  constexpr float eps = 1e-5f;
  for (const uint32_t n : {1u, 31u, 256u, 1000u})
    for (const int form : {0, 1, 2, 3, 4, 5}) {
      SCOPED_TRACE(testing::Message() << n << " form " << form);
      const bool centered = form < 3, weighted = form % 3 > 0, biased = form % 3 > 1;
      const auto x = floats(rows * n, 1, 5), weight = floats(n, -2, 2), bias = floats(n, -2, 2);
      std::vector<float> y(x.size(), NAN), same = x;
      const float *w = weighted ? gpu.in(weight) : nullptr, *b = biased ? gpu.in(bias) : nullptr;
      float* const place = gpu.out(same);
      const auto norm = [&](const float* from, float* to) {
        gpu.table->norm({.x = from, .weight = w, .bias = b, .y = to, .rows = rows, .n = n, .eps = eps, .centered = centered}, *gpu.stream);
      };
      norm(gpu.in(x), gpu.out(y));
      norm(place, place);
      gpu.finish();
      for (uint32_t row = 0; row < rows; ++row) {
        double sum = 0, squares = 0;
        for (uint32_t i = 0; i < n; ++i) sum += x[row * n + i];
        const double mean = centered ? sum / n : 0;
        for (uint32_t i = 0; i < n; ++i) squares += (x[row * n + i] - mean) * (x[row * n + i] - mean);
        const double factor = 1 / std::sqrt(squares / n + double{eps});
        for (uint32_t i = 0; i < n; ++i) {
          const double expected = (x[row * n + i] - mean) * factor * (weighted ? weight[i] : 1) + (biased ? bias[i] : 0);
          // the mean is rounded at its own size, 2^-24 of 5
          const double tolerance = 2e-6 * (1 + std::fabs(expected)) + (centered ? 2e-6 * factor * 2 : 0);
          ASSERT_NEAR(y[row * n + i], expected, tolerance) << row << ' ' << i;
          ASSERT_EQ(same[row * n + i], y[row * n + i]) << "in place " << row << ' ' << i;
        }
      }
    }
}

TEST_F(CudaRows, Activations) {
  const uint32_t count = 700;
  auto gate = floats(count, -12, 12), up = floats(count, -12, 12);
  gate[0] = NAN, gate[1] = 0, gate[2] = 90, gate[3] = -90, gate[4] = 1e-4f;
  const std::vector<float> alphas = {0.8f, -0.3f, 0.5f, -1e-6f};
  const auto softplus = [](double x) { return std::log1p(std::exp(x)); };
  for (const Activation act : {Activation::silu, Activation::gelu, Activation::gelu_tanh, Activation::relu, Activation::relu2,
                               Activation::swiglu_clamped, Activation::xielu})
    for (const bool gated : {true, false}) {
      if ((act == Activation::swiglu_clamped && !gated) || (act == Activation::xielu && gated)) continue;
      SCOPED_TRACE(testing::Message() << static_cast<int>(act) << ' ' << gated);
      std::vector<float> out(count, 7), expected(count);
      const auto& only = gate;
      gpu.table->activate({.act = act, .gate = gated ? gpu.in(gate) : nullptr, .up = gated ? gpu.in(up) : gpu.in(only), .out = gpu.out(out),
                           .count = count, .xielu = gpu.in(alphas)}, *gpu.stream);
      gpu.finish();
      for (uint32_t i = 0; i < count; ++i) {
        const double x = gate[i], u = up[i];
        double y = 0;
        switch (act) {
          case Activation::silu: y = x / (1 + std::exp(-x)); break;
          case Activation::gelu: y = x / 2 * std::erfc(-x * M_SQRT1_2); break;
          case Activation::gelu_tanh: y = x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); break;
          case Activation::relu: y = x < 0 ? 0 : x; break;
          case Activation::relu2: y = x < 0 ? 0 : x * x; break;
          case Activation::swiglu_clamped: y = std::fmin(x, 7) / (1 + std::exp(-1.702 * std::fmin(x, 7))); break;
          case Activation::xielu:
            y = x > 0 ? softplus(alphas[0]) * x * x : (alphas[2] + softplus(alphas[1])) * (std::expm1(std::fmin(x, double{alphas[3]})) - x);
            y += double{alphas[2]} * x;
            break;
        }
        if (gated) y *= act == Activation::swiglu_clamped ? std::clamp(u, -7.0, 7.0) + 1 : u;
        if (i == 0) ASSERT_TRUE(std::isnan(out[i]));
        else ASSERT_NEAR(out[i], y, 4e-6 * (std::fabs(y) + (gated ? std::fabs(u) : 1))) << i << ": " << x;
      }
    }
}

TEST_F(CudaRows, NumberByNumber) {
  const uint32_t count = 515;
  auto x = floats(count, -9, 9);
  const auto y = floats(count, -9, 9);
  x[3] = NAN;
  constexpr float factor = 2.5f;
  for (const Elementwise kind : {Elementwise::scale, Elementwise::clamp, Elementwise::softcap, Elementwise::gate, Elementwise::add_scaled}) {
    std::vector<float> out = x;
    float* const place = gpu.out(out);
    gpu.table->elementwise({.kind = kind, .x = place, .y = gpu.in(y), .out = place, .count = count, .factor = factor}, *gpu.stream);
    gpu.finish();
    for (uint32_t i = 0; i < count; ++i) {
      const double v = x[i], f = factor;
      const double expected = kind == Elementwise::scale      ? v * f
                              : kind == Elementwise::clamp    ? std::clamp(v, -f, f)
                              : kind == Elementwise::softcap  ? f * std::tanh(v / f)
                              : kind == Elementwise::gate     ? v / (1 + std::exp(-double{y[i]}))
                                                              : v + f * y[i];
      if (i == 3) ASSERT_TRUE(std::isnan(out[i])) << static_cast<int>(kind);
      else ASSERT_NEAR(out[i], expected, 1e-6 * (1 + std::fabs(expected) + std::fabs(v))) << static_cast<int>(kind) << ' ' << i;
    }
  }
}

// Positions past the table's end take its last row.
TEST_F(CudaRows, LearnedPositions) {
  for (const kernels::MatrixShape& shape : {kernels::MatrixShape{kernels::Kind::f16, 21, 63}, {kernels::Kind::q4, 37, 1100, 64, true}}) {
    const kernels::TestMatrix m(shape, random);
    const std::vector<Row> rows = {{0, 0}, {7, 0}, {shape.n - 1, 0}};
    const auto before = floats(rows.size() * shape.k, -1, 1);
    auto x = before;
    Batch batch{};
    batch.rows = gpu.in(rows);
    batch.n_rows = 3;
    gpu.table->add_positions({gpu.in(m), batch, 2, gpu.out(x)}, *gpu.stream);
    gpu.finish();
    for (uint32_t r = 0; r < 3; ++r)
      for (uint32_t i = 0; i < shape.k; ++i)
        ASSERT_EQ(x[r * shape.k + i], before[r * shape.k + i] + kernels::weight_at(m.w, std::min(rows[r].position + 2, shape.n - 1), i))
            << r << ' ' << i;
  }
}

}  // namespace
}  // namespace gptq::cuda
