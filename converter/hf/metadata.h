// SPDX-License-Identifier: Apache-2.0
// What a folder says beside its weights: recommended generation settings, the chat template, name and license.
#pragma once
#include "converter/end_tokens.h"
#include "converter/json.h"
#include "converter/source.h"

namespace gptq::convert {

// ends: gets what the two configs name.
format::fb::GenerationT read_generation(const std::string& folder, const JsonObject& config, uint32_t n_vocab, const Options& options,
                                        EndTokens& ends);
// Names and templates, the default one named "".
using ChatTemplates = std::vector<std::pair<std::string, std::string>>;
ChatTemplates read_chat_templates(const std::string& folder, const Options& options);
// The license of README.md's front matter, or "".
std::string read_license(const std::string& folder);
// The last part of the folder's real path.
std::string folder_name(const std::string& folder);

}  // namespace gptq::convert
