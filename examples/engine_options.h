// SPDX-License-Identifier: Apache-2.0
// The options that choose model and engine. Files that only use them need no CLI11, which compiles slowly; tool.h says how they are given.
#pragma once
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "file_path.h"
#include "gptq.hpp"
#include "option_words.h"

namespace CLI {
class App;
}

namespace gptq::tool {

// Devices for a model, and the parameters that name them.
struct Placed {
  std::vector<gptq_device_share> shares;
  gptq_model_params params = make<gptq_model_params>();
  operator const gptq_model_params&() const { return params; }
  void list() {
    for (const gptq_device_share& share : shares) pointers_.push_back(&share);
    params.devices = pointers_.data();
    params.n_devices = pointers_.size();
  }

 private:
  std::vector<const gptq_device_share*> pointers_;
};

struct EngineOptions {
  std::string model;
  uint32_t threads = 0, ctx = 0;
  bool exact = false, bf16 = false;
  int32_t kv = GPTQ_KV_F16;
  std::vector<std::string> devices = {"auto"};  // auto, or a list of cpu and cuda:N, in the order of the layers
  std::vector<std::string> device_bytes;        // of its GPUs
  std::vector<uint32_t> device_layers;          // of its devices
  std::string backend;                          // the backend's shared object
  std::string lora;  // FILE or FILE:SCALE; "" = none

  void add_to(CLI::App& app, bool with_ctx = true);
  void add_tuning_to(CLI::App& app, bool with_ctx = true);
  void add_precision_to(CLI::App& app);
  void add_device_to(CLI::App& app);
  void add_lora_to(CLI::App& app);
  gptq_runtime_desc runtime() const {
    auto desc = make<gptq_runtime_desc>();
    desc.threads = threads;
    desc.log = [](void*, int32_t, const char* text, size_t size) { std::fprintf(stderr, "%s\n", in_option_words({text, size}).c_str()); };
    return desc;
  }
  // Where the model goes; auto: to the first GPU if there is one that can be used, and that knows this kind of model.
  Placed placement(const Runtime& runtime, const std::string& path) const {
    Placed placed;
    const bool has_parts = !device_bytes.empty() || !device_layers.empty();
    if (devices.size() == 1 && devices[0] == "cpu") {
      if (has_parts) throw Error(GPTQ_E_INVALID_ARGUMENT, "--device-bytes and --device-layers count with a GPU in --device");
      return placed;
    }
    const bool automatic = devices.size() == 1 && devices[0] == "auto";
    auto error = make<gptq_error>();
    gptq_status status = gptq_runtime_load_backend(runtime.get(), backend.empty() ? nullptr : backend.c_str(), GPTQ_NTS, &error);
    if (status == GPTQ_E_INVALID_STATE) status = GPTQ_OK;  // for another model before
    size_t n_gpus = 0;
    for (const std::string& name : devices) {
      auto share = make<gptq_device_share>();
      share.kind = name == "cpu" ? GPTQ_DEVICE_CPU : GPTQ_DEVICE_CUDA;
      if (placed.shares.size() < device_layers.size()) share.layers = device_layers[placed.shares.size()];
      if (share.kind == GPTQ_DEVICE_CUDA) {
        if (name.starts_with("cuda:")) share.ordinal = static_cast<int32_t>(number(name.substr(5), "a GPU's ordinal"));
        if (n_gpus < device_bytes.size()) share.bytes_max = size(device_bytes[n_gpus]);
        ++n_gpus;
        auto info = make<gptq_device_info>();
        if (status == GPTQ_OK) status = gptq_runtime_device(runtime.get(), static_cast<uint32_t>(share.ordinal), &info, &error);
        if (status != GPTQ_OK && automatic && has_parts)
          throw Error(status, "--device-bytes and --device-layers count with a GPU alone, and there is none: " + std::string(error.message));
        if (status != GPTQ_OK && automatic) return {};
        if (status != GPTQ_OK) throw Error(status, error.message);
        std::fprintf(stderr, "device: %s, %.1f of %.1f GB free\n", info.name, static_cast<double>(info.bytes_free) / 1e9,
                     static_cast<double>(info.bytes_total) / 1e9);
      }
      placed.shares.push_back(share);
    }
    if (device_bytes.size() > n_gpus) throw Error(GPTQ_E_INVALID_ARGUMENT, "--device-bytes has more sizes than --device has GPUs");
    if (device_layers.size() > devices.size()) throw Error(GPTQ_E_INVALID_ARGUMENT, "--device-layers has more numbers than --device has devices");
    placed.list();
    if (automatic && is_refused(runtime, path, placed)) return {};
    return placed;
  }
  // "20G"
  static uint64_t size(const std::string& text) {
    constexpr std::string_view units = "KMGT";
    const size_t unit = text.empty() ? units.npos : units.find(text.back());
    return number(unit == units.npos ? text : text.substr(0, text.size() - 1), "a size like 20G") << (unit == units.npos ? 0 : 10 * (unit + 1));
  }
  static uint64_t number(const std::string& text, const char* what) {
    uint64_t value = 0;
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || stop != text.data() + text.size()) throw Error(GPTQ_E_INVALID_ARGUMENT, "'" + text + "' is not " + what);
    return value;
  }
  static bool is_refused(const Runtime& runtime, const std::string& path, const gptq_model_params& params) {
    auto source = make<gptq_source>();
    source.path = path.data();
    source.path_size = path.size();
    auto estimate = make<gptq_memory_estimate>();
    auto error = make<gptq_error>();
    if (gptq_model_estimate(runtime.get(), &source, &params, nullptr, &estimate, &error) != GPTQ_E_UNSUPPORTED) return false;
    std::fprintf(stderr, "device: CPU, since %s\n", error.message);
    return true;
  }
  // Of several devices, which got what.
  void tell_where(const Model& model) const {
    auto p = make<gptq_placement>();
    for (uint32_t i = 0; devices.size() > 1 && gptq_model_placement(model.get(), i, &p) == GPTQ_OK; ++i) {
      const std::string name = p.kind == GPTQ_DEVICE_CPU ? "cpu" : "cuda:" + std::to_string(p.ordinal);
      std::fprintf(stderr, "%s: %u layers from %u on, %.2f GB\n", name.c_str(), p.n_layers, p.first_layer, static_cast<double>(p.bytes) / 1e9);
    }
  }
  gptq_engine_params engine() const {
    auto params = make<gptq_engine_params>();
    params.ctx_tokens = ctx;
    params.flags = exact ? GPTQ_ENGINE_EXACT : bf16 ? GPTQ_ENGINE_BF16 : 0;
    params.kv_type = kv;
    return params;
  }
};

