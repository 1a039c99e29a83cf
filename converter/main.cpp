// SPDX-License-Identifier: Apache-2.0
// gptq-convert: makes .gptq files, and looks into them. Exit codes: 0 done, 1 failed, 2 used wrongly.
#include <CLI/CLI.hpp>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <memory>
#include <new>
#include <optional>

#include "base/failure.h"
#include "base/io.h"
#include "base/os.h"
#include "converter/convert.h"
#include "converter/hf/export.h"
#include "converter/hf/families.h"
#include "converter/hub/command.h"
#include "converter/inspect.h"
#include "converter/interrupt.h"
#include "converter/json.h"
#include "converter/lora/lora.h"
#include "converter/lora/merge.h"
#include "converter/quantize_command.h"
#include "converter/synth.h"
#include "converter/system.h"

namespace {

using namespace gptq;

struct Arguments {
  std::string source, target, file, compress = "stored", zeros = "auto", lora_kind = "auto", adapter;
  uint32_t head_bits = 16;
  bool force = false, as_json = false, families = false, discard = false;
  convert::SynthOptions synth;
  convert::QuantizeArguments quantize;
};

void say(const std::string& text) { std::fprintf(stderr, "%s\n", text.c_str()); }

void show_progress(uint64_t done, uint64_t total) {
  const int percent = total ? static_cast<int>(100.0 * static_cast<double>(done) / static_cast<double>(total)) : 100;
  char bar[41];
  for (int i = 0; i < 40; ++i) bar[i] = i * 100 < percent * 40 ? '#' : '.';
  bar[40] = 0;
  std::fprintf(stderr, "\r[%s] %3d %%%s", bar, percent, done == total ? "\n" : "");
  std::fflush(stderr);
}

bool on_terminal() { return convert::system::errors_on_terminal(); }

void warn(std::string_view text) {
  say((on_terminal() ? "\r\x1b[Kgptq-convert: warning: " : "gptq-convert: warning: ") + std::string(text));
}

void refuse_existing(const Arguments& arguments) { convert::refuse_existing(arguments.target, arguments.force); }

void write_model(convert::ModelSource& source, const Arguments& arguments) {
  convert::ConvertOptions how;
  how.replace = arguments.force;
  how.head_bits = arguments.head_bits;
  how.codes = arguments.compress == "zstd" ? format::Compression::zstd : format::Compression::stored;
  if (on_terminal()) how.progress = show_progress;
  const convert::RemoveOnSignal guard(base::AtomicFile::temporary_path(arguments.target));
  const convert::ConvertResult result = convert::convert(source, arguments.target, how);
  std::printf("%s: %llu tensors, %.1f million weights, %.1f MB\n", arguments.target.c_str(),
              static_cast<unsigned long long>(result.n_tensors), static_cast<double>(result.n_weights) / 1e6,
              static_cast<double>(result.bytes) / 1e6);
}

std::unique_ptr<convert::ModelSource> open_source(convert::hub::LocalSource& local) {
  convert::Options options;
  options.warn = warn;
  if (local.discards()) options.done_with = [&local](std::string_view file, uint64_t offset, uint64_t bytes) { local.done_with(file, offset, bytes); };
  auto source = convert::open_source(local.path(), options);
  local.opened();
  return source;
}

void run_convert(const Arguments& arguments) {
  // Names of the hub have a slash: this is a command that was mistaken for a folder.
  if (arguments.source.find('/') == std::string::npos && !base::os::exists(arguments.source))
    base::fail(GPTQ_E_NOT_FOUND, "'", arguments.source, "' is no command, file or folder; --help lists the commands");
  refuse_existing(arguments);
  convert::hub::LocalSource local(arguments.source, arguments.target, arguments.discard);
  write_model(*open_source(local), arguments);
}

// Its output is the file's name alone.
void run_fetch(const Arguments& arguments) {
  const std::string file = convert::hub::cached_model(arguments.source, arguments.discard, [](auto& local, const std::string& target) {
    convert::ConvertOptions how;
    how.replace = true;
    if (on_terminal()) how.progress = show_progress;
    const auto source = open_source(local);
    const convert::RemoveOnSignal guard(base::AtomicFile::temporary_path(target));
    convert::convert(*source, target, how);
  });
  std::printf("%s\n", file.c_str());
}

void run_synth(const Arguments& arguments) {
  refuse_existing(arguments);
  write_model(*convert::make_synth(arguments.source, arguments.synth), arguments);
}

void run_inspect(const Arguments& arguments) {
  const std::string text = convert::inspect(base::FileSource(arguments.file), arguments.as_json);
  std::fwrite(text.data(), 1, text.size(), stdout);
}

void run_verify(const Arguments& arguments) {
  const convert::Verified verified = convert::verify(base::FileSource(arguments.file));
  std::printf("%s: sound, %llu tensors in %llu chunks, %llu bytes\n", arguments.file.c_str(),
              static_cast<unsigned long long>(verified.n_tensors), static_cast<unsigned long long>(verified.n_chunks),
              static_cast<unsigned long long>(verified.bytes));
}

// The model with the adapter of --lora FILE[:SCALE] in its weights, in a file that goes at the end.
class MergedFile {
 public:
  explicit MergedFile(const Arguments& arguments) : path_(arguments.target + ".merged.gptq"), guard_(base::AtomicFile::temporary_path(path_)) {
    std::string adapter = arguments.adapter;
    double scale = 1;
    if (const size_t colon = adapter.rfind(':'); colon != adapter.npos) {
      const char *begin = adapter.data() + colon + 1, *end = adapter.data() + adapter.size();
      const auto [stop, error] = std::from_chars(begin, end, scale);
      const bool is_scale = error == std::errc() && stop == end;
      if (!is_scale && !base::os::exists(adapter) && base::os::exists(adapter.substr(0, colon)))
        base::fail(GPTQ_E_INVALID_ARGUMENT, "--lora: '", adapter.substr(colon + 1), "' is no scale");
      if (is_scale) adapter.resize(colon); else scale = 1;
    }
    convert::merge_lora(base::FileSource(arguments.file), base::FileSource(adapter), scale, path_, base::AtomicFile::IfExists::replace);
  }
  ~MergedFile() { unlink(path_.c_str()); }
  MergedFile(const MergedFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  const std::string path_;
  const convert::RemoveOnSignal guard_;
};

void run_export(const Arguments& arguments) {
  std::optional<MergedFile> merged;
  if (!arguments.adapter.empty()) merged.emplace(arguments);
  const convert::StopOnSignal signal;
  convert::ExportOptions how;
  how.replace = arguments.force;
  how.zeros = arguments.zeros == "v1"   ? convert::ZerosFormat::v1
              : arguments.zeros == "v2" ? convert::ZerosFormat::v2
                                        : convert::ZerosFormat::automatic;
  how.warn = warn;
  how.progress = [&signal](uint64_t done, uint64_t total) {
    if (signal.stopped()) base::fail(GPTQ_E_CANCELLED, "interrupted; nothing is left behind");
    if (on_terminal()) show_progress(done, total);
  };
  const convert::ExportResult result = convert::export_hf(base::FileSource(merged ? merged->path() : arguments.file), arguments.target, how);
  std::printf("%s: %zu tensors of %.1f MB in %zu file%s, %zu layers quantized\n", arguments.target.c_str(), result.n_tensors,
              static_cast<double>(result.bytes) / 1e6, result.n_files, result.n_files == 1 ? "" : "s", result.n_quantized);
}

void run_lora(const Arguments& arguments) {
  refuse_existing(arguments);
  convert::LoraOptions how;
  how.replace = arguments.force;
  if (arguments.lora_kind != "auto") how.kind = arguments.lora_kind == "f16" ? kernels::Kind::f16 : arguments.lora_kind == "bf16" ? kernels::Kind::bf16 : kernels::Kind::f32;
  const convert::RemoveOnSignal guard(base::AtomicFile::temporary_path(arguments.target));
  const convert::LoraResult result = convert::convert_lora(arguments.source, base::FileSource(arguments.file), arguments.target, how);
  std::printf("%s: %u matrices changed, rank %u, %.1f million weights, %.1f MB\n", arguments.target.c_str(), result.n_matrices, result.rank,
              static_cast<double>(result.n_parameters) / 1e6, static_cast<double>(result.bytes) / 1e6);
}

void list_families(const Arguments&) { std::fputs(convert::family_table().c_str(), stdout); }

void run_quantize(const Arguments& arguments) {
  convert::QuantizeArguments quantize = arguments.quantize;
  const convert::hub::LocalSource local(quantize.source, quantize.target, false);
  quantize.source = local.path();
  convert::run_quantize(quantize);
}

// Runs one command; every failure is one line.
int guarded(void (*command)(const Arguments&), const Arguments& arguments) {
  try {
    command(arguments);
    if (std::fflush(stdout) == 0 && !std::ferror(stdout)) return 0;
    say("gptq-convert: cannot write to standard output");
  } catch (const base::Failure& failure) {
    say(std::string("gptq-convert: ") + failure.detail.message);
  } catch (const std::bad_alloc&) {
    say("gptq-convert: out of memory");
  } catch (const std::exception& error) {
    say(std::string("gptq-convert: ") + error.what());
  } catch (...) {
    say("gptq-convert: failed for a reason it cannot name");
  }
  return 1;
}

// What command-line options have in common: each use of one takes one value, which is not empty.
void check_options(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) {
    if (option->get_items_expected_max() == 0) continue;
    if (!option->get_positional()) option->allow_extra_args(false);
    option->check([](const std::string& text) { return text.empty() ? "the value is empty" : ""; });
  }
  for (CLI::App* command : app.get_subcommands(nullptr)) check_options(*command);
}

}  // namespace

