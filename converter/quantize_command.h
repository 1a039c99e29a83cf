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
  uint32_t head_bits = 0, rows = 128, row_tokens = 0, threads = 0;  // head_bits 0: as suits the model
  int32_t group_size = 0;   // 0 = 128, or with a budget as suits it
  double bits = 4;          // 2, 3, 4 or 8; others are a budget: the mean
  double damp = 0.01, first_token_weight = 0;
  uint64_t file_bytes_max = 0;
  bool asymmetric = false, desc_act = false, static_groups = false, force = false, dry_run = false;
  uint64_t memory_max = 0;  // bytes; 0 = no limit
};

void add_quantize_options(CLI::App& command, QuantizeArguments& arguments);
void run_quantize(const QuantizeArguments& arguments);

}  // namespace gptq::convert
