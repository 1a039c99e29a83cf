// SPDX-License-Identifier: Apache-2.0
// The importer of GGUF files.
#pragma once
#include "base/io.h"
#include "converter/source.h"

namespace gptq::convert {

std::unique_ptr<ModelSource> open_gguf(std::string_view path, const Options& options);
// The same from any source of bytes; name is for messages and metadata.
std::unique_ptr<ModelSource> open_gguf(std::unique_ptr<const base::Source> bytes, std::string_view name, const Options& options);

}  // namespace gptq::convert
