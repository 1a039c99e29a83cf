// SPDX-License-Identifier: Apache-2.0
#include "converter/quantize_rules.h"

#include <algorithm>
#include <set>

#include "base/failure.h"
#include "converter/hf/published.h"
#include "converter/json.h"

namespace gptq::convert {
namespace {

constexpr uint32_t head_bits_least = 4;

}  // namespace

QuantizeRules::QuantizeRules(const base::Source& model, const std::string& dynamic, const std::vector<std::string>& keep,
                             std::function<void(const std::string&)> warn)
    : warn_(std::move(warn)) {
  const bool any = !dynamic.empty() || !keep.empty();
  try {
    name_modules(model);
  } catch (const base::Failure&) {
    if (any) throw;
  }
  if (!dynamic.empty()) {
    read_rules(JsonDocument::read(dynamic, dynamic, 1 << 20).root(), rules_, RuleKeys::known);
    std::set<std::string> names(head_.begin(), head_.end());
    for (const auto& [matrix, module] : modules_) names.insert(module);
    warn_of_unmatched(rules_.unmatched({names.begin(), names.end()}), "--dynamic");
  }
  for (const std::string& pattern : keep) {
    ModuleRules alone;
    alone.add(pattern, {});
    std::vector<std::string> names = head_;
    for (const auto& [matrix, module] : modules_) names.push_back(module);
    if (!alone.unmatched(names).empty()) warn_of_unmatched({pattern}, "--keep");
    rules_.add("-:" + pattern, {});
  }
}

// What a checkpoint has in one module goes by its one name.
void QuantizeRules::name_modules(const base::Source& model) {
  std::pmr::memory_resource* memory = std::pmr::get_default_resource();
  const format::Reader reader(model, memory);
  const Published published = read_published(reader.manifest());
  const model::ModelSpec spec = model::check_spec(*reader.manifest().spec(), memory);
  for (const model::Slot& slot : model::weight_slots(spec, memory))
    if (slot.quantizable()) modules_.emplace(slot.name, published.locate(slot.id).module);
  head_.push_back(published.locate({.role = model::Role::head}).module);
  if (model::head_role(spec) == model::Role::embed) head_.push_back(published.locate({.role = model::Role::embed}).module);
}

void QuantizeRules::warn_of_unmatched(const std::vector<std::string>& patterns, std::string_view option) const {
  const auto v = modules_.find(std::string_view("layers.0.v"));
  const std::string example = v != modules_.end() ? v->second : modules_.empty() ? head_.at(0) : modules_.begin()->second;
  for (const std::string& pattern : patterns)
    warn_(std::string(option) + " '" + pattern + "' matches no matrix: patterns are compared from the beginning of names such as '" + example + "'");
}

std::string QuantizeRules::module_of(std::string_view matrix) const {
  const auto found = modules_.find(matrix);
  if (found != modules_.end()) return found->second;
  return !head_.empty() && (matrix == "head" || matrix == "embed") ? head_[0] : std::string();
}

void QuantizeRules::apply(gptq_quantize_module& m) const {
  const auto module = modules_.find(std::string_view(m.name, m.name_size));
  if (module == modules_.end()) return;
  const auto settings = rules_.apply(module->second, {m.bits, m.group_size, !(m.flags & GPTQ_QUANT_ASYMMETRIC)});
  if (!settings) {
    m.flags |= GPTQ_QUANT_KEEP;
    return;
  }
  m.bits = settings->bits;
  m.group_size = settings->group_size;
  m.flags = settings->symmetric ? m.flags & ~uint32_t(GPTQ_QUANT_ASYMMETRIC) : m.flags | GPTQ_QUANT_ASYMMETRIC;
}

void QuantizeRules::apply_to_head(gptq_quantize_params& p, uint32_t usual_bits) const {
  for (const std::string& name : head_)
    if (rules_.verdict(name).skipped) {
      p.head_bits = 16;
      return;
    }
  for (const std::string& name : head_) {
    const QuantOverrides* overrides = rules_.verdict(name).overrides;
    if (!overrides) continue;
    if (overrides->bits) p.head_bits = std::max(*overrides->bits, head_bits_least);
    else if (!p.head_bits) p.head_bits = usual_bits;
    if (overrides->group_size) p.head_group_size = *overrides->group_size;
    const bool symmetric = !(p.defaults.flags & GPTQ_QUANT_ASYMMETRIC);
    if (overrides->bits.value_or(head_bits_least) < head_bits_least)
      warn_("'" + name + "' gets 4 bits, not " + std::to_string(*overrides->bits) + ": a head has 4 or 8");
    if (overrides->symmetric.value_or(symmetric) != symmetric && p.head_bits != 16)
      warn_("'" + name + "' is " + (symmetric ? "symmetric" : "asymmetric") + " as --asym has it: --dynamic does not change that of a head");
    return;
  }
}

}  // namespace gptq::convert
