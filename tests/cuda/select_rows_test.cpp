// SPDX-License-Identifier: Apache-2.0
#include "gpu.h"

namespace gptq::cuda {
namespace {

using CudaSelectRows = GpuTest;

TEST_F(CudaSelectRows, CopiesRows) {
  const uint32_t n = 300;
  const std::vector<uint32_t> rows = {4, 0};
  std::vector<float> x(5 * n), out(2 * n, NAN);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i);
  gpu.table->select_rows({gpu.in(x), gpu.in(rows), gpu.out(out), 2, n}, *gpu.stream);
  gpu.finish();
  for (uint32_t r = 0; r < 2; ++r)
    for (uint32_t i = 0; i < n; ++i) ASSERT_EQ(out[r * n + i], x[rows[r] * n + i]) << r << ' ' << i;
}

}  // namespace
}  // namespace gptq::cuda
