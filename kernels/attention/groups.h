// SPDX-License-Identifier: Apache-2.0
// What attention and latent attention do alike: queries in groups that read a block of positions together.
#pragma once
#include "kernels/common.h"

namespace gptq::kernels {
namespace {

constexpr uint32_t queries_together = 64;  // go through a block one group after another, so that all but the first find it in cache

template <uint32_t n>
struct Count {};

constexpr uint32_t clamp(uint32_t x, uint32_t low, uint32_t high) { return x < low ? low : x < high ? x : high; }

}  // namespace
}  // namespace gptq::kernels
