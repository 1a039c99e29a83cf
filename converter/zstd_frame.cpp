// SPDX-License-Identifier: Apache-2.0
#include "converter/zstd_frame.h"

#include <zstd.h>

#include "base/failure.h"

namespace gptq::convert {

std::span<const std::byte> zstd_frame(std::span<const std::byte> raw, std::vector<std::byte>& frame) {
  constexpr int level = 1;  // higher levels gain nothing on packed weights
  frame.resize(ZSTD_compressBound(raw.size()));
  const size_t n = ZSTD_compress(frame.data(), frame.size(), raw.data(), raw.size(), level);
  if (ZSTD_isError(n)) base::fail(GPTQ_E_OUT_OF_MEMORY, "zstd: ", ZSTD_getErrorName(n));
  return {frame.data(), n};
}

}  // namespace gptq::convert
