// SPDX-License-Identifier: Apache-2.0
#include "device/cuda/gpu.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <string>

#include "base/failure.h"

namespace gptq::device {

Library::Library(std::string_view path) {
  const std::string name(path);
  void* object = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (!object) {
    const char* why = dlerror();
    base::fail(GPTQ_E_BACKEND, "the CUDA backend cannot be loaded: ", why ? why : name.c_str());
  }
  const auto function = reinterpret_cast<cuda::BackendFunction>(dlsym(object, cuda::backend_symbol));
  if (!function) base::fail(GPTQ_E_BACKEND, "'", path, "' is no backend of this library: it has no ", cuda::backend_symbol);
  table_ = function();
  if (table_->version != cuda::backend_version)
    base::fail(GPTQ_E_BACKEND, "'", path, "' is a backend of version ", table_->version, ", this library wants ", cuda::backend_version);
}

void fail_gpu(Result result, const cuda::Failure& failure, std::string_view what) {
  gptq_status status = GPTQ_E_BACKEND;
  if (result == Result::no_device) status = GPTQ_E_NOT_FOUND;
  if (result == Result::out_of_memory) status = GPTQ_E_OUT_OF_DEVICE_MEMORY;
  if (result == Result::lost) status = GPTQ_E_DEVICE_LOST;
  base::MessageWriter message(status);
  message.add(what);
  message.add(": ");
  message.add(failure.text);
  message.error.os_code = failure.code;
  throw base::Failure{message.error};
}

cuda::Processor describe_gpu(const cuda::Backend& table, uint32_t ordinal) {
  cuda::Processor gpu;
  cuda::Failure failure{};
  check_gpu(table.describe(ordinal, &gpu, &failure), failure, "no such CUDA device");
  return gpu;
}

Gpu::Gpu(const cuda::Backend& table, uint32_t ordinal, Account& account, void* host_stream, const Gpu* beside) : table_(table), account_(account) {
  std::snprintf(name_, sizeof name_, "cuda:%u", ordinal);
  cuda::Failure failure{};
  check_gpu(table.open(ordinal, host_stream, beside ? beside->stream_ : nullptr, 0, &stream_, &failure), failure, "the CUDA device cannot be opened");
}

uint64_t Gpu::bytes_free() const {
  uint64_t bytes = 0;
  cuda::Failure failure{};
  check_gpu(table_.bytes_free(stream_, &bytes, &failure), failure, "the CUDA device's free memory is not known");
  return bytes;
}

bool Gpu::finish(uint32_t wait_us) const {
  cuda::Failure failure{};
  const Result result = table_.finish(stream_, wait_us, &failure);
  if (result == Result::busy) return false;
  check_gpu(result, failure, "the CUDA device failed");
  return true;
}

GpuMemory::GpuMemory(const Gpu& gpu, uint64_t bytes, Place place) : gpu_(&gpu), place_(place) {
  if (!bytes) return;
  Account& account = gpu.account();
  if (place == device && account.limit && bytes > account.limit - std::min<uint64_t>(account.limit, account.bytes.load()))
    base::fail(GPTQ_E_BUDGET_EXCEEDED, bytes, " more bytes of device memory would pass device_bytes_max = ", account.limit);
  cuda::Failure failure{};
  const auto allocate = place == device ? gpu.table().allocate : gpu.table().allocate_host;
  check_gpu(allocate(&gpu.stream(), bytes, &data_, &failure), failure, place == device ? "device memory" : "memory shared with the device");
  bytes_ = bytes;
  if (place == host) return;
  const uint64_t now = account.bytes.fetch_add(bytes) + bytes;
  for (uint64_t peak = account.peak.load(); now > peak && !account.peak.compare_exchange_weak(peak, now);) continue;
}

GpuMemory::~GpuMemory() {
  if (!data_) return;
  if (place_ == device) gpu_->account().bytes.fetch_sub(bytes_);
  (place_ == device ? gpu_->table().release : gpu_->table().release_host)(&gpu_->stream(), data_);
}

}  // namespace gptq::device
