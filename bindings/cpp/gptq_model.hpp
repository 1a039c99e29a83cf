// SPDX-License-Identifier: Apache-2.0
// Of gptq.hpp: runtimes, conversations, models, constraints, adapters, quantizing.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "gptq_base.hpp"

namespace gptq {

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

}  // namespace gptq
