// SPDX-License-Identifier: Apache-2.0
// zstd's compressor, for the writers of .gptq files.
#pragma once
#include <cstddef>
#include <span>
#include <vector>

namespace gptq::convert {

// A format::MakeFrame.
std::span<const std::byte> zstd_frame(std::span<const std::byte> raw, std::vector<std::byte>& frame);

}  // namespace gptq::convert
