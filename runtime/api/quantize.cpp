// SPDX-License-Identifier: Apache-2.0
// C API: quantizing.
#include "api/quantize.h"

#include <algorithm>
#include <cstdio>

#include "api/guard.h"
#include "api/handles.h"
#include "api/opened_source.h"
#include "api/sample.h"
#include "base/checked.h"
#include "quantize/quantize.h"

using namespace gptq;
using namespace gptq::api;

namespace {

constexpr uint32_t default_rows = 128, default_row_tokens = 2048, rows_max = 1u << 20, row_tokens_max = 1u << 20;

quantize::ModuleOptions settings_of(const gptq_quantize_module& m) {
  require(!(m.flags & ~uint32_t(GPTQ_QUANT_KEEP | GPTQ_QUANT_ASYMMETRIC | GPTQ_QUANT_STATIC_GROUPS)), "unknown flags in gptq_quantize_module");
  require(m.bits == 0 || m.bits == 2 || m.bits == 3 || m.bits == 4 || m.bits == 8, "bits must be 2, 3, 4 or 8");
  require(m.group_size >= -1, "group_size must be -1 or above 0");
  require(m.order >= GPTQ_ORDER_GROUP_AWARE && m.order <= GPTQ_ORDER_ACT, "unknown order");
  require(m.damp >= 0 && m.damp <= 1, "damp must be within 0 and 1");
  quantize::ModuleOptions options;
  options.bits = m.flags & GPTQ_QUANT_KEEP ? 0 : m.bits ? m.bits : 4;
  options.group_size = m.group_size ? m.group_size : 128;
  options.symmetric = !(m.flags & GPTQ_QUANT_ASYMMETRIC);
  options.static_groups = m.flags & GPTQ_QUANT_STATIC_GROUPS;
  options.order = m.order == GPTQ_ORDER_ACT       ? quantize::Order::act_order
                  : m.order == GPTQ_ORDER_NATURAL ? quantize::Order::natural
                                                  : quantize::Order::group_aware;
  if (m.damp > 0) options.damp = m.damp;
  return options;
}

gptq_quantize_module module_of(const quantize::ModuleOptions& options, std::string_view name, uint32_t n, uint32_t k) {
  gptq_quantize_module m{};
  m.struct_size = sizeof m;
  if (!options.bits) m.flags |= GPTQ_QUANT_KEEP;
  if (!options.symmetric) m.flags |= GPTQ_QUANT_ASYMMETRIC;
  if (options.static_groups) m.flags |= GPTQ_QUANT_STATIC_GROUPS;
  m.name = name.data();
  m.name_size = name.size();
  m.n = n;
  m.k = k;
  m.bits = options.bits;
  m.group_size = options.group_size;
  m.order = options.order == quantize::Order::act_order  ? GPTQ_ORDER_ACT
            : options.order == quantize::Order::natural ? GPTQ_ORDER_NATURAL
                                                        : GPTQ_ORDER_GROUP_AWARE;
  m.damp = options.damp;
  return m;
}

void send_report(const gptq_quantize_params& p, const quantize::ModuleReport& r) {
  gptq_quantize_report out{};
  out.struct_size = sizeof out;
  out.rounded = r.rounded;
  out.name = r.name.data();
  out.name_size = r.name.size();
  out.n = r.n;
  out.k = r.k;
  out.bits = r.options.bits;
  out.group_size = r.options.group_size;
  out.n_tokens = r.n_tokens;
  out.dead_inputs = r.dead_inputs;
  out.all_tokens = r.all_tokens;
  out.error = r.error;
  out.damp = r.damp;
  out.seconds = r.seconds;
  p.report(p.report_user, &out);
}

quantize::Options options_of(const gptq_runtime& rt, const gptq_quantize_params& p) {
  refuse_extensions(p.next);
  require(!(p.flags & ~uint32_t(GPTQ_QUANTIZE_REFERENCE | GPTQ_QUANTIZE_REPLACE | GPTQ_QUANTIZE_AIM)), "unknown flags in gptq_quantize_params");
  require(!(p.flags & GPTQ_QUANTIZE_REFERENCE) || !(p.flags & GPTQ_QUANTIZE_AIM), "the published algorithm does not aim: give REFERENCE or AIM");
  require(p.head_bits == 0 || p.head_bits == 4 || p.head_bits == 8 || p.head_bits == 16, "head_bits must be 0, 4, 8 or 16");
  require(p.head_group_size >= -1, "head_group_size must be -1 or above 0");
  require(p.first_token_weight >= 0 && p.first_token_weight <= 1e6, "first_token_weight must be within 0 and a million");
  require(!p.file_bytes_max || p.bits_per_weight == 0, "give file_bytes_max or bits_per_weight, not both");
  require(p.bits_per_weight == 0 || (p.bits_per_weight >= 2 && p.bits_per_weight <= 16), "bits_per_weight must be within 2 and 16");
  quantize::Options options;
  static_assert(sizeof p.defaults == 56, "it stands in gptq_quantize_params by value: what is new goes into a struct behind next");
  options.module = settings_of(p.defaults);
  options.head = options.module;
  options.head.bits = p.head_bits == 16 ? 0 : p.head_bits;
  options.head.group_size = p.head_group_size ? p.head_group_size : options.module.group_size;
  options.reference = p.flags & GPTQ_QUANTIZE_REFERENCE;
  if (p.first_token_weight > 0) options.first_token_weight = p.first_token_weight;
  options.replace = p.flags & GPTQ_QUANTIZE_REPLACE;
  options.aim = p.flags & GPTQ_QUANTIZE_AIM;
  options.file_bytes_max = p.file_bytes_max;
  options.mean_bits = p.bits_per_weight;
  options.any_group = !p.defaults.group_size;
  options.any_head = !p.head_bits;
  options.log = [&rt](std::string_view text) { rt.log(GPTQ_LOG_INFO, text); };
  if (rt.memory.limit()) options.memory_max = rt.memory.limit() - std::min(rt.memory.limit(), rt.memory.bytes());
  if (p.module)
    options.choose = [&p](std::string_view name, uint32_t n, uint32_t k, quantize::ModuleOptions& o) {
      gptq_quantize_module m = module_of(o, name, n, k);
      if (p.module(p.module_user, &m)) base::fail(GPTQ_E_CANCELLED, "quantizing was cancelled");
      o = settings_of(m);
    };
  if (p.report) options.report = [&p](const quantize::ModuleReport& report) { send_report(p, report); };
  const auto telling = [&p](uint32_t phase) {
    return [&p, phase](uint32_t permille) {
      if (p.progress(p.progress_user, phase, permille)) base::fail(GPTQ_E_CANCELLED, "quantizing was cancelled");
    };
  };
  if (p.progress) options.measuring = telling(GPTQ_PHASE_MEASURE), options.progress = telling(GPTQ_PHASE_QUANTIZE);
  return options;
}

// Calibration tokens and the lengths of their rows.
struct Rows {
  explicit Rows(std::pmr::memory_resource* memory) : tokens(memory), lengths(memory) {}

