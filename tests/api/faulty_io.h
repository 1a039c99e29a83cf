// SPDX-License-Identifier: Apache-2.0
// The system's calls as the library makes them, counted, and one of them failing: api_tests is linked so that they come here first (--wrap).
#pragma once
#include <cstdint>
#include <vector>

namespace gptq::test {

enum class Call : uint8_t { open, create, size, read, write, shorten, sync, lock, make_folder, rename };

enum class Fault : uint8_t {
  none,
  error,        // EIO
  no_space,     // ENOSPC, of what takes room
  ends,         // a read or a write of no bytes
  half,         // of half the bytes: goes on
  interrupted,  // EINTR: made again
  kill,         // the process ends before the call
  kill_half     // and in the middle of a write
};

// From now on call number `at` fails in this way, and where it stays all after it that can.
void begin_faults(Fault fault, uint64_t at, bool stays = false);
// The calls since then.
std::vector<Call> end_faults();
// Whether such a call can fail in such a way.
bool can_fail(Call call, Fault fault);
// False where the calls cannot be watched.
bool io_is_watched();

}  // namespace gptq::test
