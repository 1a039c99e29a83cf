// SPDX-License-Identifier: Apache-2.0
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "base/os.h"

namespace gptq::base::os {
namespace {

namespace fs = std::filesystem;

// A call that a signal ended is made again.
template <class Call>
int again(Call&& call) {
  int result;
  do result = call();
  while (result < 0 && errno == EINTR);
  return result;
}

int flags_of(Open how) {
  switch (how) {
    case Open::read:
      return O_RDONLY | O_NONBLOCK;
    case Open::create_new:
      return O_RDWR | O_CREAT | O_EXCL;
    case Open::read_write:
      return O_RDWR;
    case Open::open_or_create:
      return O_RDWR | O_CREAT;
    case Open::open_or_create_no_link:
      return O_RDWR | O_CREAT | O_NOFOLLOW;
  }
  return 0;
}

// All of a transfer, as far as the file goes. call: of what is done to what is left.
template <class Call>
int64_t transfer(size_t bytes, Call&& call) {
  size_t done = 0;
  while (done < bytes) {
    const ssize_t n = call(done, bytes - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -1;
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  return static_cast<int64_t>(done);
}

bool is_done(const std::error_code& error) {
  if (error) errno = error.value();
  return !error;
}

}  // namespace

File::File(const std::string& path, Open how)
    : handle_(again([&] { return open(path.c_str(), flags_of(how) | O_CLOEXEC, 0666); })) {}

File File::without_name(const std::string& folder) {
  std::string path;
  File file;
  file.handle_ = again([&] {
    path = folder + "/.part-XXXXXX";
    return mkostemp(path.data(), O_CLOEXEC);
  });
  if (file) unlink(path.c_str());
  return file;
}

void File::close() {
  if (handle_ == none) return;
  ::close(static_cast<int>(handle_));
  handle_ = none;
}

int64_t File::size() const {
  struct stat info;
  return fstat(static_cast<int>(handle_), &info) == 0 && S_ISREG(info.st_mode) ? int64_t{info.st_size} : -1;
}

int64_t File::read_at(uint64_t offset, void* to, size_t bytes) const {
  return transfer(bytes, [&](size_t done, size_t left) {
    return pread(static_cast<int>(handle_), static_cast<std::byte*>(to) + done, left,
                 static_cast<off_t>(offset + done));
  });
}

int64_t File::write_at(uint64_t offset, const void* from, size_t bytes) {
  return transfer(bytes, [&](size_t done, size_t left) {
    return pwrite(static_cast<int>(handle_), static_cast<const std::byte*>(from) + done, left,
                  static_cast<off_t>(offset + done));
  });
}

bool File::make_empty() { return again([&] { return ftruncate(static_cast<int>(handle_), 0); }) == 0; }

bool File::sync() {
#ifdef F_FULLFSYNC
  // On macOS fsync leaves the bytes in the disk's own cache; not every file system knows the stronger one.
  if (fcntl(static_cast<int>(handle_), F_FULLFSYNC) == 0) return true;
#endif
  return again([&] { return fsync(static_cast<int>(handle_)); }) == 0;
}

void File::give_back([[maybe_unused]] uint64_t offset, [[maybe_unused]] uint64_t bytes) {
#ifdef FALLOC_FL_PUNCH_HOLE
  (void)!fallocate(static_cast<int>(handle_), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                   static_cast<off_t>(bytes));
#endif
}

bool File::lock() {
  return again([&] { return flock(static_cast<int>(handle_), LOCK_EX | LOCK_NB); }) == 0;
}
bool File::wait_for_lock() {
  return again([&] { return flock(static_cast<int>(handle_), LOCK_EX); }) == 0;
}

Kind kind_of(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return Kind::nothing;
  if (S_ISREG(info.st_mode)) return Kind::file;
  return S_ISDIR(info.st_mode) ? Kind::folder : Kind::other;
}

bool exists(const std::string& path) { return access(path.c_str(), F_OK) == 0 || errno == EIO; }

bool is_plain_file(const std::string& path) {
  struct stat info;
  return lstat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode);
}

bool is_link(const std::string& path) {
  struct stat info;
  return lstat(path.c_str(), &info) == 0 && S_ISLNK(info.st_mode);
}

bool can_write_into(const std::string& folder) { return access(folder.c_str(), W_OK) == 0; }

bool size_of(const std::string& path, uint64_t& size) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return false;
  size = static_cast<uint64_t>(info.st_size);
  return true;
}

bool remove_file(const std::string& path) { return unlink(path.c_str()) == 0; }

bool remove_tree(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  return is_done(error);
}

bool make_folder(const std::string& path) { return mkdir(path.c_str(), 0777) == 0; }

bool make_folders(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  return is_done(error);
}

bool list_folder(const std::string& folder, std::vector<std::string>& names) {
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    names.push_back(it->path().filename().string());
  return is_done(error);
}

bool rename_replacing(const std::string& from, const std::string& to) { return rename(from.c_str(), to.c_str()) == 0; }

// Atomically where the kernel or hard links allow it, else after a look.
bool rename_to_new(const std::string& from, const std::string& to) {
#if defined(SYS_renameat2)
  constexpr unsigned not_replacing = 1;  // RENAME_NOREPLACE; the call has a name of its own from glibc 2.28 on
  if (syscall(SYS_renameat2, AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), not_replacing) == 0) return true;
  if (errno == EEXIST) return false;
#elif defined(__APPLE__)
  if (renamex_np(from.c_str(), to.c_str(), RENAME_EXCL) == 0) return true;
  if (errno == EEXIST) return false;
#endif
  if (link(from.c_str(), to.c_str()) == 0) return unlink(from.c_str()) == 0;
  if (errno == EEXIST) return false;
  if (exists(to)) {
    errno = EEXIST;
    return false;
  }
  return rename_replacing(from, to);
}

