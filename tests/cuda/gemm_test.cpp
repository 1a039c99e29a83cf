// SPDX-License-Identifier: Apache-2.0
// What gemm.h says of cuBLASLt, against the library itself where there is one; its descriptors need no GPU.
#include <gtest/gtest.h>

#include "kernels/cuda/gemm.h"
#include "tests/sanitized.h"

namespace gptq::cuda {
namespace {

TEST(Gemm, LibraryKnowsWhatIsDeclared) {
  lt::Library l{};
  if (!find_cublaslt(&l)) GTEST_SKIP() << "there is no cuBLASLt";
  EXPECT_GT(l.GetVersion(), 10000u);
  lt::Operation* operation = nullptr;
  ASSERT_EQ(l.MatmulDescCreate(&operation, lt::compute_f32, lt::f32), 0);
  EXPECT_EQ(l.MatmulDescSetAttribute(operation, lt::transpose_a, &lt::transposed, sizeof lt::transposed), 0);
  lt::Layout* layout = nullptr;
  ASSERT_EQ(l.MatrixLayoutCreate(&layout, lt::f16, 64, 64, 64), 0);
  const uint64_t number = 128;
  for (const int attribute : {lt::layout_rows, lt::layout_columns, lt::layout_stride}) {
    EXPECT_EQ(l.MatrixLayoutSetAttribute(layout, attribute, &number, sizeof number), 0);
    EXPECT_NE(l.MatrixLayoutSetAttribute(layout, attribute, &number, 4), 0) << "it looks at the size";
  }
  lt::Preference* preference = nullptr;
  ASSERT_EQ(l.MatmulPreferenceCreate(&preference), 0);
  EXPECT_EQ(l.MatmulPreferenceSetAttribute(preference, lt::workspace_max, &number, sizeof number), 0);
  for (const int attribute : {lt::reductions, lt::alignment_a, lt::alignment_b, lt::alignment_c, lt::alignment_d})
    EXPECT_EQ(l.MatmulPreferenceSetAttribute(preference, attribute, &lt::reduction_in_workspace, 4), 0);
  l.MatmulPreferenceDestroy(preference);
  l.MatrixLayoutDestroy(layout);
  l.MatmulDescDestroy(operation);
}

TEST(Gemm, WithoutAGpuItIsNotOpen) {
#ifdef GPTQ_SANITIZED
  GTEST_SKIP() << "cublasLtCreate leaks where there is no driver";
#endif
  lt::Library l{};
  if (!find_cublaslt(&l)) GTEST_SKIP() << "there is no cuBLASLt";
  Gemm gemm;
  if (gemm.open(l, 90)) GTEST_SKIP() << "there is a GPU";
  EXPECT_FALSE(gemm.is_open());
  EXPECT_EQ(gemm.version(), 0u);
  EXPECT_EQ(gemm.take_status(), 0);
}

}  // namespace
}  // namespace gptq::cuda
