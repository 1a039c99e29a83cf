// SPDX-License-Identifier: Apache-2.0
// The characters of a regular expression, one after the other, and the classes among them.
#pragma once
#include <optional>
#include <string_view>

#include "converter/tokenizer/regex/set.h"

namespace gptq::convert::regex {

class Input {
 public:
  explicit Input(std::string_view pattern);
  bool at_end() const { return at_ == pattern_.size(); }
  uint32_t peek() const;  // 0 at the end
  uint32_t next();        // fails at the end
  bool take(char c);
  bool take(std::string_view text);
  std::optional<uint32_t> number();  // decimal
  uint32_t hex(size_t digits_max);
  std::string_view up_to(char end);  // and over it
  size_t place() const { return at_; }
  void go_to(size_t place) { at_ = place; }
  [[noreturn]] void refuse(std::string_view what) const;

 private:
  std::string_view pattern_;
  size_t at_ = 0;
};

// Behind the opening bracket: up to the closing bracket.
Set read_class(Input& in, bool ignore_case);
// Behind a backslash: a class as \s, or a character.
Set read_escape(Input& in);

}  // namespace gptq::convert::regex
