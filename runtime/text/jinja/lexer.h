// SPDX-License-Identifier: Apache-2.0
// A template as tokens, with Jinja's white space control (trim_blocks and lstrip_blocks are on, as for every chat template).
#pragma once
#include <string_view>
#include <vector>

#include "text/jinja/value.h"

namespace gptq::text::jinja {

enum class Lexeme : uint8_t { data, block_begin, block_end, print_begin, print_end, name, string, integer, number, symbol, end };

struct Token {
  Lexeme kind;
  uint32_t at;            // in the template
  std::string_view text;  // in the template: a string with its quotes, data with its line ends as they are
  bool is(std::string_view symbol_or_name) const { return (kind == Lexeme::symbol || kind == Lexeme::name) && text == symbol_or_name; }
};

std::pmr::vector<Token> tokenize(Heap& heap, std::string_view source);

Value read_data(Heap& heap, const Token& token);    // line ends become \n
Value read_string(Heap& heap, const Token& token);  // escapes resolved

}  // namespace gptq::text::jinja
