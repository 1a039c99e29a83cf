// SPDX-License-Identifier: Apache-2.0
// Calibration data from files: text, JSON lines, token ids.
#pragma once
#include <memory_resource>
#include <string>
#include <vector>

#include "base/io.h"

namespace gptq::convert {

using CalibrationTokens = std::pmr::vector<int32_t>;

struct Calibration {
  CalibrationTokens tokens;             // rows one after another
  std::vector<uint64_t> of_file;        // tokens that each file gave
};

// As many rows of that many tokens as there are, at most `rows`. Of several files one row each in turn, as long as they have whole ones, and
// then what is left of them. model: a .gptq file, whose tokenizer and chat template are used. By name, in any case: *.jsonl holds objects with
// "text" or "messages", *.json the same or a list of them, *.ids token ids separated by commas or white space; all else is text.
Calibration read_calibration(const std::vector<std::string>& paths, const base::Source& model, uint32_t rows, uint32_t row_tokens);

}  // namespace gptq::convert
