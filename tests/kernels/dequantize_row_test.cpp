// SPDX-License-Identifier: Apache-2.0
// dequantize_row: exactly scale * (code - zero), inputs in their true order.
#include "matrices.h"

namespace gptq::kernels {
namespace {

KERNEL_SUITE(dequantize_row, DequantizeRowArgs);

TEST_P(dequantize_row, exact) {
  std::vector<MatrixShape> shapes = matrix_shapes(random);
  for (const Kind kind : {Kind::f32, Kind::f16, Kind::bf16})
    for (const uint32_t k : {1u, 7u, 8u, 37u, 576u}) shapes.push_back({kind, 5, k});
  for (MatrixShape shape : shapes) {
    shape.permuted = is_quantized(shape.kind) && below(2);
    SCOPED_TRACE(testing::PrintToString(shape));
    const TestMatrix w(shape, random);
    for (uint32_t row = 0; row < shape.n; ++row) {
      Guarded<float> out(shape.k);
      run({&w.w, row, out.data()});
      ASSERT_TRUE(out.intact());
      for (uint32_t column = 0; column < w.w.k_padded; ++column) {
        const int input = w.w.perm ? w.perm[column] : static_cast<int>(column);
        if (input < 0 || input >= static_cast<int>(shape.k)) continue;
        ASSERT_EQ(out[static_cast<size_t>(input)], w.weight[size_t{row} * w.w.k_padded + column]) << "row " << row << " column " << column;
      }
    }
  }
}

}  // namespace
}  // namespace gptq::kernels
