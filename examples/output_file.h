// SPDX-License-Identifier: Apache-2.0
// A file that a tool writes: it appears whole or not at all, and only over a regular file or where nothing is.
#pragma once
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "file_path.h"
#include "gptq.hpp"

namespace gptq::tool {

class OutputFile {
 public:
  explicit OutputFile(const std::string& path) : name_(path), path_(file_path(path)), part_(file_path(path + ".part")) {
    refuse_other(path_);
    refuse_other(part_);
    errno = 0;
    file_.open(part_, std::ios::binary);
    if (!file_) fail(errno);
  }
  ~OutputFile() {
    if (done_) return;
    std::error_code ignored;
    file_.close();
    std::filesystem::remove(part_, ignored);
  }
  OutputFile(const OutputFile&) = delete;
  // False: it failed, and commit() says why.
  bool write(const char* bytes, size_t size) {
    if (reason_) return false;
    errno = 0;
    if (!file_.write(bytes, static_cast<std::streamsize>(size))) reason_ = errno ? errno : EIO;
    return !reason_;
  }
  bool failed() const { return reason_ != 0; }
  void commit() {
    errno = 0;
    file_.close();
    if (!reason_ && !file_) reason_ = errno ? errno : EIO;
    if (reason_) fail(reason_);
    std::error_code error;
    std::filesystem::rename(part_, path_, error);
    if (error) fail(error.value(), error.message());
    done_ = true;
  }

 private:
  static void refuse_other(const std::filesystem::path& path) {
    std::error_code error;
    const auto kind = std::filesystem::symlink_status(path, error).type();
    const bool is_link = kind == std::filesystem::file_type::symlink;
    if (is_link || (kind != std::filesystem::file_type::regular && kind != std::filesystem::file_type::not_found && kind != std::filesystem::file_type::none))
      throw Error(GPTQ_E_IO, "'" + path.string() + "' is " + (is_link ? "a link: name the file it leads to" : "not a regular file, and is not replaced"));
  }
  [[noreturn]] void fail(int code, std::string why = {}) const {
    if (why.empty() && code) why = std::strerror(code);
    throw Error(GPTQ_E_IO, "cannot write '" + name_ + "'" + (why.empty() ? "" : ": " + why));
  }

  const std::string name_;
  const std::filesystem::path path_, part_;
  std::ofstream file_;
  int reason_ = 0;
  bool done_ = false;
};

}  // namespace gptq::tool
