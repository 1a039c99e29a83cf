// SPDX-License-Identifier: Apache-2.0
#include "converter/hf/pooling.h"

#include <vector>

#include "base/failure.h"
#include "converter/json.h"

namespace gptq::convert {
namespace {

constexpr uint64_t file_max = 1u << 20;

struct Module {
  std::string type, path;  // type: the last part of the class's name
};

std::vector<Module> read_modules(const std::string& folder) {
  const std::string path = folder + "/modules.json";
  std::vector<Module> out;
  if (!file_exists(path)) return out;
  simdjson::dom::parser parser;
  simdjson::dom::array list;
  if (parser.parse(read_text(path, file_max)).get(list)) base::fail(GPTQ_E_FORMAT, "modules.json: is no JSON list");
  for (const auto item : list) {
    std::string_view type, where;
    if (item.at_key("type").get_string().get(type) || item.at_key("path").get_string().get(where))
      base::fail(GPTQ_E_FORMAT, "modules.json: must hold objects with type and path");
    out.push_back({std::string(type.substr(type.rfind('.') + 1)), std::string(where)});
  }
  return out;
}

std::string pooling_kind(const std::string& folder, const Module& module, const Options& options) {
  const std::string name = module.path + "/config.json";
  if (module.path.empty() || module.path[0] == '.' || module.path.find_first_of("/\\") != module.path.npos)
    base::fail(GPTQ_E_FORMAT, "modules.json: '", module.path, "' is not a folder beside it");
  const JsonDocument file = JsonDocument::read(folder + "/" + name, name, file_max);
  const JsonObject config = file.root();
  std::vector<std::string> modes;
  for (const auto [key, value] : config.fields()) {
    bool on = false;
    if (key.starts_with("pooling_mode_") && !value.get(on) && on) modes.emplace_back(key.substr(13));
  }
  if (const auto mode = config.string("pooling_mode")) modes.emplace_back(*mode);
  if (modes.size() == 1 && modes[0] == "lasttoken") return "last";
  if (modes.size() == 1 && (modes[0] == "mean_tokens" || modes[0] == "mean")) return "mean";
  std::string all;
  for (const std::string& mode : modes) all += (all.empty() ? "" : " and ") + mode;
  options.warn(name + ": pooling by " + (all.empty() ? "nothing" : all) + " is not supported, only by the last token or the mean; embeddings take the last token");
  return "";
}

}  // namespace

Pooling read_pooling(const std::string& folder, const Options& options) {
  Pooling out;
  for (const Module& module : read_modules(folder)) {
    if (module.type == "Pooling") out.kind = pooling_kind(folder, module, options);
    else if (module.type == "Normalize") out.normalize = true;
    else if (module.type != "Transformer") options.warn("modules.json: the module '" + module.type + "' is left out of embeddings");
  }
  return out;
}

}  // namespace gptq::convert
