// SPDX-License-Identifier: Apache-2.0
// The regular expressions of "dynamic".
#include <algorithm>

#include "base/failure.h"
#include "converter/dialects/quant_config.h"
#include "converter/pattern.h"

namespace gptq::convert {
namespace {

constexpr size_t rules_max = 4096;

}  // namespace

struct ModuleRules::Rule {
  std::string key;
  Pattern pattern;
  bool skips;
  QuantOverrides overrides;
};

ModuleRules::ModuleRules() = default;
ModuleRules::ModuleRules(ModuleRules&&) noexcept = default;
ModuleRules& ModuleRules::operator=(ModuleRules&&) noexcept = default;
ModuleRules::~ModuleRules() = default;

void ModuleRules::add(std::string_view key, const QuantOverrides& overrides) {
  if (rules_.size() == rules_max) base::fail(GPTQ_E_FORMAT, "quantization config: 'dynamic' has too many patterns");
  const std::string whole(key);
  const bool skips = key.starts_with("-:");
  if (skips || key.starts_with("+:")) key.remove_prefix(2);
  rules_.push_back({whole, Pattern(key, "quantization config: the dynamic pattern", Pattern::Match::prefix), skips, overrides});
}

ModuleRules::Verdict ModuleRules::verdict(const std::string& module) const {
  for (const Rule& rule : rules_)
    if (rule.skips && rule.pattern.matches(module)) return {.skipped = true};
  for (const Rule& rule : rules_)
    if (!rule.skips && rule.pattern.matches(module)) return {.overrides = &rule.overrides};
  return {};
}

std::vector<std::string> ModuleRules::unmatched(const std::vector<std::string>& modules) const {
  std::vector<std::string> out;
  for (const Rule& rule : rules_)
    if (std::none_of(modules.begin(), modules.end(), [&](const std::string& module) { return rule.pattern.matches(module); })) out.push_back(rule.key);
  return out;
}

std::optional<QuantSettings> ModuleRules::apply(const std::string& module, QuantSettings settings) const {
  const Verdict said = verdict(module);
  if (said.skipped) return std::nullopt;
  return said.overrides ? said.overrides->over(settings) : settings;
}

}  // namespace gptq::convert