int main(int argc, char** argv) {
#ifdef SIGXFSZ
  std::signal(SIGXFSZ, SIG_IGN);  // a file that grows past the user's limit is an error of writing, and no death
#endif
  Arguments arguments;
  CLI::App app{"Makes .gptq files for libgptq from Hugging Face folders (GPTQ, or 16 and 32 bit safetensors) and GGUF files."};
  app.name("gptq-convert");
  app.allow_windows_style_options(false);  // on Windows, too, "/a/b" is a path
  app.footer(
      "Examples:\n  gptq-convert SmolLM2-135M-GPTQ smollm2.gptq\n  gptq-convert HuggingFaceTB/SmolLM2-135M-Instruct smollm2.gptq\n  gptq-convert inspect smollm2.gptq\n  gptq-convert verify smollm2.gptq\n"
      "The hub: files go to its cache folder (HF_HOME, HF_HUB_CACHE) and are used from there; HF_TOKEN for gated models, HF_ENDPOINT,\n"
      "HF_HUB_OFFLINE and https_proxy count. OWNER/NAME/FILE.gguf takes a GGUF file. What was cut off goes on from there.");
  app.add_flag("--families", arguments.families, "list the families of models that can be converted");
  app.set_version_flag("--version", "gptq-convert " GPTQ_VERSION_TEXT);
  app.add_option("SRC", arguments.source, "folder with config.json and *.safetensors, a .gguf file, or OWNER/NAME[@REVISION] of the Hugging Face hub");
  app.add_option("DST", arguments.target, "file to write");
  app.add_flag("--force", arguments.force, "replace DST if it exists");
  app.add_flag("--discard", arguments.discard, "weights loaded from the hub do not stay in its cache: their room is given back as they are converted");
  app.add_option("--compress", arguments.compress, "how quantized codes are kept: zstd is smaller, stored loads faster")
      ->check(CLI::IsMember({"stored", "zstd"}))->capture_default_str();
  app.add_option("--head-bits", arguments.head_bits, "of the output head (and the embedding where they are one): 8 and 4 are faster than 16")
      ->check(CLI::IsMember({4, 8, 16}))->capture_default_str();
  CLI::App* inspect = app.add_subcommand("inspect", "say what a .gptq file holds");
  inspect->add_option("FILE", arguments.file, ".gptq file")->required();
  inspect->add_flag("--json", arguments.as_json, "as JSON");
  CLI::App* verify = app.add_subcommand("verify", "read and check every byte of a .gptq file");
  verify->add_option("FILE", arguments.file, ".gptq file")->required();
  CLI::App* out = app.add_subcommand("export", "make a Hugging Face folder of a .gptq file: GPTQ, or 16 bit where it is not quantized");
  out->add_option("FILE", arguments.file, ".gptq file")->required();
  out->add_option("DIR", arguments.target, "folder to make")->required();
  out->add_flag("--force", arguments.force, "replace DIR if it exists and holds a checkpoint and nothing else");
  out->add_option("--format", arguments.zeros, "how zero points are kept: v1, which every engine reads, v2, or auto: v2 where asymmetric")
      ->check(CLI::IsMember({"auto", "v1", "v2"}))->capture_default_str();
  out->add_option("--lora", arguments.adapter, "add an adapter to the weights, which must be 16 or 32 bit: a .gptq-lora file, or FILE:SCALE");
  CLI::App* synth = app.add_subcommand("synth", "make a model of a real shape with random weights, to measure speed with");
  synth->add_option("SHAPE", arguments.source, "smollm2-135m, llama-1.1b, llama3-8b, llama2-13b, qwen3-moe-small, or a config.json")->required();
  synth->add_option("DST", arguments.target, "file to write")->required();
  synth->add_option("--bits", arguments.synth.bits, "of the layers' matrices: 2, 3, 4, 8, or 16")->capture_default_str();
  synth->add_option("--group-size", arguments.synth.group_size, "inputs that share a scale; -1 = all")->capture_default_str();
  synth->add_option("--head-bits", arguments.synth.head_bits, "of embedding and head: 4, 8 or 16")->capture_default_str();
  synth->add_flag("--force", arguments.force, "replace DST if it exists");
  CLI::App* lora = app.add_subcommand("lora", "make a .gptq-lora file of a PEFT folder with a LoRA");
  lora->add_option("SRC", arguments.source, "folder with adapter_config.json and adapter_model.safetensors")->required();
  lora->add_option("DST", arguments.target, "file to write")->required();
  lora->add_option("--model", arguments.file, "the .gptq file of the model that it is for")->required();
  lora->add_option("--type", arguments.lora_kind, "of its weights: f16, bf16, f32, or auto")
      ->check(CLI::IsMember({"auto", "f16", "bf16", "f32"}))->capture_default_str();
  lora->add_flag("--force", arguments.force, "replace DST if it exists");
  CLI::App* fetch = app.add_subcommand("fetch", "load a model of the Hugging Face hub, convert it into gptq's cache folder (GPTQ_CACHE), print the file's name");
  fetch->add_option("NAME", arguments.source, "OWNER/NAME[@REVISION]")->required();
  fetch->add_flag("--discard", arguments.discard, "the loaded weights do not stay in the hub's cache");
  CLI::App* quantize = app.add_subcommand("quantize", "quantize a 16 or 32 bit model with calibration data");
  convert::add_quantize_options(*quantize, arguments.quantize);
  app.require_subcommand(0, 1);
  check_options(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (app.exit(error) != 0) return 2;
    if (std::cout.flush()) return 0;
    say("gptq-convert: cannot write to standard output");
    return 1;
  } catch (const std::exception& error) {
    say(std::string("gptq-convert: ") + error.what());
    return 1;
  }
  if (arguments.families) return guarded(list_families, arguments);
  if (*inspect) return guarded(run_inspect, arguments);
  if (*verify) return guarded(run_verify, arguments);
  if (*out) return guarded(run_export, arguments);
  if (*fetch) return guarded(run_fetch, arguments);
  if (*quantize) return guarded(run_quantize, arguments);
  if (*synth) return guarded(run_synth, arguments);
  if (*lora) return guarded(run_lora, arguments);
  if (arguments.source.empty() || arguments.target.empty()) {
    say("gptq-convert: SRC and DST are needed; --help says more");
    return 2;
  }
  return guarded(run_convert, arguments);
}
