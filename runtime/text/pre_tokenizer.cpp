// SPDX-License-Identifier: Apache-2.0
// One scanner per splitting pattern. The pattern is in the comment; alternatives are tried in its order.
#include "text/pre_tokenizer.h"

#include <array>

#include "text/unicode/classes.h"
#include "text/utf8.h"

namespace gptq::text {
namespace {

using unicode::Kind;

constexpr std::array<Kind, 128> ascii_kinds = [] {
  std::array<Kind, 128> kinds{};
  for (int c = 0; c < 128; ++c) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool space = c == ' ' || (c >= '\t' && c <= '\r');
    kinds[c] = letter ? Kind::letter : c >= '0' && c <= '9' ? Kind::number : space ? Kind::space : Kind::other;
  }
  return kinds;
}();

struct Step {
  Kind kind;
  uint32_t bytes;
};

inline Step step_at(std::string_view text, size_t at) {
  const auto first = static_cast<unsigned char>(text[at]);
  if (first < 0x80) return {ascii_kinds[first], 1};
  const Character c = character_at(text.data() + at);
  return {unicode::kind(c.code), c.bytes};
}

// Where the run of that kind that holds position at ends.
inline size_t run_end(std::string_view text, size_t at, Kind kind) {
  while (at < text.size()) {
    const Step step = step_at(text, at);
    if (step.kind != kind) break;
    at += step.bytes;
  }
  return at;
}

inline bool is_newline(char c) { return c == '\n' || c == '\r'; }

// \s+(?!\S)|\s+ : the run of white space, less its last character where something follows it.
size_t space_piece(std::string_view text, size_t end) {
  if (end == text.size()) return end;
  const size_t last = last_character(text.substr(0, end));
  return last ? last : end;
}

// One character of a contraction, letter case and U+017F folded if asked for; 0 at the end of the text.
struct Folded {
  char letter;
  uint32_t bytes;
};

Folded folded_at(std::string_view text, size_t at, bool fold) {
  if (at >= text.size()) return {0, 0};
  const char c = text[at];
  if (!fold) return {c, 1};
  if (c >= 'A' && c <= 'Z') return {static_cast<char>(c - 'A' + 'a'), 1};
  if (text.substr(at).starts_with("\xC5\xBF")) return {'s', 2};
  return {c, 1};
}

// 's|'t|'re|'ve|'m|'ll|'d : its length, or 0.
size_t contraction(std::string_view text, bool fold) {
  if (text[0] != '\'') return 0;
  const Folded first = folded_at(text, 1, fold);
  if (first.letter == 's' || first.letter == 't' || first.letter == 'm' || first.letter == 'd') return 1 + first.bytes;
  const Folded second = folded_at(text, 2, fold);
  const bool two = (second.letter == 'e' && (first.letter == 'r' || first.letter == 'v')) || (first.letter == 'l' && second.letter == 'l');
  return two ? 3 : 0;
}

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
size_t gpt2_piece(std::string_view text) {
  if (const size_t length = contraction(text, false)) return length;
  const size_t start = text[0] == ' ' && text.size() > 1 ? 1 : 0;
  const Step first = step_at(text, start);
  if (first.kind != Kind::space) return run_end(text, start + first.bytes, first.kind);
  return space_piece(text, run_end(text, 0, Kind::space));
}

// \s*[\r\n]+|\s+(?!\S)|\s+
size_t line_or_space_piece(std::string_view text) {
  const size_t end = run_end(text, 0, Kind::space);
  for (size_t at = end; at-- > 0;)
    if (is_newline(text[at])) return at + 1;
  return space_piece(text, end);
}

// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,n}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
template <int n_digits>
size_t cl100k_piece(std::string_view text) {
  if (const size_t length = contraction(text, true)) return length;
  const Step first = step_at(text, 0);
  size_t at = first.bytes;
  if (first.kind == Kind::letter) return run_end(text, at, Kind::letter);
  if (first.kind == Kind::number) {
    for (int i = 1; i < n_digits && at < text.size(); ++i) {
      const Step step = step_at(text, at);
      if (step.kind != Kind::number) break;
      at += step.bytes;
    }
    return at;
  }
  const Kind second = at < text.size() ? step_at(text, at).kind : Kind::space;
  if (second == Kind::letter && !is_newline(text[0])) return run_end(text, at, Kind::letter);
  if (first.kind == Kind::space && !(text[0] == ' ' && second == Kind::other)) return line_or_space_piece(text);
  at = run_end(text, at, Kind::other);
  while (at < text.size() && is_newline(text[at])) ++at;
  return at;
}

// Runs of anything but numbers, and numbers one by one or in runs.
template <bool runs>
size_t digits_piece(std::string_view text) {
  size_t at = 0;
  const bool number = step_at(text, 0).kind == Kind::number;
  do {
    const Step step = step_at(text, at);
    if ((step.kind == Kind::number) != number) break;
    at += step.bytes;
  } while (at < text.size() && (runs || !number));
  return at;
}

// Up to the next space.
size_t before_space_piece(std::string_view text) {
  const size_t at = text.find(' ', 1);
  return at == text.npos ? text.size() : at;
}

}  // namespace

Scanner scanner(fb::Split split) {
  switch (split) {
    case fb::Split::gpt2: return gpt2_piece;
    case fb::Split::llama3: return cl100k_piece<3>;
    case fb::Split::qwen2: return cl100k_piece<1>;
    case fb::Split::digits: return digits_piece<false>;
    case fb::Split::digit_runs: return digits_piece<true>;
    case fb::Split::before_space: return before_space_piece;
    case fb::Split::pattern:
    case fb::Split::space_first: break;
  }
  return nullptr;
}

}  // namespace gptq::text
