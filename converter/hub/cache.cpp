// SPDX-License-Identifier: Apache-2.0
#include "converter/hub/cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "base/failure.h"
#include "base/io.h"
#include "converter/json.h"

namespace gptq::convert::hub {
namespace {

namespace fs = std::filesystem;
using base::fail_os;

// The nearest folder of a path that is there already.
fs::path existing(const std::string& path) {
  std::error_code error;
  fs::path at = fs::absolute(path, error);
  while (!fs::exists(at, error) && at.has_relative_path()) at = at.parent_path();
  return at;
}

}  // namespace

void make_folders(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) fail_os(GPTQ_E_IO, error.value(), "cannot create the folder", path);
}

bool size_of(const std::string& path, uint64_t& size) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return false;
  size = static_cast<uint64_t>(info.st_size);
  return true;
}

uint64_t free_bytes(const std::string& path) {
  std::error_code error;
  const auto space = fs::space(existing(path), error);
  return error ? UINT64_MAX : space.available;
}

bool same_disk(const std::string& a, const std::string& b) {
  struct stat first, second;
  return stat(existing(a).c_str(), &first) == 0 && stat(existing(b).c_str(), &second) == 0 &&
         first.st_dev == second.st_dev;
}

void write_whole(const std::string& path, const std::string& text) {
  make_folders(fs::path(path).parent_path().string());
  base::AtomicFile file(path, base::AtomicFile::IfExists::replace);
  file.append(std::as_bytes(std::span(text)));
  file.commit();
}

void sync_folder(const std::string& path) {
  const int folder = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return;
  fsync(folder);
  close(folder);
}

Cache::Cache(const std::string& root, const Name& name) {
  const std::string models = "models--" + name.owner + "--" + name.model;
  folder_ = root + "/" + models;
  locks_ = root + "/.locks/" + models;
}

std::string Cache::commit_of(const std::string& revision) const {
  if (is_commit(revision)) return revision;
  const std::string path = folder_ + "/refs/" + revision;
  if (!file_exists(path)) return {};
  const std::string text = read_text(path, 4096), commit = text.substr(0, text.find_first_of(" \r\n"));
  return is_commit(commit) ? commit : std::string();
}

void Cache::write_ref(const std::string& revision, const std::string& commit) const {
  if (revision != commit && commit_of(revision) != commit) write_whole(folder_ + "/refs/" + revision, commit);
}

bool Cache::has(const std::string& commit, const std::string& file, uint64_t size) const {
  uint64_t found;
  return size_of(snapshot(commit) + "/" + file, found) && found == size;
}

void Cache::link(const std::string& commit, const std::string& file, const std::string& etag) const {
  const fs::path link = fs::path(snapshot(commit)) / file,
                 target = fs::path(blob(etag)).lexically_relative(link.parent_path());
  const std::string temporary = link.string() + ".part-" + std::to_string(getpid());
  make_folders(link.parent_path().string());
  unlink(temporary.c_str());
  if (symlink(target.c_str(), temporary.c_str()) != 0 || rename(temporary.c_str(), link.c_str()) != 0) {
    const int code = errno;
    unlink(temporary.c_str());
    fail_os(GPTQ_E_IO, code, "cannot create the link", link.string());
  }
}

FileLock::FileLock(const std::string& path, const std::function<void()>& waiting) {
  make_folders(fs::path(path).parent_path().string());
  file_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (file_ < 0) fail_os(GPTQ_E_IO, errno, "cannot create", path);
  if (flock(file_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;  // some file systems have no locks
  waiting();
  while (flock(file_, LOCK_EX) != 0 && errno == EINTR) {
  }
}

FileLock::~FileLock() { close(file_); }

}  // namespace gptq::convert::hub
