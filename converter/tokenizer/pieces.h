// SPDX-License-Identifier: Apache-2.0
// Vocabularies in SentencePiece's manner, which tokenizer.model and GGUF files carry.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "converter/tokenizer/description.h"

namespace gptq::convert {

struct Piece {
  // As sentencepiece_model.proto numbers them, and GGUF too.
  enum Type { normal = 1, unknown, control, user_defined, unused, byte };
  std::string text;
  float score = 0;
  int type = normal;
};

// A token written as SentencePiece does: U+2581 for a space, <0x..> for a byte.
TokenizerDescription::Token token_of_piece(std::string_view text);

// U+2581 as the space that it stands for.
std::string without_marks(std::string_view text);

// Tokens, merges and added tokens of a BPE vocabulary.
TokenizerDescription from_pieces(const std::vector<Piece>& pieces);

}  // namespace gptq::convert
