// SPDX-License-Identifier: Apache-2.0
// What tests ask of the emulated GPUs.
#pragma once
#include <cstdint>

constexpr uint32_t emulated_gpus_max = 4;

struct EmulatedFault {
  bool lost;        // every wait fails as after an illegal memory access
  uint32_t polls;   // looks at the stream that find it busy after something was copied
  bool no_library;  // streams opened from now on find no cuBLASLt
  int library_status;  // what its products end with
  bool no_recording;   // recordings cannot begin
  uintptr_t context;   // the thread's current one, of this GPU; 0: none
  uint32_t gpus;       // that there are; 0: one
  uint32_t lost_gpus;  // bits of those that are lost alone
  uint64_t bytes[emulated_gpus_max];  // their memory; 0: a gibibyte
  bool no_peers;       // no GPU reaches another's memory
  uint32_t late;       // bits of those whose streams work as late as they may: when they are waited for
};
// A host's stream, by what it is of.
struct EmulatedHostStream {
  uintptr_t context;
};
struct EmulatedState {
  uint64_t bytes, bytes_of[emulated_gpus_max];  // of all, and of each
  uint32_t streams, replays, library_products, launches, copies_across;
  uint32_t overlaps;      // work that a stream was given while a GPU behind its own had some
  void* host_stream;      // that of the last stream opened
};
