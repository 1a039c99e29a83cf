// SPDX-License-Identifier: Apache-2.0
// gptq-bench: prefill and decode speed as llama-bench means them; its JSON field names. README.md beside this file tells the rest.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <map>
#include <numeric>
#include <random>

#include "api/handles.h"
#include "bandwidth.h"
#include "inside.h"
#include "peer.h"
#include "tool.h"

namespace {

using namespace gptq;
using bench::Test;

struct Options : tool::EngineOptions {
  std::vector<uint32_t> prompts{512}, generated{128}, depths{0}, thread_counts{0}, sessions{1};
  std::vector<std::string> against;
  uint32_t repetitions = 5;
  bool json = false, forks = false;
  std::string speculate;  // lookup, a draft model's file, or ""
  std::string text;       // a file whose tokens are the input
};

struct Result {
  Test test;
  std::vector<double> tokens_per_second;
  // Decode: what was read, and what reading alone reaches beside it.
  std::vector<double> read_gb_s{}, roof_gb_s{};
  // With speculation: of the same generation without, and of all runs.
  std::vector<double> plain{}, ratios{};
  uint32_t n_guessed = 0, n_right = 0;

  double mean() const { return std::accumulate(tokens_per_second.begin(), tokens_per_second.end(), 0.0) / static_cast<double>(tokens_per_second.size()); }
  double deviation() const {
    double sum = 0;
    for (double x : tokens_per_second) sum += (x - mean()) * (x - mean());
    return tokens_per_second.size() < 2 ? 0 : std::sqrt(sum / static_cast<double>(tokens_per_second.size() - 1));
  }
  double percent_of_roof() const {
    std::vector<double> percent;
    for (size_t i = 0; i < read_gb_s.size(); ++i) percent.push_back(100 * read_gb_s[i] / roof_gb_s[i]);
    return bench::median(percent);
  }
};

uint64_t bytes_of(const kernels::Matrix& w) {
  if (!kernels::is_quantized(w.kind)) return uint64_t{w.n} * w.k * kernels::bits_of(w.kind) / 8;
  const uint64_t scales = 16 * ((w.scales_f32 ? 4 : 2) + (w.zeros ? 1 : 0));
  return kernels::n_blocks(w.n) * (uint64_t{w.k_padded} / 64 * kernels::tile_bytes(w.kind) + kernels::n_groups(w) * scales);
}

class Bench {
 public:
  Bench(const Model& model, const Model* draft, const Options& o, uint32_t ctx, uint32_t max_sessions)
      : model_(model), adapter_(model, o), engine_(model, params(o, ctx, max_sessions)), bandwidth_(o.threads), forks_(o.forks), speculates_(!o.speculate.empty()) {
    if (draft) engine_.set_draft(draft);
    if (!o.text.empty()) text_ = model.tokenize(tool::read_file(o.text), 0);
    if (!o.text.empty() && text_.size() <= ctx) throw Error(GPTQ_E_INVALID_ARGUMENT, "'" + o.text + "' has only " + std::to_string(text_.size()) + " tokens");
    for (uint32_t i = 0; i < max_sessions; ++i) adapter_.attach(sessions_.emplace_back(engine_));
  }

  // One timed run of every repetition, behind one that is not counted.
  Result run(const Test& test, uint32_t repetitions) {
    Result result{test, {}};
    tokens_per_second(test);
    for (uint32_t i = 0; i < repetitions; ++i) {
      if (speculates_ && test.n_gen) {
        run_both(test, result);
        continue;
      }
      const double before = test.n_gen ? roof() : 0, speed = tokens_per_second(test);
      result.tokens_per_second.push_back(speed);
      if (!test.n_gen) continue;
      result.read_gb_s.push_back(speed / test.n_sessions * bytes_per_step(test) / 1e9);
      result.roof_gb_s.push_back((before + roof()) / 2);
    }
    return result;
  }

 private:
  static gptq_engine_params params(const Options& o, uint32_t ctx, uint32_t max_sessions) {
    gptq_engine_params params = o.engine();
    params.ctx_tokens = ctx;
    params.max_sessions = max_sessions;
    return params;
  }

  // The same input without and with speculation, which must not change what is generated.
  void run_both(const Test& test, Result& result) {
    const std::mt19937 same = random_;
    const double plain = tokens_per_second(test);
    std::vector<std::vector<gptq_token>> expected;
    for (const Session& session : sessions_) expected.push_back(session.tokens());
    random_ = same;
    flags_ = GPTQ_GEN_SPECULATE;
    const double speed = tokens_per_second(test);
    flags_ = 0;
    for (size_t i = 0; i < sessions_.size(); ++i) {
      if (sessions_[i].tokens() != expected[i]) throw Error(GPTQ_E_INTERNAL, "speculation changed the tokens");
      result.n_guessed += sessions_[i].info().n_guessed;
      result.n_right += sessions_[i].info().n_guessed_right;
    }
    result.plain.push_back(plain);
    result.tokens_per_second.push_back(speed);
    result.ratios.push_back(speed / plain);
  }

