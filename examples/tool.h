// SPDX-License-Identifier: Apache-2.0
// What the command-line tools' main files share: options on the command line, and one way to report an error.
#pragma once
#include <CLI/CLI.hpp>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine_options.h"

namespace gptq::tool {

inline void EngineOptions::add_precision_to(CLI::App& app) {
  CLI::Option* all = app.add_flag("--exact", exact, "float32 activations and KV cache instead of int8 and float16");
  app.add_flag("--bf16", bf16, "bfloat16 activations instead of int8 (W4A16): nearer to --exact; prefill quick with AVX-512 BF16 alone")->excludes(all);
  // Of keys and values, or apart.
  static const std::map<std::string, int32_t> kinds = [] {
    const std::pair<const char*, int32_t> each[] = {{"f16", GPTQ_KV_F16}, {"f32", GPTQ_KV_F32}, {"i8", GPTQ_KV_I8}, {"i4", GPTQ_KV_I4}};
    std::map<std::string, int32_t> all;
    for (const auto& [keys, kind] : each) {
      all[keys] = kind;
      for (const auto& [values, other] : each) all[std::string(keys) + ":" + values] = kind | (other + 1) * GPTQ_KV_VALUES_F16;
    }
    return all;
  }();
  app.add_option("--kv", kv, "KV cache: f16 (default), f32, i8 or i4, or KEYS:VALUES of these, like i8:i4")
      ->transform(CLI::Validator([](std::string& text) {
        const auto found = kinds.find(text);
        if (found == kinds.end()) return "'" + text + "' is not f16, f32, i8, i4 or KEYS:VALUES of these";
        text = std::to_string(found->second);
        return std::string();
      }, ""));
}
inline void EngineOptions::add_device_to(CLI::App& app) {
  const CLI::Validator known(
      [](const std::string& name) {
        const bool ok = name == "auto" || name == "cpu" || name == "cuda" || name.starts_with("cuda:");
        return ok ? std::string() : "'" + name + "' is not auto, cpu, cuda or cuda:N";
      },
      "");
  app.add_option("--device", devices, "cpu, cuda, auto (default: a GPU where there is one), or several, which get layers in this order: cuda:0,cuda:1,cpu")
      ->delimiter(',')
      ->check(known);
  app.add_option("--device-bytes", device_bytes, "most memory of each GPU in the list: 20G,20G (default: what is free)")->delimiter(',');
  app.add_option("--device-layers", device_layers,
                 "how many layers each device in the list gets; 0 = as many as fit, the CPU: the others. Of one GPU they are the last ones (default: all that fit)")
      ->delimiter(',');
  app.add_option("--backend", backend, "the CUDA backend (default: libgptq_cuda.so beside libgptq, or where the loader finds it)");
}
inline void EngineOptions::add_lora_to(CLI::App& app) {
  app.add_option("--lora", lora, "an adapter, and what it is multiplied by: a .gptq-lora file, or FILE:SCALE");
}
inline void EngineOptions::add_tuning_to(CLI::App& app, bool with_ctx) {
  app.add_option("-t,--threads", threads, "threads that compute (default: one per core)");
  add_precision_to(app);
  add_device_to(app);
  if (with_ctx) app.add_option("-c,--ctx", ctx, "context length in tokens (default: the model's, at most 4096)");
}
inline void EngineOptions::add_to(CLI::App& app, bool with_ctx) {
  app.add_option("MODEL", model, "a .gptq file")->required();
  add_tuning_to(app, with_ctx);
}

inline void add_to(CLI::App& app, RuleOptions& o) {
  auto* choice = app.add_option("--choice", o.choices, "the text is this, or one of several given");
  auto* regex = app.add_option("--regex", o.regex, "the text matches this as a whole")->excludes(choice);
  auto* schema = app.add_option("--json-schema", o.json_schema, "the text is JSON that this file's schema (2020-12) allows")->excludes(choice)->excludes(regex);
  auto* compact = app.add_option("--json-compact", o.json_compact, "the same without spaces, with keys in the schema's order and no needless escapes")
                      ->excludes(choice)
                      ->excludes(regex)
                      ->excludes(schema);
  auto* grammar = app.add_option("--grammar", o.grammar, "the text is what this file's grammar (GBNF) allows")
                      ->excludes(choice)
                      ->excludes(regex)
                      ->excludes(schema)
                      ->excludes(compact);
  app.add_option("--tools", o.tools, "any text, and tool calls as this file's tags say (GPTQ_CONSTRAINT_TAGS in gptq.h)")
      ->excludes(choice)
      ->excludes(regex)
      ->excludes(schema)
      ->excludes(compact)
      ->excludes(grammar);
}

// "1,2,3"
inline std::vector<gptq_token> parse_ids(const std::string& text) {
  std::vector<gptq_token> ids;
  for (const char *p = text.data(), *end = p + text.size(); p < end;) {
    gptq_token id = 0;
    const auto [next, error] = std::from_chars(p, end, id);
    if (error != std::errc() || (next < end && *next != ',')) throw Error(GPTQ_E_INVALID_ARGUMENT, "not a list of token ids like 1,2,3: '" + text + "'");
    ids.push_back(id);
    p = next + 1;
  }
  return ids;
}

// Parses, runs body, and turns what it throws into one line and an exit status: 0 done, 1 failed, 2 usage.
template <class F>
int run(CLI::App& app, int argc, char** argv, F&& body) {
#ifdef SIGXFSZ
  std::signal(SIGXFSZ, SIG_IGN);  // a file that grows past the user's limit is an error of writing, and no death
#endif
  app.allow_windows_style_options(false);  // on Windows, too, "/a/b" is a path
  for (CLI::App* command : app.get_subcommands(nullptr)) command->allow_windows_style_options(false);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code ? 2 : 0;
  }
  try {
    body();
    errno = 0;
    if (std::fflush(stdout) == 0 && !std::ferror(stdout)) return 0;
    std::fprintf(stderr, "%s: cannot write to standard output%s%s\n", app.get_name().c_str(), errno ? ": " : "", errno ? std::strerror(errno) : "");
    return 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", app.get_name().c_str(), error.what());
    return 1;
  }
}

}  // namespace gptq::tool
