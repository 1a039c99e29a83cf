// SPDX-License-Identifier: Apache-2.0
// What a folder says beside its weights: recommended generation settings, the chat template, name and license.
#pragma once
#include "converter/json.h"
#include "converter/source.h"

namespace gptq::convert {

format::fb::GenerationT read_generation(const std::string& folder, const JsonObject& config, uint32_t n_vocab, const Options& options);
// "" where the folder has none.
std::string read_chat_template(const std::string& folder, const Options& options);
// The license of README.md's front matter, or "".
std::string read_license(const std::string& folder);
// The last part of the folder's real path.
std::string folder_name(const std::string& folder);

}  // namespace gptq::convert
