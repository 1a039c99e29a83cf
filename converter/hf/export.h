// SPDX-License-Identifier: Apache-2.0
// A .gptq file -> a Hugging Face folder: GPTQ where the weights are quantized, plain safetensors where they are not.
#pragma once
#include <functional>
#include <string>
#include <string_view>

#include "base/io.h"

namespace gptq::convert {

// How zero points are stored: v1 as zero - 1, v2 as they are. automatic: v1 where all is symmetric, which every reader knows, else v2.
enum class ZerosFormat { automatic, v1, v2 };

struct ExportOptions {
  ZerosFormat zeros = ZerosFormat::automatic;
  bool replace = false;
  uint64_t shard_bytes = 5'000'000'000;
  std::function<void(std::string_view)> warn = [](std::string_view) {};
  std::function<void(uint64_t done, uint64_t total)> progress = [](uint64_t, uint64_t) {};  // in weights; may throw to stop
};

struct ExportResult {
  uint64_t bytes = 0;  // of tensors
  size_t n_files = 0, n_tensors = 0, n_quantized = 0;
};

// The folder appears whole or not at all.
ExportResult export_hf(const base::Source& file, std::string_view folder, const ExportOptions& options);

}  // namespace gptq::convert
