// SPDX-License-Identifier: Apache-2.0
// Calibration data from files: text, JSON lines, token ids.
#pragma once
#include <memory_resource>
#include <string>
#include <vector>

#include "base/io.h"

namespace gptq::convert {

using CalibrationTokens = std::pmr::vector<int32_t>;

// The files' tokens one after another, until there are `wanted`. model: a .gptq file, whose tokenizer and chat template are used. By
// name: *.jsonl holds objects with "text" or "messages"; *.ids holds token ids separated by commas or white space; all else is text.
CalibrationTokens read_calibration(const std::vector<std::string>& paths, const base::Source& model, uint64_t wanted);

}  // namespace gptq::convert
