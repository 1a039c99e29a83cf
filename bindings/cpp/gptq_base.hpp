// SPDX-License-Identifier: Apache-2.0
// What gptq.hpp is made of: errors, callbacks, sources.
#pragma once
#include <cstdint>
#include <exception>
#include <istream>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

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
  static int64_t GPTQ_CALL size_of(void* user) {
    auto& self = *static_cast<Source*>(user);
    return self.guarded([&] {
      self.stream_->clear();
      self.stream_->seekg(0, std::ios::end);
      return self.stream_->fail() ? int64_t{-5} : static_cast<int64_t>(self.stream_->tellg());
    });
  }
  static int64_t GPTQ_CALL read_at(void* user, uint64_t offset, void* dst, size_t size) {
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

}  // namespace gptq
