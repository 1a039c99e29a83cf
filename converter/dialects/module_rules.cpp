// SPDX-License-Identifier: Apache-2.0
// The regular expressions of "dynamic".
#include "base/failure.h"
#include "converter/dialects/quant_config.h"
#include "converter/pattern.h"

namespace gptq::convert {
namespace {

constexpr size_t rules_max = 4096;

}  // namespace

struct ModuleRules::Rule {
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
  const bool skips = key.starts_with("-:");
  if (skips || key.starts_with("+:")) key.remove_prefix(2);
  rules_.push_back({Pattern(key, "quantization config: the dynamic pattern", Pattern::Match::prefix), skips, overrides});
}

std::optional<QuantSettings> ModuleRules::apply(const std::string& module, QuantSettings settings) const {
  for (const Rule& rule : rules_)
    if (rule.skips && rule.pattern.matches(module)) return std::nullopt;
  for (const Rule& rule : rules_)
    if (!rule.skips && rule.pattern.matches(module)) return rule.overrides.over(settings);
  return settings;
}

}  // namespace gptq::convert
