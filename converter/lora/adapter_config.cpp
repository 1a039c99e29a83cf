// SPDX-License-Identifier: Apache-2.0
#include "converter/lora/adapter_config.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/failure.h"
#include "model/adapter.h"

namespace gptq::convert {
namespace {

using base::fail;
using simdjson::dom::element;

// Keys that say nothing of what is computed: of training, of initialization, or where the storage of the base counts alone.
constexpr std::string_view harmless[] = {
    "alpha_pattern", "arrow_config", "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "ensure_weight_tying", "eva_config", "exclude_modules",
    "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform", "loftq_config", "lora_alpha", "lora_dropout", "lora_ga_config",
    "megatron_config", "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision", "runtime_config", "target_modules",
    "task_type", "use_rslora", "velora_config"};
constexpr std::string_view harmless_starts[] = {"gaussian", "orthogonal", "eva"};

// As it is where the feature is not used.
bool is_nothing(element value) {
  simdjson::dom::object object;
  simdjson::dom::array array;
  bool flag;
  std::string_view text;
  if (value.is_null() || (!value.get(flag) && !flag) || (!value.get(text) && text.empty())) return true;
  return (!value.get(object) && object.size() == 0) || (!value.get(array) && array.size() == 0);
}

void refuse_unsupported(const JsonObject& config) {
  const std::string_view type = config.string("peft_type").value_or("LORA");
  if (type != "LORA") fail(GPTQ_E_UNSUPPORTED, config.where(), ": peft_type is '", type, "'; only LORA is supported");
  if (const std::string_view bias = config.string("bias").value_or("none"); bias != "none")
    fail(GPTQ_E_UNSUPPORTED, config.where(), ": bias is '", bias, "'; only adapters that leave biases alone ('none') are supported");
  if (config.has("arrow_config")) fail(GPTQ_E_UNSUPPORTED, config.where(), ": 'arrow_config' is not supported");
  for (const auto field : config.fields())
    if (std::find(std::begin(harmless), std::end(harmless), field.key) == std::end(harmless) && !is_nothing(field.value))
      fail(GPTQ_E_UNSUPPORTED, config.where(), ": '", field.key, "' is not supported");
  // Some ways of initializing take the adapter's first values off the base's weights, which then are not those of the base any more.
  std::string_view how;
  const auto init = config.find("init_lora_weights");
  if (init && !init->get_string().get(how)) {
    const std::string name = lower(how);
    if (std::none_of(std::begin(harmless_starts), std::end(harmless_starts), [&](std::string_view start) { return name == start; }))
      fail(GPTQ_E_UNSUPPORTED, config.where(), ": init_lora_weights '", how, "' changes the base model's weights: save the adapter as a plain LoRA "
           "(PEFT: path_initial_model_for_weight_conversion)");
  }
}

std::string text_of(const JsonObject& config, std::string_view key, element value) {
  std::string_view text;
  if (value.get_string().get(text)) config.refuse(key, "must be text, or a list of text");
  return std::string(text);
}

}  // namespace

AdapterConfig::Names AdapterConfig::read_names(const JsonObject& config, std::string_view key) {
  Names names;
  const auto found = config.find(key);
  simdjson::dom::array list;
  if (!found) return names;
  if (!found->get_array().get(list)) {
    for (const element value : list) names.list.push_back(text_of(config, key, value));
    return names;
  }
  const std::string text = text_of(config, key, *found);
  if (lower(text) == "all-linear") names.any = true;
  else names.pattern.emplace(text, config.where() + ": " + std::string(key), Pattern::Match::whole);
  return names;
}

bool AdapterConfig::Names::match(std::string_view module) const {
  if (any) return true;
  if (pattern) return pattern->matches(module);
  return std::any_of(list.begin(), list.end(), [&](const std::string& name) { return module == name || module.ends_with("." + name); });
}

AdapterConfig::Numbers AdapterConfig::read_numbers(const JsonObject& config, std::string_view key) {
  Numbers numbers;
  const auto object = config.object(key);
  if (!object) return numbers;
  for (const auto field : object->fields()) {
    const auto value = object->number(field.key);
    if (!value) object->refuse(field.key, "must be a number");
    numbers.list.emplace_back(Pattern("(.*\\.)?(" + std::string(field.key) + ")$", object->where(), Pattern::Match::prefix), *value);
  }
  return numbers;
}

double AdapterConfig::Numbers::of(std::string_view module, double otherwise) const {
  for (const auto& [pattern, value] : list)
    if (pattern.matches(module)) return value;
  return otherwise;
}

AdapterConfig::AdapterConfig(const JsonObject& config)
    : rank_(config.number("r", 8)), alpha_(config.number("lora_alpha", 8)), ranks_(read_numbers(config, "rank_pattern")),
      alphas_(read_numbers(config, "alpha_pattern")), rslora_(config.boolean("use_rslora", false)),
      base_model_(config.string("base_model_name_or_path").value_or("")) {
  refuse_unsupported(config);
  targets_ = read_names(config, "target_modules");
  excluded_ = read_names(config, "exclude_modules");
  if (targets_.empty()) config.refuse("target_modules", "is missing");
  if (const auto layers = config.find("layers_to_transform")) {
    simdjson::dom::array list;
    int64_t number = 0;
    if (!layers->get_int64().get(number)) layers_.push_back(number);
    else if (layers->get_array().get(list)) config.refuse("layers_to_transform", "must be a number or a list of numbers");
    else
      for (const element value : list) {
        if (value.get_int64().get(number)) config.refuse("layers_to_transform", "must be a number or a list of numbers");
        layers_.push_back(number);
      }
  }
  std::string numbers;
  for (const int64_t layer : layers_) numbers += (numbers.empty() ? "" : "|") + std::to_string(layer);
  const auto add_pattern = [&](const std::string& name) {
    layer_names_.emplace_back("(?:^|.*?\\.)(?:" + name + ")\\.(?:" + numbers + ")\\.", config.where() + ": layers_pattern", Pattern::Match::prefix);
  };
  if (const auto found = config.find("layers_pattern"); found && !layers_.empty()) {
    simdjson::dom::array list;
    if (found->get_array().get(list)) add_pattern(text_of(config, "layers_pattern", *found));
    else for (const element value : list) add_pattern(text_of(config, "layers_pattern", value));
  }
}

// The first number behind a dot is one of layers_to_transform; that counts for lists of names alone.
bool AdapterConfig::in_layers(std::string_view module) const {
  if (layers_.empty() || targets_.pattern || targets_.any) return true;
  if (!layer_names_.empty()) return std::any_of(layer_names_.begin(), layer_names_.end(), [&](const Pattern& p) { return p.matches(module); });
  for (size_t at = module.find('.'); at != module.npos; at = module.find('.', at + 1)) {
    const std::string_view part = module.substr(at + 1, module.find('.', at + 1) - at - 1);
    int64_t number = 0;
    const auto [stop, error] = std::from_chars(part.data(), part.data() + part.size(), number);
    if (error == std::errc() && stop == part.data() + part.size()) return std::find(layers_.begin(), layers_.end(), number) != layers_.end();
  }
  return false;
}

bool AdapterConfig::targets(std::string_view module) const { return !excluded_.match(module) && targets_.match(module) && in_layers(module); }

uint32_t AdapterConfig::rank(std::string_view module) const {
  const double rank = ranks_.of(module, rank_);
  if (!(rank >= 1 && rank <= model::adapter_rank_max) || rank != std::floor(rank))
    fail(GPTQ_E_UNSUPPORTED, "adapter_config.json: rank ", rank, " is not within 1 and ", model::adapter_rank_max);
  return static_cast<uint32_t>(rank);
}

double AdapterConfig::scale(std::string_view module) const {
  const double r = rank(module);
  return alphas_.of(module, alpha_) / (rslora_ ? std::sqrt(r) : r);
}

}  // namespace gptq::convert
