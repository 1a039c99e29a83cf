// SPDX-License-Identifier: Apache-2.0
// After GPTQ's one pass over the columns: codes and scales in turn, each the best with all others as they are.
#pragma once
#include "base/memory.h"
#include "quantize/grid.h"
#include "quantize/solver.h"

namespace gptq::quantize {

constexpr uint32_t strip_rows = 32;

// Some rows of a matrix while they are worked on, columns in the order of work.
struct Strip {
  Strip(uint32_t rows, uint32_t k, uint32_t n_groups, std::pmr::memory_resource* memory);
  Grid& grid(uint32_t row, uint32_t group) { return grids[row * n_groups + group]; }
  uint32_t rows, n_groups;
  base::Buffer memory;
  double *target, *wanted, *change, *gradient;  // [rows][k]: w; w and the feedback, then scratch; w^ - w; -(change H)
  double *levels;                               // [rows][k]: scratch
  double *importance, *members;                 // [k]
  float* floats;                                // [k]
  uint8_t* codes;                               // [rows][k]
  Grid* grids;                                  // [rows][n_groups]
};

// Leaves gradient as it is at the end.
void refine(Strip& strip, const Problem& problem, const kernels::Kernels& kernels);

}  // namespace gptq::quantize
