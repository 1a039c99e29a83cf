// SPDX-License-Identifier: Apache-2.0
// What a GPTQ checkpoint says about itself, under all the names its writers use. Tensors may contradict it, and then they win.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "converter/json.h"
#include "converter/source.h"

namespace gptq::convert {

// The settings of one module. 0: nothing said.
struct QuantSettings {
  uint32_t bits = 0;
  int32_t group_size = 0;  // -1 = one group
  bool symmetric = true;
};
struct QuantOverrides {
  std::optional<uint32_t> bits;
  std::optional<int32_t> group_size;
  std::optional<bool> symmetric;
  QuantSettings over(const QuantSettings& settings) const;
};

enum class Tool { unknown, autogptq, gptqmodel, autoround };

// "dynamic": regular expressions over module names, as Python's re.match takes them.
class ModuleRules {
 public:
  ModuleRules();
  ModuleRules(ModuleRules&&) noexcept;
  ModuleRules& operator=(ModuleRules&&) noexcept;
  ~ModuleRules();
  void add(std::string_view key, const QuantOverrides& overrides);
  // What the rules say of a module: skips win over overrides; of these the first that matches counts.
  struct Verdict {
    bool skipped = false;
    const QuantOverrides* overrides = nullptr;
  };
  Verdict verdict(const std::string& module) const;
  // The patterns that match none of these.
  std::vector<std::string> unmatched(const std::vector<std::string>& modules) const;
  // The settings of a module, or none where it is skipped.
  std::optional<QuantSettings> apply(const std::string& module, QuantSettings settings) const;

 private:
  struct Rule;
  std::vector<Rule> rules_;
};

struct QuantConfig {
  QuantSettings settings;
  bool activation_order = false;
  bool v2_zeros = false;     // checkpoint_format gptq_v2
  bool wrong_3bit = false;   // GPTQModel 0.9.0 to 6.0.3: 3-bit v1 zeros are off by wrong constants
  Tool tool = Tool::unknown;
  std::string quantizer;     // "gptqmodel:7.7.0", for the metadata
  std::string file;          // where it was found
  std::vector<std::string> file_names;  // of the weights, without their ending: model_file_base_name, or AutoGPTQ's own
  ModuleRules rules;
};

// The rules of a "dynamic" object. Quantizers write keys of their own into checkpoints; known: others than ours are an error.
enum class RuleKeys { any, known };
void read_rules(const JsonObject& dynamic, ModuleRules& rules, RuleKeys keys = RuleKeys::any);

// From config.json, completed by quantize_config.json or quant_config.json; none where the model is not quantized. Warns where they differ
// in what changes numbers. Fails with UNSUPPORTED for formats that are not GPTQ's, naming them.
std::optional<QuantConfig> read_quant_config(const std::string& folder, const JsonObject& config, const Options& options = {});

}  // namespace gptq::convert
