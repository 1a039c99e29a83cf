// SPDX-License-Identifier: Apache-2.0
// Rounding without a look at the inputs, with the best scale of each group.
#pragma once
#include "base/memory.h"
#include "base/threads.h"
#include "kernels/kernels.h"
#include "quantize/options.h"

namespace gptq::quantize {

// What the codes of w [n][k] stand for: floats [n][k].
base::Buffer round_to_nearest(const kernels::Matrix& w, const ModuleOptions& options, const kernels::Kernels& kernels, base::Pool& pool,
                              std::pmr::memory_resource* memory);

// The squared error of that for each of the settings; by some of the rows.
std::vector<double> nearest_errors(const kernels::Matrix& w, std::span<const ModuleOptions> settings, const kernels::Kernels& kernels,
                                   base::Pool& pool, std::pmr::memory_resource* memory);

}  // namespace gptq::quantize
