// SPDX-License-Identifier: Apache-2.0
// Windows' names of files from ours.
#pragma once
#include <string>
#include <string_view>

namespace gptq::base::os {

std::wstring to_wide(std::string_view utf8);  // what is no UTF-8 becomes U+FFFD
std::string from_wide(std::wstring_view text);
// Absolute, with Windows' separators and the prefix \\?\, so that it may have any length.
std::wstring windows_path(std::string_view path);

}  // namespace gptq::base::os