  // Tokens one after another; a last row that is not full is kept only if it is the only one.
  void cut(uint32_t rows, uint32_t row_tokens) {
    size_t used = 0;
    while (lengths.size() < rows && tokens.size() - used >= row_tokens) lengths.push_back(row_tokens), used += row_tokens;
    if (lengths.empty() && !tokens.empty()) lengths.push_back(static_cast<uint32_t>(used = tokens.size()));
    tokens.resize(used);
  }
  std::pmr::vector<int32_t> tokens;
  std::pmr::vector<uint32_t> lengths;
};

class RowSource {
 public:
  RowSource(gptq_runtime& rt, const gptq_source& source, const gptq_quantize_params& params, const format::Reader& reader)
      : rt_(rt), source_(source), p_(params), reader_(reader), spec_(*reader.manifest().spec()) {
    require(p_.rows <= rows_max && p_.row_tokens <= row_tokens_max, "rows and row_tokens are at most 1048576");
    require((p_.text != nullptr) + (p_.tokens != nullptr) + (p_.calibration != nullptr) <= 1, "give one of text, tokens and calibration");
    rows_ = p_.rows ? p_.rows : default_rows;
    row_tokens_ = p_.row_tokens ? p_.row_tokens : std::min(default_row_tokens, std::max(1u, spec_.n_ctx_train()));
  }
  uint32_t rows() const { return rows_; }
  uint32_t row_tokens() const { return row_tokens_; }

  Rows read() const {
    Rows out(&rt_.memory);
    if (p_.calibration) {
      ask(out);
      return out;
    }
    if (p_.tokens) out.tokens.assign(p_.tokens, p_.tokens + std::min<size_t>(p_.n_tokens, size_t{rows_} * row_tokens_));
    else if (p_.text) tokenize(out.tokens);
    else out.tokens = sample_rows(rt_, source_, rows_, row_tokens_, p_.progress, p_.progress_user, &rt_.memory);
    out.cut(rows_, row_tokens_);
    require(!out.lengths.empty(), "the calibration data is empty");
    return out;
  }

