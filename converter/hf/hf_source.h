// SPDX-License-Identifier: Apache-2.0
// The importer of Hugging Face folders.
#pragma once
#include "converter/source.h"

namespace gptq::convert {

std::unique_ptr<ModelSource> open_hf_folder(const std::string& folder, const Options& options);

}  // namespace gptq::convert