  // n_prompt tokens at once, or n_gen one after another in every session, behind n_depth others.
  double tokens_per_second(const Test& test) {
    for (Session& session : sessions_) session.truncate(0);
    const bool forks = forks_ && test.n_depth;
    while (forks && sessions_.size() > 1) sessions_.pop_back();
    if (test.n_depth) compute(test.n_depth, 0, forks ? 1 : test.n_sessions);
    while (sessions_.size() < test.n_sessions) forks ? sessions_.push_back(sessions_[0].fork()) : adapter_.attach(sessions_.emplace_back(engine_));
    const double seconds = test.n_prompt ? compute(test.n_prompt, 0, 1) : compute(1, test.n_gen, test.n_sessions);
    return (test.n_prompt ? test.n_prompt : test.n_gen * test.n_sessions) / seconds;
  }

  double compute(uint32_t n_input, uint32_t n_gen, uint32_t n_sessions) {
    auto params = make<gptq_generate_params>();
    params.flags = flags_ | (n_gen ? GPTQ_GEN_IGNORE_EOS : GPTQ_GEN_PREFILL_ONLY);
    params.max_tokens = n_gen;
    std::vector<gptq_token> ids(n_input);
    for (uint32_t i = 0; i < n_sessions; ++i) {
      for (gptq_token& id : ids) id = static_cast<gptq_token>(random_() % model_.info().n_vocab);
      if (!text_.empty()) {
        size_t& at = places_[i];
        if (sessions_[i].info().n_tokens == 0) at = random_() % (text_.size() - engine_.get()->engine->shape().ctx_tokens);
        std::copy_n(text_.begin() + static_cast<std::ptrdiff_t>(at), n_input, ids.begin());
        at += n_input;
      }
      sessions_[i].append(ids);
      sessions_[i].start(params);
    }
    const auto begin = std::chrono::steady_clock::now();
    engine_.step();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    for (uint32_t i = 0; i < n_sessions; ++i) check(sessions_[i].info().status);
    return seconds;
  }

  // What a step of decoding has to read: all weights but rows of the embedding that it does not need, and every session's KV cache, what forks
  // share once.
  double bytes_per_step(const Test& test) const {
    const model::Model& m = *model_.get()->model;
    const double own = test.n_sessions * test.n_gen / 2.0, positions = own + (forks_ ? 1 : test.n_sessions) * test.n_depth;
    const kernels::KvKinds kinds = engine_.get()->engine->shape().kv_kinds;
    const uint32_t row_bytes = kernels::kv_row_bytes(kinds.keys, m.spec.head_dim) + kernels::kv_row_bytes(kinds.values, m.spec.head_dim);
    const double kv_bytes = 1.0 * m.spec.n_layers * m.spec.n_kv_heads * row_bytes;
    const uint64_t unread = m.spec.tied_head && m.placements.size() == 1 ? 0 : bytes_of(m.embed.w);
    return static_cast<double>(m.weight_bytes + model_.info().device_bytes - unread) + positions * kv_bytes;
  }

  // GB/s that reading reaches just now: of the threads, or (copies, bytes read and written) of the GPU.
  double roof() {
    if (engine_.get()->gpus.empty()) return bandwidth_.measure();
    const device::Gpu& gpu = engine_.get()->gpus.back();
    return gpu.table().copy_bandwidth(&gpu.stream()) / 1e9;
  }

