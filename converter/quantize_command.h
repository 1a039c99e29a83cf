// SPDX-License-Identifier: Apache-2.0
// gptq-convert quantize: its options, and the C API's gptq_quantize behind them.
#pragma once
#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace gptq::convert {

struct QuantizeArguments {
  std::string source, target, mode = "default", order = "group-aware", report, dynamic;
  bool aim = false;
  std::vector<std::string> calibration, keep;
  uint32_t bits = 4, head_bits = 16, rows = 128, row_tokens = 0, threads = 0;
  int32_t group_size = 128;
  double damp = 0.01, first_token_weight = 0;
  bool asymmetric = false, desc_act = false, static_groups = false, force = false, dry_run = false;
  uint64_t memory_max = 0;  // bytes; 0 = no limit
};

void add_quantize_options(CLI::App& command, QuantizeArguments& arguments);
void run_quantize(const QuantizeArguments& arguments);

}  // namespace gptq::convert
