// SPDX-License-Identifier: Apache-2.0
#include "converter/hub/download.h"

#include <cerrno>
#include <vector>

#include "base/failure.h"
#include "converter/json.h"

namespace gptq::convert::hub {
namespace {

using base::fail;
using base::fail_os;
namespace os = base::os;

}  // namespace

Download::Download(const RemoteFile& file, const std::string& blob, Progress& progress)
    : file_(file), blob_(blob), path_(blob + ".incomplete"), progress_(progress), hash_(file.etag, file.size) {
  make_folders(os::folder_of(blob));
  open_file();
  hash_what_is_there();
  progress_.begin(file_.name, file_.size, received_);
  furthest_ = received_;
}

Download::~Download() {
  handle_.close();
  if (received_ == 0) os::remove_file(path_);
}

void Download::open_file() {
  handle_ = os::File(path_, os::Open::open_or_create_no_link);
  if (!handle_) fail_os(GPTQ_E_IO, errno, "cannot create", path_);
}

void Download::hash_what_is_there() {
  const int64_t size = handle_.size();
  if (size < 0) fail_os(GPTQ_E_IO, errno, "cannot read", path_);
  if (static_cast<uint64_t>(size) > file_.size) return restart();
  std::vector<std::byte> buffer(1u << 20);
  for (;;) {
    const int64_t n = handle_.read_at(received_, buffer.data(), buffer.size());
    if (n < 0) fail_os(GPTQ_E_IO, errno, "cannot read", path_);
    if (n == 0) return;
    hash_.add(std::span(buffer).first(static_cast<size_t>(n)));
    received_ += static_cast<uint64_t>(n);
  }
}

uint64_t Download::begin() {
  placed_ = false;
  return received_;
}

void Download::restart() {
  progress_.take_back(received_);
  if (!handle_.make_empty()) fail_os(GPTQ_E_IO, errno, "cannot write", path_);
  received_ = 0;
  hash_ = Hash(file_.etag, file_.size);
}

// Some servers do not know of ranges, and some caches answer with another one.
void Download::place(const Answer& begun) {
  placed_ = true;
  if (begun.status == 200) {
    if (received_ > 0) restart();
    return;
  }
  const std::string range = begun.header("content-range"), expected = "bytes " + std::to_string(received_) + "-";
  if (lower(range).starts_with(expected)) return;
  fail(GPTQ_E_IO, "the server sends another part of '", file_.name, "' (", range,
       ") than it was asked for; if it stays so, delete ", file_.etag, ".incomplete");
}

void Download::take(const Answer& begun, std::span<const std::byte> bytes) {
  if (!placed_) place(begun);
  if (bytes.size() > file_.size - received_) {
    restart();
    fail(GPTQ_E_IO, "the server sends more than the ", file_.size, " bytes that '", file_.name, "' has");
  }
  write(bytes);
  hash_.add(bytes);
  progress_.add(bytes.size());
}

void Download::write(std::span<const std::byte> bytes) {
  const int64_t n = handle_.write_at(received_, bytes.data(), bytes.size());
  if (n != static_cast<int64_t>(bytes.size())) fail_os(GPTQ_E_IO, n < 0 ? errno : ENOSPC, "cannot write", path_);
  received_ += bytes.size();
}

bool Download::came_further() {
  const bool further = received_ > furthest_;
  if (further) furthest_ = received_;
  return further;
}

bool Download::finish(std::string& wrong) {
  wrong = hash_.hex();
  if (wrong != file_.etag) {
    restart();
    return false;
  }
  if (!handle_.sync() || !os::rename_replacing(path_, blob_))
    fail_os(GPTQ_E_IO, errno, "cannot write", blob_);
  os::sync_folder(os::folder_of(blob_));
  progress_.end();
  return true;
}

}  // namespace gptq::convert::hub
