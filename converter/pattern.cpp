// SPDX-License-Identifier: Apache-2.0
#define PCRE2_CODE_UNIT_WIDTH 8
#include "converter/pattern.h"

#include <pcre2.h>

#include <new>

#include "base/failure.h"

namespace gptq::convert {
namespace {

constexpr size_t pattern_bytes_max = 4096;
constexpr uint32_t steps_max = 1'000'000;

struct FreeMatch {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

PCRE2_SPTR units(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

}  // namespace

void Pattern::Free::operator()(void* code) const { pcre2_code_free(static_cast<pcre2_code*>(code)); }

Pattern::Pattern(std::string_view pattern, std::string_view where, Match match) : pattern_(pattern), where_(where) {
  if (pattern.size() > pattern_bytes_max) base::fail(GPTQ_E_FORMAT, where, " has more than ", pattern_bytes_max, " bytes");
  const uint32_t options = PCRE2_ANCHORED | PCRE2_UTF | PCRE2_UCP | (match == Match::whole ? PCRE2_ENDANCHORED : 0u);
  int error = 0;
  PCRE2_SIZE at = 0;
  // The empty pattern has no address of its own.
  code_.reset(pcre2_compile(units(pattern.empty() ? "" : pattern), pattern.size(), options, &error, &at, nullptr));
  if (code_) return;
  char reason[160] = "";
  pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(reason), sizeof reason);
  base::fail(GPTQ_E_FORMAT, where, " '", pattern, "' is no regular expression: ", reason, " at ", at);
}

bool Pattern::matches(std::string_view text) const {
  const std::unique_ptr<pcre2_match_data, FreeMatch> data(pcre2_match_data_create(1, nullptr));
  const std::unique_ptr<pcre2_match_context, FreeMatch> context(pcre2_match_context_create(nullptr));
  if (!data || !context) throw std::bad_alloc();
  pcre2_set_match_limit(context.get(), steps_max);
  const int result = pcre2_match(static_cast<const pcre2_code*>(code_.get()), units(text), text.size(), 0, 0, data.get(), context.get());
  if (result < PCRE2_ERROR_NOMATCH) base::fail(GPTQ_E_FORMAT, where_, " '", pattern_, "' takes too much work on '", text, "'");
  return result != PCRE2_ERROR_NOMATCH;
}

}  // namespace gptq::convert
