// SPDX-License-Identifier: Apache-2.0
// Vocabularies of the package tiktoken: a line a token, its bytes in base64 and its rank.
#pragma once
#include <string_view>

#include "converter/tokenizer/description.h"

namespace gptq::convert {

bool is_tiktoken(std::string_view file);
// kind: tokenizer_config.json's tokenizer_class, by which the splitting pattern and the special tokens are known.
TokenizerDescription from_tiktoken(std::string_view file, std::string_view kind);

}  // namespace gptq::convert