// The adapter that --lora names, on every session that is told so.
class ChosenAdapter {
 public:
  ChosenAdapter(const Model& model, const EngineOptions& o) {
    if (o.lora.empty()) return;
    std::string path = o.lora;
    if (const size_t colon = path.rfind(':'); colon != path.npos) {
      const char *begin = path.data() + colon + 1, *end = path.data() + path.size();
      const auto [stop, error] = std::from_chars(begin, end, scale_);
      const bool is_scale = error == std::errc() && stop == end;
      std::error_code ignored;
      if (!is_scale && !std::filesystem::exists(file_path(path), ignored) && std::filesystem::exists(file_path(path.substr(0, colon)), ignored))
        throw Error(GPTQ_E_INVALID_ARGUMENT, "--lora: '" + path.substr(colon + 1) + "' is no scale");
      if (is_scale) path.resize(colon);
      else scale_ = 1;
    }
    adapter_.emplace(model, path);
  }
  void attach(Session& session) const {
    if (adapter_) session.set_adapter(&*adapter_, scale_);
  }

 private:
  std::optional<Adapter> adapter_;
  float scale_ = 1;
};

// What a text must be.
struct RuleOptions {
  std::vector<std::string> choices;
  std::string regex, json_schema, json_compact, grammar, tools;  // all but the first: files
  // GPTQ_CONSTRAINT_* and its source; 0: no constraint.
  std::pair<int32_t, std::string> source() const;
};

inline std::string read_file(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(file_path(path), error)) throw Error(GPTQ_E_INVALID_ARGUMENT, "'" + path + "' is a folder, and a file is wanted");
  std::ifstream file(file_path(path), std::ios::binary);
  if (!file) throw Error(GPTQ_E_NOT_FOUND, "cannot read '" + path + "'");
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (file.bad()) throw Error(GPTQ_E_IO, "cannot read '" + path + "'");
  return text;
}

inline std::string as_json(const std::vector<std::string>& texts) {
  std::string json = "[";
  for (const std::string& text : texts) {
    json += json.size() > 1 ? ",\"" : "\"";
    for (const char c : text) {
      char code[8];
      if (static_cast<unsigned char>(c) < 0x20) json.append(code, static_cast<size_t>(std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned>(c))));
      else json.append(c == '"' || c == '\\' ? "\\" : "") += c;
    }
    json += '"';
  }
  return json + "]";
}

inline std::pair<int32_t, std::string> RuleOptions::source() const {
  if (!choices.empty()) return {GPTQ_CONSTRAINT_CHOICE, as_json(choices)};
  if (!regex.empty()) return {GPTQ_CONSTRAINT_REGEX, regex};
  if (!json_schema.empty()) return {GPTQ_CONSTRAINT_JSON_SCHEMA, read_file(json_schema)};
  if (!json_compact.empty()) return {GPTQ_CONSTRAINT_JSON_COMPACT, read_file(json_compact)};
  if (!grammar.empty()) return {GPTQ_CONSTRAINT_GRAMMAR, read_file(grammar)};
  if (!tools.empty()) return {GPTQ_CONSTRAINT_TAGS, read_file(tools)};
  return {};
}

}  // namespace gptq::tool
