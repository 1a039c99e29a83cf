// SPDX-License-Identifier: Apache-2.0
// gptq-eval table: several files of one model against the best of them, as a table for a README.
#include <filesystem>
#include <memory>

#include "eval.h"
#include "eval_plot.h"
#include "output_file.h"

namespace gptq::eval {
namespace {

// All files see each window together, so that the reference is computed once.
struct Candidate {
  Candidate(const Runtime& runtime, const std::string& path, const Options& o, uint32_t ctx)
      : path(path), model(runtime, path, o.placement(runtime, path)), stream(model, o, ctx) {}
  std::string path;
  Model model;
  LogitStream stream;
  Likelihood likelihood;
  Divergence divergence;
};

void score(Candidate& reference, std::vector<std::unique_ptr<Candidate>>& candidates, const std::vector<gptq_token>& window) {
  reference.stream.start(window);
  for (auto& c : candidates) c->stream.start(window);
  // What follows the window's last token is not counted.
  for (size_t position = 1; position < window.size(); ++position) {
    const Row truth(reference.stream.row());
    reference.likelihood.add(truth, window[position]);
    for (auto& c : candidates) {
      const Row row(c->stream.row());
      c->likelihood.add(row, window[position]);
      c->divergence.add(row, truth);
    }
  }
}

void print_row(const Candidate& c) {
  const auto bytes = static_cast<double>(std::filesystem::file_size(c.path));
  std::printf("| %s | %.1f | %.2f | %.3f |", std::filesystem::path(c.path).filename().c_str(), bytes / 1e6,
              8 * bytes / static_cast<double>(c.model.info().n_params), c.likelihood.perplexity());
  if (c.divergence.n) std::printf(" %.4f | %.3f |\n", c.divergence.mean(), c.divergence.top1());
  else std::printf(" | |\n");
}

}  // namespace

void table(const Options& given) {
  if (!given.plot.empty()) tool::OutputFile(given.plot);  // a path that does not do is told before the work
  Options o = given, exact = given;
  o.text = o.files.back();
  exact.exact = true;
  const Runtime runtime(o.runtime());
  const std::string first = o.files.front();
  const auto windows = windows_of(Model(runtime, first), o);
  const auto ctx = static_cast<uint32_t>(windows[0].size());
  Candidate reference(runtime, first, exact, ctx);
  std::vector<std::unique_ptr<Candidate>> candidates;
  for (size_t i = 1; i + 1 < o.files.size(); ++i) {
    candidates.push_back(std::make_unique<Candidate>(runtime, o.files[i], o, ctx));
    if (candidates.back()->model.info().n_vocab != reference.model.info().n_vocab)
      throw Error(GPTQ_E_INVALID_ARGUMENT, "'" + o.files[i] + "' has another vocabulary than '" + first + "'");
  }
  for (size_t w = 0; w < windows.size(); ++w) {
    score(reference, candidates, windows[w]);
    show_progress(w + 1, windows.size(), "perplexity of the reference", reference.likelihood.perplexity());
  }
  std::printf("| file | MB | bits/weight | perplexity | KL mean (nats) | top-1 |\n|---|---|---|---|---|---|\n");
  print_row(reference);
  for (const auto& c : candidates) print_row(*c);
  if (!o.plot.empty()) {
    std::vector<Point> points;
    for (const auto& c : candidates)
      points.push_back({std::filesystem::path(c->path).stem(), static_cast<double>(std::filesystem::file_size(c->path)) / 1e6, c->divergence.mean()});
    write_plot(o.plot, std::filesystem::path(first).stem(), std::move(points));
  }
  std::printf("\n%zu windows of %u tokens; the first file %s.\n", windows.size(), ctx,
              o.exact  ? "and all others in exact mode"
              : o.bf16 ? "in exact mode, the others with bfloat16 activations"
                       : "in exact mode, the others with int8 activations");
}

}  // namespace gptq::eval
