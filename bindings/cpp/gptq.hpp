// SPDX-License-Identifier: Apache-2.0
// C++ over the C API, header-only: handles that release themselves, errors as exceptions. Needs C++17.
#pragma once
#include <cstdint>
#include <exception>
#include <istream>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <ostream>
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

// The log of a runtime. It passes on to the host's what it gets, and keeps each thread's last GPTQ_LOG_ERROR: functions without a gptq_error
// send their message there before they return.
class Log {
 public:
  explicit Log(const gptq_runtime_desc& desc) : desc_(desc) {}
  static std::string& told() {
    static thread_local std::string text;
    return text;
  }
  static void GPTQ_CALL tell(void* user, int32_t level, const char* text, size_t size) {
    if (level == GPTQ_LOG_ERROR) keep(text, size);
    const gptq_runtime_desc& desc = static_cast<Log*>(user)->desc_;
    if (desc.log) desc.log(desc.log_user, level, text, size);
  }
  static void GPTQ_CALL drop(void* user) {
    const std::unique_ptr<Log> self(static_cast<Log*>(user));
    if (self->desc_.user_free) self->desc_.user_free(self->desc_.user);
  }

 private:
  static void keep(const char* text, size_t size) noexcept {
    try {
      told().assign(text, size);
    } catch (...) {  // without memory the status has to do
    }
  }
  gptq_runtime_desc desc_;
};

