// SPDX-License-Identifier: Apache-2.0
// The calls of bindings/conformance.json, on the models of a folder.
#pragma once
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <optional>
#include <sstream>
#include <stdexcept>

#include "gptq.hpp"
#include "json.h"

using Found = std::map<std::string, Json>;

class Case {
 public:
  Case(gptq::Runtime& runtime, std::string models, const Json& description) : runtime_(runtime), models_(std::move(models)) {
    open(description["model"].string, description["engine"]);
  }

  // What is not as the call expects.
  std::string difference(const Json& call) {
    const std::string expected = call["error"].string;
    Found found;
    try {
      found = run(call);
    } catch (const gptq::Error& error) {
      const auto has = [](const std::string& text, const Json& part) { return text.find(part.string) != text.npos; };
      const bool same = gptq_status_name(error.status) == expected && has(error.what(), call["message"]) && has(error.site, call["site"]);
      return same ? "" : error.what();
    }
    if (!expected.empty()) return "no " + expected;
    for (const auto& expectation : call["expect"].members)
      if (!(found[expectation.first] == expectation.second))
        return expectation.first + " is " + found[expectation.first].show() + ", not " + expectation.second.show();
    return "";
  }

 private:
  std::string path(const Json& name) const { return models_ + "/" + name.string + ".gptq"; }
  void open(const std::string& name, const Json& options) {
    sessions_.clear();
    model_.emplace(runtime_, path(Json(name)));
    engine_.emplace(*model_, engine_params(options));
  }
  static gptq_engine_params engine_params(const Json& options) {
    auto params = gptq::make<gptq_engine_params>();
    params.flags = (options["exact"].is_true() ? GPTQ_ENGINE_EXACT : 0) | (options["bf16"].is_true() ? GPTQ_ENGINE_BF16 : 0);
    params.max_sessions = uint32_t(options["max_sessions"].real);
    params.ctx_tokens = uint32_t(options["ctx_tokens"].real);
    params.logits_rows = uint32_t(options["logits_rows"].real);
    params.best_logprobs = uint32_t(options["best_logprobs"].real);
    params.adapter_rank = uint32_t(options["adapter_rank"].real);
    return params;
  }
  static uint32_t flags(const Json& call) {
    return (call["add_bos"].is_true() ? GPTQ_TEXT_ADD_BOS : 0) | (call["parse_special"].is_true() ? GPTQ_TEXT_PARSE_SPECIAL : 0) |
           (call["render_special"].is_true() ? GPTQ_TEXT_RENDER_SPECIAL : 0);
  }
  static std::vector<gptq::Message> messages(const Json& call) {
    std::vector<gptq::Message> all;
    for (const Json& one : call["messages"].items) all.push_back({one["role"].string, one["content"].string, one["extra"].string});
    return all;
  }
  static gptq::ChatOptions chat_options(const Json& call) {
    gptq::ChatOptions options;
    options.drop_oldest = call["drop_oldest"].is_true();
    options.reserve_tokens = uint32_t(call["reserve_tokens"].real), options.keep_tokens = uint32_t(call["keep_tokens"].real);
    options.tools_json = call["tools"].string, options.variables_json = call["variables"].string, options.template_override = call["template"].string;
    return options;
  }
  static std::vector<std::string> texts(const Json& list) {
    std::vector<std::string> all;
    for (const Json& one : list.items) all.push_back(one.string);
    return all;
  }
  gptq::Generation generation(const Json& p) {
    gptq::Generation how;
    how.max_tokens = uint32_t(p["max_tokens"].real);
    how.flags = (p["ignore_eos"].is_true() ? GPTQ_GEN_IGNORE_EOS : 0) | (p["prefill_only"].is_true() ? GPTQ_GEN_PREFILL_ONLY : 0) |
                (p["logits"].is_true() ? GPTQ_GEN_LOGITS : 0) | (p["marked"].is_true() ? GPTQ_GEN_MARKED : 0) | (p["logprobs"].is_true() ? GPTQ_GEN_LOGPROBS : 0);
    if (p["pooling"].kind == Json::text) how.pooling = pooling(p), how.flags |= GPTQ_GEN_PREFILL_ONLY;
    how.sampling.temperature = float(p["temperature"].real);
    how.sampling.top_k = int32_t(p["top_k"].real);
    how.sampling.top_p = float(p["top_p"].real);
    how.sampling.min_p = float(p["min_p"].real);
    how.sampling.repeat_penalty = float(p["repeat_penalty"].real);
    how.sampling.seed = uint64_t(p["seed"].real);
    how.stop = texts(p["stop"]);
    if (p["regex"].kind == Json::text) how.constraint = &constraint_.emplace(gptq::Constraint::regex(*model_, p["regex"].string));
    if (p["choice"].kind == Json::list) how.constraint = &constraint_.emplace(gptq::Constraint::choice(*model_, texts(p["choice"])));
    if (p["banned"].kind == Json::list) how.banned = &banned_.emplace(gptq::Constraint::banned(*model_, texts(p["banned"])));
    if (p["constraint"].kind == Json::object) {
      const std::string &kind = p["constraint"]["kind"].string, &source = p["constraint"]["source"].string;
      how.constraint = &constraint_.emplace(kind == "grammar" ? gptq::Constraint::grammar(*model_, source)
                                            : kind == "tags"  ? gptq::Constraint::tags(*model_, source)
                                                              : gptq::Constraint::json_schema(*model_, source, kind == "json_compact"));
    }
    return how;
  }
  static int32_t pooling(const Json& p) { return p["pooling"].string == "last" ? GPTQ_POOL_LAST : p["pooling"].string == "mean" ? GPTQ_POOL_MEAN : 0; }
  static std::string reason(int32_t stop) {
    static const char* const names[] = {"none", "eos", "string", "length", "context", "cancelled", "constraint", "error", "prefilled"};
    return names[stop];
  }

