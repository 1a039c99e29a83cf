// SPDX-License-Identifier: Apache-2.0
// A gptq_source as a base::Source.
#pragma once
#include <optional>

#include "api/guard.h"
#include "base/io.h"

namespace gptq::api {

// The host's source as ours, whichever of the three kinds it is.
class OpenedSource {
 public:
  explicit OpenedSource(const gptq_source& s) {
    require((s.path != nullptr) + (s.data != nullptr) + (s.io != nullptr) == 1, "gptq_source: set exactly one of path, data, io");
    if (s.path) whole_ = &file_.emplace(path_of(s));
    if (s.data) whole_ = &memory_.emplace(std::span(static_cast<const std::byte*>(s.data), s.data_size));
    if (s.io) whole_ = &host_.emplace(read_struct(s.io, "gptq_io"));
    if (s.offset || s.size) whole_ = &part_.emplace(*whole_, s.offset, s.size);
  }
  const base::Source& operator*() const { return *whole_; }

 private:
  static std::string_view path_of(const gptq_source& s) {
    const std::string_view path = text_of(s.path, s.path_size, "path");
    require(path.find('\0') == path.npos, "path has a NUL in it");
    return path;
  }

  std::optional<base::FileSource> file_;
  std::optional<base::MemorySource> memory_;
  std::optional<base::HostSource> host_;
  std::optional<base::SubSource> part_;
  const base::Source* whole_ = nullptr;
};

}  // namespace gptq::api
