// SPDX-License-Identifier: Apache-2.0
// A model with an adapter's part in its weights.
#pragma once
#include <string_view>

#include "base/io.h"

namespace gptq::convert {

// Writes the model anew at path, every changed matrix W + scale * B A, worked out in float64 and kept in its own kind. Fails with UNSUPPORTED
// where such a matrix is quantized.
void merge_lora(const base::Source& model, const base::Source& adapter, double scale, std::string_view path, base::AtomicFile::IfExists if_exists);

}  // namespace gptq::convert