// otherwise: the message where the library has none.
inline void check(gptq_status status, const gptq_error* err = nullptr, std::string_view otherwise = {}) {
  if (status >= 0) return;
  const std::string told = std::exchange(Log::told(), {});
  std::string text = err && err->message[0] ? err->message : gptq_status_name(status), site = err ? err->site : "";
  if (!(err && err->message[0])) {
    const size_t at = told.size() > 1 && told.back() == ']' ? told.rfind(" [") : told.npos;
    if (!otherwise.empty()) text += ": " + std::string(otherwise);
    else if (at != told.npos) text = told.substr(0, at), site = told.substr(at + 2, told.size() - at - 3);
    else if (!told.empty()) text = told;
    else if (status == GPTQ_E_TEXT) text += ": the model has no tokenizer, or it cannot express the text";
  }
  if (!site.empty()) text += " [" + site + "]";
  Error error(status, text);
  error.site = site;
  if (err) {
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

// The library's version: major << 16 | minor << 8 | patch; and one line about how it was built.
inline uint32_t version() { return gptq_version(); }
inline std::string build_info() { return gptq_build_info(); }

// The output of f(buffer, capacity, &needed). otherwise: the message of a function that has none.
template <class Container, class F>
Container sized(F&& f, std::string_view otherwise = {}) {
  size_t n = 0;
  const gptq_status status = f(nullptr, 0, &n);
  if (status != GPTQ_E_BUFFER_TOO_SMALL) check(status, nullptr, otherwise);
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
  static int32_t GPTQ_CALL write(void* user, const void* bytes, size_t size) { return run(user, static_cast<const char*>(bytes), size); }

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
    gptq_runtime_desc own = desc;
    auto log = std::make_unique<Log>(desc);
    if (desc.struct_size == sizeof desc) own.log = Log::tell, own.user_free = Log::drop, own.log_user = own.user = log.get();
    call([&](gptq_error* err) { return gptq_runtime_create(&own, &rt, err); });
    handle_.reset(rt);
    if (own.user == log.get()) log.release();  // the runtime drops it
  }
  gptq_runtime* get() const { return handle_.get(); }
  std::string kernels() const { return gptq_runtime_kernels(get()); }
  // The CUDA backend; "": where the system's loader has it.
  void load_backend(std::string_view path = {}) {
    call([&](gptq_error* err) { return gptq_runtime_load_backend(get(), path.empty() ? nullptr : path.data(), path.size(), err); });
  }
  // The GPUs. Throws GPTQ_E_BACKEND where no backend is loaded.
  std::vector<gptq_device_info> devices() const {
    std::vector<gptq_device_info> all;
    for (;;) {
      auto info = make<gptq_device_info>();
      auto err = make<gptq_error>();
      const gptq_status status = gptq_runtime_device(get(), static_cast<uint32_t>(all.size()), &info, &err);
      if (status == GPTQ_E_NOT_FOUND) return all;
      check(status, &err);
      all.push_back(info);
    }
  }

 private:
  std::unique_ptr<gptq_runtime, Releaser<gptq_runtime, gptq_runtime_release>> handle_;
};

// What a model, an adapter or a save is read from: a file, memory or a stream. Memory and stream must stay; the stream is read by one thread at a
// time, and what it throws is thrown by the call.
class Source {
 public:
  explicit Source(std::string path) : path_(std::move(path)) { source_.path = path_.data(), source_.path_size = path_.size(); }
  Source(const void* data, size_t size) { source_.data = data, source_.data_size = size; }
  explicit Source(std::istream& stream) : stream_(&stream) {
    io_.user = this, io_.size = size_of, io_.read_at = read_at;
    source_.io = &io_;
  }
  Source(const Source&) = delete;
  // The part from offset on; size 0: to the end.
  Source& part(uint64_t offset, uint64_t size = 0) { return source_.offset = offset, source_.size = size, *this; }
  // Calls f(source, err) and throws what it reports. Returns the status.
  template <class F>
  gptq_status call(F&& f) const {
    auto err = make<gptq_error>();
    const gptq_status status = f(&source_, &err);
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
    check(status, &err);
    return status;
  }

 private:
  template <class F>
  int64_t guarded(F&& f) noexcept {
    const std::lock_guard<std::mutex> guard(mutex_);
    if (failure_) return -5;  // EIO
    try {
      return f();
    } catch (...) {
      failure_ = std::current_exception();
      return -5;
    }
  }
  static int64_t size_of(void* user) {
    auto& self = *static_cast<Source*>(user);
    return self.guarded([&] {
      self.stream_->clear();
      self.stream_->seekg(0, std::ios::end);
      return self.stream_->fail() ? int64_t{-5} : static_cast<int64_t>(self.stream_->tellg());
    });
  }
  static int64_t read_at(void* user, uint64_t offset, void* dst, size_t size) {
    auto& self = *static_cast<Source*>(user);
    return self.guarded([&] {
      self.stream_->clear();
      self.stream_->seekg(static_cast<std::streamoff>(offset));
      self.stream_->read(static_cast<char*>(dst), static_cast<std::streamsize>(size));
      return self.stream_->bad() ? int64_t{-5} : static_cast<int64_t>(self.stream_->gcount());
    });
  }
  std::string path_;
  std::istream* stream_ = nullptr;
  std::mutex mutex_;
  mutable std::exception_ptr failure_;
  gptq_io io_ = make<gptq_io>();
  gptq_source source_ = make<gptq_source>();
};

struct Message {
  std::string_view role, text;
  std::string_view extra_json = {};  // an object of what else the template may ask the message for
};

struct ChatOptions {
  bool add_generation_prompt = true;
  bool drop_oldest = false;                             // leave the oldest turns out where the conversation does not fit: gptq_session_info::n_dropped
  uint32_t reserve_tokens = 0, keep_tokens = 0;         // room for the reply; so many tokens stay at most when turns must go
  std::string_view tools_json = {}, variables_json = {};  // an array; an object of further variables
  std::string_view template_override = {};
};

// gptq_chat over messages and options, which must stay.
class Chat {
 public:
  explicit Chat(const std::vector<Message>& messages, const ChatOptions& options = {}) {
    for (const Message& message : messages) {
      auto m = make<gptq_message>();
      m.role = message.role.data(), m.role_size = message.role.size();
      m.text = message.text.data(), m.text_size = message.text.size();
      m.extra_json = message.extra_json.data(), m.extra_json_size = message.extra_json.size();
      messages_.push_back(m);
    }
    for (const gptq_message& message : messages_) pointers_.push_back(&message);
    chat.flags = (options.add_generation_prompt ? GPTQ_CHAT_ADD_GENERATION_PROMPT : 0) | (options.drop_oldest ? GPTQ_CHAT_DROP_OLDEST : 0);
    chat.reserve_tokens = options.reserve_tokens, chat.keep_tokens = options.keep_tokens;
    chat.tools_json = options.tools_json.data(), chat.tools_json_size = options.tools_json.size();
    chat.kwargs_json = options.variables_json.data(), chat.kwargs_json_size = options.variables_json.size();
    chat.template_override = options.template_override.data(), chat.template_override_size = options.template_override.size();
    chat.messages = pointers_.data(), chat.n_messages = pointers_.size();
  }
  Chat(const Chat&) = delete;
  gptq_chat chat = make<gptq_chat>();

 private:
  std::vector<gptq_message> messages_;
  std::vector<const gptq_message*> pointers_;
};

// What a token stands for; attributes are GPTQ_TOKEN_*. The model owns the bytes.
struct Token {
  std::string_view bytes;
  uint32_t attributes;
};

class Model {
 public:
  Model(const Runtime& rt, const Source& source, const gptq_model_params& params = make<gptq_model_params>()) {
    gptq_model* m = nullptr;
    source.call([&](const gptq_source* from, gptq_error* err) { return gptq_model_load_from(rt.get(), from, &params, &m, err); });
    handle_.reset(m);
  }
  // Another handle of the same model.
  Model share() const { return Model(gptq_model_retain(get())); }
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
    auto text = sized<std::string>([&](char* to, size_t cap, size_t* n) { return gptq_model_meta(get(), key.data(), key.size(), to, cap, n); },
                                   "the model has no text for " + std::string(key));
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
  Token token(gptq_token id) const {
    const char* bytes = nullptr;
    size_t size = 0;
    uint32_t attributes = 0;
    check(gptq_token_bytes(get(), id, &bytes, &size, &attributes));
    return {{bytes, size}, attributes};
  }
  // Which layers are on which device, in their order.
  std::vector<gptq_placement> placements() const {
    std::vector<gptq_placement> all;
    for (;;) {
      auto placement = make<gptq_placement>();
      const gptq_status status = gptq_model_placement(get(), static_cast<uint32_t>(all.size()), &placement);
      if (status == GPTQ_E_NOT_FOUND) return all;
      check(status);
      all.push_back(placement);
    }
  }
  // The chat template over the messages.
  std::string render_chat(const std::vector<Message>& messages, const ChatOptions& options = {}) const {
    const Chat chat(messages, options);
    auto err = make<gptq_error>();
    size_t n = 0;
    const gptq_status status = gptq_chat_render(get(), &chat.chat, nullptr, 0, &n, &err);
    if (status != GPTQ_E_BUFFER_TOO_SMALL) check(status, &err);
    std::string text(n, 0);
    call([&](gptq_error* e) { return gptq_chat_render(get(), &chat.chat, text.data(), n, &n, e); });
    return text;
  }

 private:
  explicit Model(gptq_model* m) : handle_(m) {}
  std::unique_ptr<gptq_model, Releaser<gptq_model, gptq_model_release>> handle_;
};

// What loading, and one engine with these parameters (NULL: none), would hold.
inline gptq_memory_estimate estimate(const Runtime& rt, const Source& source, const gptq_engine_params* engine = nullptr,
                                     const gptq_model_params& params = make<gptq_model_params>()) {
  auto out = make<gptq_memory_estimate>();
  source.call([&](const gptq_source* from, gptq_error* err) { return gptq_model_estimate(rt.get(), from, &params, engine, &out, err); });
  return out;
}
// What quantize with these parameters would take.
inline gptq_quantize_estimate estimate_quantize(const Runtime& rt, const Source& source, const gptq_quantize_params& params) {
  auto out = make<gptq_quantize_estimate>();
  source.call([&](const gptq_source* from, gptq_error* err) { return gptq_quantize_estimate_get(rt.get(), from, &params, &out, err); });
  return out;
}

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

// What a generated text must be, for Generation::constraint; phrases that it never has, for Generation::banned.
class Constraint {
 public:
  static Constraint choice(const Model& model, const std::vector<std::string>& texts) { return {model, GPTQ_CONSTRAINT_CHOICE, list(texts)}; }
  static Constraint regex(const Model& model, std::string_view expression) { return {model, GPTQ_CONSTRAINT_REGEX, expression}; }
  // compact: each value in the shortest way to write it.
  static Constraint json_schema(const Model& model, std::string_view schema, bool compact = false) {
    return {model, compact ? GPTQ_CONSTRAINT_JSON_COMPACT : GPTQ_CONSTRAINT_JSON_SCHEMA, schema};
  }
  static Constraint grammar(const Model& model, std::string_view gbnf) { return {model, GPTQ_CONSTRAINT_GRAMMAR, gbnf}; }
  // The source is JSON: gptq.h.
  static Constraint tags(const Model& model, std::string_view source) { return {model, GPTQ_CONSTRAINT_TAGS, source}; }
  static Constraint banned(const Model& model, const std::vector<std::string>& phrases) { return {model, GPTQ_CONSTRAINT_BANNED, list(phrases)}; }

  Constraint(const Model& model, int32_t kind, std::string_view source) {
    gptq_constraint* c = nullptr;
    call([&](gptq_error* err) { return gptq_constraint_compile(model.get(), kind, source.data(), source.size(), &c, err); });
    handle_.reset(c);
  }
  gptq_constraint* get() const { return handle_.get(); }

 private:
  static std::string list(const std::vector<std::string>& texts) {
    std::string json = "[";
    for (const std::string& text : texts) {
      json += json.size() > 1 ? ",\"" : "\"";
      for (const char c : text) {
        if (c == '"' || c == '\\') json += '\\';
        if (static_cast<unsigned char>(c) >= ' ') json += c;
        else json += "\\u00", json += "01"[c >> 4 & 1], json += "0123456789abcdef"[c & 15];
      }
      json += '"';
    }
    return json + "]";
  }
  std::unique_ptr<gptq_constraint, Releaser<gptq_constraint, gptq_constraint_destroy>> handle_;
};

// What sessions of the model can be changed by; a .gptq-lora file.
class Adapter {
 public:
  Adapter(const Model& model, const std::string& path) : Adapter(model, Source(path)) {}
  Adapter(const Model& model, const Source& source) {
    gptq_adapter* a = nullptr;
    source.call([&](const gptq_source* from, gptq_error* err) { return gptq_adapter_load(model.get(), from, &a, err); });
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
