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
  std::filesystem::path full = std::filesystem::absolute(utf8, error).lexically_normal().make_preferred();
  if (error) return utf8;
  return full.native().starts_with(L"\\\\") ? full : std::filesystem::path(L"\\\\?\\" + full.native());
#else
  return utf8;
#endif
}

}  // namespace gptq::tool