  std::mt19937 random_{1};
  const Model& model_;
  const tool::ChosenAdapter adapter_;
  Engine engine_;
  std::deque<Session> sessions_;
  bench::Bandwidth bandwidth_;
  bool forks_, speculates_;
  uint32_t flags_ = 0;
  std::vector<gptq_token> text_;
  std::map<uint32_t, size_t> places_;  // in the text, of the sessions
};

std::string name_of(const Test& test) {
  std::string name = (test.n_prompt ? "pp" : "tg") + std::to_string(test.n_prompt ? test.n_prompt : test.n_gen);
  if (test.n_depth) name += " @ d" + std::to_string(test.n_depth);
  return test.n_sessions > 1 ? name + " x " + std::to_string(test.n_sessions) : name;
}

void print_line(const Result& r, const std::vector<bench::Peer>& peers) {
  const auto [least, most] = std::minmax_element(r.tokens_per_second.begin(), r.tokens_per_second.end());
  const double ours = bench::median(r.tokens_per_second);
  std::printf("%-18s  threads %2u   median %9.2f   min %9.2f   max %9.2f  tokens/s", name_of(r.test).c_str(), r.test.n_threads, ours, *least, *most);
  if (!r.roof_gb_s.empty())
    std::printf("   %5.1f of %5.1f GB/s, %3.0f %%", bench::median(r.read_gb_s), bench::median(r.roof_gb_s), r.percent_of_roof());
  if (!r.ratios.empty()) {
    const auto [lowest, highest] = std::minmax_element(r.ratios.begin(), r.ratios.end());
    std::printf("   plain %.2f, ratio %.2f (%.2f to %.2f), %u of %u guesses right", bench::median(r.plain), bench::median(r.ratios), *lowest, *highest, r.n_right, r.n_guessed);
  }
  for (const bench::Peer& peer : peers)
    if (const auto theirs = peer.find(r.test)) std::printf("   %s %.2f, ratio %.2f", peer.name().c_str(), *theirs, ours / *theirs);
  std::printf("\n");
}

void print_json(const Result& r, const std::string& model, bool first) {
  std::printf("%s  {\"model_filename\": \"%s\", \"n_prompt\": %u, \"n_gen\": %u, \"n_depth\": %u, \"n_threads\": %u, \"n_sessions\": %u, ", first ? "" : ",\n",
              model.c_str(), r.test.n_prompt, r.test.n_gen, r.test.n_depth, r.test.n_threads, r.test.n_sessions);
  if (!r.roof_gb_s.empty())
    std::printf("\"read_gb_s\": %.2f, \"roof_gb_s\": %.2f, \"percent_of_roof\": %.1f, ", bench::median(r.read_gb_s), bench::median(r.roof_gb_s), r.percent_of_roof());
  if (!r.ratios.empty())
    std::printf("\"plain_ts\": %.4f, \"ratio\": %.4f, \"n_guessed\": %u, \"n_guessed_right\": %u, ", bench::median(r.plain), bench::median(r.ratios), r.n_guessed, r.n_right);
  std::printf("\"avg_ts\": %.4f, \"stddev_ts\": %.4f, \"samples_ts\": [", r.mean(), r.deviation());
  for (size_t i = 0; i < r.tokens_per_second.size(); ++i) std::printf("%s%.4f", i ? ", " : "", r.tokens_per_second[i]);
  std::printf("]}");
}

// The model's file name as JSON text without surprises.
std::string plain(std::string name) {
  for (char& c : name)
    if (static_cast<unsigned char>(c) < 0x20 || c == '"' || c == '\\') c = '_';
  return name;
}

std::vector<Test> tests_of(const Options& o, uint32_t threads) {
  std::vector<Test> tests;
  for (uint32_t depth : o.depths) {
    for (uint32_t n : o.prompts)
      if (n) tests.push_back({n, 0, depth, threads, 1});
    for (uint32_t n : o.generated)
      for (uint32_t sessions : o.sessions)
        if (n && sessions) tests.push_back({0, n, depth, threads, sessions});
  }
  if (tests.empty() || !o.repetitions) throw Error(GPTQ_E_INVALID_ARGUMENT, "nothing to measure");
  return tests;
}

void run(Options& o) {
  std::vector<bench::Peer> peers;
  for (const std::string& path : o.against) peers.emplace_back(path);
  if (o.json) std::printf("[\n");
  bool first = true;
  for (uint32_t threads : o.thread_counts) {
    o.threads = threads;
    const std::vector<Test> tests = tests_of(o, threads);
    uint32_t ctx = 0, sessions = 1;
    for (const Test& t : tests) {
      ctx = std::max(ctx, t.n_depth + t.n_prompt + t.n_gen + 1);
      sessions = std::max(sessions, t.n_sessions);
    }
    const Runtime runtime(o.runtime());
    if (first) std::fprintf(stderr, "%s\n%s\n", gptq_build_info(), runtime.kernels().c_str());
    const Model model(runtime, o.model, o.placement(runtime, o.model));
    if (first) o.tell_where(model);
    std::optional<Model> draft;
    if (!o.speculate.empty() && o.speculate != "lookup") draft.emplace(runtime, o.speculate, o.placement(runtime, o.speculate));
    Bench bench(model, draft ? &*draft : nullptr, o, ctx, sessions);
    for (const Test& t : tests) {
      const Result result = bench.run(t, o.repetitions);
      o.json ? print_json(result, plain(o.model), first) : print_line(result, peers);
      std::fflush(stdout);
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
  app.add_option("-s,--sessions", o.sessions, "sessions that decode together; tokens/s is their sum (default 1)")->delimiter(',')->check(tool::above_0());
  app.add_flag("--forks", o.forks, "with -d: the sessions are forks, which share the tokens before and go on for themselves");
  app.add_option("--speculate", o.speculate, "decode without and with speculation in turn, by lookup or by a draft model's file too; the tokens must be the same")
      ->type_name("lookup|DRAFT.gptq");
  app.add_option("--text", o.text, "take the input out of this text, instead of random tokens");
  app.add_option("-r,--repetitions", o.repetitions, "timed runs of each test (default 5), after one that is not counted")->check(tool::above_0());
  o.add_precision_to(app);
  o.add_device_to(app);
  o.add_lora_to(app);
  app.add_option("--against", o.against, "a peer's figures, as `llama-bench -o json` or --json writes them: they and ratios beside ours, test by test");
  app.add_flag("--json", o.json, "print a JSON list");
  return tool::run(app, argc, argv, [&] { inside([&] { run(o); }); });
}