  Found run(const Json& call) {
    const std::string& name = call["call"].string;
    if (name == "load") return gptq::Model(runtime_, path(call["model"])), Found{};
    if (name == "use") return open(call["model"].string, Json()), Found{};
    if (name == "model_info") {
      const gptq_model_info i = model_->info();
      return {{"n_vocab", double(i.n_vocab)}, {"n_layers", double(i.n_layers)},     {"n_embd", double(i.n_embd)}, {"bits", double(i.bits)},
              {"bos", double(i.bos)},         {"group_size", double(i.group_size)}, {"eos", double(i.eos)}};
    }
    if (name == "meta") return {{"text", model_->meta(call["key"].string)}};
    if (name == "tokenize") return {{"tokens", model_->tokenize(call["input"].string, flags(call))}};
    if (name == "detokenize") return {{"text", model_->detokenize(call["input"].ids(), flags(call))}};
    if (name == "render_chat") return {{"text", model_->render_chat(messages(call), chat_options(call))}};
    if (name == "finish") {
      const uint32_t budget = call["budget_us"].kind == Json::number ? uint32_t(call["budget_us"].real) : GPTQ_BUDGET_UNLIMITED;
      int steps = 1;
      while (engine_->step(budget) == GPTQ_MORE) ++steps;
      return {{"many_steps", steps > 1}};
    }
    if (name == "restore") {
      bool exact = false;
      if (call["from"].kind == Json::text) {
        std::istringstream stream(saved_);
        sessions_.insert_or_assign(int(call["as"].real), gptq::Session::restore(*engine_, gptq::Source(stream), &exact));
        return {{"exact", exact}};
      }
      sessions_.insert_or_assign(int(call["as"].real), gptq::Session(*engine_, saved_, &exact));
      return {{"exact", exact}};
    }
    if (name == "close") return sessions_.erase(int(call["session"].real)), Found{};
    if (name == "quantize") return quantize(call);
    if (name == "load_from") return load_from(call);
    if (name == "token") {
      const gptq::Token token = model_->token(call["input"].ids()[0]);
      return {{"text", std::string(token.bytes)}, {"special", (token.attributes & GPTQ_TOKEN_SPECIAL) != 0}, {"end", (token.attributes & GPTQ_TOKEN_END) != 0}};
    }
    if (name == "placements") {
      double layers = 0;
      for (const gptq_placement& one : model_->placements()) layers += one.n_layers;
      return {{"devices", double(model_->placements().size())}, {"n_layers", layers}};
    }
    if (name == "devices") return {{"devices", double(runtime_.devices().size())}};
    if (name == "estimate") {
      const gptq_engine_params params = engine_params(call["engine"]);
      const gptq_memory_estimate e = gptq::estimate(runtime_, gptq::Source(path(call["model"])), call["engine"].kind == Json::object ? &params : nullptr);
      return {{"fits", e.fits != 0}, {"host_kv", double(e.host_kv)}, {"device_weights", double(e.device_weights)}};
    }
    if (name == "quantize_estimate") {
      const gptq_quantize_estimate e = gptq::estimate_quantize(runtime_, gptq::Source(path(call["model"])), quantize_params(call["params"]));
      return {{"n_modules", double(e.n_modules)}};
    }
    if (name == "memory") {
      const gptq_memory_info i = engine_->memory();
      return {{"page_tokens", double(i.page_tokens)}, {"kv_pages_total", double(i.kv_pages_total)}, {"kv_pages_used", double(i.kv_pages_used)}};
    }
    if (name == "readable") {
      std::vector<int32_t> numbers;
      while (const std::optional<gptq::Session> readable = engine_->next_readable())
        for (const auto& [number, session] : sessions_)
          if (session == *readable) numbers.push_back(number);
      std::sort(numbers.begin(), numbers.end());
      return {{"sessions", numbers}};
    }
    if (name == "adapter_info") {
      const gptq_adapter_info i = adapter(call).info();
      return {{"rank", double(i.rank)}, {"n_matrices", double(i.n_matrices)}};
    }
    if (name == "embed") {
      const auto vectors = engine_->embed(texts(call["input"]), pooling(call), call["normalize"].is_true() ? GPTQ_EMBED_NORMALIZE : 0);
      Json all(std::vector<int32_t>{});
      for (const std::vector<float>& one : vectors) head(one, all);
      return {{"rows", double(vectors.size())}, {"n_embd", vectors.empty() ? 0.0 : double(vectors[0].size())}, {"vectors", all}};
    }
    const int number = int(call["session"].real);
    if (!sessions_.count(number)) sessions_.emplace(number, *engine_);
    return run(sessions_.at(number), name, call);
  }

