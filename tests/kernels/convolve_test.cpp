// SPDX-License-Identifier: Apache-2.0
// Causal convolutions against float64; the same bits however rows and channels are cut.
#include <algorithm>

#include "kernel_test.h"

namespace gptq::kernels {
namespace {

struct Case {
  uint32_t m, n, kernel;
  bool silu, before, after, state;
};

struct Buffers {
  std::vector<float> x, before, after, weight, state;
};

class convolve : public KernelTest<ConvolveArgs> {
 protected:
  static constexpr uint32_t gap = 3;  // between rows
  Buffers buffers(const Case& c) {
    const size_t rows = size_t{c.m} * (c.n + gap);
    return {floats(rows), floats(rows), floats(rows), floats(size_t{c.n} * c.kernel, 2), floats(size_t{c.kernel} * c.n)};
  }
  ConvolveArgs args(const Case& c, const Buffers& b, float* next_state, float* out) {
    return {.x = b.x.data(),
            .before = c.before ? b.before.data() : nullptr,
            .after = c.after ? b.after.data() : nullptr,
            .weight = b.weight.data(),
            .state = c.state ? b.state.data() : nullptr,
            .next_state = next_state,
            .out = out,
            .m = c.m,
            .n = c.n,
            .kernel = c.kernel,
            .stride = c.n + gap,
            .out_stride = c.n,
            .first_channel = 0,
            .last_channel = c.n,
            .silu = c.silu};
  }
};
INSTANTIATE_TEST_SUITE_P(kernels, convolve, testing::ValuesIn(variants_of("convolve")),
                         [](const testing::TestParamInfo<Variant>& info) { return level_name(info.param.level); });

// What channel c of row i reads, i from -(kernel - 1).
double input(const Case& c, const Buffers& b, int64_t i, uint32_t channel) {
  if (i < 0) return c.state ? b.state[size_t(i + c.kernel - 1) * c.n + channel] : 0;
  const size_t at = size_t(i) * (c.n + 3) + channel;
  return static_cast<float>(double{b.x[at]} * (c.before ? b.before[at] : 1));
}

void check(const Case& c, const Buffers& b, Guarded<float>& next_state, Guarded<float>& out) {
  ASSERT_TRUE(next_state.intact() && out.intact());
  for (uint32_t channel = 0; channel < c.n; ++channel) {
    for (uint32_t i = 0; i < c.m; ++i) {
      double sum = 0;
      for (uint32_t j = 0; j < c.kernel; ++j)
        sum += double{b.weight[channel * c.kernel + j]} * input(c, b, int64_t{i} + j - (c.kernel - 1), channel);
      if (c.silu) sum /= 1 + std::exp(-sum);
      if (c.after) sum *= b.after[size_t{i} * (c.n + 3) + channel];
      ASSERT_NEAR(out[size_t{i} * c.n + channel], sum, 2e-6) << "m " << c.m << " n " << c.n << " kernel " << c.kernel;
    }
    for (uint32_t j = 0; j + 1 < c.kernel; ++j)
      ASSERT_EQ(next_state[size_t{j} * c.n + channel], input(c, b, int64_t{c.m} + j - (c.kernel - 1), channel))
          << "m " << c.m << " j " << j;
  }
}

TEST_P(convolve, matches_float64) {
  for (const uint32_t n : {1u, 7u, 16u, 37u, 130u})
    for (uint32_t kernel = 1; kernel <= largest_convolution; ++kernel)
      for (const uint32_t m : {1u, 2u, 5u, 20u})
        for (int way = 0; way < 4; ++way) {
          const Case c = {m, n, kernel, way % 2 == 0, way >= 2, way % 3 == 0, way != 1};
          const Buffers b = buffers(c);
          Guarded<float> next_state(size_t{kernel - 1} * n), out(size_t{m} * n);
          run(args(c, b, next_state.data(), out.data()));
          check(c, b, next_state, out);
        }
}

TEST_P(convolve, same_bits_however_it_is_cut_and_in_place) {
  for (const uint32_t kernel : {2u, 3u, 4u, 8u}) {
    const Case c = {.m = 23, .n = 77, .kernel = kernel, .silu = true, .before = true, .after = true, .state = true};
    const Buffers b = buffers(c);
    Guarded<float> next_state(size_t{kernel - 1} * c.n), out(size_t{c.m} * c.n);
    run(args(c, b, next_state.data(), out.data()));
    std::vector<float> state = b.state, x = b.x;
    for (uint32_t row = 0; row < c.m;) {
      const uint32_t rows = std::min(c.m - row, 1 + below(5));
      for (uint32_t channel = 0; channel < c.n;) {
        ConvolveArgs part = args(c, b, state.data(), x.data());
        const size_t skipped = size_t{row} * part.stride;
        part.x = part.out = x.data() + skipped;
        part.out_stride = part.stride;
        part.before += skipped;
        part.after += skipped;
        part.state = state.data();
        part.m = rows;
        part.first_channel = channel;
        part.last_channel = channel = std::min(c.n, channel + 1 + below(40));
        run(part);
      }
      row += rows;
    }
    for (uint32_t i = 0; i < c.m; ++i)
      ASSERT_EQ(memcmp(x.data() + size_t{i} * (c.n + gap), out.data() + size_t{i} * c.n, c.n * sizeof(float)), 0) << "row " << i;
    EXPECT_EQ(memcmp(state.data(), next_state.data(), next_state.size() * sizeof(float)), 0);
  }
}

}  // namespace
}  // namespace gptq::kernels
