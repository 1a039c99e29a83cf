// SPDX-License-Identifier: Apache-2.0
// A GPU's free memory without a context on it, by the driver's own management library where that is there.
#pragma once
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>

namespace gptq::cuda {

// 0: not known.
inline uint64_t free_memory(const uint8_t (&uuid)[16]) {
  struct Memory {
    unsigned long long total, free, used;
  } memory{};
  void* object = dlopen("libnvidia-ml.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (!object) return 0;
  const auto begin = reinterpret_cast<int (*)()>(dlsym(object, "nvmlInit_v2"));
  const auto end = reinterpret_cast<int (*)()>(dlsym(object, "nvmlShutdown"));
  const auto find = reinterpret_cast<int (*)(const char*, void**)>(dlsym(object, "nvmlDeviceGetHandleByUUID"));
  const auto ask = reinterpret_cast<int (*)(void*, Memory*)>(dlsym(object, "nvmlDeviceGetMemoryInfo"));
  char name[48];
  char* at = name + snprintf(name, sizeof name, "GPU");
  for (int i = 0; i < 16; ++i) at += snprintf(at, 8, i == 0 || i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", uuid[i]);
  void* device = nullptr;
  if (begin && end && find && ask && begin() == 0) {
    if (find(name, &device) != 0 || ask(device, &memory) != 0) memory.free = 0;
    end();
  }
  dlclose(object);
  return memory.free;
}

}  // namespace gptq::cuda
