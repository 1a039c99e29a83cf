// SPDX-License-Identifier: Apache-2.0
// What the quantizer is asked to do, and what it says about each module.
#pragma once
#include <cstdint>
#include <string>

namespace gptq::quantize {

enum class Order : uint8_t {
  group_aware,  // most important columns of a group first, then the next group: costs inference nothing
  natural,      // as they stand
  act_order     // most important columns first, groups formed along the way (or before: static_groups)
};

struct ModuleOptions {
  uint32_t bits = 4;         // 2, 3, 4, 8; 0 = leave it as it is
  int32_t group_size = 128;  // inputs that share a scale; -1 = all
  bool symmetric = true, static_groups = false;
  Order order = Order::group_aware;
  double damp = 0.01;        // of the mean of the Hessian's diagonal
  bool operator==(const ModuleOptions&) const = default;
};

// What became of one module.
struct ModuleReport {
  std::string name;          // "layers.0.q"
  ModuleOptions options;
  uint32_t n = 0, k = 0;
  uint64_t n_tokens = 0;     // that its Hessian was made from
  double error = 0;          // of its output on the calibration tokens, squared, as a fraction of the output
  double damp = 0;           // used
  double seconds = 0;
  uint32_t dead_inputs = 0;  // that were 0 for every token
  bool rounded = false;      // to nearest: no damping made the Hessian solvable
  bool all_tokens = false;   // of an expert that too few reach: calibrated with the tokens of all
};

}  // namespace gptq::quantize
