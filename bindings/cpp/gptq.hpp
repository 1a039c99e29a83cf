// SPDX-License-Identifier: Apache-2.0
// C++ over the C API, header-only: handles that release themselves, errors as exceptions. Needs C++17.
#pragma once
#include <cstdint>
#include <exception>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "gptq/gptq.h"

namespace gptq {

// site is where the library failed: quote it in bug reports.
class Error : public std::runtime_error {
 public:
  Error(gptq_status status, const std::string& what) : std::runtime_error(what), status(status) {}
  gptq_status status;
  std::string site;
  uint64_t offset = 0;
  int64_t os_code = 0;
};

// A zeroed struct of the C API with its struct_size set.
template <class T>
T make() {
  T value{};
  value.struct_size = sizeof value;
  return value;
}

inline void check(gptq_status status, const gptq_error* err = nullptr) {
  if (status >= 0) return;
  std::string text = err && err->message[0] ? err->message : gptq_status_name(status);
  if (status == GPTQ_E_TEXT && !(err && err->message[0])) text += ": the model has no tokenizer, or it cannot express the text";
  if (err && err->site[0]) text += std::string(" [") + err->site + "]";
  Error error(status, text);
  if (err) {
    error.site = err->site;
    error.offset = err->offset;
    error.os_code = err->os_code;
  }
  throw error;
}
// Calls f(err) and throws what it reports.
template <class F>
void call(F&& f) {
  gptq_error err = make<gptq_error>();
  check(f(&err), &err);
}

// The output of f(buffer, capacity, &needed).
template <class Container, class F>
Container sized(F&& f) {
  size_t n = 0;
  const gptq_status status = f(nullptr, 0, &n);
  if (status != GPTQ_E_BUFFER_TOO_SMALL) check(status);
  Container out(n, typename Container::value_type{});
  check(f(out.data(), n, &n));
  return out;
}

// A function that C calls. Its exception does not cross C's frames: it stops the call and is thrown above it. Where it returns false, or
// progress is to be cancelled, the call ends.
template <class F>
class Callback {
 public:
  explicit Callback(F& f) : f_(f) {}
  void* user() { return this; }
  void rethrow() const {
    if (failure_) std::rethrow_exception(failure_);
  }
  static int32_t GPTQ_CALL text(void* user, const char* text, size_t size) { return run(user, std::string_view(text, size)); }
  static int32_t GPTQ_CALL progress(void* user, uint32_t phase, uint32_t permille) { return run(user, phase, permille / 1000.0); }
  static void GPTQ_CALL report(void* user, const gptq_quantize_report* report) { run(user, *report); }

 private:
  template <class... Args>
  static int32_t run(void* user, Args&&... args) noexcept {
    auto& self = *static_cast<Callback*>(user);
    if (self.failure_) return 1;
    try {
      if constexpr (std::is_convertible_v<std::invoke_result_t<F&, Args...>, bool>) return self.f_(std::forward<Args>(args)...) ? 0 : 1;
      else return self.f_(std::forward<Args>(args)...), 0;
    } catch (...) {
      self.failure_ = std::current_exception();
      return 1;
    }
  }
  F& f_;
  std::exception_ptr failure_;
};

template <class T, void (*release)(T*)>
struct Releaser {
  void operator()(T* handle) const { release(handle); }
};

class Runtime {
 public:
  explicit Runtime(const gptq_runtime_desc& desc = make<gptq_runtime_desc>()) {
    gptq_runtime* rt = nullptr;
    call([&](gptq_error* err) { return gptq_runtime_create(&desc, &rt, err); });
    handle_.reset(rt);
  }
  gptq_runtime* get() const { return handle_.get(); }
  std::string kernels() const { return gptq_runtime_kernels(get()); }

 private:
  std::unique_ptr<gptq_runtime, Releaser<gptq_runtime, gptq_runtime_release>> handle_;
};

struct Message {
  std::string_view role, text;
};

// gptq_chat over messages, which must stay.
class Chat {
 public:
  explicit Chat(const std::vector<Message>& messages) {
    for (const Message& message : messages) {
      auto m = make<gptq_message>();
      m.role = message.role.data(), m.role_size = message.role.size();
      m.text = message.text.data(), m.text_size = message.text.size();
      messages_.push_back(m);
    }
    for (const gptq_message& message : messages_) pointers_.push_back(&message);
    chat.flags = GPTQ_CHAT_ADD_GENERATION_PROMPT;
    chat.messages = pointers_.data(), chat.n_messages = pointers_.size();
  }
  Chat(const Chat&) = delete;
  gptq_chat chat = make<gptq_chat>();

