// SPDX-License-Identifier: Apache-2.0
#include "converter/quantize_command.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>

#include "api/quantize.h"
#include "base/call.h"
#include "base/os.h"
#include "converter/calibration.h"
#include "converter/convert.h"
#include "converter/interrupt.h"
#include "converter/quantize_report.h"
#include "converter/quantize_rules.h"
#include "converter/system.h"
#include "converter/zstd_frame.h"

namespace gptq::convert {
namespace {

using base::call;
using base::fail;
using Clock = std::chrono::steady_clock;

// A 16-bit .gptq of a checkpoint of another format, for as long as the job runs.
class ConvertedSource {
 public:
  explicit ConvertedSource(const QuantizeArguments& a) : path_(a.source) {
    if (base::os::kind_of(a.source) != base::os::Kind::folder && !a.source.ends_with(".gguf")) return;
    path_ = a.target + ".source";
    Options options;
    options.warn = [](std::string_view text) { std::fprintf(stderr, "gptq-convert: warning: %.*s\n", static_cast<int>(text.size()), text.data()); };
    ConvertOptions how;
    how.replace = temporary_ = true;
    const auto source = open_source(a.source, options);
    convert(*source, path_, how);
  }
  ~ConvertedSource() {
    if (temporary_) base::os::remove_file(path_);
  }
  ConvertedSource(const ConvertedSource&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  bool temporary_ = false;
};

void warn(const std::string& text) { std::fprintf(stderr, "gptq-convert: warning: %s\n", text.c_str()); }

// What the callbacks share.
struct Job {
  Job(const QuantizeArguments& a, const std::string& model) : rules(base::FileSource(model), a.dynamic, a.keep, warn) {}
  QuantizeRules rules;
  QuantizeReport report;
  StopOnSignal signal;  // what is done stays
  uint32_t phase = 0;
  Clock::time_point phase_began{};

