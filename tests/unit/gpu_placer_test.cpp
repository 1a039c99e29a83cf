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

constexpr uint32_t host = model::host_memory;
constexpr uint64_t mib = 1 << 20, room = 512 * mib;  // of which 272 are kept

// "0: 3, host: 5", or what is refused; layers of 10 MiB, 2 of them KV cache.
std::string split_of(uint32_t n_layers, std::initializer_list<Share> shares, uint64_t head = 0, uint64_t embed = 0, bool tied = false) {
  model::ModelSpec spec = spec_of(64);
  spec.n_layers = n_layers;
  spec.layers.resize(n_layers);
  spec.tied_head = tied;
  model::WeightBytes bytes(std::pmr::get_default_resource());
  bytes.layers.assign(n_layers, 8 * mib);
  bytes.head = head;
  bytes.embed = embed;
  std::string text;
  uint32_t next = 0;
  try {
    for (const model::Placement& p : split(spec, bytes, shares, std::pmr::get_default_resource())) {
      EXPECT_EQ(p.first_layer, next);
      EXPECT_GT(p.n_layers(), 0u);
      next = p.end_layer;
      text += (text.empty() ? "" : ", ") + (p.on_host() ? "host" : std::to_string(p.memory)) + ": " + std::to_string(p.n_layers());
    }
  } catch (const base::Failure& failure) {
    EXPECT_EQ(failure.detail.status, GPTQ_E_OUT_OF_DEVICE_MEMORY);
    return failure.detail.message;
  }
  EXPECT_EQ(next, n_layers);
  return text;
}

TEST(Split, AllThatFit) {
  EXPECT_EQ(split_of(20, {}), "host: 20");
  EXPECT_EQ(split_of(20, {{0, 0, room}}), "0: 20");
  EXPECT_EQ(split_of(30, {{0, 0, room}}), "host: 6, 0: 24");
  EXPECT_EQ(split_of(30, {{0, 0, room}}, 25 * mib), "host: 9, 0: 21") << "the head goes with the last layer";
  EXPECT_EQ(split_of(24, {{0, 0, room}}, 0, mib), "host: 1, 0: 23") << "the embedding with the first";
  EXPECT_EQ(split_of(24, {{0, 0, room}}, 0, mib, true), "0: 24") << "which is the head";
  EXPECT_EQ(split_of(4, {{0, 0, 1000}}), "host: 4");
}

TEST(Split, TheSamePartOfEachWhereAllFit) {
  EXPECT_EQ(split_of(24, {{0, 0, room}, {1, 0, room}}), "0: 12, 1: 12");
  EXPECT_EQ(split_of(24, {{0, 0, room}, {1, 0, room}}, 40 * mib), "0: 13, 1: 11");
  EXPECT_EQ(split_of(30, {{0, 0, room}, {1, 0, 2 * room}}), "0: 7, 1: 23");
  EXPECT_EQ(split_of(3, {{2, 0, room}, {1, 0, room}, {0, 0, room}}), "2: 1, 1: 1, 0: 1");
  EXPECT_EQ(split_of(60, {{0, 0, room}, {1, 0, room}}), "host: 12, 0: 24, 1: 24");
}

TEST(Split, TheCpuHasTheRestInItsPlace) {
  EXPECT_EQ(split_of(60, {{0, 0, room}, {host}, {1, 0, room}}), "0: 24, host: 12, 1: 24");
  EXPECT_EQ(split_of(60, {{0, 0, room}, {1, 0, room}, {host}}), "0: 24, 1: 24, host: 12");
  EXPECT_EQ(split_of(60, {{0, 0, room}, {1, 0, room}, {host}}, 500 * mib), "0: 24, 1: 24, host: 12") << "the head is the CPU's then";
  EXPECT_EQ(split_of(20, {{0, 0, room}, {1, 0, room}, {host}}), "0: 10, 1: 10");
  EXPECT_EQ(split_of(20, {{0, 0, room}, {1, 0, room}, {host, 4}}), "0: 8, 1: 8, host: 4");
  EXPECT_EQ(split_of(60, {{0, 0, room}, {1, 0, room}, {host, no_layers}}), "the GPUs have room for 48 of 60 layers that are to go there");
  EXPECT_EQ(split_of(60, {{host, 4}, {1, 0, room}}), "the GPUs have room for 24 of 56 layers that are to go there");
}

TEST(Split, WhatIsSaidHolds) {
  EXPECT_EQ(split_of(20, {{0, 7, 0}, {1, 13, 0}}), "0: 7, 1: 13");
  EXPECT_EQ(split_of(20, {{0, 7, 0}, {1, 0, room}}), "0: 7, 1: 13");
  EXPECT_EQ(split_of(20, {{0, 7, 0}, {1, 5, 0}}), "host: 8, 0: 7, 1: 5");
  EXPECT_EQ(split_of(20, {{0, 100, 0}}), "0: 20");
  EXPECT_EQ(split_of(20, {{0, 15, 0}, {1, 10, 0}}), "0: 10, 1: 10") << "from the last";
  EXPECT_EQ(split_of(20, {{0, no_layers, 0}, {1, 0, room}}), "1: 20");
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
