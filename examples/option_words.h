// SPDX-License-Identifier: Apache-2.0
// The library's messages for who gives options and calls no functions.
#pragma once
#include <string>
#include <string_view>
#include <utility>

namespace gptq::tool {

inline std::string in_option_words(std::string text) {
  // The longer ones first, where one is in another.
  static constexpr std::pair<std::string_view, std::string_view> words[] = {
      {"with IGNORE_EOS no constraint can end: leave it out", "with --ignore-eos no constraint can end: leave one of them out"},
      {"the session has an adapter that is not loaded: call gptq_adapter_load first", "the saved session has an adapter: give it with --lora"},
      {"; give one as template_override", ", which --chat needs: give the whole text with -p"},
      {"the file is an adapter, not a model: load it with gptq_adapter_load", "the file is an adapter, not a model: give it with --lora"},
      {"the file is a model, not an adapter: load it with gptq_model_load", "the file is a model, not an adapter: --lora takes .gptq-lora files"},
      {"no backend for the device is loaded: call gptq_runtime_load_backend first", "no backend for the device is loaded: name it with --backend"},
      {"choose GPTQ_KV_F16 or GPTQ_KV_I8 as kv_type", "choose --kv f16 or --kv i8"},
      {"GPTQ_ENGINE_EXACT and GPTQ_ENGINE_BF16 exclude", "--exact and --bf16 exclude"},
      {"nothing to generate from: append text or tokens first", "nothing to generate from: the prompt is empty"},
      {"; raise kv_bytes", ""},
      {"choose another kv_bytes or ctx_tokens", "choose another --ctx"},
      {"; raise max_sessions or destroy one", ""},
      {"ctx_tokens", "--ctx"},
      {"GPTQ_GEN_MARKED", "--show-marks and --hide-thinking"},
      {"temperature_range", "--dynatemp-range"},
      {"temperature_exponent", "--dynatemp-exp"},
      {"temperature ", "--temp "},
      {"top_n_sigma", "--top-nsigma"},
      {"typical_p", "--typical"},
      {"top_p", "--top-p"},
      {"min_p", "--min-p"},
      {"repeat_penalty", "--repeat-penalty"},
      {"frequency_penalty", "--frequency-penalty"},
      {"presence_penalty", "--presence-penalty"},
      {"dry_multiplier", "--dry-multiplier"},
      {"dry_base", "--dry-base"},
      {"xtc_probability", "--xtc-probability"},
      {"xtc_threshold", "--xtc-threshold"},
      {"mirostat_tau", "--mirostat-ent"},
      {"mirostat_eta", "--mirostat-lr"},
  };
  for (const auto& [from, to] : words)
    if (const size_t at = text.find(from); at != text.npos && (at == 0 || text[at - 1] == ' ' || from[0] == ';')) text.replace(at, from.size(), to);
  return text;
}

}  // namespace gptq::tool
