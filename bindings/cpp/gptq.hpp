// SPDX-License-Identifier: Apache-2.0
// C++ over the C API, header-only: handles that release themselves, errors as exceptions. Needs C++17.
#pragma once
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "gptq/gptq.h"
#include "gptq_model.hpp"

namespace gptq {

class Session;

class Engine {
 public:
  explicit Engine(const Model& model, const gptq_engine_params& params = make<gptq_engine_params>())
      : model_(model.get()), best_logprobs_(params.best_logprobs) {
    gptq_engine* e = nullptr;
    call([&](gptq_error* err) { return gptq_engine_create(model.get(), &params, &e, err); });
    handle_.reset(e);
  }
  gptq_engine* get() const { return handle_.get(); }
  // A smaller model with the same tokens, which guesses for generations with GPTQ_GEN_SPECULATE; NULL: none.
  void set_draft(const Model* draft, const gptq_engine_params& params = make<gptq_engine_params>()) {
    call([&](gptq_error* err) { return gptq_engine_set_draft(get(), draft ? draft->get() : nullptr, &params, err); });
  }
  // MORE or IDLE
  gptq_status step(uint32_t budget_us = GPTQ_BUDGET_UNLIMITED, gptq_step_info* info = nullptr) {
    const gptq_status status = gptq_engine_step(get(), budget_us, info);
    check(status);
    return status;
  }
  // Another handle of a session that has something unread, or has ended since it was looked at; each at most once a step.
  std::optional<Session> next_readable();
  gptq_memory_info memory() const {
    auto info = make<gptq_memory_info>();
    check(gptq_engine_memory(get(), &info));
    return info;
  }
  uint32_t best_logprobs() const { return best_logprobs_; }
  // A vector a text, in as many free sessions as there are. pooling 0: as the model's files say, else the last token's, normalized.
  std::vector<std::vector<float>> embed(const std::vector<std::string>& texts, int32_t pooling = 0, uint32_t flags = 0) const {
    std::vector<gptq_string> strings;
    for (const std::string& text : texts) strings.push_back({text.data(), text.size()});
    auto info = make<gptq_model_info>();
    check(gptq_model_info_get(model_, &info));
    std::vector<float> all(texts.size() * info.n_embd);
    call([&](gptq_error* err) { return gptq_embed(get(), strings.data(), strings.size(), pooling, flags, all.data(), err); });
    std::vector<std::vector<float>> vectors;
    for (size_t i = 0; i < texts.size(); ++i) vectors.emplace_back(all.begin() + static_cast<ptrdiff_t>(i * info.n_embd), all.begin() + static_cast<ptrdiff_t>((i + 1) * info.n_embd));
    return vectors;
  }

 private:
  const gptq_model* model_;  // the engine keeps it alive
  uint32_t best_logprobs_;
  std::unique_ptr<gptq_engine, Releaser<gptq_engine, gptq_engine_destroy>> handle_;
};

// How to generate, with the memory that gptq_generate_params points to. All zero: greedy, until the end token or the end of the context.
struct Generation {
  uint32_t max_tokens = 0, flags = 0;  // GPTQ_GEN_*
  gptq_sampling sampling = make<gptq_sampling>();
  std::vector<std::string> stop;
  std::vector<gptq_logit_bias> bias;
  int32_t pooling = GPTQ_POOL_NONE;  // others go with GPTQ_GEN_PREFILL_ONLY, for Session::embedding
  const Constraint* constraint = nullptr;
  const Constraint* banned = nullptr;

