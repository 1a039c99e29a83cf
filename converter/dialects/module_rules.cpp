// SPDX-License-Identifier: Apache-2.0
// The regular expressions of "dynamic", run by PCRE2 with bounded work.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <memory>

#include "base/checked.h"
#include "converter/dialects/quant_config.h"

namespace gptq::convert {
namespace {

using base::fail;
constexpr size_t pattern_bytes_max = 4096, rules_max = 4096;
constexpr uint32_t steps_max = 1'000'000;

struct Free {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};
using Code = std::unique_ptr<pcre2_code, Free>;

PCRE2_SPTR units(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

Code compile(std::string_view pattern) {
  int error = 0;
  PCRE2_SIZE at = 0;
  // The empty pattern has no address of its own.
  Code code(
      pcre2_compile(units(pattern.empty() ? "" : pattern), pattern.size(), PCRE2_ANCHORED | PCRE2_UTF | PCRE2_UCP, &error, &at, nullptr));
  if (code) return code;
  char reason[160] = "";
  pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(reason), sizeof reason);
  fail(GPTQ_E_FORMAT, "quantization config: the dynamic pattern '", pattern, "' is no regular expression: ", reason, " at ", at);
}

bool matches(const pcre2_code* code, std::string_view pattern, std::string_view text) {
  const std::unique_ptr<pcre2_match_data, Free> data(pcre2_match_data_create(1, nullptr));
  const std::unique_ptr<pcre2_match_context, Free> context(pcre2_match_context_create(nullptr));
  if (!data || !context) throw std::bad_alloc();
  pcre2_set_match_limit(context.get(), steps_max);
  const int result = pcre2_match(code, units(text), text.size(), 0, 0, data.get(), context.get());
  if (result < PCRE2_ERROR_NOMATCH)
    fail(GPTQ_E_FORMAT, "quantization config: the dynamic pattern '", pattern, "' takes too much work on '", text, "'");
  return result != PCRE2_ERROR_NOMATCH;
}

}  // namespace

struct ModuleRules::Rule {
  std::string pattern;
  Code code;
  bool skips;
  QuantOverrides overrides;
};

ModuleRules::ModuleRules() = default;
ModuleRules::ModuleRules(ModuleRules&&) noexcept = default;
ModuleRules& ModuleRules::operator=(ModuleRules&&) noexcept = default;
ModuleRules::~ModuleRules() = default;

void ModuleRules::add(std::string_view key, const QuantOverrides& overrides) {
  if (rules_.size() == rules_max || key.size() > pattern_bytes_max)
    fail(GPTQ_E_FORMAT, "quantization config: 'dynamic' has too many or too long patterns");
  const bool skips = key.starts_with("-:");
  if (skips || key.starts_with("+:")) key.remove_prefix(2);
  rules_.push_back({std::string(key), compile(key), skips, overrides});
}

std::optional<QuantSettings> ModuleRules::apply(const std::string& module, QuantSettings settings) const {
  for (const Rule& rule : rules_)
    if (rule.skips && matches(rule.code.get(), rule.pattern, module)) return std::nullopt;
  for (const Rule& rule : rules_)
    if (!rule.skips && matches(rule.code.get(), rule.pattern, module)) return rule.overrides.over(settings);
  return settings;
}

}  // namespace gptq::convert