  // Their first numbers.
  static void head(const std::vector<float>& vector, Json& all) {
    for (int i = 0; i < 4; ++i) all.items.emplace_back(double(vector[size_t(i)]));
  }
  gptq::Adapter adapter(const Json& call) {
    const std::string name = path(call["adapter"]) + "-lora";
    if (call["from"].kind != Json::text) return gptq::Adapter(*model_, name);
    std::ifstream file(name, std::ios::binary);
    return gptq::Adapter(*model_, gptq::Source(file));
  }
  Found load_from(const Json& call) {
    std::ifstream file(path(call["model"]), std::ios::binary);
    std::stringstream data;
    if (call["from"].string == "part") {
      gptq::Source source(path(call["model"]));
      return {{"n_vocab", double(gptq::Model(runtime_, source.part(8)).info().n_vocab)}};
    }
    if (call["from"].string == "stream") return {{"n_vocab", double(gptq::Model(runtime_, gptq::Source(file)).share().info().n_vocab)}};
    data << file.rdbuf();
    const std::string bytes = data.str();
    return {{"n_vocab", double(gptq::Model(runtime_, gptq::Source(bytes.data(), bytes.size())).info().n_vocab)}};
  }

  Found run(gptq::Session& session, const std::string& name, const Json& call) {
    const std::string& input = call["input"].string;
    if (name == "append") return session.append(input, flags(call)), Found{};
    if (name == "append_tokens") return session.append(call["input"].ids()), Found{};
    if (name == "chat") return {{"n_tokens", double(session.set_chat(messages(call), chat_options(call)))}};
    if (name == "start") return session.start(generation(call["params"])), Found{};
    if (name == "read") return {{"text", session.read()}};
    if (name == "read_marked") {
      std::string all;
      for (const gptq::Marked& piece : session.read_marked())
        all += (all.empty() ? "" : "|") + (piece.kind == GPTQ_MARK_ANSWER ? "answer" : piece.kind == GPTQ_MARK_THINKING ? "thinking" : piece.name) + " " + piece.text;
      return {{"text", all}};
    }
    if (name == "read_tokens") return {{"tokens", session.read_tokens()}};
    if (name == "read_logits") return logits(session);
    if (name == "tokens") return {{"tokens", session.tokens()}};
    if (name == "truncate") return session.truncate(uint32_t(call["n_tokens"].real)), Found{};
    if (name == "cancel") return session.cancel(), Found{};
    if (name == "fork") return sessions_.insert_or_assign(int(call["as"].real), session.fork()), Found{};
    if (name == "save") {
      const int32_t kind = call["full"].is_true() ? GPTQ_SAVE_FULL : GPTQ_SAVE_REPLAY;
      std::ostringstream stream;
      if (call["to"].kind == Json::text) session.save(kind, stream), saved_ = stream.str();
      else saved_ = session.save(kind);
      return {{"small", !saved_.empty() && saved_.size() < 4096}};
    }
    if (name == "set_adapter") {
      if (call["adapter"].kind != Json::text) return session.set_adapter(nullptr), Found{};
      const gptq::Adapter loaded = adapter(call);
      return session.set_adapter(&loaded, call["scale"].kind == Json::number ? float(call["scale"].real) : 1), Found{};
    }
    if (name == "score") {
      Json sums(std::vector<int32_t>{});
      std::vector<uint32_t> counts;
      for (const double sum : session.score(texts(call["input"]), &counts)) sums.items.emplace_back(sum);
      return {{"logprobs", sums}, {"n_tokens", std::vector<int32_t>(counts.begin(), counts.end())}};
    }
    if (name == "logprobs") {
      std::vector<int32_t> tokens, best;
      Json chosen(tokens), of_best(tokens);
      for (const gptq::TokenLogprob& one : session.logprobs(uint32_t(call["first"].real), uint32_t(call["n"].real))) {
        tokens.push_back(one.token), chosen.items.emplace_back(double(one.logprob));
        for (const gptq_token_logprob& candidate : one.best) best.push_back(candidate.token), of_best.items.emplace_back(double(candidate.logprob));
      }
      return {{"tokens", tokens}, {"logprobs", chosen}, {"best", best}, {"best_logprobs", of_best}};
    }
    if (name == "embedding") {
      const std::vector<float> vector = session.embedding(call["normalize"].is_true() ? GPTQ_EMBED_NORMALIZE : 0);
      Json first(std::vector<int32_t>{});
      head(vector, first);
      return {{"n_embd", double(vector.size())}, {"vectors", first}};
    }
    if (name == "info") {
      const gptq_session_info i = session.info();
      return {{"running", i.state == GPTQ_SESSION_RUNNING}, {"stop_reason", reason(i.stop_reason)}, {"n_tokens", double(i.n_tokens)},
              {"n_generated", double(i.n_generated)}, {"n_dropped", double(i.n_dropped)}, {"n_ctx", double(i.n_ctx)}};
    }
    if (name == "stream") {
      std::string all;
      for (const std::string& piece : session.stream(*engine_, input, generation(call["params"]))) all += piece;
      return {{"text", all}};
    }
    if (name == "generate") {
      std::string all;
      int pieces = 0;
      const gptq_session_info i = session.generate(input, generation(call["params"]), [&](std::string_view piece) {
        all += piece;
        return ++pieces != int(call["pieces"].real);
      });
      return {{"text", all}, {"stop_reason", reason(i.stop_reason)}, {"n_generated", double(i.n_generated)}};
    }
    throw std::invalid_argument("no call is named " + name);
  }

