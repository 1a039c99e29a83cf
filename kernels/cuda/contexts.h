// SPDX-License-Identifier: Apache-2.0
// In which of the driver's contexts the backend works: that of the host's stream, else the thread's own where it is of the GPU, else the
// GPU's primary one. It is pushed for every call and popped again, so that no other GPU ever gets a context, and the host's current one
// stays.
#pragma once
#include <cuda.h>
#include <dlfcn.h>

namespace gptq::cuda {

#define GPTQ_CUDA_DRIVER(X)                                                                                        \
  X(CtxGetCurrent, "cuCtxGetCurrent") X(CtxPushCurrent, "cuCtxPushCurrent_v2") X(CtxPopCurrent, "cuCtxPopCurrent_v2") \
  X(CtxGetDevice, "cuCtxGetDevice") X(StreamGetCtx, "cuStreamGetCtx") X(DeviceGet, "cuDeviceGet")                     \
  X(DevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain") X(DeviceCanAccessPeer, "cuDeviceCanAccessPeer")             \
  X(CtxEnablePeerAccess, "cuCtxEnablePeerAccess") X(MemcpyPeerAsync, "cuMemcpyPeerAsync")

struct Driver {
#define X(name, symbol) decltype(&cu##name) name;
  GPTQ_CUDA_DRIVER(X)
#undef X
  bool complete = true;
};

// Of the driver that CUDA's runtime has loaded.
inline const Driver& driver() {
  static const Driver found = [] {
    Driver d{};
    void* object = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
#define X(name, symbol) d.complete = (d.name = object ? reinterpret_cast<decltype(d.name)>(dlsym(object, symbol)) : nullptr) && d.complete;
    GPTQ_CUDA_DRIVER(X)
#undef X
    return d;
  }();
  return found;
}

class InContext {
 public:
  explicit InContext(CUcontext context) {
    CUcontext current = nullptr;
    pushed_ = driver().CtxGetCurrent(&current) == CUDA_SUCCESS && current != context && driver().CtxPushCurrent(context) == CUDA_SUCCESS;
  }
  ~InContext() {
    CUcontext popped;
    if (pushed_) driver().CtxPopCurrent(&popped);
  }
  InContext(const InContext&) = delete;

 private:
  bool pushed_;
};

// Lets kernels and copies of one context go to the memory of another GPU's; false: they cannot.
inline bool reach(CUcontext context, CUcontext other) {
  const Driver& d = driver();
  CUdevice its, mine;
  int can = 0;
  if (const InContext in(other); d.CtxGetDevice(&its) != CUDA_SUCCESS) return false;
  const InContext in(context);
  if (d.CtxGetDevice(&mine) != CUDA_SUCCESS || mine == its) return context == other;
  if (d.DeviceCanAccessPeer(&can, mine, its) != CUDA_SUCCESS || !can) return false;
  const CUresult result = d.CtxEnablePeerAccess(other, 0);
  return result == CUDA_SUCCESS || result == CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED;
}

inline bool is_of(CUcontext context, CUdevice device) {
  const InContext in(context);
  CUdevice its;
  return driver().CtxGetDevice(&its) == CUDA_SUCCESS && its == device;
}

// Where a stream works. A text why not, or NULL. beside: a context that it must be; NULL: any of the GPU.
inline const char* find_context(int ordinal, CUstream host_stream, CUcontext beside, CUcontext* out) {
  const Driver& d = driver();
  CUdevice device;
  if (!d.complete) return "the driver lacks functions for contexts";
  if (d.DeviceGet(&device, ordinal) != CUDA_SUCCESS) return "there is no such GPU";
  *out = nullptr;
  if (host_stream) {
    if (d.StreamGetCtx(host_stream, out) != CUDA_SUCCESS) return "the host's stream is none";
    if (!is_of(*out, device)) return "the host's stream is of another GPU";
    if (beside && beside != *out)
      return "the host's stream is of another context than the model, which takes the one that is current when it is loaded";
    return nullptr;
  }
  if ((*out = beside)) return nullptr;
  if (d.CtxGetCurrent(out) == CUDA_SUCCESS && *out && is_of(*out, device)) return nullptr;
  // It stays to the end of the process, as CUDA's runtime keeps it: to make one takes a fifth of a second.
  return d.DevicePrimaryCtxRetain(out, device) == CUDA_SUCCESS ? nullptr : "the GPU's primary context cannot be made";
}

}  // namespace gptq::cuda
