// SPDX-License-Identifier: Apache-2.0
// What a file is that is not what it was taken for, from its first bytes: for messages.
#pragma once
#include <cstddef>
#include <span>
#include <string_view>

#include "base/io.h"

namespace gptq::base {

// "a git-lfs pointer, not the file itself: ...", or "" for bytes that say nothing. A few hundred bytes are enough.
std::string_view kind_of_file(std::span<const std::byte> start);
std::string_view kind_of_file(std::string_view start);
// The same of a file's first bytes.
std::string_view kind_of_file(const Source& file);

}  // namespace gptq::base
