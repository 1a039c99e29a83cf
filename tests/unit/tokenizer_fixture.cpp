// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/tokenizer_fixture.h"

#include "text/utf8.h"

namespace gptq::test {
namespace {

// GPT-2's alphabet.
std::string printable(std::string_view bytes) {
  std::pmr::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    const auto plain = [](unsigned b) { return (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE; };
    uint32_t code = byte;
    if (!plain(byte)) {
      code = 0x100;
      for (unsigned b = 0; b < byte; ++b) code += !plain(b);
    }
    text::append_utf8(code, text);
  }
  return std::string(text);
}

std::string with_marks(std::string_view text) {
  std::string out;
  for (const char c : text) c == ' ' ? out += "\xE2\x96\x81" : out += c;
  return out;
}

}  // namespace

convert::GgufVocabulary gguf_of(const convert::TokenizerDescription& t) {
  const bool bytes = t.alphabet == text::fb::Alphabet::bytes;
  convert::GgufVocabulary v;
  v.model = bytes ? "gpt2" : "llama";
  v.pre = "smollm";
  for (size_t id = 0; id < t.tokens.size(); ++id) {
    const auto& token = t.tokens[id];
    constexpr char digits[] = "0123456789ABCDEF";
    const auto value = static_cast<unsigned char>(token.text.empty() ? 0 : token.text[0]);
    std::string text = token.special ? token.text : bytes ? printable(token.text) : with_marks(token.text);
    if (token.byte) text = std::string("<0x") + digits[value / 16] + digits[value % 16] + ">";
    v.tokens.push_back(text);
    v.scores.push_back(-static_cast<float>(id));
    v.token_types.push_back(token.special ? 3 : token.byte ? 6 : 1);
  }
  for (const text::Merge& merge : t.merges) v.merges.push_back(v.tokens[merge.left] + " " + v.tokens[merge.right]);
  v.bos = t.bos.id;
  v.eos = t.eos.id;
  return v;
}

}  // namespace gptq::test