void sync_folder(const std::string& folder) {
  const int handle = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (handle < 0) return;
  fsync(handle);
  close(handle);
}

bool free_bytes(const std::string& folder, uint64_t& bytes) {
  struct statvfs room;
  if (statvfs(folder.c_str(), &room) != 0) return false;
  bytes = uint64_t{room.f_bavail} * room.f_frsize;
  return true;
}

std::string full_path(const std::string& path) {
  std::error_code error;
  const fs::path full = fs::canonical(path, error);
  return error ? std::string() : full.string();
}

std::string folder_of(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == path.npos ? "." : std::string(path.substr(0, slash + 1));
}

void prefer_huge_pages([[maybe_unused]] void* memory, [[maybe_unused]] size_t bytes) {
#if defined(__linux__)
  madvise(memory, bytes, MADV_HUGEPAGE);
#endif
}

uint64_t free_memory() {
#if defined(_SC_AVPHYS_PAGES)
  const long pages = sysconf(_SC_AVPHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  return pages > 0 && page > 0 ? static_cast<uint64_t>(pages) * static_cast<uint64_t>(page) : 0;
#else
  return 0;
#endif
}

int64_t process_id() { return getpid(); }

bool random_bytes(void* to, size_t bytes) {
#if defined(__linux__)
  constexpr unsigned not_waiting = 1;  // GRND_NONBLOCK; the call has a name of its own from glibc 2.25 on
  return syscall(SYS_getrandom, to, bytes, not_waiting) == static_cast<long>(bytes);
#else
  arc4random_buf(to, bytes);
  return true;
#endif
}

void wait_while(const std::atomic<uint32_t>& value, uint32_t seen) { value.wait(seen); }
void wake_one(std::atomic<uint32_t>& value) { value.notify_one(); }

void* load_library(const std::string& path, std::string& why) {
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (const char* reason = library ? nullptr : dlerror()) why = reason;
  if (!library && why.empty()) why = path;
  return library;
}

void* find_symbol(void* library, const char* name) { return dlsym(library, name); }

}  // namespace gptq::base::os