  // Calls f(params).
  template <class F>
  auto with(F&& f) const {
    std::vector<gptq_string> strings;
    for (const std::string& text : stop) strings.push_back({text.data(), text.size()});
    auto params = make<gptq_generate_params>();
    gptq_sampling sample = sampling;
    if (!bias.empty()) sample.bias = bias.data(), sample.n_bias = bias.size();
    params.flags = flags, params.max_tokens = max_tokens, params.sampling = &sample, params.pooling = pooling;
    params.stop = strings.data(), params.n_stop = strings.size();
    params.constraint = constraint ? constraint->get() : nullptr;
    params.banned = banned ? banned->get() : nullptr;
    return f(params);
  }
};

// A piece of what was generated with GPTQ_GEN_MARKED.
struct Marked {
  int32_t kind = GPTQ_MARK_NONE;  // GPTQ_MARK_*
  std::string text;               // of a tool call its arguments, a JSON object
  uint32_t call = 0;              // its number in this generation
  std::string name, id;           // of the tool; what the model called the call, or ""
};

// A token of the sequence and the natural logarithm of its probability, NaN where that is not known; the best there, with theirs.
struct TokenLogprob {
  gptq_token token;
  float logprob;
  std::vector<gptq_token_logprob> best;
};

class Stream;

class Session {
 public:
  explicit Session(const Engine& engine) : best_logprobs_(engine.best_logprobs()) {
    gptq_session* s = nullptr;
    call([&](gptq_error* err) { return gptq_session_create(engine.get(), &s, err); });
    handle_.reset(s);
  }
  // Goes on where the saved session stood; exact is false where numbers may differ in their last digits.
  Session(const Engine& engine, const std::string& saved, bool* exact = nullptr) : best_logprobs_(engine.best_logprobs()) {
    gptq_session* s = nullptr;
    auto err = make<gptq_error>();
    const gptq_status status = gptq_session_restore(engine.get(), saved.data(), saved.size(), &s, &err);
    check(status, &err);
    handle_.reset(s);
    if (exact) *exact = status == GPTQ_OK;
  }
  // GPTQ_SAVE_*
  std::string save(int32_t kind = GPTQ_SAVE_REPLAY) const {
    auto err = make<gptq_error>();
    size_t n = 0;
    const gptq_status status = gptq_session_save(get(), kind, nullptr, 0, &n, &err);
    if (status != GPTQ_E_BUFFER_TOO_SMALL) check(status, &err);
    std::string bytes(n, 0);
    call([&](gptq_error* e) { return gptq_session_save(get(), kind, bytes.data(), n, &n, e); });
    return bytes;
  }
  // Stands where this one stands.
  Session fork() const {
    gptq_session* s = nullptr;
    call([&](gptq_error* err) { return gptq_session_fork(get(), &s, err); });
    return Session(s, best_logprobs_);
  }
  // Stands where the saved one stood.
  static Session restore(const Engine& engine, std::string_view path, bool* exact = nullptr) { return restore(engine, Source(std::string(path)), exact); }
  static Session restore(const Engine& engine, const Source& source, bool* exact = nullptr) {
    gptq_session* s = nullptr;
    const gptq_status status =
        source.call([&](const gptq_source* from, gptq_error* err) { return gptq_session_restore_from(engine.get(), from, &s, err); });
    if (exact) *exact = status == GPTQ_OK;
    return Session(s, engine.best_logprobs());
  }
  // write(const char* bytes, size_t size) gets the pieces; false ends it.
  template <class F, class = std::enable_if_t<std::is_invocable_v<F&, const char*, size_t>>>
  void save(int32_t kind, F&& write) const {
    Callback<std::remove_reference_t<F>> callback(write);
    auto err = make<gptq_error>();
    const gptq_status status = gptq_session_save_to(get(), kind, callback.write, callback.user(), &err);
    callback.rethrow();
    check(status, &err);
  }
  void save(int32_t kind, std::ostream& to) const {
    save(kind, [&](const char* bytes, size_t size) { return !to.write(bytes, static_cast<std::streamsize>(size)).fail(); });
  }
  // Another handle of the same session, for a thread that cancels: each may be dropped by its thread.
  Session share() const { return Session(gptq_session_retain(get()), best_logprobs_); }
  // Whether both are handles of one session.
  bool operator==(const Session& other) const { return get() == other.get(); }
  bool operator!=(const Session& other) const { return get() != other.get(); }
  gptq_session* get() const { return handle_.get(); }
  // NULL: none.
  void set_adapter(const Adapter* adapter, float scale = 1) {
    call([&](gptq_error* err) { return gptq_session_set_adapter(get(), adapter ? adapter->get() : nullptr, scale, err); });
  }
  // What the output is likely to have parts of, for generations with GPTQ_GEN_SPECULATE; nothing: no prediction.
  void set_prediction(std::string_view text, uint32_t flags = 0) {
    call([&](gptq_error* err) { return gptq_session_set_prediction(get(), text.empty() ? nullptr : text.data(), text.size(), flags, err); });
  }
  void append(std::string_view text, uint32_t flags) {
    call([&](gptq_error* err) { return gptq_session_append_text(get(), text.data(), text.size(), flags, nullptr, err); });
  }
  void append(const gptq_token* tokens, size_t n) {
    call([&](gptq_error* err) { return gptq_session_append_tokens(get(), tokens, n, err); });
  }
  void append(const std::vector<gptq_token>& tokens) { append(tokens.data(), tokens.size()); }
  void set_chat(const gptq_chat& chat) {
    call([&](gptq_error* err) { return gptq_session_set_chat(get(), &chat, nullptr, err); });
  }
  // Keeps what the sequence already begins with; returns its tokens.
  size_t set_chat(const std::vector<Message>& messages, const ChatOptions& options = {}) {
    const Chat chat(messages, options);
    size_t n = 0;
    call([&](gptq_error* err) { return gptq_session_set_chat(get(), &chat.chat, &n, err); });
    return n;
  }
  void start(const Generation& how) {
    how.with([&](const gptq_generate_params& params) { start(params); });
  }
  void start(const gptq_generate_params& params = make<gptq_generate_params>()) {
    call([&](gptq_error* err) { return gptq_session_start(get(), &params, err); });
  }
  // Blocks; on_text gets the text as it comes.
  gptq_session_info generate(std::string_view text, const gptq_generate_params& params, gptq_text_fn on_text = nullptr, void* user = nullptr) {
    auto info = make<gptq_session_info>();
    call([&](gptq_error* err) { return gptq_generate(get(), text.data(), text.size(), &params, on_text, user, &info, err); });
    return info;
  }
  // The sum of each text's log-probabilities behind what stands, and of how many tokens it is.
  std::vector<double> score(const std::vector<std::string>& texts, std::vector<uint32_t>* n_tokens = nullptr) {
    std::vector<gptq_string> strings;
    for (const std::string& text : texts) strings.push_back({text.data(), text.size()});
    std::vector<double> sums(texts.size());
    std::vector<uint32_t> counts(texts.size());
    call([&](gptq_error* err) { return gptq_score(get(), strings.data(), strings.size(), sums.data(), counts.data(), err); });
    if (n_tokens) *n_tokens = std::move(counts);
    return sums;
  }
  // Of the tokens at positions first to first + n - 1, with GPTQ_GEN_LOGPROBS; the best are as many as the engine's best_logprobs.
  std::vector<TokenLogprob> logprobs(uint32_t first, uint32_t n) const {
    std::vector<float> chosen(n);
    std::vector<gptq_token_logprob> best(size_t{n} * best_logprobs_);
    check(gptq_session_logprobs(get(), first, n, chosen.data(), best.empty() ? nullptr : best.data()));
    const std::vector<gptq_token> all = tokens();
    std::vector<TokenLogprob> out;
    for (uint32_t i = 0; i < n; ++i) {
      out.push_back({all[first + i], chosen[i], {}});
      for (uint32_t j = 0; j < best_logprobs_; ++j)
        if (const gptq_token_logprob& one = best[size_t{i} * best_logprobs_ + j]; one.token >= 0) out.back().best.push_back(one);
    }
    return out;
  }
  // What a start with `pooling` made of the sequence.
  std::vector<float> embedding(uint32_t flags = 0) const {
    return sized<std::vector<float>>([&](float* to, size_t cap, size_t* n) { return gptq_session_embedding(get(), flags, to, cap, n); });
  }
  // on_text(std::string_view) may return false to end it.
  template <class F, class = std::enable_if_t<std::is_invocable_v<F&, std::string_view>>>
  gptq_session_info generate(std::string_view text, const Generation& how, F&& on_text) {
    Callback<std::remove_reference_t<F>> callback(on_text);
    auto info = make<gptq_session_info>();
    auto err = make<gptq_error>();
    const gptq_status status = how.with([&](const gptq_generate_params& params) {
      return gptq_generate(get(), text.data(), text.size(), &params, callback.text, callback.user(), &info, &err);
    });
    callback.rethrow();
    check(status, &err);
    return info;
  }
  // Pieces of text, for a range for; the loop does the work.
  Stream stream(Engine& engine, std::string_view text, const Generation& how = {});
  void truncate(uint32_t n_tokens) { check(gptq_session_truncate(get(), n_tokens)); }
  void cancel() { gptq_session_cancel(get()); }
  gptq_session_info info() const {
    auto info = make<gptq_session_info>();
    check(gptq_session_info_get(get(), &info));
    return info;
  }
  std::string read() {
    std::string text;
    char buffer[512];
    for (size_t n = sizeof buffer; n;) {
      check(gptq_session_read(get(), buffer, sizeof buffer, &n));
      text.append(buffer, n);
    }
    return text;
  }
  // With GPTQ_GEN_MARKED: what can be read now, text of one kind in one piece. A call comes whole.
  std::vector<Marked> read_marked() {
    std::vector<Marked> pieces;
    char buffer[512];
    auto marked = make<gptq_marked>();
    for (bool more = false;; more = marked.more) {
      check(gptq_session_read_marked(get(), buffer, sizeof buffer, &marked));
      if (marked.kind == GPTQ_MARK_NONE) return pieces;
      const bool call = marked.kind == GPTQ_MARK_TOOL_CALL;
      if (pieces.empty() || pieces.back().kind != marked.kind || (call && !more))
        pieces.push_back({marked.kind, {}, marked.call, marked.name, marked.id});
      pieces.back().text.append(buffer, marked.size);
    }
  }
  std::vector<gptq_token> read_tokens() {
    std::vector<gptq_token> tokens(info().tokens_unread);
    size_t n = 0;
    check(gptq_session_read_tokens(get(), tokens.data(), tokens.size(), &n));
    tokens.resize(n);
    return tokens;
  }
  // With GPTQ_GEN_LOGITS: rows of n_vocab that came since the last read, and the first's position.
  std::vector<float> read_logits(uint32_t n_vocab, uint32_t* first_position = nullptr) {
    std::vector<float> rows(size_t(info().logits_unread) * n_vocab);
    uint32_t first = 0, n = 0;
    check(gptq_session_read_logits(get(), rows.data(), rows.size(), &first, &n));
    rows.resize(size_t(n) * n_vocab);
    if (first_position) *first_position = first;
    return rows;
  }
  // The whole sequence.
  std::vector<gptq_token> tokens() const {
    return sized<std::vector<gptq_token>>([&](gptq_token* to, size_t cap, size_t* n) { return gptq_session_tokens(get(), to, cap, n); });
  }

