// SPDX-License-Identifier: Apache-2.0
// tokenizer.model: a SentencePiece model.
#pragma once
#include <string_view>

#include "converter/tokenizer/description.h"

namespace gptq::convert {

// legacy: a space goes before every stretch of text between special tokens, not only before the first (Hugging Face's switch of that name).
TokenizerDescription from_tokenizer_model(std::string_view bytes, bool legacy, bool add_prefix_space);

}  // namespace gptq::convert
