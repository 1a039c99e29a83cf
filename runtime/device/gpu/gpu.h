// SPDX-License-Identifier: Apache-2.0
// A GPU through the backend's shared object: the object itself, an opened stream, and memory that gives itself back.
#pragma once
#include <atomic>
#include <cstdint>
#include <string_view>
#include <utility>

#include "gptq/gptq.h"
#include "kernels/gpu/backend.h"

namespace gptq::device {

using gpu::Result;

// The shared object; it stays loaded to the end of the process. Fails with BACKEND.
class Library {
 public:
  explicit Library(std::string_view path);
  const gpu::Backend& table() const { return *table_; }

 private:
  const gpu::Backend* table_;
};

// Fails with NOT_FOUND and BACKEND.
gpu::Processor describe_gpu(const gpu::Backend& table, uint32_t ordinal);

// Device memory held, by whom it is for; 0 = no limit.
struct Account {
  std::atomic<uint64_t> bytes{0}, peak{0};
  uint64_t limit = 0;
};

// One stream on one GPU. What goes wrong becomes a Failure: NOT_FOUND, OUT_OF_DEVICE_MEMORY, BUDGET_EXCEEDED, DEVICE_LOST, BACKEND.
class Gpu {
 public:
  // host_stream: a CUstream of the host's, or NULL. beside: whose memory it works with as well, or NULL.
  Gpu(const gpu::Backend& table, uint32_t ordinal, Account& account, void* host_stream = nullptr, const Gpu* beside = nullptr);
  ~Gpu() { table_.close(stream_); }
  Gpu(const Gpu&) = delete;

  const gpu::Backend& table() const { return table_; }
  gpu::Stream& stream() const { return *stream_; }
  Account& account() const { return account_; }
  const char* name() const { return name_; }  // "cuda:0"
  uint64_t bytes_free() const;
  // Whether all that was put into the stream is done, after at most so long.
  bool finish(uint32_t wait_us) const;
  // Fails where the result is not ok: "cuda:0 cannot ...: what the API says".
  void check(Result result, const gpu::Failure& failure, std::string_view what) const;

 private:
  const gpu::Backend& table_;
  Account& account_;
  gpu::Stream* stream_ = nullptr;
  char name_[32];
};

// A block of memory on the device, or on the host where the device copies it at full speed.
class GpuMemory {
 public:
  enum Place { device, host };
  GpuMemory() = default;
  GpuMemory(const Gpu& gpu, uint64_t bytes, Place place = device);
  GpuMemory(GpuMemory&& other) noexcept { swap(other); }
  GpuMemory& operator=(GpuMemory&& other) noexcept {
    swap(other);
    return *this;
  }
  ~GpuMemory();
  std::byte* data() const { return reinterpret_cast<std::byte*>(data_); }
  uint64_t bytes() const { return bytes_; }

 private:
  void swap(GpuMemory& other) noexcept {
    std::swap(gpu_, other.gpu_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(place_, other.place_);
  }
  const Gpu* gpu_ = nullptr;
  uint8_t* data_ = nullptr;
  uint64_t bytes_ = 0;
  Place place_ = device;
};

}  // namespace gptq::device