 private:
  friend class Engine;
  Session(gptq_session* s, uint32_t best_logprobs) : handle_(s), best_logprobs_(best_logprobs) {}
  std::unique_ptr<gptq_session, Releaser<gptq_session, gptq_session_destroy>> handle_;
  uint32_t best_logprobs_;
};

inline std::optional<Session> Engine::next_readable() {
  gptq_session* s = gptq_engine_next_readable(get());
  if (!s) return std::nullopt;
  return Session(gptq_session_retain(s), best_logprobs_);
}

// The text of a session that works while this is read. Left early, it cancels.
class Stream {
 public:
  Stream(Session& session, Engine& engine) : session_(session), engine_(engine) {}
  Stream(const Stream&) = delete;
  ~Stream() {
    if (ended_) return;
    session_.cancel();
    gptq_engine_step(engine_.get(), 1, nullptr);  // which ends it; a poll would not
  }
  // The next piece, empty after the last.
  std::string next() {
    while (!ended_) {
      const gptq_session_info info = session_.info();
      if (std::string piece = session_.read(); !piece.empty()) return piece;
      ended_ = info.state != GPTQ_SESSION_RUNNING;
      if (ended_) check(info.status, nullptr, "the generation ended by an error");
      else engine_.step(5000);
    }
    return {};
  }

  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = std::string;
    using difference_type = std::ptrdiff_t;
    using pointer = const std::string*;
    using reference = const std::string&;
    explicit Iterator(Stream* stream = nullptr) : stream_(stream) { ++*this; }
    reference operator*() const { return piece_; }
    pointer operator->() const { return &piece_; }
    Iterator& operator++() {
      if (stream_) piece_ = stream_->next();
      if (piece_.empty()) stream_ = nullptr;
      return *this;
    }
    void operator++(int) { ++*this; }
    bool operator==(const Iterator& other) const { return stream_ == other.stream_; }
    bool operator!=(const Iterator& other) const { return stream_ != other.stream_; }

   private:
    Stream* stream_;
    std::string piece_;
  };
  Iterator begin() { return Iterator(this); }
  Iterator end() { return Iterator(); }

 private:
  Session& session_;
  Engine& engine_;
  bool ended_ = false;
};

inline Stream Session::stream(Engine& engine, std::string_view text, const Generation& how) {
  const bool first = info().n_tokens == 0;
  if (!text.empty()) append(text, GPTQ_TEXT_PARSE_SPECIAL | (first ? GPTQ_TEXT_ADD_BOS : 0));
  start(how);
  return Stream(*this, engine);
}

}  // namespace gptq
