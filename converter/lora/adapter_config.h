// SPDX-License-Identifier: Apache-2.0
// adapter_config.json of PEFT: which modules a LoRA changes, and how much. What would change results and is not supported is refused by name.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "converter/json.h"
#include "converter/pattern.h"

namespace gptq::convert {

class AdapterConfig {
 public:
  explicit AdapterConfig(const JsonObject& config);
  // Whether target_modules, exclude_modules and layers_to_transform choose the module ("model.layers.0.self_attn.q_proj").
  bool targets(std::string_view module) const;
  // Of the module, by rank_pattern or for all.
  uint32_t rank(std::string_view module) const;
  // alpha / rank, or with rslora alpha / sqrt(rank).
  double scale(std::string_view module) const;
  const std::string& base_model() const { return base_model_; }

 private:
  // Names of modules, whole or their last parts; or one expression.
  struct Names {
    std::vector<std::string> list;
    std::optional<Pattern> pattern;
    bool any = false;  // all linear modules
    bool match(std::string_view module) const;
    bool empty() const { return list.empty() && !pattern && !any; }
  };
  // The first whose expression the module ends with counts.
  struct Numbers {
    std::vector<std::pair<Pattern, double>> list;
    double of(std::string_view module, double otherwise) const;
  };
  static Names read_names(const JsonObject& config, std::string_view key);
  static Numbers read_numbers(const JsonObject& config, std::string_view key);
  bool in_layers(std::string_view module) const;

  Names targets_, excluded_;
  std::vector<int64_t> layers_;
  std::vector<Pattern> layer_names_;
  double rank_, alpha_;
  Numbers ranks_, alphas_;
  bool rslora_;
  std::string base_model_;
};

}  // namespace gptq::convert
