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
    auto params = gptq::make<gptq_engine_params>();
    params.flags = options["exact"].is_true() ? GPTQ_ENGINE_EXACT : 0;
    params.max_sessions = uint32_t(options["max_sessions"].real);
    params.ctx_tokens = uint32_t(options["ctx_tokens"].real);
    params.logits_rows = uint32_t(options["logits_rows"].real);
    engine_.emplace(*model_, params);
  }
  static uint32_t flags(const Json& call) {
    return (call["add_bos"].is_true() ? GPTQ_TEXT_ADD_BOS : 0) | (call["parse_special"].is_true() ? GPTQ_TEXT_PARSE_SPECIAL : 0) |
           (call["render_special"].is_true() ? GPTQ_TEXT_RENDER_SPECIAL : 0);
  }
  static std::vector<gptq::Message> messages(const Json& call) {
    std::vector<gptq::Message> all;
    for (const Json& one : call["messages"].items) all.push_back({one["role"].string, one["content"].string});
    return all;
  }
  gptq::Generation generation(const Json& p) {
    gptq::Generation how;
    how.max_tokens = uint32_t(p["max_tokens"].real);
    how.flags = (p["ignore_eos"].is_true() ? GPTQ_GEN_IGNORE_EOS : 0) | (p["prefill_only"].is_true() ? GPTQ_GEN_PREFILL_ONLY : 0) |
                (p["logits"].is_true() ? GPTQ_GEN_LOGITS : 0) | (p["marked"].is_true() ? GPTQ_GEN_MARKED : 0);
    how.sampling.temperature = float(p["temperature"].real);
    how.sampling.top_k = int32_t(p["top_k"].real);
    how.sampling.top_p = float(p["top_p"].real);
    how.sampling.min_p = float(p["min_p"].real);
    how.sampling.repeat_penalty = float(p["repeat_penalty"].real);
    how.sampling.seed = uint64_t(p["seed"].real);
    for (const Json& stop : p["stop"].items) how.stop.push_back(stop.string);
    if (p["regex"].kind == Json::text) how.constraint = &constraint_.emplace(*model_, GPTQ_CONSTRAINT_REGEX, p["regex"].string);
    if (p["choice"].kind == Json::list) {
      std::string list = "[";
      for (const Json& one : p["choice"].items) {
        list += list.size() > 1 ? ",\"" : "\"";
        for (const char c : one.string) c == '\n' ? list += "\\n" : c == '"' ? list += "\\\"" : list += c;
        list += "\"";
      }
      how.constraint = &constraint_.emplace(*model_, GPTQ_CONSTRAINT_CHOICE, list + "]");
    }
    return how;
  }
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
    if (name == "render_chat") return {{"text", model_->render_chat(messages(call))}};
    if (name == "finish") {
      const uint32_t budget = call["budget_us"].kind == Json::number ? uint32_t(call["budget_us"].real) : GPTQ_BUDGET_UNLIMITED;
      int steps = 1;
      while (engine_->step(budget) == GPTQ_MORE) ++steps;
      return {{"many_steps", steps > 1}};
    }
    if (name == "restore") {
      bool exact = false;
      sessions_.insert_or_assign(int(call["as"].real), gptq::Session(*engine_, saved_, &exact));
      return {{"exact", exact}};
    }
    if (name == "close") return sessions_.erase(int(call["session"].real)), Found{};
    if (name == "quantize") return quantize(call);
    const int number = int(call["session"].real);
    if (!sessions_.count(number)) sessions_.emplace(number, *engine_);
    return run(sessions_.at(number), name, call);
  }

  Found run(gptq::Session& session, const std::string& name, const Json& call) {
    const std::string& input = call["input"].string;
    if (name == "append") return session.append(input, flags(call)), Found{};
    if (name == "append_tokens") return session.append(call["input"].ids()), Found{};
    if (name == "chat") return {{"n_tokens", double(session.set_chat(messages(call)))}};
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
    if (name == "save") return saved_ = session.save(), Found{{"small", !saved_.empty() && saved_.size() < 4096}};
    if (name == "info") {
      const gptq_session_info i = session.info();
      return {{"running", i.state == GPTQ_SESSION_RUNNING}, {"stop_reason", reason(i.stop_reason)}, {"n_tokens", double(i.n_tokens)},
              {"n_generated", double(i.n_generated)}};
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

  Found quantize(const Json& call) {
    auto params = gptq::make<gptq_quantize_params>();
    params.flags = GPTQ_QUANTIZE_REPLACE;
    params.defaults.bits = uint32_t(call["params"]["bits"].real);
    params.defaults.group_size = int32_t(call["params"]["group_size"].real);
    params.rows = uint32_t(call["params"]["rows"].real);
    params.row_tokens = uint32_t(call["params"]["row_tokens"].real);
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
  std::optional<gptq::Constraint> constraint_;
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
