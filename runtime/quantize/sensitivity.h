// SPDX-License-Identifier: Apache-2.0
// What it costs the whole model when some of its matrices are rounded: how far its next-token probabilities are then from what they were
// (KL divergence, mean over tokens).
//
// The model is gone through once, one layer in memory. Each part is rounded as the job will do it, by GPTQ, with what some rows of the
// calibration text tell of its inputs. With the tokens of some other rows go, from each layer on, as many copies of their hidden states as
// parts were rounded so far; at the end all of them meet the head.
#pragma once
#include <span>
#include <vector>

#include "model/weights.h"
#include "quantize/quantize.h"

namespace gptq::quantize {

// Matrices that are rounded together: all of one layer, or the head (which may be the embedding too).
struct Part {
  std::vector<uint32_t> slots;  // among the model's weight_slots
  ModuleOptions asked;          // how they are rounded when their cost is measured
  double cost = 0;
};

// Sets the costs. parts: in the order of their slots.
void measure_costs(const format::Reader& reader, std::span<Part> parts, const Calibration& calibration, const Options& options,
                   const kernels::Kernels& kernels, base::Pool& pool, std::pmr::memory_resource* memory);

}  // namespace gptq::quantize
