// SPDX-License-Identifier: Apache-2.0
#include "base/io.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/failure.h"

namespace gptq::base {
namespace {

constexpr const char* part = ".part-";

void check_range(uint64_t offset, uint64_t size, uint64_t total) {
  if (size > total || offset > total - size)
    fail_at(GPTQ_E_IO, offset, "the file ends at byte ", total, ", ", size, " bytes are wanted at ", offset);
}

void write_all(os::File& file, uint64_t offset, std::span<const std::byte> bytes, std::string_view name) {
  const int64_t n = file.write_at(offset, bytes.data(), bytes.size());
  if (n != static_cast<int64_t>(bytes.size())) fail_os(GPTQ_E_IO, n < 0 ? errno : ENOSPC, "cannot write", name);
}

// What a killed process left. Who lives holds its file's lock.
bool remove_left_over(const std::string& path) {
  os::File file(path, os::Open::read_write);
  const bool gone = file && file.lock() && os::remove_file(path);
  if (!gone) errno = EEXIST;
  return gone;
}

// Those of all processes beside this file.
void remove_left_overs(const std::string& path) {
  const std::string folder = os::folder_of(path), begin = path.substr(folder == "." ? 0 : folder.size()) + part;
  std::vector<std::string> names;
  os::list_folder(folder, names);
  for (const std::string& name : names) {
    if (!name.starts_with(begin) || name.find_first_not_of("0123456789", begin.size()) != name.npos) continue;
    if (const std::string other = path + name.substr(begin.size() - std::strlen(part)); os::is_plain_file(other)) remove_left_over(other);
  }
}

}  // namespace

FileSource::FileSource(std::string_view path) : path_(path), file_(path_, os::Open::read) {
  if (!file_) {
    const int code = errno;
    fail_os(code == ENOENT ? Code(GPTQ_E_NOT_FOUND) : Code(GPTQ_E_IO), code, "cannot open", path_);
  }
  const int64_t size = file_.size();
  if (size < 0) fail(GPTQ_E_IO, "not a regular file: '", path_, "'");
  size_ = static_cast<uint64_t>(size);
}

void FileSource::read_at(uint64_t offset, std::span<std::byte> dst) const {
  check_range(offset, dst.size(), size_);
  const int64_t n = file_.read_at(offset, dst.data(), dst.size());
  if (n < 0) fail_os(GPTQ_E_IO, errno, "cannot read", path_);
  if (static_cast<uint64_t>(n) < dst.size())
    fail_at(GPTQ_E_IO, offset + static_cast<uint64_t>(n), "'", path_, "' became shorter while it was read");
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

std::string AtomicFile::temporary_path(std::string_view path) {
  return std::string(path) + part + std::to_string(os::process_id());
}

AtomicFile::AtomicFile(std::string_view path, IfExists if_exists)
    : path_(path), temporary_(temporary_path(path)), if_exists_(if_exists) {
  const os::Kind kind = os::kind_of(path_);
  const bool is_link = os::is_link(path_);
  if (is_link || kind == os::Kind::folder || kind == os::Kind::other)
    fail(GPTQ_E_IO, "'", path_, "' is ", is_link ? "a link: name the file it leads to" : "not a regular file, and is not replaced");
  if (if_exists_ == IfExists::refuse && os::exists(path_))
    fail(GPTQ_E_IO, "'", path_, "' exists already; remove it or ask to replace it");
  remove_left_overs(path_);
  for (int tries = 3; tries > 0; --tries) {
    file_ = os::File(temporary_, os::Open::create_new);
    if (!file_ && errno == EEXIST && remove_left_over(temporary_)) file_ = os::File(temporary_, os::Open::create_new);
    if (!file_) fail_os(GPTQ_E_IO, errno, "cannot create", temporary_);
    // Before it was locked, another process may have taken it for a left-over.
    const bool taken = !file_.lock() && errno == EWOULDBLOCK;
    if (!taken && os::exists(temporary_)) break;
  }
}

AtomicFile::~AtomicFile() {
  if (!file_) return;
  file_.close();
  os::remove_file(temporary_);
}

void AtomicFile::append(std::span<const std::byte> bytes) {
  write_all(file_, size_, bytes, temporary_);
  size_ += bytes.size();
}

void AtomicFile::write_at(uint64_t offset, std::span<const std::byte> bytes) { write_all(file_, offset, bytes, temporary_); }

void AtomicFile::commit() {
  if (!file_.sync()) fail_os(GPTQ_E_IO, errno, "cannot write", temporary_);
  const bool renamed = if_exists_ == IfExists::refuse ? os::rename_to_new(temporary_, path_) : os::rename_replacing(temporary_, path_);
  if (!renamed) fail_os(GPTQ_E_IO, errno, "cannot create", path_);
  file_.close();
  os::sync_folder(os::folder_of(path_));
}

}  // namespace gptq::base
