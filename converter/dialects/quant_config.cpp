// SPDX-License-Identifier: Apache-2.0
#include "converter/dialects/quant_config.h"

#include <array>
#include <charconv>

#include "base/checked.h"

namespace gptq::convert {
namespace {

using base::fail;
constexpr uint64_t config_bytes_max = 16u << 20;

std::optional<int64_t> integer(const JsonObject& object, std::string_view key, std::string_view alias) {
  const auto value = object.integer(key);
  return value ? value : object.integer(alias);
}

// In small letters.
std::optional<std::string> text(const JsonObject& object, std::string_view key, std::string_view alias) {
  auto value = object.string(key);
  if (!value) value = object.string(alias);
  return value ? std::optional(lower(*value)) : std::nullopt;
}

struct Advice {
  std::string_view name, text;
};
constexpr Advice methods[] = {
    {"awq", "quantize the original model with GPTQ, or take its GPTQ version"},
    {"compressed-tensors", "save the model in GPTQ format instead (GPTQModel, or llm-compressor's source model)"},
    {"bitsandbytes", "convert the unquantized model"},
    {"fp8", "convert the unquantized model"},
};
constexpr Advice formats[] = {
    {"marlin", "save it again with GPTQModel in format 'gptq'; Marlin's order is for one GPU kernel"},
    {"gptq_p", "save it again with GPTQModel in format 'gptq'"},
    {"awq", "quantize the original model with GPTQ, or take its GPTQ version"},
};

[[noreturn]] void refuse(const JsonObject& object, std::string_view what, std::string_view name, std::span<const Advice> table) {
  for (const Advice& advice : table)
    if (name.starts_with(advice.name))
      fail(GPTQ_E_UNSUPPORTED, "'", object.where(), "': ", what, " '", name, "' is not supported: ", advice.text);
  fail(GPTQ_E_UNSUPPORTED, "'", object.where(), "': ", what, " '", name, "' is not supported; gptq and gptq_v2 checkpoints are");
}

void check_method(const JsonObject& object) {
  const auto method = text(object, "quant_method", "method");
  if (!method && (object.has("zero_point") || object.has("version"))) refuse(object, "quantization method", "awq", methods);
  if (!method || *method == "gptq" || *method == "auto-round" || *method == "intel/auto-round") return;
  refuse(object, "quantization method", *method, methods);
}

void check_format(const JsonObject& object, QuantConfig& out) {
  if (const auto packing = object.string("packing_format"); packing && packing->find("gptq") == packing->npos)
    refuse(object, "packing format", *packing, formats);
  const auto format = text(object, "checkpoint_format", "format").value_or("gptq");
  if (object.boolean("is_marlin_format", false)) refuse(object, "checkpoint format", "marlin", formats);
  if (format != "gptq" && format != "gptq_v2" && !(format.starts_with("auto_round") && format.find("gptq") != format.npos))
    refuse(object, "checkpoint format", format, formats);
  out.v2_zeros = format == "gptq_v2";
  if (const auto pack = object.string("pack_dtype"); pack && *pack != "int32")
    fail(GPTQ_E_UNSUPPORTED, "'", object.where(), "': pack_dtype '", *pack,
         "' is not supported, only int32 is; save the model again with it");
  bool rotated = true;
  if (const auto rotation = object.find("rotation"); rotation && (rotation->get(rotated) || rotated))
    fail(GPTQ_E_UNSUPPORTED, "'", object.where(),
         "': 'rotation' needs a Hadamard transform at run time, which is not supported; quantize without rotation");
}

// "gptqmodel:6.0.3" -> {6, 0, 3}; zeros where it is no version.
std::array<int, 3> version_of(std::string_view quantizer) {
  std::array<int, 3> out{};
  size_t at = quantizer.find(':');
  for (int& part : out) {
    if (at >= quantizer.size()) break;
    const auto [end, error] = std::from_chars(quantizer.data() + at + 1, quantizer.data() + quantizer.size(), part);
    if (error != std::errc()) break;
    at = static_cast<size_t>(end - quantizer.data());
    if (at >= quantizer.size() || quantizer[at] != '.') break;
  }
  return out;
}

std::string quantizer_name(const JsonObject& object) {
  const auto meta = object.object("meta");
  const auto value = meta ? meta->find("quantizer") : std::nullopt;
  std::string_view name;
  simdjson::dom::array list;
  const bool found = value && (!value->get(name) || (!value->get(list) && !list.at(0).get(name)));
  if (found) return std::string(name.substr(0, 80));
  const auto version = object.string("autoround_version");
  return version ? "auto-round:" + std::string(version->substr(0, 60)) : std::string();
}

void read_tool(const JsonObject& object, QuantConfig& out) {
  out.quantizer = quantizer_name(object);
  const auto method = text(object, "quant_method", "method").value_or("");
  if (out.quantizer.starts_with("gptqmodel")) {
    out.tool = Tool::gptqmodel;
    const auto version = version_of(out.quantizer);
    out.wrong_3bit = version >= std::array{0, 9, 0} && version <= std::array{6, 0, 3};
  } else if (out.quantizer.find("round") != std::string::npos || method.find("round") != method.npos) {
    out.tool = Tool::autoround;
  } else if (out.quantizer.starts_with("auto_gptq") || out.quantizer.starts_with("autogptq")) {
    out.tool = Tool::autogptq;
  }
}

QuantOverrides read_overrides(const JsonObject& object) {
  QuantOverrides out;
  if (const auto bits = integer(object, "bits", "w_bit")) {
    if (*bits != 2 && *bits != 3 && *bits != 4 && *bits != 8)
      fail(GPTQ_E_UNSUPPORTED, "'", object.where(), "': ", *bits, "-bit weights are not supported; 2, 3, 4 and 8 are");
    out.bits = static_cast<uint32_t>(*bits);
  }
  if (const auto size = integer(object, "group_size", "q_group_size")) {
    if (*size != -1 && (*size < 1 || *size > INT32_MAX)) object.refuse("group_size", "must be -1 or positive");
    out.group_size = static_cast<int32_t>(*size);
  }
  out.symmetric = object.boolean("sym");
  return out;
}

// As AutoGPTQ looks for them.
std::vector<std::string> file_names(const JsonObject& object, const QuantSettings& settings) {
  if (const auto name = object.string("model_file_base_name"); name && !name->empty()) {
    constexpr std::string_view ending = ".safetensors";
    return {std::string(name->ends_with(ending) ? name->substr(0, name->size() - ending.size()) : *name)};
  }
  return {"gptq_model-" + std::to_string(settings.bits) + "bit-" + std::to_string(settings.group_size) + "g"};
}

QuantConfig read(const JsonObject& object) {
  QuantConfig out;
  out.file = object.where();
  check_method(object);
  check_format(object, out);
  out.settings = read_overrides(object).over(out.settings);
  out.activation_order = object.boolean("desc_act", false);
  read_tool(object, out);
  out.file_names = file_names(object, out.settings);
  if (const auto dynamic = object.object("dynamic")) read_rules(*dynamic, out.rules);
  return out;
}

std::string in_words(bool value) { return value ? "true" : "false"; }
std::string in_words(const std::string& value) { return value; }
template <class T>
std::string in_words(T value) { return std::to_string(value); }

// Of two places that describe the quantization, config.json is the one that transformers and vLLM read. The other says what it does not.
void complete(QuantConfig& out, const JsonObject& inside, const JsonObject& beside, const Options& options) {
  QuantConfig other = read(beside);
  std::string here, there;
  const auto settle = [&](std::string_view key, const auto& said, const auto& elsewhere, auto use) {
    if (!said && elsewhere) use(*elsewhere);
    if (!said || !elsewhere || *said == *elsewhere) return;
    const auto add = [&](std::string& to, const auto& value) { to += (to.empty() ? "" : ", ") + std::string(key) + " " + in_words(value); };
    add(here, *said), add(there, *elsewhere);
  };
  const QuantOverrides a = read_overrides(inside), b = read_overrides(beside);
  settle("bits", a.bits, b.bits, [&](uint32_t value) { out.settings.bits = value; });
  settle("group_size", a.group_size, b.group_size, [&](int32_t value) { out.settings.group_size = value; });
  settle("sym", a.symmetric, b.symmetric, [&](bool value) { out.settings.symmetric = value; });
  settle("desc_act", inside.boolean("desc_act"), beside.boolean("desc_act"), [&](bool value) { out.activation_order = value; });
  settle("checkpoint_format", text(inside, "checkpoint_format", "format"), text(beside, "checkpoint_format", "format"),
         [&](const std::string&) { out.v2_zeros = other.v2_zeros; });
  if (out.quantizer.empty()) out.quantizer = other.quantizer, out.tool = other.tool, out.wrong_3bit = other.wrong_3bit;
  if (!inside.has("dynamic")) out.rules = std::move(other.rules);
  out.file_names = file_names(inside.has("model_file_base_name") ? inside : beside, out.settings);
  if (!here.empty()) options.warn("config.json's quantization_config says " + here + ", '" + other.file + "' says " + there + ": config.json's is used");
}

}  // namespace

QuantSettings QuantOverrides::over(const QuantSettings& settings) const {
  return {bits.value_or(settings.bits), group_size.value_or(settings.group_size), symmetric.value_or(settings.symmetric)};
}

void read_rules(const JsonObject& dynamic, ModuleRules& rules, RuleKeys keys) {
  const auto is_known = [](std::string_view key) { return key == "bits" || key == "group_size" || key == "sym"; };
  for (const auto field : dynamic.fields()) {
    simdjson::dom::object overrides;
    const bool given = !field.value.get_object().get(overrides);
    if (!given && !field.value.is_null()) dynamic.refuse(field.key, "must hold an object");
    if (given && keys == RuleKeys::known)
      for (const auto setting : overrides)
        if (!is_known(setting.key))
          fail(GPTQ_E_FORMAT, "'", dynamic.where(), "': '", field.key, "' has the unknown key '", setting.key, "'; these are known: bits, group_size, sym");
    rules.add(field.key, given ? read_overrides(JsonObject(dynamic.where() + ": " + std::string(field.key), overrides)) : QuantOverrides{});
  }
}

std::optional<QuantConfig> read_quant_config(const std::string& folder, const JsonObject& config, const Options& options) {
  const auto inside = config.object("quantization_config");
  for (const char* name : {"quantize_config.json", "quant_config.json"}) {
    const std::string path = folder + "/" + name;
    if (!file_exists(path)) continue;
    if (!inside) return read(JsonDocument::read(path, name, config_bytes_max).root());
    QuantConfig out = read(*inside);
    try {
      const JsonDocument beside = JsonDocument::read(path, name, config_bytes_max);
      complete(out, *inside, beside.root(), options);
    } catch (const base::Failure& failure) {
      options.warn(std::string(failure.detail.message) + "; it is left out, config.json has a quantization_config");
    }
    return out;
  }
  return inside ? std::optional(read(*inside)) : std::nullopt;
}

}  // namespace gptq::convert
