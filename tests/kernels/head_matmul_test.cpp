// SPDX-License-Identifier: Apache-2.0
// head_matmul against float64, and that a row's numbers do not depend on the others.
#include "kernel_test.h"
#include "kernels/half.h"

namespace gptq::kernels {
namespace {

KERNEL_SUITE(head_matmul, HeadMatmulArgs);

// Weights of any kind, and what they are.
struct Weights {
  std::vector<uint16_t> halves;
  std::vector<float> values;
  Weights(std::vector<float> w, Kind kind) : values(std::move(w)) {
    if (kind == Kind::f32) return;
    for (float& x : values) {
      halves.push_back(kind == Kind::f16 ? half_from_float(x) : bf16_from_float(x));
      x = kind == Kind::f16 ? float_from_half(halves.back()) : float_from_bf16(halves.back());
    }
  }
  const void* data() const { return halves.empty() ? static_cast<const void*>(values.data()) : halves.data(); }
};

TEST_P(head_matmul, matches_float64) {
  const uint32_t sizes[] = {1, 3, 4, 8, 16, 20, 37, 64, 100, 128, 512, 600};
  for (int round = 0; round < 60; ++round) {
    const Kind kind = static_cast<Kind>(below(3));
    const uint32_t n = sizes[below(12)], k = sizes[below(12)], heads = 1 + below(5), ms[] = {1, 2, 3, 4, 7, 9, 33}, m = ms[below(7)];
    SCOPED_TRACE(testing::Message() << "n " << n << " k " << k << " heads " << heads << " m " << m << " kind " << static_cast<int>(kind));
    const Weights w(floats(size_t{heads} * n * k), kind);
    const uint64_t x_head = k + below(5), x_stride = heads * x_head + below(7), y_head = n + below(5), y_stride = heads * y_head + below(7);
    const std::vector<float> x = floats(m * x_stride);
    Guarded<float> y(m * y_stride), one(y.size());
    HeadMatmulArgs args = {.kind = kind,
                           .w = w.data(),
                           .x = x.data(),
                           .y = y.data(),
                           .x_stride = x_stride,
                           .x_head_stride = x_head,
                           .y_stride = y_stride,
                           .y_head_stride = y_head,
                           .m = m,
                           .n = n,
                           .k = k,
                           .first_head = heads / 2,
                           .last_head = heads};
    run(args);
    ASSERT_TRUE(y.intact());
    for (uint32_t i = 0; i < m; ++i)
      for (uint64_t j = 0; j < y_stride; ++j) {
        const uint64_t head = j / y_head, row = j % y_head;
        if (head < heads / 2 || head >= heads || row >= n) {
          ASSERT_TRUE(Guarded<float>::poisoned(y[i * y_stride + j])) << j;
          continue;
        }
        double right = 0;
        for (uint32_t c = 0; c < k; ++c) right += double{w.values[(head * n + row) * k + c]} * x[i * x_stride + head * x_head + c];
        ASSERT_NEAR(y[i * y_stride + j], right, 2e-6 * std::sqrt(k)) << "token " << i << " head " << head << " row " << row;
      }
    args.m = 1;
    for (uint32_t i = 0; i < m; ++i) {
      args.x = x.data() + i * x_stride;
      args.y = one.data() + i * y_stride;
      run(args);
    }
    ASSERT_TRUE(y == one);
  }
}

}  // namespace
}  // namespace gptq::kernels
