// SPDX-License-Identifier: Apache-2.0
#include "converter/hf/published.h"

#include <algorithm>

#include "base/failure.h"

namespace gptq::convert {
namespace {

namespace fb = format::fb;

// Numbers between the dots: a layer's, an expert's.
size_t count_indexes(std::string_view name) {
  size_t count = 0;
  while (!name.empty()) {
    const std::string_view part = name.substr(0, name.find('.'));
    count += !part.empty() && std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
    name.remove_prefix(std::min(name.size(), part.size() + 1));
  }
  return count;
}

bool has_quantized_experts(const fb::Manifest& manifest) {
  return std::any_of(manifest.tensors()->begin(), manifest.tensors()->end(), [](const fb::Tensor* tensor) {
    return tensor->name()->string_view().find(".experts.") != std::string_view::npos &&
           kernels::is_quantized(static_cast<kernels::Kind>(tensor->kind()));
  });
}

}  // namespace

std::string find_meta(const fb::Manifest& manifest, std::string_view key) {
  if (manifest.meta())
    for (const auto* entry : *manifest.meta())
      if (entry->key()->string_view() == key) return entry->value()->str();
  return {};
}

Piece Published::locate(const model::SlotId& id) const {
  return layout.locate(spec, id, [this](const std::string& name) {
    if (gate_up_apart && name.ends_with(layout.gate_up)) return false;
    return !whole_experts || count_indexes(name) < 2;
  });
}

Published read_published(const fb::Manifest& manifest) {
  Published out;
  manifest.spec()->UnPackTo(&out.spec);
  const std::string config = find_meta(manifest, "config");
  if (config.empty()) {
    const auto* features = manifest.required_features();
    if (features && features->size())
      base::fail(GPTQ_E_UNSUPPORTED,
                 "the file does not say what its model is called in config.json; convert it anew from its Hugging Face "
                 "folder");
    return out;
  }
  out.config = std::make_unique<JsonDocument>("metadata: config", config);
  out.family = find_family(out.config->root());
  if (!out.family)
    base::fail(GPTQ_E_UNSUPPORTED, "the config that the file was made with is of no family that is known here");
  fb::SpecT read;
  read_family(*out.family, out.config->root(), read, out.layout);
  out.whole_experts = !out.layout.experts_3d_down.empty() && !has_quantized_experts(manifest);
  return out;
}

}  // namespace gptq::convert
