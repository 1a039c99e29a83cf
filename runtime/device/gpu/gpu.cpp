// SPDX-License-Identifier: Apache-2.0
#include "device/gpu/gpu.h"

#include <algorithm>
#include <cstdio>
#include <string>

#include "base/failure.h"
#include "base/os.h"

namespace gptq::device {

Library::Library(std::string_view path) {
  std::string why;
  void* const object = base::os::load_library(std::string(path), why);
  if (!object) base::fail(GPTQ_E_BACKEND, "the backend cannot be loaded: ", why);
  const auto function = reinterpret_cast<gpu::BackendFunction>(base::os::find_symbol(object, gpu::backend_symbol));
  if (!function) base::fail(GPTQ_E_BACKEND, "'", path, "' is no backend of this library: it has no ", gpu::backend_symbol);
  table_ = function();
  if (table_->version != gpu::backend_version)
    base::fail(GPTQ_E_BACKEND, "'", path, "' is a backend of version ", table_->version, ", this library wants ", gpu::backend_version);
}

namespace {

template <class... What>
void check_gpu(Result result, const gpu::Failure& failure, const What&... what) {
  if (result == Result::ok) return;
  gptq_status status = GPTQ_E_BACKEND;
  if (result == Result::no_device) status = GPTQ_E_NOT_FOUND;
  if (result == Result::out_of_memory) status = GPTQ_E_OUT_OF_DEVICE_MEMORY;
  if (result == Result::lost) status = GPTQ_E_DEVICE_LOST;
  base::MessageWriter message(status);
  (message.add(what), ...);
  message.add(": ");
  message.add(failure.text);
  message.error.os_code = failure.code;
  throw base::Failure{message.error};
}

}  // namespace

gpu::Processor describe_gpu(const gpu::Backend& table, uint32_t ordinal) {
  gpu::Processor gpu;
  gpu::Failure failure{};
  check_gpu(table.describe(ordinal, &gpu, &failure), failure, "there is no ", table.name, ":", ordinal);
  return gpu;
}

Gpu::Gpu(const gpu::Backend& table, uint32_t ordinal, Account& account, void* host_stream, const Gpu* beside) : table_(table), account_(account) {
  std::snprintf(name_, sizeof name_, "%s:%u", table.name, ordinal);
  gpu::Failure failure{};
  check(table.open(ordinal, host_stream, beside ? beside->stream_ : nullptr, 0, &stream_, &failure), failure, "cannot be opened");
}

void Gpu::check(Result result, const gpu::Failure& failure, std::string_view what) const { check_gpu(result, failure, name_, " ", what); }

uint64_t Gpu::bytes_free() const {
  uint64_t bytes = 0;
  gpu::Failure failure{};
  check(table_.bytes_free(stream_, &bytes, &failure), failure, "does not say what memory is free");
  return bytes;
}

bool Gpu::finish(uint32_t wait_us) const {
  gpu::Failure failure{};
  const Result result = table_.finish(stream_, wait_us, &failure);
  if (result == Result::busy) return false;
  check(result, failure, "failed");
  return true;
}

GpuMemory::GpuMemory(const Gpu& gpu, uint64_t bytes, Place place) : gpu_(&gpu), place_(place) {
  if (!bytes) return;
  Account& account = gpu.account();
  if (place == device && account.limit && bytes > account.limit - std::min<uint64_t>(account.limit, account.bytes.load()))
    base::fail(GPTQ_E_BUDGET_EXCEEDED, gpu.name(), ": ", bytes, " bytes beside the ", account.bytes.load(), " that it holds would pass its limit of ", account.limit);
  gpu::Failure failure{};
  const auto allocate = place == device ? gpu.table().allocate : gpu.table().allocate_host;
  const Result result = allocate(&gpu.stream(), bytes, &data_, &failure);
  if (result == Result::out_of_memory && place == device)
    base::fail(GPTQ_E_OUT_OF_DEVICE_MEMORY, gpu.name(), " has no ", bytes, " bytes: ", gpu.bytes_free(), " are free");
  gpu.check(result, failure, "has no memory of the host that it shares");
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
