// SPDX-License-Identifier: Apache-2.0
#include "converter/hf/config.h"

namespace gptq::convert {

std::string family_table() {
  std::string out = "| family | model_type | classes |\n|---|---|---|\n";
  const auto add = [&](std::string_view name, std::string_view type, const std::vector<std::string_view>& classes) {
    out.append("| ").append(name).append(" | ").append(type).append(" | ");
    for (size_t i = 0; i < classes.size(); ++i) out.append(i ? ", " : "").append(classes[i]);
    out.append(" |\n");
  };
  for (const Architecture& a : architectures()) add(a.families, a.model_type, {a.name});
  for (const Family& family : families()) add(family.name, family.model_type, family.classes);
  return out;
}

}  // namespace gptq::convert
