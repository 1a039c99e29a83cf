// SPDX-License-Identifier: Apache-2.0
// A tokenizer as every importer describes it, before it is compiled into a section of the model file.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer_file.h"

namespace gptq::convert {

struct NamedToken {
  int32_t id = -1;  // -1 = none
  std::string text;
};

// A splitting step that is compiled to a table.
struct PatternStep {
  std::string source;  // as it stands in tokenizer.json
  text::fb::Sight sight = text::fb::Sight::characters;
};

struct TokenizerDescription {
  static constexpr size_t id_gap_max = 16384;  // ids that no entry has: a small file cannot ask for a large table
  struct Token {
    std::string text;     // the bytes it stands for
    bool symbol = false;  // merges may start from its text or end in it
    bool byte = false;    // <0x..> of byte fallback
    bool special = false;
  };
  struct Added {  // found in the text before all else
    uint32_t id;
    std::string text;
    bool lstrip = false, rstrip = false, normalized = false;
  };

  text::fb::Alphabet alphabet = text::fb::Alphabet::bytes;
  std::vector<Token> tokens;
  size_t ids_max = id_gap_max;  // what the file's entries are enough for; see token_at()
  std::vector<text::Merge> merges;  // the most urgent first
  std::vector<Added> added;
  bool nfc = false, trim_spaces = false, mark_spaces_first = false;
  text::fb::Prefix prefix = text::fb::Prefix::none;
  std::vector<text::fb::Split> splits;
  std::vector<PatternStep> patterns;  // of those splits that are Split::pattern, in order
  std::string pre_tokenizer;          // as it stands in tokenizer.json, where the splits alone cannot say it
  bool byte_fallback = false, fuse_unk = false, ignore_merges = false;
  int32_t unknown = -1;                 // what text without a token becomes; -1 = nothing
  std::vector<uint32_t> before, after;  // what the tokenizer adds around a text
  bool strips_leading_space = false;
  NamedToken bos, eos, pad, unk;        // as chat templates name them
};

// The bytes of the section "tokenizer". Fails with UNSUPPORTED where the description passes the format's limits.
std::vector<uint8_t> compile_tokenizer(const TokenizerDescription& tokenizer);
// From the section's bytes: a description that compiles to them again. Of the named tokens it has bos and eos alone.
TokenizerDescription decompile_tokenizer(std::span<const std::byte> section, uint32_t n_vocab);

// The text by which Hugging Face's files name a token; "" where they cannot.
std::string token_key(const TokenizerDescription& tokenizer, uint32_t id);
// The whole of a tokenizer.json. Fails with UNSUPPORTED where the format cannot say it.
std::string write_tokenizer_json(const TokenizerDescription& tokenizer);

}  // namespace gptq::convert
