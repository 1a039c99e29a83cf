// SPDX-License-Identifier: Apache-2.0
// The backend's table over the CUDA runtime, which is linked in and finds the driver at run time.
#include "kernels/cuda/table.h"

#include <stdio.h>
#include <string.h>

#include <chrono>
#include <new>

#include "kernels/cuda/contexts.h"
#include "kernels/cuda/free_memory.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/stream.h"

struct gptq::gpu::Graph {
  cudaGraphExec_t exec;
  CUcontext context;
};

namespace gptq::cuda {
namespace {

struct Context : Stream {
  CUcontext where = nullptr;
  bool own = false;
  bool library_sought = false;
  cudaEvent_t done = nullptr;
  cudaEvent_t reached = nullptr;     // what other streams wait for
  cudaEvent_t marks[marks_max] = {};
  cudaStream_t recorder = nullptr;   // a stream of its own, so that nothing the host does meets a recording
  cudaStream_t recorded = nullptr;   // while it records: what `handle` is otherwise
  Gemm library;
};

Context& context(Stream* stream) { return *static_cast<Context*>(stream); }

// These two are younger than CUDA 12.0.
constexpr auto contained = static_cast<cudaError_t>(226), tensor_memory_leak = static_cast<cudaError_t>(721);

// After these nothing on the device works any more.
bool sticky(cudaError_t e) {
  switch (e) {
    case cudaErrorIllegalAddress: case cudaErrorLaunchFailure: case cudaErrorHardwareStackError: case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress: case cudaErrorInvalidAddressSpace: case cudaErrorInvalidPc: case cudaErrorECCUncorrectable:
    case cudaErrorAssert: case cudaErrorLaunchTimeout: case cudaErrorContextIsDestroyed: case cudaErrorMpsClientTerminated: case cudaErrorUnknown:
      return true;
    default: return e == contained || e == tensor_memory_leak;
  }
}

// What a driver must be at least for this build's runtime.
constexpr int least_driver = CUDART_VERSION >= 13000 ? 580 : CUDART_VERSION >= 12000 ? 525 : 450;

void explain_driver(Failure* failure) {
  int version = 0;
  cudaDriverGetVersion(&version);
  const size_t used = strlen(failure->text);
  if (version)
    snprintf(failure->text + used, sizeof failure->text - used, " (it is for CUDA %d.%d; version %d or newer is needed)", version / 1000, version % 1000 / 10, least_driver);
  else
    snprintf(failure->text + used, sizeof failure->text - used, " (no NVIDIA driver was found; version %d or newer is needed)", least_driver);
}

Result result_of(cudaError_t e, Failure* failure) {
  if (e == cudaSuccess) return Result::ok;
  cudaGetLastError();
  failure->code = e;
  snprintf(failure->text, sizeof failure->text, "%s: %s", cudaGetErrorName(e), cudaGetErrorString(e));
  if (e == cudaErrorInsufficientDriver) explain_driver(failure);
  if (e == cudaErrorMemoryAllocation) return Result::out_of_memory;
  if (e == cudaErrorNoDevice || e == cudaErrorInsufficientDriver || e == cudaErrorInvalidDevice || e == cudaErrorInitializationError)
    return Result::no_device;
  return sticky(e) ? Result::lost : Result::failed;
}

// In the stream's context.
class OnDevice : InContext {
 public:
  explicit OnDevice(const Context& c) : InContext(c.where) {}
};

Result describe(uint32_t ordinal, Processor* out, Failure* failure) {
  int count = 0;
  if (const cudaError_t e = cudaGetDeviceCount(&count)) return result_of(e, failure);
  if (ordinal >= static_cast<uint32_t>(count)) {
    snprintf(failure->text, sizeof failure->text, "there are %d CUDA devices", count);
    failure->code = 0;
    return Result::no_device;
  }
  cudaDeviceProp properties;
  if (const cudaError_t e = cudaGetDeviceProperties(&properties, static_cast<int>(ordinal))) return result_of(e, failure);
  memset(out, 0, sizeof *out);
  snprintf(out->name, sizeof out->name, "%.*s", static_cast<int>(sizeof out->name - 1), properties.name);
  memcpy(out->uuid, &properties.uuid, sizeof out->uuid);
  memcpy(out->luid, properties.luid, sizeof out->luid);
  out->capability = static_cast<uint32_t>(properties.major * 10 + properties.minor);
  out->n_processors = static_cast<uint32_t>(properties.multiProcessorCount);
  out->bytes_total = properties.totalGlobalMem;
  out->bytes_free = free_memory(out->uuid);
  return Result::ok;
}

Result bytes_free(Stream* stream, uint64_t* out, Failure* failure) {
  const OnDevice on(context(stream));
  size_t free = 0, total = 0;
  const cudaError_t e = cudaMemGetInfo(&free, &total);
  *out = free;
  return result_of(e, failure);
}

void close(Stream* stream) {
  Context& c = context(stream);
  const OnDevice on(c);
  if (c.recorded) c.handle = c.recorded;  // what was being recorded is given up with the recorder
  if (c.handle) cudaStreamSynchronize(c.handle);
  if (c.done) cudaEventDestroy(c.done);
  if (c.reached) cudaEventDestroy(c.reached);
  for (const cudaEvent_t mark : c.marks)
    if (mark) cudaEventDestroy(mark);
  if (c.recorder) cudaStreamDestroy(c.recorder);
  if (c.own && c.handle) cudaStreamDestroy(c.handle);
  delete &c;
}

cudaError_t make_stream(Context& c, void* host_stream, int32_t priority) {
  if (host_stream) {
    c.handle = static_cast<cudaStream_t>(host_stream);
  } else {
    int least = 0, greatest = 0;  // numerically: low priority is the larger number
    cudaDeviceGetStreamPriorityRange(&least, &greatest);
    const cudaError_t e = cudaStreamCreateWithPriority(&c.handle, cudaStreamNonBlocking, priority > 0 ? greatest : least);
    if (e != cudaSuccess) return e;
    c.own = true;
  }
  if (const cudaError_t e = cudaStreamCreateWithFlags(&c.recorder, cudaStreamNonBlocking)) return e;
  if (const cudaError_t e = cudaEventCreateWithFlags(&c.reached, cudaEventDisableTiming)) return e;
  for (cudaEvent_t& mark : c.marks)
    if (const cudaError_t e = cudaEventCreateWithFlags(&mark, cudaEventDisableTiming | cudaEventBlockingSync)) return e;
  return cudaEventCreateWithFlags(&c.done, cudaEventDisableTiming | cudaEventBlockingSync);
}

Result open(uint32_t ordinal, void* host_stream, const Stream* beside, int32_t priority, Stream** out, Failure* failure) {
  Processor processor;
  if (const Result r = describe(ordinal, &processor, failure); r != Result::ok) return r;
  const auto refuse = [&](const char* why) {
    failure->code = 0;
    snprintf(failure->text, sizeof failure->text, "%s", why);
    return Result::failed;
  };
  if (processor.capability < 75) {
    refuse("");
    snprintf(failure->text, sizeof failure->text, "%s has compute capability %u.%u; 7.5 is the least", processor.name, processor.capability / 10,
             processor.capability % 10);
    return Result::failed;
  }
  Context* c = new (std::nothrow) Context;
  if (!c) return result_of(cudaErrorMemoryAllocation, failure);
  c->n_processors = processor.n_processors;
  c->capability = processor.capability;
  const CUcontext of_beside = beside ? static_cast<const Context*>(beside)->where : nullptr;
  if (const char* why = find_context(static_cast<int>(ordinal), static_cast<CUstream>(host_stream), of_beside, &c->where)) {
    delete c;
    return refuse(why);
  }
  cudaError_t e;
  {
    const OnDevice on(*c);
    e = cudaDeviceGetAttribute(&c->shared_most, cudaDevAttrMaxSharedMemoryPerBlockOptin, static_cast<int>(ordinal));
    if (e == cudaSuccess) e = make_stream(*c, host_stream, priority);
  }
  if (e != cudaSuccess) {
    close(c);
    return result_of(e, failure);
  }
  *out = c;
  return Result::ok;
}

uint32_t n_processors(const Stream* stream) { return stream->n_processors; }

Result allocate(Stream* stream, uint64_t bytes, uint8_t** out, Failure* failure) {
  const OnDevice on(context(stream));
  return result_of(cudaMalloc(out, bytes), failure);
}
void release(Stream* stream, uint8_t* data) {
  const OnDevice on(context(stream));
  cudaFree(data);
}
Result allocate_host(Stream* stream, uint64_t bytes, uint8_t** out, Failure* failure) {
  const OnDevice on(context(stream));
  return result_of(cudaMallocHost(out, bytes), failure);
}
void release_host(Stream* stream, uint8_t* data) {
  const OnDevice on(context(stream));
  cudaFreeHost(data);
}

void copy_in(Stream* stream, void* to, const void* host, uint64_t bytes) {
  const OnDevice on(context(stream));
  stream->note(cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, stream->handle));
}
void copy_out(Stream* stream, void* host, const void* from, uint64_t bytes) {
  const OnDevice on(context(stream));
  stream->note(cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, stream->handle));
}
void copy(Stream* stream, void* to, const void* from, uint64_t bytes) {
  const OnDevice on(context(stream));
  stream->note(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream->handle));
}
bool reaches(Stream* stream, const Stream* other) { return reach(context(stream).where, static_cast<const Context*>(other)->where); }
void wait_for(Stream* stream, Stream* other) {
  Context& o = context(other);
  {
    const OnDevice on(o);
    o.note(cudaEventRecord(o.reached, o.handle));
  }
  const OnDevice on(context(stream));
  stream->note(cudaStreamWaitEvent(stream->handle, o.reached, 0));
}
void copy_across(Stream* stream, void* to, Stream* other, const void* from, uint64_t bytes) {
  Context& c = context(stream);
  const OnDevice on(c);
  const CUresult result = driver().MemcpyPeerAsync(reinterpret_cast<CUdeviceptr>(to), c.where, reinterpret_cast<CUdeviceptr>(from), context(other).where, bytes, c.handle);
  c.note(static_cast<cudaError_t>(result));  // the driver's and the runtime's numbers are the same
}
void clear(Stream* stream, void* data, uint64_t bytes) {
  const OnDevice on(context(stream));
  stream->note(cudaMemsetAsync(data, 0, bytes, stream->handle));
}

