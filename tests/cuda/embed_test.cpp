// SPDX-License-Identifier: Apache-2.0
#include "gpu.h"
#include "kernels/element.h"
#include "tests/seed.h"

namespace gptq::cuda {
namespace {

using kernels::Kind;
using CudaEmbed = GpuTest;

std::vector<kernels::MatrixShape> shapes() {
  std::vector<kernels::MatrixShape> all;
  for (const Kind kind : {Kind::f32, Kind::f16, Kind::bf16})
    for (const uint32_t k : {1u, 63u, 1500u}) all.push_back({kind, 21, k});
  for (const Kind kind : {Kind::q2, Kind::q3, Kind::q4, Kind::q8})
    for (const uint32_t k : {1u, 63u, 64u, 576u, 2100u})
      for (const uint32_t group : {16u, 48u, 64u, 128u, 2112u})
        for (const bool odd : {false, true}) all.push_back({kind, 37, k, group, odd, odd != (group == 64), odd});
  return all;
}

// The same product of the same numbers as the CPU's: no rounding may differ.
TEST_F(CudaEmbed, GivesRowsAsTheyAre) {
  std::mt19937 random(test::seed(7));
  for (const auto& shape : shapes()) {
    const kernels::TestMatrix m(shape, random);
    const std::vector<int32_t> tokens = {0, static_cast<int32_t>(shape.n) - 1, 7, 8, 15, static_cast<int32_t>(random() % shape.n)};
    const uint32_t rows = 6;
    std::vector<float> x(rows * shape.k, NAN);
    Batch batch{};
    batch.tokens = gpu.in(tokens);
    batch.n_rows = rows;
    gpu.table->embed({gpu.in(m), batch, gpu.out(x)}, *gpu.stream);
    gpu.finish();
    for (uint32_t r = 0; r < rows; ++r)
      for (uint32_t column = 0; column < m.w.k_padded; ++column) {
        const int64_t input = m.w.perm ? m.w.perm[column] : column < shape.k ? int64_t{column} : -1;
        if (input < 0) continue;
        ASSERT_EQ(x[r * shape.k + static_cast<uint64_t>(input)], kernels::weight_at(m.w, static_cast<uint32_t>(tokens[r]), column))
            << shape << " row " << tokens[r] << " column " << column;
      }
  }
}

}  // namespace
}  // namespace gptq::cuda