  void add(const gptq_quantize_report& matrix) { report.add(matrix, rules.module_of({matrix.name, matrix.name_size})); }
  int32_t progress(uint32_t now, uint32_t permille) {
    if (now != phase) phase = now, phase_began = Clock::now();
    const double seconds = std::chrono::duration<double>(Clock::now() - phase_began).count();
    if (system::errors_on_terminal()) {
      const char* what = phase == GPTQ_PHASE_SAMPLE    ? "sampling calibration text"
                         : phase == GPTQ_PHASE_MEASURE ? "measuring what each matrix is worth"
                                                       : "quantizing";
      const double left = permille ? seconds / permille * (1000 - permille) : 0;
      const size_t full = std::min<size_t>(permille, 1000) * 30 / 1000;
      const std::string bar = std::string(full, '#') + std::string(30 - full, '.');
      std::fprintf(stderr, "\r\x1b[K[%s] %5.1f %%, %.0f s left, %s", bar.c_str(), permille / 10.0, left, what);
    }
    return signal.stopped();
  }
};

// Of a code; any other number is a budget.
bool is_width(double bits) { return bits == 2 || bits == 3 || bits == 4 || bits == 8; }

// 8 bits cost a head or a tied embedding next to nothing and are half the bytes, which every token reads. A small head is left alone.
uint32_t head_bits_for(const std::string& model) {
  const base::FileSource file(model);
  std::pmr::memory_resource* memory = std::pmr::get_default_resource();
  const format::Reader reader(file, memory);
  const model::ModelSpec spec = model::check_spec(reader.manifest(), memory);
  uint64_t all = 0, head = 0;
  for (const model::Slot& slot : model::weight_slots(spec, memory)) {
    const format::fb::Tensor* tensor = reader.find(slot.name);
    if (!tensor || slot.is_vector) continue;
    all += uint64_t{slot.n} * slot.k;
    if (slot.id.role == model::head_role(spec) && !kernels::is_quantized(static_cast<kernels::Kind>(tensor->kind()))) head = uint64_t{slot.n} * slot.k;
  }
  return head && (spec.tied_head || head > all / 50) ? 8 : 16;
}

gptq_quantize_params params_of(const QuantizeArguments& a, const std::string& model, Job& job) {
  gptq_quantize_params p{};
  p.struct_size = sizeof p;
  if (a.mode == "reference") p.flags |= GPTQ_QUANTIZE_REFERENCE;
  if (a.force) p.flags |= GPTQ_QUANTIZE_REPLACE;
  if (a.aim) p.flags |= GPTQ_QUANTIZE_AIM;
  if (is_width(a.bits)) p.defaults.bits = static_cast<uint32_t>(a.bits);
  else p.bits_per_weight = a.bits;
  p.file_bytes_max = a.file_bytes_max;
  p.defaults.group_size = a.group_size;
  p.defaults.damp = a.damp;
  if (a.asymmetric) p.defaults.flags |= GPTQ_QUANT_ASYMMETRIC;
  if (a.static_groups) p.defaults.flags |= GPTQ_QUANT_STATIC_GROUPS;
  const bool natural = a.mode == "reference" || a.order == "natural";
  p.defaults.order = a.desc_act ? GPTQ_ORDER_ACT : natural ? GPTQ_ORDER_NATURAL : GPTQ_ORDER_GROUP_AWARE;
  if (a.head_bits) p.head_bits = a.head_bits;
  else if (!a.file_bytes_max) p.head_bits = a.mode == "reference" ? 16 : head_bits_for(model);
  job.rules.apply_to_head(p, a.mode == "reference" ? 16 : head_bits_for(model));
  p.rows = a.rows;
  p.row_tokens = a.row_tokens;
  p.first_token_weight = a.first_token_weight;
  p.module = [](void* user, gptq_quantize_module* module) {
    static_cast<Job*>(user)->rules.apply(*module);
    return int32_t{0};
  };
  p.report = [](void* user, const gptq_quantize_report* report) { static_cast<Job*>(user)->add(*report); };
  p.progress = [](void* user, uint32_t phase, uint32_t permille) { return static_cast<Job*>(user)->progress(phase, permille); };
  p.module_user = p.report_user = p.progress_user = &job;
  return p;
}

void log_line(void*, int32_t, const char* text, size_t size) { std::fprintf(stderr, "gptq-convert: %.*s\n", static_cast<int>(size), text); }

class Runtime {
 public:
  explicit Runtime(const QuantizeArguments& a) {
    gptq_runtime_desc desc{};
    desc.struct_size = sizeof desc;
    desc.threads = a.threads;
    desc.log = log_line;
    desc.host_bytes_max = a.memory_max;
    call([&](gptq_error* error) { return gptq_runtime_create(&desc, &handle_, error); });
  }
  ~Runtime() { gptq_runtime_release(handle_); }
  Runtime(const Runtime&) = delete;
  gptq_runtime* get() const { return handle_; }

