// SPDX-License-Identifier: Apache-2.0
// What an exported folder says about its quantization: the commonest setting for all, and rules for the modules that differ.
#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <tuple>

#include "converter/hf/export_parts.h"
#include "converter/json_writer.h"

namespace gptq::convert {
namespace {

struct Setting {
  uint32_t bits = 0;
  int32_t group_size = 0;
  bool symmetric = true;
  auto operator<=>(const Setting&) const = default;
};
Setting setting_of(const ExportedLinear& linear) { return {linear.bits, linear.group_size, linear.symmetric}; }

// The setting of most weights.
Setting commonest(const std::vector<ExportedLinear>& linears) {
  std::map<Setting, uint64_t> weights;
  for (const ExportedLinear& linear : linears)
    if (linear.bits) weights[setting_of(linear)] += linear.weights;
  const auto most = std::max_element(weights.begin(), weights.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most->first;
}

struct Place {
  std::string prefix, layer, part;  // "model.layers.", "3" and "mlp.up_proj"; lm_head has no layer
};

// The layer is the first part of a name that is a number.
Place place_of(const std::string& module) {
  for (size_t at = 0; at < module.size(); at = module.find('.', at) == module.npos ? module.size() : module.find('.', at) + 1) {
    const size_t end = std::min(module.find('.', at), module.size());
    if (end > at && end < module.size() && module.find_first_not_of("0123456789", at) == end)
      return {module.substr(0, at), module.substr(at, end - at), module.substr(end + 1)};
  }
  return {"", "", module};
}

// Engines that run several projections as one ask under a name of their own.
struct Fused {
  std::string_view name;
  std::array<std::string_view, 3> parts;
};
constexpr Fused fused[] = {
    {"self_attn.qkv_proj", {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}},
    {"mlp.gate_up_proj", {"mlp.gate_proj", "mlp.up_proj", ""}},
};

using Parts = std::set<std::string>;

Parts with_fused(Parts parts) {
  for (const Fused& f : fused)
    if (std::all_of(f.parts.begin(), f.parts.end(),
                    [&](std::string_view part) { return part.empty() || parts.contains(std::string(part)); }))
      parts.insert(std::string(f.name));
  return parts;
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '.' ? std::string("\\.") : std::string(1, c);
  return out;
}

std::string alternatives(const std::vector<std::string>& texts) {
  std::string out;
  for (const std::string& text : texts) out += (out.empty() ? "" : "|") + escaped(text);
  return texts.size() == 1 ? out : "(?:" + out + ")";
}

// Regular expressions for exactly these modules: layers in which the same parts differ share one.
std::vector<std::string> patterns(const std::vector<Place>& places) {
  std::map<std::string, Parts> parts_of;
  std::vector<std::string> layers, out;
  std::string prefix;
  for (const Place& place : places) {
    if (!place.layer.empty()) prefix = place.prefix;
    if (!parts_of.contains(place.layer)) layers.push_back(place.layer);
    parts_of[place.layer].insert(place.part);
  }
  std::map<Parts, std::vector<std::string>> layers_of;
  for (const std::string& layer : layers) layers_of[parts_of[layer]].push_back(layer);
  for (const auto& [alone, with] : layers_of) {
    const Parts parts = with_fused(alone);
    const std::string which = with[0].empty() ? "" : escaped(prefix) + alternatives(with) + "\\.";
    out.push_back("^" + which + alternatives({parts.begin(), parts.end()}) + "$");
  }
  return out;
}

std::string write_rules(const std::vector<ExportedLinear>& linears, const Setting& base, bool quantized_head) {
  std::map<Setting, std::vector<Place>> different;
  for (const ExportedLinear& linear : linears)
    if (setting_of(linear) != base && (quantized_head || !linear.is_head))
      different[setting_of(linear)].push_back(place_of(linear.module));
  JsonWriter rules;
  for (const auto& [setting, places] : different)
    for (const std::string& pattern : patterns(places)) {
      JsonWriter values;
      if (setting.bits) values.add("bits", setting.bits).add("group_size", setting.group_size).add("sym", setting.symmetric);
      rules.add_raw((setting.bits ? "+:" : "-:") + pattern, values.object());
    }
  return rules.empty() ? "" : rules.object();
}

const ExportedLinear* find(const std::vector<ExportedLinear>& linears, const std::string& module) {
  for (const ExportedLinear& linear : linears)
    if (linear.module == module) return &linear;
  return nullptr;
}

std::string fused_groups_differ(const std::vector<ExportedLinear>& linears, const ExportedLinear& first) {
  const Place place = place_of(first.module);
  for (const Fused& f : fused) {
    if (place.part != f.parts[0]) continue;
    for (const std::string_view part : f.parts) {
      const ExportedLinear* other = find(linears, place.prefix + place.layer + "." + std::string(part));
      if (other && (setting_of(*other) != setting_of(first) || (first.is_reordered() && other->g_idx != first.g_idx)))
        return first.module + " and " + std::string(part) + " are quantized differently, and it runs them as one";
    }
  }
  return {};
}

}  // namespace

std::string write_quantization(const std::vector<ExportedLinear>& linears, bool v2_zeros, bool quantized_head) {
  const Setting base = commonest(linears);
  const bool reordered = std::any_of(linears.begin(), linears.end(), [](const ExportedLinear& l) { return l.is_reordered(); });
  const char* format = v2_zeros ? "gptq_v2" : "gptq";
  JsonWriter out;
  out.add("quant_method", "gptq").add("checkpoint_format", format).add("format", format).add("pack_dtype", "int32");
  out.add("bits", base.bits).add("group_size", base.group_size).add("sym", base.symmetric).add("desc_act", reordered);
  out.add("lm_head", quantized_head);
  if (const std::string rules = write_rules(linears, base, quantized_head); !rules.empty()) out.add_raw("dynamic", rules);
  out.add_raw("meta", JsonWriter().add_raw("quantizer", "[" + json_quoted("gptq-convert:" GPTQ_VERSION_TEXT) + "]").object());
  return out.object();
}

std::string vllm_refuses(const std::vector<ExportedLinear>& linears) {
  for (const ExportedLinear& linear : linears) {
    if (const std::string reason = fused_groups_differ(linears, linear); !reason.empty()) return reason;
    if (!linear.bits) continue;
    if (linear.bits != 4 && linear.bits != 8) return linear.module + " has " + std::to_string(linear.bits) + " bits, it runs 4 and 8";
    if (!linear.symmetric) return linear.module + " is asymmetric";
    const auto sizes = {-1, 32, 64, 128};
    if (std::find(sizes.begin(), sizes.end(), linear.group_size) == sizes.end())
      return linear.module + " has groups of " + std::to_string(linear.group_size) + ", it runs -1, 32, 64 and 128";
    if (linear.group_size > 0 && linear.g_idx.size() % static_cast<size_t>(linear.group_size) != 0)
      return linear.module + " has " + std::to_string(linear.g_idx.size()) + " inputs, no multiple of its groups of " +
             std::to_string(linear.group_size);
  }
  return {};
}

}  // namespace gptq::convert
