// SPDX-License-Identifier: Apache-2.0
// Text to token ids and back, from the compiled tokenizer section of a model file (tokenizer.fbs).
#pragma once
#include <cstdint>
#include <memory_resource>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace gptq::text {

struct ByteRange {
  size_t begin, end;
};

struct EncodeOptions {
  bool add_bos = false;        // add BOS/EOS where the model's own tokenizer does
  bool parse_special = false;  // special tokens written in the text are honoured,
  std::span<const ByteRange> plain{};  // but not where they touch one of these; rising. The text must be valid UTF-8 then.
};

// Immutable once made; any number of threads may use it.
class Tokenizer {
 public:
  // blob: the section's bytes, which must outlive the tokenizer. Checks everything; fails with FORMAT or UNSUPPORTED.
  Tokenizer(std::span<const std::byte> blob, uint32_t n_vocab, std::pmr::memory_resource* memory);
  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;

  // Appends to out, whose memory the call works in too. Linear in the text up to a logarithm, whatever the text; bytes that are no UTF-8 are U+FFFD as in HF tokenizers.
  void encode(std::string_view text, EncodeOptions options, std::pmr::vector<int32_t>& out) const;

  // The bytes a token adds to the text ("" for ids without text). Special tokens have theirs too: the caller decides whether to show them.
  std::string_view token_bytes(int32_t id) const;
  uint32_t attributes(int32_t id) const;  // GPTQ_TOKEN_*, without END
  // Whether the first token of a text loses its leading space when decoded (SentencePiece's dummy prefix).
  bool strips_leading_space() const;
  int32_t bos() const;  // -1 = none
  int32_t eos() const;

 private:
  struct Impl;
  Impl* impl_;
};

// Appends tokens of a long text until there are `wanted` or more: in pieces that end behind a line where there is one.
void encode_enough(const Tokenizer& tokenizer, std::string_view text, size_t wanted, std::pmr::vector<int32_t>& out);

}  // namespace gptq::text