Result finish(Stream* stream, uint32_t wait_us, Failure* failure) {
  Context& c = context(stream);
  const OnDevice on(c);
  const auto begin = std::chrono::steady_clock::now();
  cudaError_t e = c.error;
  if (e == cudaSuccess && wait_us == UINT32_MAX) {
    e = cudaEventRecord(c.done, c.handle);
    if (e == cudaSuccess) e = cudaEventSynchronize(c.done);
  } else if (e == cudaSuccess) {
    const auto limit = begin + std::chrono::microseconds(wait_us);
    while ((e = cudaStreamQuery(c.handle)) == cudaErrorNotReady && std::chrono::steady_clock::now() < limit) continue;
  }
  if (e == cudaErrorNotReady) return Result::busy;
  const int library_status = c.library.take_status();
  Result result = result_of(e, failure);
  if (result != Result::lost) c.error = cudaSuccess;
  if (result == Result::ok && library_status) {
    failure->code = library_status;
    snprintf(failure->text, sizeof failure->text, "cuBLASLt %zu failed with status %d", c.library.version(), library_status);
    result = Result::failed;
  }
  return result;
}

void mark(Stream* stream, uint32_t number) {
  Context& c = context(stream);
  const OnDevice on(c);
  c.note(cudaEventRecord(c.marks[number], c.handle));
}
Result wait_for_mark(Stream* stream, uint32_t number, Failure* failure) {
  Context& c = context(stream);
  const OnDevice on(c);
  return result_of(cudaEventSynchronize(c.marks[number]), failure);
}

