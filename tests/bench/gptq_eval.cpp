// SPDX-License-Identifier: Apache-2.0
// gptq-eval: logits, perplexity, divergence from a reference, token ids.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <span>

#include "tool.h"

namespace {

using namespace gptq;

struct Options : tool::EngineOptions {
  std::string ids, output, text, reference;
  uint32_t window = 2048, windows = 0;
  bool json = false, bos = false;
};

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(GPTQ_E_IO, "cannot open '" + path + "'");
  return {std::istreambuf_iterator<char>(file), {}};
}

// The logits after every token of one window at a time, a few rows at a time.
class LogitStream {
 public:
  LogitStream(const Model& model, const Options& o, uint32_t ctx) : n_vocab_(model.info().n_vocab), rows_(rows_max * n_vocab_), engine_(model, params(o, ctx)), session_(engine_) {}

  void start(std::span<const gptq_token> window) {
    session_.truncate(0);
    session_.append(window.data(), window.size());
    auto params = make<gptq_generate_params>();
    params.flags = GPTQ_GEN_PREFILL_ONLY | GPTQ_GEN_LOGITS;
    session_.start(params);
  }
  // The next rows, or none at the end of the window.
  std::span<const float> next() {
    for (;;) {
      uint32_t first = 0, n = 0;
      check(gptq_session_read_logits(session_.get(), rows_.data(), rows_.size(), &first, &n));
      if (n) return {rows_.data(), n * n_vocab_};
      const gptq_session_info info = session_.info();
      if (info.state != GPTQ_SESSION_RUNNING) {
        check(info.status);
        return {};
      }
      engine_.step();
    }
  }
  size_t n_vocab() const { return n_vocab_; }

 private:
  static constexpr size_t rows_max = 64;
  static gptq_engine_params params(const Options& o, uint32_t ctx) {
    gptq_engine_params params = o.engine();
    params.ctx_tokens = ctx;
    params.logits_rows = rows_max;
    return params;
  }
  size_t n_vocab_;
  std::vector<float> rows_;
  Engine engine_;
  Session session_;
};

void write_logits(const Options& o) {
  const auto ids = tool::parse_ids(o.ids);
  if (ids.empty()) throw Error(GPTQ_E_INVALID_ARGUMENT, "--ids is empty");
  const Runtime runtime(o.runtime());
  const Model model(runtime, o.model);
  LogitStream stream(model, o, static_cast<uint32_t>(ids.size()));
  const std::string temporary = o.output + ".part";
  std::ofstream file(temporary, std::ios::binary);
  stream.start(ids);
  for (auto rows = stream.next(); !rows.empty(); rows = stream.next()) file.write(reinterpret_cast<const char*>(rows.data()), static_cast<std::streamsize>(rows.size_bytes()));
  file.close();
  if (!file || std::rename(temporary.c_str(), o.output.c_str()) != 0) {
    std::remove(temporary.c_str());
    throw Error(GPTQ_E_IO, "cannot write '" + o.output + "'");
  }
}

double log_sum_exp(std::span<const float> logits) {
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float x : logits) sum += std::exp(x - most);
  return most + std::log(sum);
}

// The first windows of the text that do not overlap, each of o.window tokens; a text shorter than one window is one.
std::vector<std::vector<gptq_token>> windows_of(const Model& model, const Options& o) {
  const auto ids = model.tokenize(read_file(o.text), GPTQ_TEXT_ADD_BOS | GPTQ_TEXT_PARSE_SPECIAL);
  if (o.window < 2) throw Error(GPTQ_E_INVALID_ARGUMENT, "--ctx must be at least 2");
  const size_t size = std::min<size_t>(o.window, ids.size()), all = size ? ids.size() / size : 0;
  if (size < 2) throw Error(GPTQ_E_INVALID_ARGUMENT, "'" + o.text + "' has fewer than 2 tokens");
  std::vector<std::vector<gptq_token>> windows;
  for (size_t i = 0; i < (o.windows ? std::min<size_t>(all, o.windows) : all); ++i) windows.emplace_back(ids.begin() + i * size, ids.begin() + (i + 1) * size);
  return windows;
}

void show_progress(size_t done, size_t all, const char* name, double value) {
  if (isatty(2)) std::fprintf(stderr, "\rwindow %zu of %zu, %s %.4f ", done, all, name, value);
  if (isatty(2) && done == all) std::fputc('\n', stderr);
}

void perplexity(const Options& o) {
  const Runtime runtime(o.runtime());
  const Model model(runtime, o.model);
  const auto windows = windows_of(model, o);
  LogitStream stream(model, o, static_cast<uint32_t>(windows[0].size()));
  double nll = 0;
  size_t n = 0;
  for (size_t w = 0; w < windows.size(); ++w) {
    stream.start(windows[w]);
    size_t position = 0;
    for (auto rows = stream.next(); !rows.empty(); rows = stream.next())
      for (; !rows.empty(); rows = rows.subspan(stream.n_vocab()))
        if (++position < windows[w].size()) {
          nll += log_sum_exp(rows.first(stream.n_vocab())) - rows[static_cast<size_t>(windows[w][position])];
          ++n;
        }
    show_progress(w + 1, windows.size(), "perplexity", std::exp(nll / static_cast<double>(n)));
  }
  const double mean = nll / static_cast<double>(n);
  std::printf(o.json ? "{\"perplexity\": %.6f, \"nll\": %.8f, \"tokens\": %zu, \"windows\": %zu, \"ctx\": %zu}\n"
                     : "perplexity %.4f (nll %.5f over %zu tokens, %zu windows of %zu)\n",
              std::exp(mean), mean, n, windows.size(), windows[0].size());
}

