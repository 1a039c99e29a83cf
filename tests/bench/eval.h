// SPDX-License-Identifier: Apache-2.0
// What gptq-eval's commands share: a model's logits row by row, and the figures made of them.
#pragma once
#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "engine_options.h"

namespace gptq::eval {

struct Options : tool::EngineOptions {
  std::string ids, output, text, reference;
  std::vector<std::string> files;  // table: reference, candidates, text
  uint32_t window = 2048, windows = 0, stride = 0;
  tool::RuleOptions rules;
  std::string schemas;
  std::string query, plot;
  int32_t pooling = 0;
  bool json = false, bos = false, special = false;
};

// Of the lines {"text": ...} of a file; what is wrong is told with the line.
std::vector<std::string> texts_of(const std::string& path);

// The logits after every token of one window at a time.
class LogitStream {
 public:
  LogitStream(const Model& model, const Options& o, uint32_t ctx);
  void start(std::span<const gptq_token> window);
  // The next row, or nothing at the end of the window. Valid until the next call.
  std::span<const float> row();

 private:
  size_t n_vocab_, n_rows_ = 0, next_ = 0;
  std::vector<float> rows_;
  tool::ChosenAdapter adapter_;
  Engine engine_;
  Session session_;
};

// One row with the logarithm of the sum of its exponentials.
struct Row {
  explicit Row(std::span<const float> row);
  double log_p(size_t token) const { return logits[token] - norm; }
  std::span<const float> logits;
  double norm;
};

struct Likelihood {
  double nll = 0;
  size_t n = 0;
  void add(const Row& row, gptq_token next) {
    nll -= row.log_p(static_cast<size_t>(next));
    ++n;
  }
  double mean() const { return nll / static_cast<double>(n); }
  double perplexity() const { return std::exp(mean()); }
};

// KL(reference || model), in nats.
struct Divergence {
  double sum = 0, most = 0;
  size_t n = 0, same_top = 0;
  void add(const Row& model, const Row& reference);
  double mean() const { return sum / static_cast<double>(n); }
  double top1() const { return static_cast<double>(same_top) / static_cast<double>(n); }
};

// The first windows of the text, each of o.window tokens, o.stride apart (0: they do not overlap); a text shorter than one window is one.
std::vector<std::vector<gptq_token>> windows_of(const Model& model, const Options& o);
void show_progress(size_t done, size_t all, const char* name, double value);

void layers(const Options& o);
void table(const Options& o);
void constraint(const Options& o);
void embed(const Options& o);

}  // namespace gptq::eval
