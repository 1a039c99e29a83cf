// SPDX-License-Identifier: Apache-2.0
#include "text/constraint/sources.h"

#include <algorithm>

#include "base/failure.h"
#include "text/json.h"

namespace gptq::text::constraint {

// As a tree, so that a state has few ways.
uint32_t add_literals(Nfa& nfa, std::pmr::vector<std::string_view>& texts) {
  std::sort(texts.begin(), texts.end());
  const uint32_t rule = nfa.add_rule();
  const Nfa::Part all{nfa.add(), nfa.add()};
  std::pmr::vector<uint32_t> way(1, all.first, nfa.memory);  // nodes along the last text
  std::string_view last;
  for (const std::string_view text : texts) {
    size_t common = 0;
    while (common < text.size() && common < last.size() && text[common] == last[common]) ++common;
    way.resize(common + 1);
    for (size_t i = common; i < text.size(); ++i) {
      const uint32_t to = nfa.add();
      const uint8_t byte = static_cast<uint8_t>(text[i]);
      nfa.fork(way.back(), nfa.add({to, Nfa::none, Nfa::Kind::range, byte, byte}));
      way.push_back(to);
    }
    nfa.fork(way.back(), all.last);
    last = text;
  }
  nfa.set_rule(rule, all);
  return rule;
}

Nfa choices(std::string_view json, std::pmr::memory_resource* memory) {
  jinja::Heap heap(memory);
  const jinja::Value list = read_json(heap, json, "choices");
  if (!list.is(jinja::Kind::list) || list.array->size == 0)
    base::fail(GPTQ_E_INVALID_ARGUMENT, "choices: a JSON array of strings is wanted");
  std::pmr::vector<std::string_view> texts(memory);
  for (uint32_t i = 0; i < list.array->size; ++i) {
    const jinja::Value& choice = list.array->items[i];
    if (!choice.is(jinja::Kind::string)) base::fail(GPTQ_E_INVALID_ARGUMENT, "choices: /", i, " is no string");
    texts.push_back(choice.view());
  }
  Nfa nfa({.nodes = 1'000'000}, memory);
  add_literals(nfa, texts);
  nfa.finish("choices");
  return nfa;
}

Nfa regex(std::string_view pattern, std::pmr::memory_resource* memory) {
  Nfa nfa({}, memory);
  add_regex(nfa, pattern, false, "regex");
  nfa.finish("regex");
  return nfa;
}

}  // namespace gptq::text::constraint
