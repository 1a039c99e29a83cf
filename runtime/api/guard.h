// SPDX-License-Identifier: Apache-2.0
// The C boundary: exceptions become statuses, structs of other versions become ours, the host's FP state is left alone.
#pragma once
#include <cstring>
#include <new>
#include <string_view>
#include <system_error>

#include "base/failure.h"
#include "base/float_state.h"

namespace gptq::api {

// Copies as much of a struct as the caller's version has.
template <class T>
void write_struct(T* out, T value) {
  value.struct_size = out->struct_size;
  std::memcpy(static_cast<void*>(out), &value, std::min<size_t>(out->struct_size, sizeof value));
}

inline gptq_status report(gptq_error* err, const gptq_error& detail) {
  if (err && err->struct_size) write_struct(err, detail);
  return detail.status;
}

// Runs f, which returns a status or throws; tell(detail) reports what it threw.
template <class Tell, class F>
gptq_status guard_with(Tell&& tell, F&& f) {
  const base::FloatState state;
  try {
    return f();
  } catch (const base::Failure& failure) {
    return tell(failure.detail);
  } catch (const std::bad_alloc&) {
    base::MessageWriter message(GPTQ_E_OUT_OF_MEMORY);
    message.add("the host's allocator returned no memory");
    return tell(message.error);
  } catch (const std::system_error& error) {  // threads
    base::MessageWriter message(GPTQ_E_OUT_OF_MEMORY);
    message.add("cannot start a thread: ");
    message.add(error.what());
    return tell(message.error);
  } catch (...) {
    base::MessageWriter message(GPTQ_E_INTERNAL);
    message.add("an unexpected exception; please report it");
    return tell(message.error);
  }
}
template <class F>
gptq_status guard(gptq_error* err, F&& f) {
  return guard_with([&](const gptq_error& detail) { return report(err, detail); }, f);
}

// A caller's struct in our version: what it lacks is zero, what we do not know must be.
template <class T>
T read_struct(const T* in, const char* name) {
  T value{};
  if (in->struct_size < sizeof in->struct_size || in->struct_size > 65536)
    base::fail(GPTQ_E_STRUCT_VERSION, name, ": set struct_size to sizeof(", name, ")");
  std::memcpy(static_cast<void*>(&value), in, std::min<size_t>(in->struct_size, sizeof value));
  const char* bytes = reinterpret_cast<const char*>(in);
  for (size_t i = sizeof value; i < in->struct_size; ++i)
    if (bytes[i]) base::fail(GPTQ_E_STRUCT_VERSION, name, " has fields this library does not know; use a newer library");
  value.struct_size = sizeof value;
  return value;
}
template <class T>
T read_struct_or_default(const T* in, const char* name) {
  if (in) return read_struct(in, name);
  T value{};
  value.struct_size = sizeof value;
  return value;
}

// Asked of structs that are written to, before anything is done.
template <class T>
void check_version(const T* out, const char* name) {
  if (out->struct_size < sizeof out->struct_size) base::fail(GPTQ_E_STRUCT_VERSION, name, ": set struct_size to sizeof(", name, ")");
}

// A Code as a default argument names the caller's place only when written out.
inline void require(bool holds, const char* what, base::Code code = {GPTQ_E_INVALID_ARGUMENT, __builtin_FILE(), __builtin_LINE()}) {
  if (!holds) base::fail(code, what);
}
inline void refuse_extensions(const gptq_ext* next) { require(!next, "unknown extension struct in `next`", GPTQ_E_UNSUPPORTED); }

inline std::string_view text_of(const char* text, size_t size, const char* name) {
  if (!text) {
    if (size != 0 && size != GPTQ_NTS) base::fail(GPTQ_E_INVALID_ARGUMENT, name, " is NULL but has a size");
    return {};
  }
  return size == GPTQ_NTS ? std::string_view(text) : std::string_view(text, size);
}

// Copies to the caller's buffer if it holds all.
template <class T>
gptq_status copy_out(const T* from, size_t n, T* to, size_t cap, size_t* needed) {
  if (needed) *needed = n;
  if (cap < n) return GPTQ_E_BUFFER_TOO_SMALL;
  if (n) {
    require(to, "the output buffer is NULL");
    std::memcpy(to, from, n * sizeof(T));
  }
  return GPTQ_OK;
}

}  // namespace gptq::api