 private:
  gptq_runtime* handle_ = nullptr;
};

uint32_t context_of(const std::string& model) {
  const base::FileSource file(model);
  const format::Reader reader(file, std::pmr::get_default_resource());
  return std::max(1u, reader.manifest().spec()->n_ctx_train());
}

CalibrationTokens calibration_of(const QuantizeArguments& a, const std::string& model, uint32_t row_tokens) {
  const base::FileSource file(model);
  Calibration read = read_calibration(a.calibration, file, a.rows, row_tokens);
  for (size_t i = 0; i < read.of_file.size() && read.of_file.size() > 1; ++i) {
    const std::string text = std::to_string(read.of_file[i]) + " calibration tokens of '" + a.calibration[i] + "'";
    log_line(nullptr, 0, text.data(), text.size());
  }
  return std::move(read.tokens);
}

void show_estimate(gptq_runtime* runtime, const gptq_source& source, const gptq_quantize_params& params) {
  gptq_quantize_estimate e{};
  e.struct_size = sizeof e;
  call([&](gptq_error* error) { return gptq_quantize_estimate_get(runtime, &source, &params, &e, error); });
  std::printf("%u matrices; file %.1f MB, work folder %.1f MB, memory about %.0f MB, time about %.0f s\n", e.n_modules, e.file_bytes / 1e6,
              e.work_bytes / 1e6, e.host_bytes / 1e6, e.seconds);
}

// "90M", "1.5G", "2GiB": rewritten as bytes.
std::string bytes_of(std::string& text) {
  static constexpr struct { std::string_view unit; double bytes; } units[] = {
      {"", 1}, {"b", 1}, {"k", 1e3}, {"m", 1e6}, {"g", 1e9}, {"t", 1e12}, {"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12},
      {"ki", 0x1p10}, {"mi", 0x1p20}, {"gi", 0x1p30}, {"ti", 0x1p40}, {"kib", 0x1p10}, {"mib", 0x1p20}, {"gib", 0x1p30}, {"tib", 0x1p40}};
  double number = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string unit = CLI::detail::to_lower(CLI::detail::trim_copy(text.substr(static_cast<size_t>(rest - text.data()))));
  const auto* found = std::find_if(std::begin(units), std::end(units), [&](const auto& u) { return u.unit == unit; });
  if (error != std::errc() || found == std::end(units) || !(number > 0) || number * found->bytes > 1e18)
    return "'" + text + "' is no size above 0, such as 90M, 1.5G or 2GiB";
  text = std::to_string(static_cast<uint64_t>(number * found->bytes));
  return "";
}
const CLI::Validator bytes_value(bytes_of, "SIZE");

}  // namespace

void add_quantize_options(CLI::App& c, QuantizeArguments& a) {
  c.add_option("SRC", a.source, "16 or 32 bit model: a .gptq file, a Hugging Face folder, a .gguf file, or OWNER/NAME of the hub")->required();
  c.add_option("DST", a.target, "file to write")->required();
  CLI::Option* bits = c.add_option("--bits", a.bits, "of the layers' matrices: 2, 3, 4 or 8. Any other number, such as 3.5, is a mean with scales: bits "
                                                     "and group sizes are then chosen matrix by matrix, by what rounding it costs the model's predictions");
  bits->check(CLI::Range(2.0, 16.0))->capture_default_str();
  c.add_option("--size", a.file_bytes_max, "most bytes of DST, such as 90M: chosen in the same way, the head's bits too")->transform(bytes_value)->excludes(bits);
  c.add_option("--group-size", a.group_size, "inputs that share a scale; -1 = all (default: 128, or chosen)")
      ->check([](const std::string& text) { return text == "0" ? "must be -1 or above 0" : ""; });
  c.add_flag("--asym", a.asymmetric, "with zero points");
  c.add_option("--head-bits", a.head_bits, "of head and tied embedding; 16 = as it is (default: 8 where it is tied or large). --keep and --dynamic "
                                                "that name it win")->check(CLI::IsMember({4, 8, 16}));
  c.add_option("--calibration", a.calibration,
               "text, .jsonl or .json (\"text\" or \"messages\") or .ids (token ids); repeatable: rows are taken in turn. Without it the "
               "model samples its own text");
  c.add_option("--rows", a.rows, "rows of calibration tokens, cut one after another")->check(CLI::Range(1, 1 << 20))->capture_default_str();
  c.add_option("--row-tokens", a.row_tokens, "tokens of a row (default: 2048, or the model's context if that is less)")->check(CLI::Range(1, 1 << 20));
  c.add_option("--order", a.order, "columns that are rounded first")->check(CLI::IsMember({"group-aware", "natural"}))->capture_default_str();
  CLI::Option* desc_act = c.add_flag("--desc-act", a.desc_act, "act-order: groups along the order of importance; slower to run");
  c.add_flag("--static-groups", a.static_groups, "with --desc-act: groups as the columns stand")->needs(desc_act);
  c.add_option("--damp", a.damp, "of the mean of the Hessian's diagonal")->check(CLI::Range(1e-6, 1.0))->capture_default_str();
  c.add_option("--first-token-weight", a.first_token_weight, "how many tokens the first of a row counts for (default: 32)")->check(CLI::Range(1e-6, 1e6));
  c.add_option("--mode", a.mode, "reference: the published algorithm alone")->check(CLI::IsMember({"default", "reference"}))->capture_default_str();
  c.add_flag("--aim", a.aim, "aim at the original model's outputs (GPTAQ): closer to it, in about twice the time");
  c.add_option("--dynamic", a.dynamic, "JSON file of overrides: {\".*v_proj\": {\"bits\": 8, \"group_size\": 64, \"sym\": true}, \"-:lm_head\": {}}; keys are "
                                             "patterns as --keep has them, and the first that matches counts");
  c.add_option("--keep", a.keep, "regular expression over the checkpoint's names (model.layers.0.self_attn.v_proj, lm_head), compared from their "
                                       "beginning: what it matches stays as it is; repeatable");
  c.add_option("--report", a.report, "CSV file with a line for every matrix");
  c.add_option("--memory", a.memory_max, "most memory to hold, such as 4G; beyond it activations go to a file")->transform(bytes_value);
  c.add_option("-t,--threads", a.threads, "threads that compute (default: one per core)");
  c.add_flag("--dry-run", a.dry_run, "say what it would take, and stop");
  c.add_flag("--force", a.force, "replace DST if it exists");
  c.footer("An interrupted job goes on where it stopped when the same command is given again.");
}

void run_quantize(const QuantizeArguments& a) {
  if (!a.dry_run) refuse_existing(a.target, a.force);
  const Clock::time_point begin = Clock::now();
  const ConvertedSource converted(a);
  const Runtime runtime(a);
  Job job(a, converted.path());
  gptq_quantize_params params = params_of(a, converted.path(), job);
  const uint32_t context = context_of(converted.path());
  if (params.row_tokens > context) {
    warn("--row-tokens " + std::to_string(a.row_tokens) + " is more than the model's context: rows have " + std::to_string(context) + " tokens");
    params.row_tokens = context;
  }
  gptq_source source{};
  source.struct_size = sizeof source;
  source.path = converted.path().c_str();
  source.path_size = GPTQ_NTS;
  if (a.dry_run) return show_estimate(runtime.get(), source, params);
  CalibrationTokens tokens;
  if (!a.calibration.empty()) {
    tokens = calibration_of(a, converted.path(), params.row_tokens ? params.row_tokens : std::min(2048u, context));
    params.tokens = tokens.data();
    params.n_tokens = tokens.size();
  }
  if (!a.report.empty()) base::AtomicFile(a.report, base::AtomicFile::IfExists::replace);  // a path that does not do is told before the work
  try {
    call([&](gptq_error* error) { return api::quantize_file(runtime.get(), &source, a.target.c_str(), GPTQ_NTS, &params, zstd_frame, error); });
  } catch (const base::Failure& failure) {
    if (system::errors_on_terminal()) std::fprintf(stderr, "\r\x1b[K");
    if (failure.detail.status != GPTQ_E_CANCELLED) throw;
    if (!base::os::exists(a.target + ".work")) fail(GPTQ_E_CANCELLED, "interrupted before anything was done");
    fail(GPTQ_E_CANCELLED, "interrupted; what is done is kept in '", a.target, ".work', and the same command goes on from there");
  }
  if (system::errors_on_terminal()) std::fprintf(stderr, "\r\x1b[K");
  if (!a.report.empty()) job.report.write_csv(a.report);
  job.report.print();
  uint64_t bytes = 0;
  base::os::size_of(a.target, bytes);
  std::printf("%s: %.1f MB, %.0f s\n", a.target.c_str(), static_cast<double>(bytes) / 1e6,
              std::chrono::duration<double>(Clock::now() - begin).count());
}

}  // namespace gptq::convert
