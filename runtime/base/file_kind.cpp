// SPDX-License-Identifier: Apache-2.0
#include "base/file_kind.h"

#include <algorithm>
#include <array>

namespace gptq::base {
namespace {

struct Kind {
  std::string_view start, text;
};
constexpr Kind kinds[] = {
    {"version https://git-lfs", "a git-lfs pointer, not the file itself: fetch it with `git lfs pull`, or download it again"},
    {"<!DOCTYPE", "a web page, not the file itself: download it again"},
    {"<!doctype", "a web page, not the file itself: download it again"},
    {"<html", "a web page, not the file itself: download it again"},
    {"GGUF", "a GGUF file, which gptq-convert reads"},
    {"tjgg", "a GGML file, older than GGUF: convert the model anew"},
    {"lmgg", "a GGML file, older than GGUF: convert the model anew"},
    {"fmgg", "a GGML file, older than GGUF: convert the model anew"},
    {"algg", "a GGML adapter, not a model"},
    {"PK\3\4", "a zip archive (PyTorch's pickles are such), not a model file"},
    {"\x80\x02\x8A", "a pickle, which can run code when read"},
    {"\x1F\x8B", "a gzip archive: unpack it first"},
    {"\x28\xB5\x2F\xFD", "a zstd archive: unpack it first"},
    {"\xFD" "7zXZ", "an xz archive: unpack it first"},
};

}  // namespace

std::string_view kind_of_file(std::string_view start) {
  for (const Kind& kind : kinds)
    if (start.starts_with(kind.start)) return kind.text;
  return {};
}

std::string_view kind_of_file(std::span<const std::byte> start) {
  return kind_of_file(std::string_view(reinterpret_cast<const char*>(start.data()), start.size()));
}

std::string_view kind_of_file(const Source& file) {
  std::array<std::byte, 32> bytes;
  const std::span<std::byte> start = std::span(bytes).first(std::min<uint64_t>(bytes.size(), file.size()));
  file.read_at(0, start);
  return kind_of_file(std::span<const std::byte>(start));
}

}  // namespace gptq::base
