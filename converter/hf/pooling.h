// SPDX-License-Identifier: Apache-2.0
// What the files of sentence-transformers say of a model for embeddings.
#pragma once
#include <string>

#include "converter/source.h"

namespace gptq::convert {

struct Pooling {
  std::string kind;  // "last", "mean" or, where nothing is said or what is not supported, ""
  bool normalize = false;
};
// Warns of what is not supported.
Pooling read_pooling(const std::string& folder, const Options& options);

}  // namespace gptq::convert
