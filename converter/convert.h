// SPDX-License-Identifier: Apache-2.0
// Any source -> a .gptq file, one tensor at a time.
#pragma once
#include <functional>
#include <string_view>

#include "converter/source.h"
#include "format/container.h"

namespace gptq::convert {

struct ConvertOptions {
  bool replace = false;
  format::Compression codes = format::Compression::stored;  // quantized codes; what comes with them is small and always zstd
  uint32_t head_bits = 16;  // a floating head, and a tied embedding, rounded to 8 or 4
  std::function<void(uint64_t done, uint64_t total)> progress = [](uint64_t, uint64_t) {};  // in weights
};

struct ConvertResult {
  uint64_t bytes = 0, n_tensors = 0, n_weights = 0;
};

// The file appears whole or not at all.
ConvertResult convert(ModelSource& source, std::string_view path, const ConvertOptions& options);

}  // namespace gptq::convert