  Found logits(gptq::Session& session) {
    const uint32_t n_vocab = model_->info().n_vocab;
    uint32_t first = 0;
    const std::vector<float> rows = session.read_logits(n_vocab, &first);
    std::vector<int32_t> best;
    for (size_t row = 0; row < rows.size(); row += n_vocab)
      best.push_back(int32_t(std::max_element(rows.begin() + row, rows.begin() + row + n_vocab) - (rows.begin() + row)));
    return {{"first", double(first)}, {"rows", double(best.size())}, {"best", best}};
  }

  static gptq_quantize_params quantize_params(const Json& p) {
    auto params = gptq::make<gptq_quantize_params>();
    params.flags = GPTQ_QUANTIZE_REPLACE;
    params.defaults.bits = uint32_t(p["bits"].real);
    params.defaults.group_size = int32_t(p["group_size"].real);
    params.rows = uint32_t(p["rows"].real);
    params.row_tokens = uint32_t(p["row_tokens"].real);
    params.defaults.damp = p["damp"].real;
    params.defaults.flags = p["asymmetric"].is_true() ? GPTQ_QUANT_ASYMMETRIC : 0;
    params.first_token_weight = p["first_token_weight"].real, params.bits_per_weight = p["bits_per_weight"].real;
    params.file_bytes_max = uint64_t(p["file_bytes_max"].real), params.head_bits = uint32_t(p["head_bits"].real);
    params.flags |= (p["aim"].is_true() ? GPTQ_QUANTIZE_AIM : 0) | (p["reference"].is_true() ? GPTQ_QUANTIZE_REFERENCE : 0);
    return params;
  }
  Found quantize(const Json& call) {
    gptq_quantize_params params = quantize_params(call["params"]);
    const std::vector<int32_t> tokens = call["params"]["tokens"].ids();
    if (!tokens.empty()) params.tokens = tokens.data(), params.n_tokens = tokens.size();
    double reports = 0;
    std::vector<double> done;
    gptq::quantize(
        runtime_, path(call["from"]), path(call["to"]), params,
        [&](uint32_t phase, double part) { done.push_back(part + (phase == GPTQ_PHASE_QUANTIZE)); },
        [&](const gptq_quantize_report&) { ++reports; });
    return {{"reports", reports}, {"progress", !done.empty() && std::is_sorted(done.begin(), done.end())}};
  }

  gptq::Runtime& runtime_;
  const std::string models_;
  std::optional<gptq::Model> model_;
  std::optional<gptq::Engine> engine_;
  std::optional<gptq::Constraint> constraint_, banned_;
  std::map<int, gptq::Session> sessions_;
  std::string saved_;
};

inline bool conformance(const char* cases, const char* models) {
  std::stringstream text;
  text << std::ifstream(cases).rdbuf();
  gptq::Runtime runtime;
  bool good = true;
  const Json all = Json::parse(text.str());
  for (const Json& description : all["cases"].items) {
    Case test(runtime, models, description);
    std::string wrong;
    for (const Json& call : description["calls"].items)
      if (wrong = test.difference(call); !wrong.empty()) {
        wrong = ": " + call["call"].string + ": " + wrong;
        break;
      }
    good &= wrong.empty();
    std::printf("%sok - %s%s\n", wrong.empty() ? "" : "not ", description["name"].string.c_str(), wrong.c_str());
  }
  return good;
}
