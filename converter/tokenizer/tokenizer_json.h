// SPDX-License-Identifier: Apache-2.0
// The parts of tokenizer.json.
#pragma once
#include <string_view>
#include <unordered_map>

#include "converter/tokenizer/description.h"
#include "converter/tokenizer/json_fields.h"

namespace gptq::convert {

using TokenIds = std::unordered_map<std::string_view, uint32_t>;

TokenizerDescription from_tokenizer_json(JsonFields root);

// Normalizer, pre-tokenizer, decoder and post-processor. Each fails with UNSUPPORTED and the name of what it does not know.
void read_normalizer(JsonFields root, TokenizerDescription& out);
void read_pre_tokenizer(JsonFields root, TokenizerDescription& out);
void read_decoder(JsonFields root, TokenizerDescription& out);
void read_post_processor(JsonFields root, TokenizerDescription& out);

// Grows the list of tokens as needed, up to ids_max. Fails with FORMAT.
TokenizerDescription::Token& token_at(TokenizerDescription& out, uint32_t id);
// An entry of "added_tokens", or of tokenizer_config.json's "added_tokens_decoder".
void add_token(Json entry, uint32_t id, TokenizerDescription& out);

}  // namespace gptq::convert
