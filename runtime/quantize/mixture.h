// SPDX-License-Identifier: Apache-2.0
// A budget of bytes divided among a model's matrices: more bits for those whose rounding costs the model most.
//
// What it costs is measured through to the logits (sensitivity.h), with one set of bits; from there to other bits and group sizes it
// changes as the squared error of the weights does. The sum of all that is made as small as the budget allows.
#pragma once
#include <span>
#include <vector>

#include "quantize/quantize.h"

namespace gptq::quantize {

// One way to store a part of a model.
struct Choice {
  uint64_t bytes;
  double cost;
};

// One choice of each part, so that the sum of costs is small and the sum of bytes at most bytes_max; empty where even the smallest are
// too large. Lagrange's way: all parts stop at the same price of a byte; what is left over then is spent where it still fits.
std::vector<uint32_t> allocate(std::span<const std::vector<Choice>> parts, uint64_t bytes_max);

// chosen (by choose_options), with bits and group sizes that keep to options.file_bytes_max or options.mean_bits. Matrices that choose()
// gave settings of their own keep them. The matrices that read one input get the same settings, as fused kernels want it.
std::pmr::vector<ModuleOptions> divide_budget(const format::Reader& reader, std::span<const ModuleOptions> chosen, const Calibration& calibration,
                                              const Options& options, const kernels::Kernels& kernels, base::Pool& pool,
                                              std::pmr::memory_resource* memory);

}  // namespace gptq::quantize
