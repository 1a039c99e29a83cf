// SPDX-License-Identifier: Apache-2.0
// C++ over the C API, header-only: handles that release themselves, errors as exceptions. Needs C++17.
#pragma once
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gptq/gptq.h"

namespace gptq {

class Error : public std::runtime_error {
 public:
  Error(gptq_status status, const std::string& what) : std::runtime_error(what), status(status) {}
  gptq_status status;
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
  throw Error(status, text);
}
// Calls f(err) and throws what it reports.
template <class F>
void call(F&& f) {
  gptq_error err = make<gptq_error>();
  check(f(&err), &err);
}

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

class Model {
 public:
  Model(const Runtime& rt, const std::string& path, const gptq_model_params& params = make<gptq_model_params>()) {
    gptq_model* m = nullptr;
    call([&](gptq_error* err) { return gptq_model_load(rt.get(), path.c_str(), GPTQ_NTS, &params, &m, err); });
    handle_.reset(m);
  }
  gptq_model* get() const { return handle_.get(); }
  gptq_model_info info() const {
    auto info = make<gptq_model_info>();
    check(gptq_model_info_get(get(), &info));
    return info;
  }
  std::vector<gptq_token> tokenize(std::string_view text, uint32_t flags = 0) const {
    size_t n = 0;
    const gptq_status status = gptq_tokenize(get(), text.data(), text.size(), flags, nullptr, 0, &n);
    if (status != GPTQ_E_BUFFER_TOO_SMALL) check(status);
    std::vector<gptq_token> tokens(n);
    check(gptq_tokenize(get(), text.data(), text.size(), flags, tokens.data(), n, &n));
    return tokens;
  }
  std::string detokenize(const std::vector<gptq_token>& tokens, uint32_t flags = 0) const {
    size_t n = 0;
    const gptq_status status = gptq_detokenize(get(), tokens.data(), tokens.size(), flags, nullptr, 0, &n);
    if (status != GPTQ_E_BUFFER_TOO_SMALL) check(status);
    std::string text(n, '\0');
    check(gptq_detokenize(get(), tokens.data(), tokens.size(), flags, text.data(), n, &n));
    return text;
  }

 private:
  std::unique_ptr<gptq_model, Releaser<gptq_model, gptq_model_release>> handle_;
};

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

class Engine {
 public:
  explicit Engine(const Model& model, const gptq_engine_params& params = make<gptq_engine_params>()) {
    gptq_engine* e = nullptr;
    call([&](gptq_error* err) { return gptq_engine_create(model.get(), &params, &e, err); });
    handle_.reset(e);
  }
  gptq_engine* get() const { return handle_.get(); }
  // MORE or IDLE
  gptq_status step(uint32_t budget_us = GPTQ_BUDGET_UNLIMITED, gptq_step_info* info = nullptr) {
    const gptq_status status = gptq_engine_step(get(), budget_us, info);
    check(status);
    return status;
  }

 private:
  std::unique_ptr<gptq_engine, Releaser<gptq_engine, gptq_engine_destroy>> handle_;
};

class Session {
 public:
  explicit Session(const Engine& engine) {
    gptq_session* s = nullptr;
    call([&](gptq_error* err) { return gptq_session_create(engine.get(), &s, err); });
    handle_.reset(s);
  }
  // Stands where this one stands.
  Session fork() const {
    gptq_session* s = nullptr;
    call([&](gptq_error* err) { return gptq_session_fork(get(), &s, err); });
    return Session(s);
  }
  // Stands where the saved one stood.
  static Session restore(const Engine& engine, std::string_view path) {
    auto source = make<gptq_source>();
    source.path = path.data(), source.path_size = path.size();
    gptq_session* s = nullptr;
    call([&](gptq_error* err) { return gptq_session_restore_from(engine.get(), &source, &s, err); });
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
  gptq_session* get() const { return handle_.get(); }
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
  std::vector<gptq_token> read_tokens() {
    std::vector<gptq_token> tokens(info().tokens_unread);
    size_t n = 0;
    check(gptq_session_read_tokens(get(), tokens.data(), tokens.size(), &n));
    tokens.resize(n);
    return tokens;
  }

 private:
  explicit Session(gptq_session* s) : handle_(s) {}
  std::unique_ptr<gptq_session, Releaser<gptq_session, gptq_session_destroy>> handle_;
};

}  // namespace gptq
