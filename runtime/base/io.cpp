// SPDX-License-Identifier: Apache-2.0
#include "base/io.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/failure.h"

namespace gptq::base {
namespace {

void check_range(uint64_t offset, uint64_t size, uint64_t total) {
  if (size > total || offset > total - size)
    fail_at(GPTQ_E_IO, offset, "the file ends at byte ", total, ", ", size, " bytes are wanted at ", offset);
}

void write_all(int file, uint64_t offset, std::span<const std::byte> bytes, std::string_view name) {
  while (!bytes.empty()) {
    const ssize_t n = pwrite(file, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail_os(GPTQ_E_IO, n < 0 ? errno : ENOSPC, "cannot write", name);
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
}

// Renames without replacing: atomically where the kernel or hard links allow it, else after a look.
bool rename_to_new(const char* from, const char* to) {
#ifdef RENAME_NOREPLACE
  if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) return true;
  if (errno == EEXIST) return false;
#endif
  if (link(from, to) == 0) return unlink(from) == 0;
  if (errno == EEXIST) return false;
  if (access(to, F_OK) == 0) {
    errno = EEXIST;
    return false;
  }
  return rename(from, to) == 0;
}

}  // namespace

FileSource::FileSource(std::string_view path) : path_(path), file_(open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
  if (file_ < 0) {
    const int code = errno;
    fail_os(code == ENOENT ? Code(GPTQ_E_NOT_FOUND) : Code(GPTQ_E_IO), code, "cannot open", path_);
  }
  struct stat info;
  if (fstat(file_, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(file_);
    fail(GPTQ_E_IO, "not a regular file: '", path_, "'");
  }
  size_ = static_cast<uint64_t>(info.st_size);
}

FileSource::~FileSource() { close(file_); }

void FileSource::read_at(uint64_t offset, std::span<std::byte> dst) const {
  check_range(offset, dst.size(), size_);
  while (!dst.empty()) {
    const ssize_t n = pread(file_, dst.data(), dst.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_os(GPTQ_E_IO, errno, "cannot read", path_);
    if (n == 0) fail_at(GPTQ_E_IO, offset, "'", path_, "' became shorter while it was read");
    dst = dst.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
}

void MemorySource::read_at(uint64_t offset, std::span<std::byte> dst) const {
  check_range(offset, dst.size(), bytes_.size());
  if (!dst.empty()) std::memcpy(dst.data(), bytes_.data() + offset, dst.size());
}

HostSource::HostSource(const gptq_io& io) : io_(io) {
  if (!io.size || !io.read_at) fail(GPTQ_E_INVALID_ARGUMENT, "gptq_io needs size and read_at");
  const int64_t size = io_.size(io_.user);
  if (size < 0) fail_os(GPTQ_E_IO, static_cast<int>(-size), "the host's IO has no size for", "gptq_io");
  size_ = static_cast<uint64_t>(size);
}

void HostSource::read_at(uint64_t offset, std::span<std::byte> dst) const {
  check_range(offset, dst.size(), size_);
  while (!dst.empty()) {
    const int64_t n = io_.read_at(io_.user, offset, dst.data(), dst.size());
    if (n == -EINTR) continue;
    if (n < 0) fail_os(GPTQ_E_IO, static_cast<int>(-n), "the host's IO cannot read", "gptq_io");
    if (n == 0 || static_cast<uint64_t>(n) > dst.size())
      fail_at(GPTQ_E_IO, offset, "the host's IO read ", n, " bytes where ", dst.size(), " were asked for");
    dst = dst.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
}

SubSource::SubSource(const Source& whole, uint64_t offset, uint64_t size) : whole_(whole), offset_(offset) {
  if (offset > whole.size()) check_range(offset, 0, whole.size());
  size_ = size ? size : whole.size() - offset;
  check_range(offset_, size_, whole.size());
}

void SubSource::read_at(uint64_t offset, std::span<std::byte> dst) const {
  check_range(offset, dst.size(), size_);
  whole_.read_at(offset_ + offset, dst);
}

std::string AtomicFile::temporary_path(std::string_view path) { return std::string(path) + ".part-" + std::to_string(getpid()); }

AtomicFile::AtomicFile(std::string_view path, IfExists if_exists)
    : path_(path), temporary_(temporary_path(path)), if_exists_(if_exists) {
  if (if_exists_ == IfExists::refuse && access(path_.c_str(), F_OK) == 0)
    fail(GPTQ_E_IO, "'", path_, "' exists already; remove it or ask to replace it");
  file_ = open(temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (file_ < 0) fail_os(GPTQ_E_IO, errno, "cannot create", temporary_);
}

AtomicFile::~AtomicFile() {
  if (file_ < 0) return;
  close(file_);
  unlink(temporary_.c_str());
}

void AtomicFile::append(std::span<const std::byte> bytes) {
  write_all(file_, size_, bytes, temporary_);
  size_ += bytes.size();
}

void AtomicFile::write_at(uint64_t offset, std::span<const std::byte> bytes) { write_all(file_, offset, bytes, temporary_); }

void AtomicFile::commit() {
  if (fsync(file_) != 0) fail_os(GPTQ_E_IO, errno, "cannot write", temporary_);
  const char *from = temporary_.c_str(), *to = path_.c_str();
  const bool renamed = if_exists_ == IfExists::refuse ? rename_to_new(from, to) : rename(from, to) == 0;
  if (!renamed) fail_os(GPTQ_E_IO, errno, "cannot create", path_);
  close(file_);
  file_ = -1;
  const size_t slash = path_.rfind('/');
  const std::string folder = slash == path_.npos ? "." : path_.substr(0, slash + 1);
  if (const int f = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); f >= 0) {
    fsync(f);
    close(f);
  }
}

}  // namespace gptq::base