 private:
  std::vector<gptq_message> messages_;
  std::vector<const gptq_message*> pointers_;
};

class Model {
 public:
  Model(const Runtime& rt, const std::string& path, const gptq_model_params& params = make<gptq_model_params>()) {
    gptq_model* m = nullptr;
    call([&](gptq_error* err) { return gptq_model_load(rt.get(), path.c_str(), GPTQ_NTS, &params, &m, err); });
    handle_.reset(m);
  }
  // progress(phase, done from 0 to 1) may return false to cancel.
  template <class F, class = std::enable_if_t<std::is_invocable_v<F&, uint32_t, double>>>
  Model(const Runtime& rt, const std::string& path, F&& progress, gptq_model_params params = make<gptq_model_params>()) {
    Callback<std::remove_reference_t<F>> callback(progress);
    params.progress = callback.progress;
    params.progress_user = callback.user();
    gptq_model* m = nullptr;
    auto err = make<gptq_error>();
    const gptq_status status = gptq_model_load(rt.get(), path.data(), path.size(), &params, &m, &err);
    handle_.reset(m);
    callback.rethrow();
    check(status, &err);
  }
  gptq_model* get() const { return handle_.get(); }
  gptq_model_info info() const {
    auto info = make<gptq_model_info>();
    check(gptq_model_info_get(get(), &info));
    return info;
  }
  // "name", "license", "chat_template", ...
  std::string meta(std::string_view key) const {
    auto text = sized<std::string>([&](char* to, size_t cap, size_t* n) { return gptq_model_meta(get(), key.data(), key.size(), to, cap, n); });
    text.pop_back();  // the NUL
    return text;
  }
  std::vector<gptq_token> tokenize(std::string_view text, uint32_t flags = 0) const {
    return sized<std::vector<gptq_token>>(
        [&](gptq_token* to, size_t cap, size_t* n) { return gptq_tokenize(get(), text.data(), text.size(), flags, to, cap, n); });
  }
  std::string detokenize(const std::vector<gptq_token>& tokens, uint32_t flags = 0) const {
    return sized<std::string>(
        [&](char* to, size_t cap, size_t* n) { return gptq_detokenize(get(), tokens.data(), tokens.size(), flags, to, cap, n); });
  }
  // The chat template over the messages.
  std::string render_chat(const std::vector<Message>& messages) const {
    const Chat chat(messages);
    auto err = make<gptq_error>();
    size_t n = 0;
    const gptq_status status = gptq_chat_render(get(), &chat.chat, nullptr, 0, &n, &err);
    if (status != GPTQ_E_BUFFER_TOO_SMALL) check(status, &err);
    std::string text(n, 0);
    call([&](gptq_error* e) { return gptq_chat_render(get(), &chat.chat, text.data(), n, &n, e); });
    return text;
  }

 private:
  std::unique_ptr<gptq_model, Releaser<gptq_model, gptq_model_release>> handle_;
};

// Makes a model with few bits of one with 16 or 32. progress(phase, done) may return false to cancel; report(gptq_quantize_report) is told of
// each matrix.
template <class Progress, class Report>
void quantize(const Runtime& rt, std::string_view source, std::string_view target, gptq_quantize_params params, Progress&& progress, Report&& report) {
  Callback<std::remove_reference_t<Progress>> on_progress(progress);
  Callback<std::remove_reference_t<Report>> on_report(report);
  params.progress = on_progress.progress, params.progress_user = on_progress.user();
  params.report = on_report.report, params.report_user = on_report.user();
  auto from = make<gptq_source>();
  from.path = source.data(), from.path_size = source.size();
  auto err = make<gptq_error>();
  const gptq_status status = gptq_quantize(rt.get(), &from, target.data(), target.size(), &params, &err);
  on_progress.rethrow();
  on_report.rethrow();
  check(status, &err);
}

// What a generated text must be; for gptq_generate_params::constraint.
class Constraint {
 public:
  Constraint(const Model& model, int32_t kind, std::string_view source) {
    gptq_constraint* c = nullptr;
    call([&](gptq_error* err) { return gptq_constraint_compile(model.get(), kind, source.data(), source.size(), &c, err); });
    handle_.reset(c);
  }
  gptq_constraint* get() const { return handle_.get(); }

