// SPDX-License-Identifier: Apache-2.0
// How fast this machine reads memory just now: what a decode can be compared with.
#pragma once
#include <cstdint>
#include <memory>

namespace gptq::bench {

class Bandwidth {
 public:
  explicit Bandwidth(uint32_t threads);
  // GB/s that the threads read together; takes some 20 to 60 ms.
  double measure();

 private:
  struct Free {
    void operator()(void* memory) const;
  };
  uint32_t threads_;
  std::unique_ptr<uint64_t[], Free> memory_;
};

}  // namespace gptq::bench
