// SPDX-License-Identifier: Apache-2.0
// --keep and --dynamic of gptq-convert quantize: patterns over the names that checkpoints give to modules.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/io.h"
#include "converter/dialects/quant_config.h"
#include "gptq/gptq.h"

namespace gptq::convert {

class QuantizeRules {
 public:
  // model: a .gptq file. dynamic: a JSON file, "" = none. Warns of patterns that match no matrix.
  QuantizeRules(const base::Source& model, const std::string& dynamic, const std::vector<std::string>& keep, std::function<void(const std::string&)> warn);
  // "model.layers.0.self_attn.v_proj" of "layers.0.v"; "" where the file does not say.
  std::string module_of(std::string_view matrix) const;
  void apply(gptq_quantize_module& matrix) const;
  // The same of the head, whose settings stand in params. usual_bits: where a rule gives it settings, but no bits. Rules win over --head-bits.
  void apply_to_head(gptq_quantize_params& params, uint32_t usual_bits) const;

 private:
  void name_modules(const base::Source& model);
  void warn_of_unmatched(const std::vector<std::string>& patterns, std::string_view option) const;

  ModuleRules rules_;
  std::map<std::string, std::string, std::less<>> modules_;
  std::vector<std::string> head_;  // its names: a tied embedding goes by both
  std::function<void(const std::string&)> warn_;
};

}  // namespace gptq::convert
