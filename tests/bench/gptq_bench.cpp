// SPDX-License-Identifier: Apache-2.0
// gptq-bench: prefill and decode speed as llama-bench means them; its JSON field names.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <random>

#include "tool.h"

namespace {

using namespace gptq;

struct Options : tool::EngineOptions {
  std::vector<uint32_t> prompts{512}, generated{128}, depths{0}, thread_counts{0};
  uint32_t repetitions = 5;
  bool json = false;
};

struct Result {
  uint32_t n_prompt, n_gen, n_depth, n_threads;
  std::vector<double> tokens_per_second;

  double mean() const { return std::accumulate(tokens_per_second.begin(), tokens_per_second.end(), 0.0) / static_cast<double>(tokens_per_second.size()); }
  double deviation() const {
    double sum = 0;
    for (double x : tokens_per_second) sum += (x - mean()) * (x - mean());
    return tokens_per_second.size() < 2 ? 0 : std::sqrt(sum / static_cast<double>(tokens_per_second.size() - 1));
  }
  // fraction 0, 0.5, 1: least, median, most
  double at(double fraction) const {
    std::vector<double> sorted = tokens_per_second;
    std::sort(sorted.begin(), sorted.end());
    return sorted[static_cast<size_t>(std::lround(fraction * static_cast<double>(sorted.size() - 1)))];
  }
};

class Bench {
 public:
  Bench(const Model& model, const Options& o, uint32_t ctx) : n_vocab_(model.info().n_vocab), engine_(model, params(o, ctx)), session_(engine_) {}

  // Tokens per second of one run: n_prompt tokens at once, or n_gen one after another, behind n_depth others.
  double run(uint32_t n_prompt, uint32_t n_gen, uint32_t n_depth) {
    session_.truncate(0);
    if (n_depth) compute(n_depth, 0);
    const double seconds = n_prompt ? compute(n_prompt, 0) : compute(1, n_gen);
    return (n_prompt ? n_prompt : n_gen) / seconds;
  }

 private:
  static gptq_engine_params params(const Options& o, uint32_t ctx) {
    gptq_engine_params params = o.engine();
    params.ctx_tokens = ctx;
    return params;
  }
  double compute(uint32_t n_input, uint32_t n_gen) {
    std::vector<gptq_token> ids(n_input);
    for (gptq_token& id : ids) id = static_cast<gptq_token>(random_() % n_vocab_);
    session_.append(ids);
    auto params = make<gptq_generate_params>();
    params.flags = n_gen ? GPTQ_GEN_IGNORE_EOS : GPTQ_GEN_PREFILL_ONLY;
    params.max_tokens = n_gen;
    const auto begin = std::chrono::steady_clock::now();
    session_.start(params);
    engine_.step();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    check(session_.info().status);
    return seconds;
  }

  std::mt19937 random_{1};
  uint32_t n_vocab_;
  Engine engine_;
  Session session_;
};

void print(const Result& r, const std::string& model, bool json, bool first) {
  if (!json) {
    char test[48];
    std::snprintf(test, sizeof test, "%s%u%s%s", r.n_prompt ? "pp" : "tg", r.n_prompt ? r.n_prompt : r.n_gen, r.n_depth ? " @ d" : "", r.n_depth ? std::to_string(r.n_depth).c_str() : "");
    std::printf("%-14s  threads %2u   median %9.2f   min %9.2f   max %9.2f  tokens/s\n", test, r.n_threads, r.at(0.5), r.at(0), r.at(1));
  } else {
    std::printf("%s  {\"model_filename\": \"%s\", \"n_prompt\": %u, \"n_gen\": %u, \"n_depth\": %u, \"n_threads\": %u, \"avg_ts\": %.4f, \"stddev_ts\": %.4f, \"samples_ts\": [", first ? "" : ",\n",
                model.c_str(), r.n_prompt, r.n_gen, r.n_depth, r.n_threads, r.mean(), r.deviation());
    for (size_t i = 0; i < r.tokens_per_second.size(); ++i) std::printf("%s%.4f", i ? ", " : "", r.tokens_per_second[i]);
    std::printf("]}");
  }
  std::fflush(stdout);
}

// The model's file name as JSON text without surprises.
std::string plain(std::string name) {
  for (char& c : name)
    if (static_cast<unsigned char>(c) < 0x20 || c == '"' || c == '\\') c = '_';
  return name;
}

void run(Options& o) {
  struct Test {
    uint32_t n_prompt, n_gen, n_depth;
  };
  std::vector<Test> tests;
  uint32_t ctx = 0;
  for (uint32_t depth : o.depths) {
    for (uint32_t n : o.prompts)
      if (n) tests.push_back({n, 0, depth});
    for (uint32_t n : o.generated)
      if (n) tests.push_back({0, n, depth});
    for (const Test& t : tests) ctx = std::max(ctx, t.n_depth + t.n_prompt + t.n_gen + 1);
  }
  if (tests.empty() || !o.repetitions) throw Error(GPTQ_E_INVALID_ARGUMENT, "nothing to measure");
  if (o.json) std::printf("[\n");
  bool first = true;
  for (uint32_t threads : o.thread_counts) {
    o.threads = threads;
    const Runtime runtime(o.runtime());
    if (first) std::fprintf(stderr, "%s\n%s\n", gptq_build_info(), runtime.kernels().c_str());
    const Model model(runtime, o.model);
    Bench bench(model, o, ctx);
    for (const Test& t : tests) {
      Result result{t.n_prompt, t.n_gen, t.n_depth, threads, {}};
      bench.run(t.n_prompt, t.n_gen, t.n_depth);  // warm up
      for (uint32_t i = 0; i < o.repetitions; ++i) result.tokens_per_second.push_back(bench.run(t.n_prompt, t.n_gen, t.n_depth));
      print(result, plain(o.model), o.json, first);
      first = false;
    }
  }
  if (o.json) std::printf("\n]\n");
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  CLI::App app("Measures the speed of a .gptq model: prefill (pp) and decode (tg), in tokens per second.", "gptq-bench");
  app.add_option("MODEL", o.model, "a .gptq file")->required();
  app.add_option("-p,--n-prompt", o.prompts, "tokens of prefill; 0 = none (default 512)")->delimiter(',');
  app.add_option("-n,--n-gen", o.generated, "tokens to generate; 0 = none (default 128)")->delimiter(',');
  app.add_option("-d,--n-depth", o.depths, "tokens in the context before (default 0)")->delimiter(',');
  app.add_option("-t,--threads", o.thread_counts, "threads that compute; 0 = one per core")->delimiter(',');
  app.add_option("-r,--repetitions", o.repetitions, "timed runs of each test (default 5), after one that is not counted");
  app.add_flag("--exact", o.exact, "float32 activations and KV cache instead of int8 and float16");
  app.add_flag("--json", o.json, "print a JSON list");
  return tool::run(app, argc, argv, [&] { run(o); });
}
