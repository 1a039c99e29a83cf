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
#include <iostream>
#include <limits>
#include <map>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "engine_options.h"
#include "option_words.h"

namespace gptq::tool {

// One of these words, which stands for a number.
inline CLI::Validator one_of(const std::map<std::string, int32_t>& words) {
  return CLI::Validator([words](std::string& text) {
    std::string all;
    for (const auto& [word, number] : words) {
      if (word == text) return text = std::to_string(number), std::string();
      all += (all.empty() ? "" : " or ") + word;
    }
    return "'" + text + "' is not " + all;
  }, "");
}

inline CLI::Validator above_0() {
  return CLI::Validator([](const std::string& text) { return text.find_first_not_of('0') == text.npos ? "'" + text + "' is not above 0" : ""; }, "");
}

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
      ->type_name("KIND")
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
  for (const char *p = text.data(), *end = p + text.size(); p <= end && !text.empty();) {
    gptq_token id = 0;
    const auto [next, error] = std::from_chars(p, end, id);
    if (error != std::errc() || (next < end && *next != ',')) throw Error(GPTQ_E_INVALID_ARGUMENT, "not a list of token ids like 1,2,3: '" + text + "'");
    ids.push_back(id);
    p = next + 1;
  }
  return ids;
}

// What all options have in common: each use of one takes one value, which is not empty unless it is a text that may be.
inline void check_options(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) {
    if (option->get_items_expected_max() == 0) continue;
    if (!option->get_positional()) option->allow_extra_args(false);
    const std::string name = option->get_name();
    if (name != "--prompt" && name != "--system" && name != "--choice")
      option->check(CLI::Validator([](const std::string& text) { return text.empty() ? "the value is empty" : ""; }, ""));
    if (option->get_type_name() == "UINT")
      option->check(CLI::Validator([](const std::string& text) {
        uint64_t value = 0;
        const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        const bool whole = error == std::errc() && stop == text.data() + text.size();
        return whole ? "" : "'" + text + "' is no whole number from 0 to " + std::to_string(std::numeric_limits<uint64_t>::max());
      }, ""));
  }
  for (CLI::App* command : app.get_subcommands(nullptr)) check_options(*command);
}

// Parses, runs body, and turns what it throws into one line and an exit status: 0 done, 1 failed, 2 usage.
template <class F>
int run(CLI::App& app, int argc, char** argv, F&& body) {
#ifdef SIGXFSZ
  std::signal(SIGXFSZ, SIG_IGN);  // a file that grows past the user's limit is an error of writing, and no death
#endif
  const std::string name = app.get_name();
  const auto written = [&](bool ok) {
    if (!ok) std::fprintf(stderr, "%s: cannot write to standard output%s%s\n", name.c_str(), errno ? ": " : "", errno ? std::strerror(errno) : "");
    return ok ? 0 : 1;
  };
  const auto failed = [&](const std::string& why) {
    std::fflush(stdout);
    std::fprintf(stderr, "%s: %s\n", name.c_str(), in_option_words(why).c_str());
    return 1;
  };
  try {
    const std::string_view built = gptq_build_info();  // "libgptq 0.2.0, ..."
    const size_t begin = built.find(' ') + 1;
    app.set_version_flag("--version", name + " " + std::string(built.substr(begin, built.find(',') - begin)));
    app.allow_windows_style_options(false);  // on Windows, too, "/a/b" is a path
    for (CLI::App* command : app.get_subcommands(nullptr)) command->allow_windows_style_options(false);
    check_options(app);
    try {
      app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
      if (app.exit(error)) return 2;
      errno = 0;
      return written(bool(std::cout.flush()));
    }
    body();
    errno = 0;
    return written(std::fflush(stdout) == 0 && !std::ferror(stdout));
  } catch (const Error& error) {  // the place in the library's source is for who reports a bug of it
    std::string why = error.what();
    const std::string site = " [" + error.site + "]";
    if (error.status != GPTQ_E_INTERNAL && why.ends_with(site)) why.resize(why.size() - site.size());
    return failed(why);
  } catch (const std::bad_alloc&) {
    return failed("out of memory");
  } catch (const std::exception& error) {
    return failed(error.what());
  } catch (...) {
    return failed("failed for a reason it cannot name");
  }
}

}  // namespace gptq::tool
