// SPDX-License-Identifier: Apache-2.0
// From what a host writes to rules over bytes. All fail with INVALID_ARGUMENT, and where there is one, the place in the source.
#pragma once
#include "text/constraint/nfa.h"

namespace gptq::text::constraint {

// A JSON array of strings: one of them.
Nfa choices(std::string_view json, std::pmr::memory_resource* memory);
Nfa regex(std::string_view pattern, std::pmr::memory_resource* memory);
// GBNF, as llama.cpp writes it.
Nfa grammar(std::string_view source, std::pmr::memory_resource* memory);
// The same as a new rule.
uint32_t add_grammar(Nfa& nfa, std::string_view source);
// One of these strings as a new rule; sorts them.
uint32_t add_literals(Nfa& nfa, std::pmr::vector<std::string_view>& texts);

}  // namespace gptq::text::constraint