 private:
  void ask(Rows& out) const {
    for (uint32_t row = 0; row < rows_; ++row) {
      const size_t before = out.tokens.size();
      out.tokens.resize(before + row_tokens_);
      const int64_t n = p_.calibration(p_.calibration_user, row, out.tokens.data() + before, row_tokens_);
      if (n < 0) base::fail(GPTQ_E_CANCELLED, "the calibration callback cancelled");
      require(n <= row_tokens_, "the calibration callback wrote more tokens than there was room for");
      out.tokens.resize(before + static_cast<size_t>(n));
      if (n == 0) break;
      out.lengths.push_back(static_cast<uint32_t>(n));
    }
    require(!out.lengths.empty(), "the calibration callback gave no tokens");
  }

  void tokenize(std::pmr::vector<int32_t>& tokens) const {
    const format::fb::Part* part = reader_.manifest().tokenizer();
    require(part, "the model has no tokenizer: give calibration tokens", GPTQ_E_TEXT);
    const base::Buffer section(&rt_.memory, base::to_size(part->bytes()));
    reader_.read_part(*part, section.bytes(), &rt_.memory);
    const text::Tokenizer tokenizer(section.bytes(), spec_.n_vocab(), &rt_.memory);
    text::encode_enough(tokenizer, text_of(p_.text, p_.text_size, "text"), size_t{rows_} * row_tokens_, tokens);
  }

  gptq_runtime& rt_;
  const gptq_source& source_;
  const gptq_quantize_params& p_;
  const format::Reader& reader_;
  const format::fb::Spec& spec_;
  uint32_t rows_, row_tokens_;
};

// A Hessian of k inputs has full rank from k tokens on; SmolLM2's divergence falls by a third from 3 times as many to 10, and little after.
void warn_of_little(const gptq_runtime& rt, const Rows& rows, const format::Reader& reader) {
  const uint64_t wanted = 8 * uint64_t{std::max(reader.manifest().spec()->n_embd(), reader.manifest().spec()->n_ff())};
  if (rows.tokens.size() >= wanted) return;
  char text[128];
  const int n = std::snprintf(text, sizeof text, "only %zu calibration tokens: give %llu or more for a model of this width", rows.tokens.size(),
                              static_cast<unsigned long long>(wanted));
  rt.log(GPTQ_LOG_WARN, {text, static_cast<size_t>(n)});
}

}  // namespace

gptq_status api::quantize_file(gptq_runtime* rt, const gptq_source* src, const char* path, size_t path_size,
                               const gptq_quantize_params* params, format::MakeFrame zstd, gptq_error* err) {
  return guard(err, [&] {
    require(rt && src && path, "rt, src and path must not be NULL");
    const gptq_quantize_params p = read_struct_or_default(params, "gptq_quantize_params");
    const gptq_source source = read_struct(src, "gptq_source");
    const std::string_view target = text_of(path, path_size, "path");
    require(!target.empty() && target.find('\0') == target.npos, "path is empty or has a NUL in it");
    quantize::Options options = options_of(*rt, p);
    options.zstd = zstd;
    const OpenedSource opened(source);
    quantize::check_target(target, options.replace);
    const format::Reader reader(*opened, &rt->memory);
    const Rows rows = RowSource(*rt, source, p, reader).read();
    warn_of_little(*rt, rows, reader);
    quantize::quantize(*opened, target, {rows.tokens, rows.lengths}, options, rt->kernels, rt->pool,
                       rt->memory.part(GPTQ_TAG_QUANTIZE));
    return GPTQ_OK;
  });
}

gptq_status GPTQ_CALL gptq_quantize(gptq_runtime* rt, const gptq_source* src, const char* path, size_t path_size,
                                    const gptq_quantize_params* params, gptq_error* err) {
  return quantize_file(rt, src, path, path_size, params, nullptr, err);
}

gptq_status GPTQ_CALL gptq_quantize_estimate_get(gptq_runtime* rt, const gptq_source* src, const gptq_quantize_params* params,
                                                 gptq_quantize_estimate* out, gptq_error* err) {
  return guard(err, [&] {
    require(rt && src && out, "rt, src and out must not be NULL");
    check_version(out, "gptq_quantize_estimate");
    const gptq_quantize_params p = read_struct_or_default(params, "gptq_quantize_params");
    const gptq_source source = read_struct(src, "gptq_source");
    const OpenedSource opened(source);
    const format::Reader reader(*opened, &rt->memory);
    const RowSource rows(*rt, source, p, reader);
    const quantize::Options options = options_of(*rt, p);
    const auto chosen = quantize::choose_options(reader, options, &rt->memory);
    write_struct(out, quantize::estimate(reader, chosen, rows.rows(), rows.row_tokens(), options, rt->kernels, rt->pool, &rt->memory));
    return GPTQ_OK;
  });
}
