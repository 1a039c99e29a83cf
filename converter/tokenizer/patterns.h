// SPDX-License-Identifier: Apache-2.0
// Splitting steps of tokenizer.json that no scanner knows, as tables.
#pragma once
#include "converter/tokenizer/description.h"
#include "converter/tokenizer/regex/automaton.h"

namespace gptq::convert {

struct CompiledPatterns {
  struct Pattern {
    regex::Automaton table;
    text::fb::Behavior behavior = text::fb::Behavior::isolated;
    bool invert = false;
  };
  regex::Classes classes;
  std::vector<uint8_t> byte_classes;  // empty where no step is over bytes
  std::vector<Pattern> patterns;
};

// Fails with UNSUPPORTED and the name of what is not.
CompiledPatterns compile_patterns(const std::vector<PatternStep>& steps);

}  // namespace gptq::convert
