// SPDX-License-Identifier: Apache-2.0
// Calibration text that the model writes itself.
#pragma once
#include <memory_resource>
#include <vector>

#include "gptq/gptq.h"

namespace gptq::api {

// rows * row_tokens tokens: every row begins with the token that begins a text and is sampled at temperature 1; where a text ends within
// a row, the next one begins. The same for the same file, whatever the threads. progress as in gptq_quantize, phase SAMPLE.
std::pmr::vector<int32_t> sample_rows(gptq_runtime& rt, const gptq_source& source, uint32_t rows, uint32_t row_tokens,
                                      gptq_progress_fn progress, void* user, std::pmr::memory_resource* memory);

}  // namespace gptq::api
