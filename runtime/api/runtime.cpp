// SPDX-License-Identifier: Apache-2.0
// C API: library and runtime.
#include <algorithm>

#include "api/guard.h"
#include "api/handles.h"
#include "kernels/kernel_variants.h"

using namespace gptq;
using namespace gptq::api;

#if defined(_WIN32)
static constexpr std::string_view backend_file = "gptq_cuda.dll";
#else
static constexpr std::string_view backend_file = "libgptq_cuda.so";
#endif

uint32_t GPTQ_CALL gptq_version(void) { return GPTQ_VERSION_MAJOR << 16 | GPTQ_VERSION_MINOR << 8 | GPTQ_VERSION_PATCH; }

const char* GPTQ_CALL gptq_build_info(void) {
  return "libgptq " GPTQ_VERSION_TEXT ", "
#if defined(__clang__)
         "clang " __clang_version__
#else
         "gcc " __VERSION__
#endif
#if defined(__x86_64__)
         ", x86-64: "
#elif defined(__aarch64__)
         ", aarch64: "
#else
         ", "
#endif
         GPTQ_KERNEL_LEVELS;
}

const char* GPTQ_CALL gptq_status_name(gptq_status status) {
  switch (status) {
#define GPTQ_NAME(code) \
  case code: return #code;
    GPTQ_NAME(GPTQ_OK)
    GPTQ_NAME(GPTQ_MORE)
    GPTQ_NAME(GPTQ_IDLE)
    GPTQ_NAME(GPTQ_REPLAYED)
    GPTQ_NAME(GPTQ_E_INVALID_ARGUMENT)
    GPTQ_NAME(GPTQ_E_INVALID_STATE)
    GPTQ_NAME(GPTQ_E_STRUCT_VERSION)
    GPTQ_NAME(GPTQ_E_BUFFER_TOO_SMALL)
    GPTQ_NAME(GPTQ_E_OUT_OF_MEMORY)
    GPTQ_NAME(GPTQ_E_OUT_OF_DEVICE_MEMORY)
    GPTQ_NAME(GPTQ_E_BUDGET_EXCEEDED)
    GPTQ_NAME(GPTQ_E_KV_FULL)
    GPTQ_NAME(GPTQ_E_CONTEXT_FULL)
    GPTQ_NAME(GPTQ_E_IO)
    GPTQ_NAME(GPTQ_E_FORMAT)
    GPTQ_NAME(GPTQ_E_CHECKSUM)
    GPTQ_NAME(GPTQ_E_UNSUPPORTED)
    GPTQ_NAME(GPTQ_E_CANCELLED)
    GPTQ_NAME(GPTQ_E_NOT_FOUND)
    GPTQ_NAME(GPTQ_E_BACKEND)
    GPTQ_NAME(GPTQ_E_DEVICE_LOST)
    GPTQ_NAME(GPTQ_E_TEMPLATE)
    GPTQ_NAME(GPTQ_E_TEXT)
    GPTQ_NAME(GPTQ_E_NUMERIC)
    GPTQ_NAME(GPTQ_E_INTERNAL)
#undef GPTQ_NAME
  }
  return "unknown status";
}

gptq_status GPTQ_CALL gptq_runtime_create(const gptq_runtime_desc* desc, gptq_runtime** out, gptq_error* err) {
  return guard(err, [&] {
    require(out, "out is NULL");
    gptq_runtime_desc d = read_struct_or_default(desc, "gptq_runtime_desc");
    refuse_extensions(d.next);
    require(!d.alloc == !d.free, "alloc and free go together");
    require(d.threads <= 256, "threads is above 256");
    require(!d.flags && !d.reserved, "unknown flags in gptq_runtime_desc");
    if (d.log_level == 0) d.log_level = GPTQ_LOG_WARN;
    // The runtime holds its own memory resource, so its own block comes from the host directly.
    base::HostMemory host(d.alloc, d.free, d.alloc_user, 0);
    *out = create<gptq_runtime>(host, d);
    return GPTQ_OK;
  });
}

void GPTQ_CALL gptq_runtime_release(gptq_runtime* rt) {
  if (!rt || !drop(rt)) return;
  const gptq_runtime_desc desc = rt->desc;
  {
    base::HostMemory host(desc.alloc, desc.free, desc.alloc_user, 0);
    destroy(host, rt);
  }
  if (desc.user_free) desc.user_free(desc.user);
}

const char* GPTQ_CALL gptq_runtime_kernels(const gptq_runtime* rt) { return rt ? rt->kernel_text : ""; }

gptq_status GPTQ_CALL gptq_runtime_load_backend(gptq_runtime* rt, const char* path, size_t path_size, gptq_error* err) {
  return guard(err, [&] {
    require(rt, "rt is NULL");
    const std::string_view name = path ? text_of(path, path_size, "path") : backend_file;
    require(name.find('\0') == name.npos, "path has a NUL in it");
    const device::Library library(name);
    const std::lock_guard lock(rt->backend_guard);
    for (const device::Library& other : rt->backends)
      if (other.table().kind == library.table().kind) base::fail(GPTQ_E_INVALID_STATE, "this runtime has a backend for ", library.table().name, " already");
    rt->backends.push_back(library);
    return GPTQ_OK;
  });
}

gptq_status GPTQ_CALL gptq_runtime_device(gptq_runtime* rt, uint32_t ordinal, gptq_device_info* out, gptq_error* err) {
  return guard(err, [&] {
    require(rt && out, "rt and out must not be NULL");
    check_version(out, "gptq_device_info");
    const gpu::Processor gpu = device::describe_gpu(rt->backend(GPTQ_DEVICE_CUDA), ordinal);
    gptq_device_info info{};
    info.kind = GPTQ_DEVICE_CUDA;
    info.ordinal = static_cast<int32_t>(ordinal);
    info.capability = gpu.capability;
    info.bytes_total = gpu.bytes_total;
    info.bytes_free = gpu.bytes_free;
    std::copy_n(gpu.luid, sizeof info.luid, info.luid);
    std::copy_n(gpu.uuid, sizeof info.uuid, info.uuid);
    std::copy_n(gpu.name, sizeof info.name, info.name);
    write_struct(out, info);
    return GPTQ_OK;
  });
}
