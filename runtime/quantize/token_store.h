// SPDX-License-Identifier: Apache-2.0
// Floats for every calibration token, in memory or in a file without a name.
#pragma once
#include "base/memory.h"
#include "base/os.h"

namespace gptq::quantize {

class TokenStore {
 public:
  // width: the most floats of a token. folder: where the file is made; empty = in memory.
  TokenStore(uint64_t n_tokens, uint32_t width, std::string_view folder, std::pmr::memory_resource* memory);
  // count floats, at most width a token, from the place of token first on.
  void read(uint64_t first, uint64_t count, float* to) const;
  void write(uint64_t first, uint64_t count, const float* from);

 private:
  uint32_t width_;
  base::Buffer memory_;
  base::os::File file_;
};

}  // namespace gptq::quantize