Result record_begin(Stream* stream, Failure* failure) {
  Context& c = context(stream);
  const OnDevice on(c);
  if (const cudaError_t e = cudaStreamBeginCapture(c.recorder, cudaStreamCaptureModeThreadLocal)) return result_of(e, failure);
  c.recorded = c.handle;
  c.handle = c.recorder;
  return Result::ok;
}

Result record_end(Stream* stream, Graph** out, Failure* failure) {
  Context& c = context(stream);
  const OnDevice on(c);
  c.handle = c.recorded;
  c.recorded = nullptr;
  cudaGraph_t graph = nullptr;
  cudaError_t e = cudaStreamEndCapture(c.recorder, &graph);
  cudaGraphExec_t exec = nullptr;
  if (e == cudaSuccess) e = cudaGraphInstantiate(&exec, graph, 0);
  if (graph) cudaGraphDestroy(graph);
  if (e == cudaSuccess) e = cudaGraphUpload(exec, c.handle);
  if (e == cudaSuccess) e = c.error;
  c.error = cudaSuccess;
  Graph* recorded = e == cudaSuccess ? new (std::nothrow) Graph{exec, c.where} : nullptr;
  if (!recorded) {
    if (exec) cudaGraphExecDestroy(exec);
    return result_of(e == cudaSuccess ? cudaErrorMemoryAllocation : e, failure);
  }
  *out = recorded;
  return Result::ok;
}