struct Divergence {
  double sum = 0, most = 0;
  size_t n = 0, same_top = 0;

  // KL(reference || model) of one position, in nats
  void add(std::span<const float> model, std::span<const float> reference) {
    const double model_norm = log_sum_exp(model), reference_norm = log_sum_exp(reference);
    double kl = 0;
    for (size_t i = 0; i < model.size(); ++i) {
      const double log_p = reference[i] - reference_norm;
      kl += std::exp(log_p) * (log_p - (model[i] - model_norm));
    }
    sum += kl;
    most = std::max(most, kl);
    same_top += std::max_element(model.begin(), model.end()) - model.begin() == std::max_element(reference.begin(), reference.end()) - reference.begin();
    ++n;
  }
};

void divergence(const Options& o) {
  const Runtime runtime(o.runtime());
  const Model model(runtime, o.model), reference(runtime, o.reference);
  if (model.info().n_vocab != reference.info().n_vocab) throw Error(GPTQ_E_INVALID_ARGUMENT, "the two models have different vocabularies");
  const auto windows = windows_of(model, o);
  const auto ctx = static_cast<uint32_t>(windows[0].size());
  Options exact = o;
  exact.exact = true;
  LogitStream ours(model, o, ctx), theirs(reference, exact, ctx);
  Divergence result;
  for (size_t w = 0; w < windows.size(); ++w) {
    ours.start(windows[w]);
    theirs.start(windows[w]);
    std::span<const float> a = ours.next(), b = theirs.next();
    // As in perplexity, what follows the window's last token is not counted.
    for (size_t position = 1; position < ctx; ++position) {
      result.add(a.first(ours.n_vocab()), b.first(ours.n_vocab()));
      a = a.subspan(ours.n_vocab());
      b = b.subspan(ours.n_vocab());
      if (a.empty()) a = ours.next();
      if (b.empty()) b = theirs.next();
    }
    show_progress(w + 1, windows.size(), "KL", result.sum / static_cast<double>(result.n));
  }
  std::printf(o.json ? "{\"kl_mean\": %.8f, \"kl_max\": %.6f, \"top1\": %.6f, \"tokens\": %zu}\n" : "KL mean %.6f nats, max %.4f; top-1 agreement %.4f over %zu tokens\n",
              result.sum / static_cast<double>(result.n), result.most, static_cast<double>(result.same_top) / static_cast<double>(result.n), result.n);
}

void tokenize(const Options& o) {
  const Runtime runtime(o.runtime());
  const Model model(runtime, o.model);
  const std::string text{std::istreambuf_iterator<char>(std::cin), {}};
  std::string line;
  for (gptq_token id : model.tokenize(text, GPTQ_TEXT_PARSE_SPECIAL | (o.bos ? GPTQ_TEXT_ADD_BOS : 0))) line += (line.empty() ? "" : " ") + std::to_string(id);
  std::printf("%s\n", line.c_str());
}

void add_windows(CLI::App& app, Options& o) {
  app.add_option("TEXT", o.text, "a text file in UTF-8")->required();
  app.add_option("--ctx", o.window, "tokens of a window (default 2048)");
  app.add_option("--windows", o.windows, "the first N windows only");
  app.add_flag("--json", o.json, "print JSON");
  o.add_tuning_to(app, false);
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  CLI::App app("Measures what a .gptq model computes.", "gptq-eval");
  app.require_subcommand(1);
  CLI::App& logits = *app.add_subcommand("logits", "write float32 [T][vocab], the logits after each id");
  o.add_to(logits, false);
  logits.add_option("--ids", o.ids, "token ids, as 1,2,3")->required();
  logits.add_option("-o,--output", o.output, "the file to write")->required();
  CLI::App& ppl = *app.add_subcommand("perplexity", "over windows that do not overlap; every token but a window's first is scored");
  ppl.add_option("MODEL", o.model, "a .gptq file")->required();
  add_windows(ppl, o);
  CLI::App& kl = *app.add_subcommand("kl", "Kullback-Leibler divergence of MODEL from REFERENCE, which runs in exact mode, and how often both put the same token first");
  kl.add_option("MODEL", o.model, "a .gptq file")->required();
  kl.add_option("REFERENCE", o.reference, "a .gptq file with the same vocabulary")->required();
  add_windows(kl, o);
  CLI::App& ids = *app.add_subcommand("tokenize", "token ids of the text on stdin, one line");
  o.add_to(ids, false);
  ids.add_flag("--bos", o.bos, "with the beginning-of-text token, where the model's tokenizer adds one");
  return tool::run(app, argc, argv, [&] {
    if (logits.parsed()) write_logits(o);
    if (ppl.parsed()) perplexity(o);
    if (kl.parsed()) divergence(o);
    if (ids.parsed()) tokenize(o);
  });
}
