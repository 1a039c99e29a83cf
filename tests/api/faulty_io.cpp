// SPDX-License-Identifier: Apache-2.0
#include "tests/api/faulty_io.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <mutex>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace gptq::test {
namespace {

struct State {
  std::mutex mutex;
  bool on = false, stays = false;
  Fault fault = Fault::none;
  uint64_t at = 0;
  std::vector<Call> calls;
};
State& state() {
  static State s;
  return s;
}

// What happens to the next call.
Fault next(Call call) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  if (!s.on) return Fault::none;
  const uint64_t number = s.calls.size();
  s.calls.push_back(call);
  const bool now = number == s.at || (s.stays && number > s.at);
  return now && can_fail(call, s.fault) ? s.fault : Fault::none;
}

[[maybe_unused]] bool is_on() {
  const std::lock_guard lock(state().mutex);
  return state().on;
}

// Whether the call fails; errno says how.
bool fails(Fault fault) {
  if (fault == Fault::kill || fault == Fault::kill_half) raise(SIGKILL);
  errno = fault == Fault::error ? EIO : fault == Fault::no_space ? ENOSPC : EINTR;
  return fault != Fault::none && fault != Fault::half && fault != Fault::ends;
}
bool fails(Call call) { return fails(next(call)); }

}  // namespace

void begin_faults(Fault fault, uint64_t at, bool stays) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.on = true, s.stays = stays, s.fault = fault, s.at = at;
  s.calls.clear();
}

std::vector<Call> end_faults() {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.on = false;
  return s.calls;
}

bool can_fail(Call call, Fault fault) {
  const bool moves = call == Call::read || call == Call::write, takes_room = call == Call::create || call == Call::write || call == Call::make_folder ||
                                                                            call == Call::rename || call == Call::sync;
  switch (fault) {
    case Fault::none: return false;
    case Fault::error: return true;
    case Fault::no_space: return takes_room;
    case Fault::ends:
    case Fault::half: return moves;
    case Fault::interrupted: return call != Call::size && call != Call::make_folder && call != Call::rename;
    case Fault::kill: return takes_room || call == Call::shorten;
    case Fault::kill_half: return call == Call::write;
  }
  return false;
}

}  // namespace gptq::test

#if defined(__linux__) && defined(__GLIBC__)
#include <sys/syscall.h>

using gptq::test::Call, gptq::test::Fault, gptq::test::fails, gptq::test::next;

extern "C" {
int __real_open64(const char*, int, ...);
int __real_mkostemp64(char*, int);
int __real_fstat64(int, struct stat64*);
ssize_t __real_pread64(int, void*, size_t, off64_t);
ssize_t __real_pwrite64(int, const void*, size_t, off64_t);
int __real_ftruncate64(int, off64_t);
int __real_fsync(int);
int __real_flock(int, int);
int __real_mkdir(const char*, mode_t);
int __real_rename(const char*, const char*);
int __real_link(const char*, const char*);
long __real_syscall(long, ...);

int __wrap_open64(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const auto mode = flags & O_CREAT ? va_arg(list, mode_t) : 0;
  va_end(list);
  return fails(flags & O_CREAT ? Call::create : Call::open) ? -1 : __real_open64(path, flags, mode);
}
int __wrap_mkostemp64(char* path, int flags) { return fails(Call::create) ? -1 : __real_mkostemp64(path, flags); }
int __wrap_fstat64(int file, struct stat64* info) { return fails(Call::size) ? -1 : __real_fstat64(file, info); }
ssize_t __wrap_pread64(int file, void* to, size_t size, off64_t offset) {
  const Fault fault = next(Call::read);
  if (fails(fault)) return -1;
  return fault == Fault::ends ? 0 : __real_pread64(file, to, fault == Fault::half ? (size + 1) / 2 : size, offset);
}
ssize_t __wrap_pwrite64(int file, const void* from, size_t size, off64_t offset) {
  const Fault fault = next(Call::write);
  if (fault == Fault::kill_half) (void)!__real_pwrite64(file, from, size / 2, offset);
  if (fails(fault)) return -1;
  return fault == Fault::ends ? 0 : __real_pwrite64(file, from, fault == Fault::half ? (size + 1) / 2 : size, offset);
}
int __wrap_ftruncate64(int file, off64_t size) { return fails(Call::shorten) ? -1 : __real_ftruncate64(file, size); }
// Waits for no disk while calls are counted.
int __wrap_fsync(int file) { return fails(Call::sync) ? -1 : gptq::test::is_on() ? 0 : __real_fsync(file); }
int __wrap_flock(int file, int how) { return fails(Call::lock) ? -1 : __real_flock(file, how); }
int __wrap_mkdir(const char* path, mode_t mode) { return fails(Call::make_folder) ? -1 : __real_mkdir(path, mode); }
int __wrap_rename(const char* from, const char* to) { return fails(Call::rename) ? -1 : __real_rename(from, to); }
int __wrap_link(const char* from, const char* to) { return fails(Call::rename) ? -1 : __real_link(from, to); }
long __wrap_syscall(long number, ...) {
  va_list list;
  va_start(list, number);
  long a[6];
  for (long& x : a) x = va_arg(list, long);
  va_end(list);
  if (number == SYS_renameat2 && fails(Call::rename)) return -1;
  return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
}
bool gptq::test::io_is_watched() { return true; }
#else
bool gptq::test::io_is_watched() { return false; }
#endif