 private:
  std::unique_ptr<gptq_constraint, Releaser<gptq_constraint, gptq_constraint_destroy>> handle_;
};

// What sessions of the model can be changed by; a .gptq-lora file.
class Adapter {
 public:
  Adapter(const Model& model, const std::string& path) {
    auto source = make<gptq_source>();
    source.path = path.data();
    source.path_size = path.size();
    gptq_adapter* a = nullptr;
    call([&](gptq_error* err) { return gptq_adapter_load(model.get(), &source, &a, err); });
    handle_.reset(a);
  }
  gptq_adapter* get() const { return handle_.get(); }
  gptq_adapter_info info() const {
    auto info = make<gptq_adapter_info>();
    check(gptq_adapter_info_get(get(), &info));
    return info;
  }

 private:
  std::unique_ptr<gptq_adapter, Releaser<gptq_adapter, gptq_adapter_release>> handle_;
};

class Engine {
 public:
  explicit Engine(const Model& model, const gptq_engine_params& params = make<gptq_engine_params>()) : model_(model.get()) {
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
  std::unique_ptr<gptq_engine, Releaser<gptq_engine, gptq_engine_destroy>> handle_;
};

// How to generate, with the memory that gptq_generate_params points to. All zero: greedy, until the end token or the end of the context.
struct Generation {
  uint32_t max_tokens = 0, flags = 0;  // GPTQ_GEN_*
  gptq_sampling sampling = make<gptq_sampling>();
  std::vector<std::string> stop;
  const Constraint* constraint = nullptr;

  // Calls f(params).
  template <class F>
  auto with(F&& f) const {
    std::vector<gptq_string> strings;
    for (const std::string& text : stop) strings.push_back({text.data(), text.size()});
    auto params = make<gptq_generate_params>();
    params.flags = flags, params.max_tokens = max_tokens, params.sampling = &sampling;
    params.stop = strings.data(), params.n_stop = strings.size();
    params.constraint = constraint ? constraint->get() : nullptr;
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

class Stream;

class Session {
 public:
  explicit Session(const Engine& engine) {
    gptq_session* s = nullptr;
    call([&](gptq_error* err) { return gptq_session_create(engine.get(), &s, err); });
    handle_.reset(s);
  }
  // Goes on where the saved session stood; exact is false where numbers may differ in their last digits.
  Session(const Engine& engine, const std::string& saved, bool* exact = nullptr) {
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
    return Session(s);
  }
  // Stands where the saved one stood; exact as above.
  static Session restore(const Engine& engine, std::string_view path, bool* exact = nullptr) {
    auto source = make<gptq_source>();
    source.path = path.data(), source.path_size = path.size();
    gptq_session* s = nullptr;
    auto err = make<gptq_error>();
    const gptq_status status = gptq_session_restore_from(engine.get(), &source, &s, &err);
    check(status, &err);
    if (exact) *exact = status == GPTQ_OK;
    return Session(s);
  }
  // write(const char* bytes, size_t size) gets the pieces; false ends it.
  template <class F>
  void save(int32_t kind, F write) const {
    const gptq_write_fn take = [](void* user, const void* bytes, size_t size) -> int32_t {
      return (*static_cast<F*>(user))(static_cast<const char*>(bytes), size) ? 0 : -1;
    };
    call([&](gptq_error* err) { return gptq_session_save_to(get(), kind, take, &write, err); });
  }
  // Another handle of the same session, for a thread that cancels: each may be dropped by its thread.
  Session share() const { return Session(gptq_session_retain(get())); }
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
  size_t set_chat(const std::vector<Message>& messages) {
    const Chat chat(messages);
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
  // The sum of each text's log-probabilities behind what stands.
  std::vector<double> score(const std::vector<std::string>& texts) {
    std::vector<gptq_string> strings;
    for (const std::string& text : texts) strings.push_back({text.data(), text.size()});
    std::vector<double> sums(texts.size());
    call([&](gptq_error* err) { return gptq_score(get(), strings.data(), strings.size(), sums.data(), nullptr, err); });
    return sums;
  }
  // What a start with `pooling` made of the sequence.
  std::vector<float> embedding(uint32_t flags = 0) const {
    size_t n = 0;
    gptq_session_embedding(get(), flags, nullptr, 0, &n);
    std::vector<float> vector(n);
    check(gptq_session_embedding(get(), flags, vector.data(), n, &n));
    return vector;
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
  explicit Session(gptq_session* s) : handle_(s) {}
  std::unique_ptr<gptq_session, Releaser<gptq_session, gptq_session_destroy>> handle_;
};

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
      if (ended_) check(info.status);
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
