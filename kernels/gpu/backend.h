// SPDX-License-Identifier: Apache-2.0
// What the library finds in a backend's shared object: one table of functions, whatever the API behind them. Both are built from the same sources; the version says so.
#pragma once
#include "kernels/gpu/ops.h"

namespace gptq::gpu {

constexpr uint32_t backend_version = 5;  // of this file and ops.h

enum class Result : int32_t { ok, busy, no_device, out_of_memory, lost, failed };

struct Failure {
  int32_t code;           // the API's
  char text[200];
};

struct Processor {        // a GPU
  char name[104];
  uint64_t bytes_total, bytes_free;  // free: 0 where it cannot be known without a context
  uint32_t capability;    // of CUDA: 90 for 9.0
  uint32_t n_processors;  // multiprocessors
  uint8_t uuid[16], luid[8];
};

struct Graph;             // a recorded run of operations

// Every function may be called from any thread, one at a time for a stream. Those without a result leave what goes wrong to finish().
struct Backend {
  uint32_t version;
  uint32_t kind;     // GPTQ_DEVICE_*
  const char* name;  // "cuda"
  // Makes no context. no_device: there are fewer, or no driver.
  Result (*describe)(uint32_t ordinal, Processor* out, Failure* failure);
  // host_stream: the host's own (of CUDA: a CUstream), or NULL for a stream of its own. beside: a stream whose memory this one uses as well, or NULL; it must be
  // of the same context. Without either it is the thread's current context, where that is of this GPU, otherwise the primary one.
  // priority: -1 low, 0 normal, 1 high.
  Result (*open)(uint32_t ordinal, void* host_stream, const Stream* beside, int32_t priority, Stream** out, Failure* failure);
  void (*close)(Stream* stream);
  Result (*bytes_free)(Stream* stream, uint64_t* out, Failure* failure);
  uint32_t (*n_processors)(const Stream* stream);
  Result (*allocate)(Stream* stream, uint64_t bytes, uint8_t** out, Failure* failure);
  void (*release)(Stream* stream, uint8_t* data);
  Result (*allocate_host)(Stream* stream, uint64_t bytes, uint8_t** out, Failure* failure);  // memory of the host that is copied at full speed
  void (*release_host)(Stream* stream, uint8_t* data);
  // In the stream's order; host memory must stay until they are finished.
  void (*copy_in)(Stream* stream, void* to, const void* host, uint64_t bytes);
  void (*copy_out)(Stream* stream, void* host, const void* from, uint64_t bytes);
  void (*copy)(Stream* stream, void* to, const void* from, uint64_t bytes);  // within the GPU's memory
  void (*clear)(Stream* stream, void* data, uint64_t bytes);
  // Between streams, also of different GPUs. Whether copy_across works from the other's memory to the stream's.
  bool (*reaches)(Stream* stream, const Stream* other);
  // What is put into the stream from now on comes after all that is in the other.
  void (*wait_for)(Stream* stream, Stream* other);
  // In the stream's order alone; from: of the other's GPU.
  void (*copy_across)(Stream* stream, void* to, Stream* other, const void* from, uint64_t bytes);
  // Waits at most so long for all that was put into the stream: ok, busy, or what went wrong. UINT32_MAX: until it is done.
  Result (*finish)(Stream* stream, uint32_t wait_us, Failure* failure);
  // Operations between the two are recorded, not done. Where it cannot begin there is nothing to end.
  Result (*record_begin)(Stream* stream, Failure* failure);
  Result (*record_end)(Stream* stream, Graph** out, Failure* failure);
  void (*replay)(Stream* stream, Graph* graph);
  void (*release_graph)(Graph* graph);
  // Bytes a second, read and written together, of large copies within the device; 0 where they cannot be made. Waits for them.
  double (*copy_bandwidth)(Stream* stream);
  // Looks for the API's own library of products (cuBLASLt) where the shape is large enough for it.
  uint64_t (*matmul_workspace)(const Shape& shape, Stream& stream);
  uint64_t (*attention_workspace)(const Shape& shape, const Stream& stream);
  // Of that library, where it was found; 0: none, or it was not looked for.
  uint64_t (*library_version)(const Stream& stream);
#define X(op, Args) void (*op)(const Args& args, Stream& stream);
  GPTQ_GPU_OPS(X)
#undef X
};

// The shared object's one symbol.
constexpr char backend_symbol[] = "gptq_gpu_backend";
using BackendFunction = const Backend* (*)();

}  // namespace gptq::gpu
