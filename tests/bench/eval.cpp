// SPDX-License-Identifier: Apache-2.0
#include "eval.h"

#include <unistd.h>

namespace gptq::eval {
namespace {

constexpr size_t rows_max = 64;

gptq_engine_params engine_params(const Options& o, uint32_t ctx) {
  gptq_engine_params params = o.engine();
  params.ctx_tokens = ctx;
  params.logits_rows = rows_max;
  return params;
}

size_t top(std::span<const float> logits) { return static_cast<size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()); }

}  // namespace

LogitStream::LogitStream(const Model& model, const Options& o, uint32_t ctx)
    : n_vocab_(model.info().n_vocab), rows_(rows_max * n_vocab_), adapter_(model, o), engine_(model, engine_params(o, ctx)), session_(engine_) {
  adapter_.attach(session_);
}

void LogitStream::start(std::span<const gptq_token> window) {
  n_rows_ = next_ = 0;
  session_.truncate(0);
  session_.append(window.data(), window.size());
  auto params = make<gptq_generate_params>();
  params.flags = GPTQ_GEN_PREFILL_ONLY | GPTQ_GEN_LOGITS;
  session_.start(params);
}

std::span<const float> LogitStream::row() {
  while (next_ == n_rows_) {
    uint32_t first = 0, n = 0;
    check(gptq_session_read_logits(session_.get(), rows_.data(), rows_.size(), &first, &n));
    n_rows_ = n;
    next_ = 0;
    if (n) break;
    const gptq_session_info info = session_.info();
    if (info.state != GPTQ_SESSION_RUNNING) {
      check(info.status);
      return {};
    }
    engine_.step();
  }
  return std::span(rows_).subspan(next_++ * n_vocab_, n_vocab_);
}

Row::Row(std::span<const float> row) : logits(row) {
  const double most = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (const float x : row) sum += std::exp(x - most);
  norm = most + std::log(sum);
}

void Divergence::add(const Row& model, const Row& reference) {
  double kl = 0;
  for (size_t i = 0; i < model.logits.size(); ++i) {
    const double log_p = reference.log_p(i);
    kl += std::exp(log_p) * (log_p - model.log_p(i));
  }
  sum += kl;
  most = std::max(most, kl);
  same_top += top(model.logits) == top(reference.logits);
  ++n;
}

std::vector<std::vector<gptq_token>> windows_of(const Model& model, const Options& o) {
  const auto ids = model.tokenize(tool::read_file(o.text), GPTQ_TEXT_ADD_BOS | GPTQ_TEXT_PARSE_SPECIAL);
  if (o.window < 2) throw Error(GPTQ_E_INVALID_ARGUMENT, "--ctx must be at least 2");
  if (o.stride > o.window) throw Error(GPTQ_E_INVALID_ARGUMENT, "--stride must be at most --ctx");
  const size_t size = std::min<size_t>(o.window, ids.size()), step = o.stride ? o.stride : size;
  if (size < 2) throw Error(GPTQ_E_INVALID_ARGUMENT, "'" + o.text + "' has fewer than 2 tokens");
  const size_t all = (ids.size() - size) / step + 1;
  std::vector<std::vector<gptq_token>> windows;
  for (size_t i = 0; i < (o.windows ? std::min<size_t>(all, o.windows) : all); ++i)
    windows.emplace_back(ids.begin() + static_cast<std::ptrdiff_t>(i * step), ids.begin() + static_cast<std::ptrdiff_t>(i * step + size));
  return windows;
}

void show_progress(size_t done, size_t all, const char* name, double value) {
  if (isatty(2)) std::fprintf(stderr, "\rwindow %zu of %zu, %s %.4f ", done, all, name, value);
  if (isatty(2) && done == all) std::fputc('\n', stderr);
}

}  // namespace gptq::eval
