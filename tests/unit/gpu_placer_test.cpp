// SPDX-License-Identifier: Apache-2.0
// Which models' layers go to a GPU: those that its kernels can do, and no others.
#include "api/gpu_placer.h"

#include "base/failure.h"
#include "gtest/gtest.h"
#include "kernels/gpu/ops.h"

namespace gptq::api {
namespace {

// "" where it is taken.
std::string refusal(const model::ModelSpec& spec, gptq_status* status) {
  model::WeightBytes bytes(std::pmr::get_default_resource());
  bytes.layers.assign(spec.n_layers, 1000);
  *status = GPTQ_OK;
  try {
    const Share share{0, 1000, 1 << 30};
    const auto placements = split(spec, bytes, {&share, 1}, std::pmr::get_default_resource());
    EXPECT_EQ(placements.size(), 1u);
    EXPECT_EQ(placements[0].n_layers(), spec.n_layers);
  } catch (const base::Failure& failure) {
    *status = failure.detail.status;
    return failure.detail.message;
  }
  return "";
}

model::ModelSpec spec_of(uint32_t head_dim) {
  model::ModelSpec spec(std::pmr::get_default_resource());
  spec.n_layers = 2;
  spec.layers.resize(2);
  spec.n_heads = 4;
  spec.n_kv_heads = 2;
  spec.head_dim = head_dim;
  spec.n_ctx_train = 4096;
  return spec;
}

TEST(GpuPlacer, HeadsThatTheKernelsCannotDoAreRefusedByName) {
  gptq_status status;
  for (const uint32_t head_dim : {2u, 34u, 64u, 128u, 256u}) EXPECT_EQ(refusal(spec_of(head_dim), &status), "") << head_dim;
  for (const uint32_t head_dim : {65u, 127u, 258u, 320u, 512u}) {
    EXPECT_NE(refusal(spec_of(head_dim), &status).find("heads of " + std::to_string(head_dim)), std::string::npos);
    EXPECT_EQ(status, GPTQ_E_UNSUPPORTED);
  }
  static_assert(gpu::head_dim_max == 256, "what attention's kernels are made for");
}

TEST(GpuPlacer, OnTheCpuAnyHeadsAre) {
  model::WeightBytes bytes(std::pmr::get_default_resource());
  bytes.layers.assign(2, 1000);
  const Share share{0, no_layers, 1 << 30};
  const auto placements = split(spec_of(320), bytes, {&share, 1}, std::pmr::get_default_resource());
  EXPECT_TRUE(all_on_host(placements));
  EXPECT_EQ(placements[0].n_layers(), 2u);
}

}  // namespace
}  // namespace gptq::api
