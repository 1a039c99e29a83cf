// SPDX-License-Identifier: Apache-2.0
// The backend's table over the emulator, as a shared object: a whole model runs through the CUDA kernels on the CPU. Its one GPU has a gibibyte, and
// fails on demand.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <vector>

#include "kernels/cuda/ops.h"
#include "kernels/cuda/stream.h"
#include "kernels/gpu/backend.h"
#include "tests/cuda/emulated_backend.h"
#include "tests/cuda/fake_cublaslt.h"

struct gptq::gpu::Graph {
  std::vector<std::function<void()>> work;
};

namespace gptq::cuda {
namespace {

constexpr uint64_t bytes_total = 1u << 30;

struct Gpu {
  std::map<uint8_t*, uint64_t> blocks;
  uint64_t used = 0;
  EmulatedFault fault{};
  uint32_t streams = 0, replays = 0, launches = 0;
  void* host_stream = nullptr;
} gpu;

constexpr uintptr_t primary = 1;  // the context that there is if nothing else says so

struct Emulated : Stream {
  Graph* recording = nullptr;
  uintptr_t context = primary;
  uint32_t polls_left = 0;   // looks until work is done
  Gemm library;
};

Result fail(Result result, const char* text, Failure* failure) {
  failure->code = 700;
  strcpy(failure->text, text);
  return result;
}

Result describe(uint32_t ordinal, Processor* out, Failure* failure) {
  if (ordinal) return fail(Result::no_device, "there is 1 CUDA device", failure);
  memset(out, 0, sizeof *out);
  strcpy(out->name, "emulated");
  out->bytes_total = bytes_total;
  out->bytes_free = bytes_total - gpu.used;
  out->capability = 80;
  out->n_processors = 3;
  return Result::ok;
}

Result open(uint32_t ordinal, void* host_stream, const Stream* beside, int32_t, Stream** out, Failure* failure) {
  Processor processor;
  if (const Result r = describe(ordinal, &processor, failure); r != Result::ok) return r;
  const uintptr_t wanted = beside ? static_cast<const Emulated*>(beside)->context : gpu.fault.context ? gpu.fault.context : primary;
  const uintptr_t context = host_stream ? static_cast<const EmulatedHostStream*>(host_stream)->context : wanted;
  if (beside && context != wanted) return fail(Result::failed, "the host's stream is of another context than the model", failure);
  auto* stream = new Emulated;
  stream->context = context;
  stream->n_processors = processor.n_processors;
  stream->capability = processor.capability;
  gpu.host_stream = host_stream;
  ++gpu.streams;
  *out = stream;
  return Result::ok;
}
void close(Stream* stream) {
  --gpu.streams;
  delete static_cast<Emulated*>(stream);
}
Result bytes_free(Stream*, uint64_t* out, Failure*) {
  *out = bytes_total - gpu.used;
  return Result::ok;
}
uint32_t n_processors(const Stream* stream) { return stream->n_processors; }

Result allocate(Stream*, uint64_t bytes, uint8_t** out, Failure* failure) {
  if (bytes > bytes_total - gpu.used) return fail(Result::out_of_memory, "out of memory", failure);
  *out = static_cast<uint8_t*>(std::aligned_alloc(256, (bytes + 255) / 256 * 256));
  if (!*out) return fail(Result::out_of_memory, "out of memory", failure);
  memset(*out, 0xFF, bytes);  // what nobody wrote is NaN
  gpu.blocks[*out] = bytes;
  gpu.used += bytes;
  return Result::ok;
}
void release(Stream*, uint8_t* data) {
  gpu.used -= gpu.blocks.at(data);
  gpu.blocks.erase(data);
  std::free(data);
}
Result allocate_host(Stream*, uint64_t bytes, uint8_t** out, Failure* failure) {
  *out = static_cast<uint8_t*>(std::aligned_alloc(256, (bytes + 255) / 256 * 256));
  return *out ? Result::ok : fail(Result::out_of_memory, "out of memory", failure);
}
void release_host(Stream*, uint8_t* data) { std::free(data); }

void copy(Stream* stream, void* to, const void* from, uint64_t bytes) {
  const auto work = [=] {
    static_cast<Emulated*>(stream)->polls_left = gpu.fault.polls;
    memcpy(to, from, bytes);
  };
  stream->record ? stream->record(work) : work();
}
void clear(Stream*, void* data, uint64_t bytes) { memset(data, 0, bytes); }

Result finish(Stream* stream, uint32_t wait_us, Failure* failure) {
  if (gpu.fault.lost) return fail(Result::lost, "an illegal memory access was encountered", failure);
  auto& s = *static_cast<Emulated*>(stream);
  if (wait_us != UINT32_MAX && s.polls_left) {
    --s.polls_left;
    return Result::busy;
  }
  s.polls_left = 0;
  return s.library.take_status() ? fail(Result::failed, "cuBLASLt failed", failure) : Result::ok;
}

Result record_begin(Stream* stream, Failure* failure) {
  if (gpu.fault.no_recording) return fail(Result::failed, "operation not permitted when stream is capturing", failure);
  auto* graph = new Graph;
  static_cast<Emulated*>(stream)->recording = graph;
  stream->record = [graph](std::function<void()> work) { graph->work.push_back(std::move(work)); };
  return Result::ok;
}
Result record_end(Stream* stream, Graph** out, Failure*) {
  stream->record = nullptr;
  *out = static_cast<Emulated*>(stream)->recording;
  return Result::ok;
}
void replay(Stream*, Graph* graph) {
  ++gpu.replays;
  for (const auto& work : graph->work) work();
}
void release_graph(Graph* graph) { delete graph; }
double copy_bandwidth(Stream*) { return 1e9; }
uint64_t workspace_of_matmul(const Shape& shape, Stream& stream) {
  auto& s = static_cast<Emulated&>(stream);
  if (!gpu.fault.no_library && wants_library(shape, stream) && s.library.open(fake_library(), s.capability)) s.gemm = &s.library;
  return matmul_workspace(shape, stream);
}
// What is done at once is counted.
template <class Args, void (*op)(const Args&, Stream&)>
void counted(const Args& args, Stream& stream) {
  gpu.launches += !stream.record;
  op(args, stream);
}
uint64_t library_version(const Stream& stream) { return stream.gemm ? stream.gemm->version() : 0; }

}  // namespace
}  // namespace gptq::cuda

extern "C" __attribute__((visibility("default"))) const gptq::gpu::Backend* gptq_gpu_backend() {
  using namespace gptq::cuda;
  static const Backend table = {
      backend_version, 2, "cuda", describe, open, close, bytes_free, n_processors, allocate, release, allocate_host, release_host, copy, copy, clear, finish,
      record_begin, record_end, replay, release_graph, copy_bandwidth, workspace_of_matmul, attention_workspace, library_version,
#define X(op, Args) counted<Args, op>,
      GPTQ_GPU_OPS(X)
#undef X
  };
  return &table;
}

extern "C" __attribute__((visibility("default"))) void gptq_emulated_fault(const EmulatedFault* fault) {
  gptq::cuda::gpu.fault = *fault;
  gptq::cuda::fake_cublaslt.status = fault->library_status;
}
extern "C" __attribute__((visibility("default"))) void gptq_emulated_state(EmulatedState* state) {
  *state = {gptq::cuda::gpu.used, gptq::cuda::gpu.streams, gptq::cuda::gpu.replays, gptq::cuda::fake_cublaslt.products,
            gptq::cuda::gpu.launches, gptq::cuda::gpu.host_stream};
}
