// SPDX-License-Identifier: Apache-2.0
// A byte for the kind of file, then a vocabulary: tokenizer.json, tokenizer.model, ranks of tiktoken or tekken.json. What compiles splits a text, and its tokens
// give back text; what it is decompiled to compiles to the same bytes.
#include <span>
#include <string_view>
#include <vector>

#include "base/failure.h"
#include "converter/json.h"
#include "converter/tokenizer/description.h"
#include "converter/tokenizer/tiktoken.h"
#include "converter/tokenizer/tokenizer_json.h"
#include "converter/tokenizer/tokenizer_model.h"
#include "tests/fuzz/target.h"
#include "text/tokenizer.h"

using namespace gptq;

FUZZ_TARGET(tokenizer) {
  if (!size) return;
  const std::string_view file(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    convert::TokenizerDescription description;
    switch (data[0] % 5) {
      case 0: description = convert::from_tokenizer_json(convert::JsonDocument("tokenizer.json", file).root().fields()); break;
      case 1: description = convert::from_tokenizer_model(file, data[0] & 32, data[0] & 64); break;
      case 2: description = convert::from_tiktoken(file, "QWenTokenizer"); break;
      case 3: description = convert::from_tiktoken(file, "TikTokenTokenizer"); break;
      case 4: description = convert::from_tekken(convert::JsonDocument("tekken.json", file).root().fields()); break;
    }
    const std::vector<uint8_t> section = convert::compile_tokenizer(description);
    const auto n_vocab = static_cast<uint32_t>(description.tokens.size());
    const text::Tokenizer tokenizer(std::as_bytes(std::span(section)), n_vocab, std::pmr::get_default_resource());
    for (const bool special : {false, true}) {
      std::pmr::vector<int32_t> tokens;
      tokenizer.encode("  ab <s>\u00e4 abab,\n 12 b\xff\xf0\x9f\x98\x80", {.add_bos = special, .parse_special = special}, tokens);
      for (const int32_t token : tokens) {
        if (token < 0 || static_cast<uint32_t>(token) >= n_vocab) __builtin_trap();
        tokenizer.token_bytes(token);
      }
    }
    if (convert::compile_tokenizer(convert::decompile_tokenizer(std::as_bytes(std::span(section)), n_vocab)) != section) __builtin_trap();
  } catch (const base::Failure&) {
  }
}
