// SPDX-License-Identifier: Apache-2.0
// Names of files for the C++ library's streams.
#pragma once
#include <filesystem>
#include <string>

namespace gptq::tool {

// On Windows UTF-8 as elsewhere, and of any length.
inline std::filesystem::path file_path(const std::string& utf8) {
#if defined(_WIN32)
  std::error_code error;
  const std::filesystem::path name(
      std::u8string(utf8.begin(), utf8.end()));  // of a string it would take the bytes for characters
  const std::filesystem::path full = std::filesystem::absolute(name, error).lexically_normal().make_preferred();
  if (error) return name;
  return full.native().starts_with(L"\\\\") ? full : std::filesystem::path(L"\\\\?\\" + full.native());
#else
  return utf8;
#endif
}

}  // namespace gptq::tool
