// SPDX-License-Identifier: Apache-2.0
#include "base/windows_path.h"

#include <windows.h>

#include <algorithm>

namespace gptq::base::os {

std::wstring to_wide(std::string_view utf8) {
  const int size = static_cast<int>(utf8.size());
  std::wstring out(static_cast<size_t>(MultiByteToWideChar(CP_UTF8, 0, utf8.data(), size, nullptr, 0)), L'\0');
  MultiByteToWideChar(CP_UTF8, 0, utf8.data(), size, out.data(), static_cast<int>(out.size()));
  return out;
}

std::string from_wide(std::wstring_view text) {
  const int size = static_cast<int>(text.size());
  std::string out(static_cast<size_t>(WideCharToMultiByte(CP_UTF8, 0, text.data(), size, nullptr, 0, nullptr, nullptr)),
                  '\0');
  WideCharToMultiByte(CP_UTF8, 0, text.data(), size, out.data(), static_cast<int>(out.size()), nullptr, nullptr);
  return out;
}

std::wstring windows_path(std::string_view path) {
  std::wstring name = to_wide(path);
  if (name.starts_with(L"\\\\?\\") || name.starts_with(L"\\\\.\\")) return name;
  std::replace(name.begin(), name.end(), L'/', L'\\');
  const DWORD size = GetFullPathNameW(name.c_str(), 0, nullptr, nullptr);  // with its NUL
  if (!size) return name;
  std::wstring full(size, L'\0');
  full.resize(GetFullPathNameW(name.c_str(), size, full.data(), nullptr));
  if (full.starts_with(L"\\\\?\\") || full.starts_with(L"\\\\.\\")) return full;  // devices: NUL, CON
  while (full.size() > 3 && full.back() == L'\\') full.pop_back();
  return full.starts_with(L"\\\\") ? L"\\\\?\\UNC" + full.substr(1) : L"\\\\?\\" + full;
}

}  // namespace gptq::base::os
