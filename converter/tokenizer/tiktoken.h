// SPDX-License-Identifier: Apache-2.0
// Vocabularies of the package tiktoken: a line a token, its bytes in base64 and its rank; and Mistral's tekken.json, which has the same
// in JSON, with its pattern and its special tokens.
#pragma once
#include <string_view>

#include "converter/tokenizer/description.h"
#include "converter/tokenizer/json_fields.h"

namespace gptq::convert {

bool is_tiktoken(std::string_view file);
// kind: tokenizer_config.json's tokenizer_class, by which the splitting pattern and the special tokens are known.
TokenizerDescription from_tiktoken(std::string_view file, std::string_view kind);
TokenizerDescription from_tekken(JsonFields root);

}  // namespace gptq::convert
