// SPDX-License-Identifier: Apache-2.0
// Regular expressions out of configs, as Python's re has them: run by PCRE2, with bounded work.
#pragma once
#include <memory>
#include <string>
#include <string_view>

namespace gptq::convert {

class Pattern {
 public:
  enum class Match { prefix, whole };  // from the text's beginning; the whole text
  // Fails with FORMAT. where names the pattern in messages ("quantization config: the dynamic pattern").
  Pattern(std::string_view pattern, std::string_view where, Match match);
  // Fails with FORMAT where it takes too much work.
  bool matches(std::string_view text) const;

 private:
  struct Free {
    void operator()(void* code) const;
  };
  std::string pattern_, where_;
  std::unique_ptr<void, Free> code_;
};

}  // namespace gptq::convert