void replay(Stream* stream, Graph* graph) {
  const OnDevice on(context(stream));
  stream->note(cudaGraphLaunch(graph->exec, stream->handle));
}
void release_graph(Graph* graph) {
  const InContext in(graph->context);
  cudaGraphExecDestroy(graph->exec);
  delete graph;
}

double copy_bandwidth(Stream* stream) {
  constexpr size_t bytes = 256u << 20;  // past any L2 cache
  constexpr int copies = 8;
  const OnDevice on(context(stream));
  uint8_t* memory = nullptr;
  cudaEvent_t begin = nullptr, end = nullptr;
  float ms = 0;
  if (cudaMalloc(&memory, 2 * bytes) == cudaSuccess && cudaEventCreate(&begin) == cudaSuccess && cudaEventCreate(&end) == cudaSuccess) {
    for (int i = 0; i <= copies; ++i) {
      if (i == 1) cudaEventRecord(begin, stream->handle);  // the first is not counted
      cudaMemcpyAsync(memory + i % 2 * bytes, memory + (i + 1) % 2 * bytes, bytes, cudaMemcpyDeviceToDevice, stream->handle);
    }
    cudaEventRecord(end, stream->handle);
    if (cudaEventSynchronize(end) != cudaSuccess || cudaEventElapsedTime(&ms, begin, end) != cudaSuccess) ms = 0;
  }
  if (begin) cudaEventDestroy(begin);
  if (end) cudaEventDestroy(end);
  cudaFree(memory);
  cudaGetLastError();
  return ms > 0 ? 2.0 * bytes * copies / (ms * 1e-3) : 0;
}

uint64_t workspace_of_matmul(const Shape& shape, Stream& stream) {
  Context& c = context(&stream);
  if (!c.library_sought && wants_library(shape, stream)) {
    const OnDevice on(c);
    lt::Library library;
    c.library_sought = true;
    if (find_cublaslt(&library) && c.library.open(library, c.capability)) c.gemm = &c.library;
  }
  return matmul_workspace(shape, stream);
}
uint64_t library_version(const Stream& stream) { return stream.gemm ? stream.gemm->version() : 0; }

// The operations' launches happen on the stream's device.
template <class Args, void (*op)(const Args&, Stream&)>
void operation(const Args& args, Stream& stream) {
  const OnDevice on(static_cast<Context&>(stream));
  op(args, stream);
}

}  // namespace
}  // namespace gptq::cuda

extern "C" __attribute__((visibility("default"))) const gptq::gpu::Backend* gptq_gpu_backend() {
  using namespace gptq::cuda;
  static const Backend table = GPTQ_CUDA_TABLE;
  return &table;
}
