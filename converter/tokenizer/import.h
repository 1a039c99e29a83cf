// SPDX-License-Identifier: Apache-2.0
// The face of tokenizer importers.
#pragma once
#include <filesystem>
#include <optional>

#include "converter/tokenizer/description.h"

namespace gptq::convert {

// The tokenizer of a Hugging Face folder: tokenizer.json, else Mistral's tekken.json, else tokenizer.model, else a tiktoken file, else
// vocab.json and merges.txt, all but the first with added_tokens.json, all with tokenizer_config.json and special_tokens_map.json. Nothing
// where the folder has none. Fails with UNSUPPORTED and the name of what is not supported.
std::optional<TokenizerDescription> import_tokenizer(const std::filesystem::path& folder);

// The keys tokenizer.ggml.* of a GGUF file, under their names.
struct GgufVocabulary {
  std::string model, pre;
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<int32_t> token_types;
  std::vector<std::string> merges;
  int32_t bos = -1, eos = -1, unk = -1, pad = -1;
  std::optional<bool> add_bos, add_eos, add_space_prefix, remove_extra_whitespaces;
};
TokenizerDescription from_gguf_vocabulary(const GgufVocabulary& vocabulary);

}  // namespace gptq::convert
