// SPDX-License-Identifier: Apache-2.0
// What tests ask of the emulated GPU.
#pragma once
#include <cstdint>

struct EmulatedFault {
  bool lost;        // every wait fails as after an illegal memory access
  uint32_t polls;   // looks at the stream that find it busy after something was copied
  bool no_library;  // streams opened from now on find no cuBLASLt
  int library_status;  // what its products end with
  bool no_recording;   // recordings cannot begin
  uintptr_t context;   // the thread's current one, of this GPU; 0: none
};
// A host's stream, by what it is of.
struct EmulatedHostStream {
  uintptr_t context;
};
struct EmulatedState {
  uint64_t bytes;
  uint32_t streams, replays, library_products, launches;
  void* host_stream;      // that of the last stream opened
};
