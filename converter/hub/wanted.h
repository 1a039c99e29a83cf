// SPDX-License-Identifier: Apache-2.0
// Which of a repository's files a conversion reads. Never pickles, ONNX, or copies in folders of their own.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace gptq::convert::hub {

// Configs, tokenizer, chat templates.
bool is_description(std::string_view file);
// The safetensors files, of all names that the repository has. folder: where the descriptions lie, with the indexes.
std::vector<std::string> weight_files(const std::string& folder, const std::vector<std::string>& names);

}  // namespace gptq::convert::hub
