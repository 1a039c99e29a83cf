// SPDX-License-Identifier: Apache-2.0
// What a .gptq file holds, and whether all of it is sound.
#pragma once
#include <string>

#include "base/io.h"

namespace gptq::convert {

// The facts of a file, read from its manifest (and tokenizer): as lines for people, or as one JSON object of sections.
std::string inspect(const base::Source& file, bool as_json);

struct Verified {
  uint64_t n_tensors, n_chunks, bytes;
};
// Reads, hashes and decodes every byte and checks everything that loading checks, and more; fails at the first fault.
Verified verify(const base::Source& file);

}  // namespace gptq::convert
