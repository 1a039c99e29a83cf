// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <vector>

#include "kernels/cuda/ops.h"
#include "kernels/cuda/stream.h"

namespace gptq::cuda {
namespace {

TEST(CudaSelectRows, CopiesRows) {
  const uint32_t n = 300, rows[] = {4, 0};
  std::vector<float> x(5 * n), out(2 * n, -1.0f);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i);
  Stream stream;
  select_rows({x.data(), rows, out.data(), 2, n}, stream);
  for (uint32_t r = 0; r < 2; ++r)
    for (uint32_t i = 0; i < n; ++i) ASSERT_EQ(out[r * n + i], x[rows[r] * n + i]) << r << ' ' << i;
}

}  // namespace
}  // namespace gptq::cuda
