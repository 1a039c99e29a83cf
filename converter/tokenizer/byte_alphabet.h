// SPDX-License-Identifier: Apache-2.0
// GPT-2's way of writing bytes as printable characters, and back.
#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace gptq::convert {

// The bytes that text stands for; nothing where it has characters outside the alphabet.
std::optional<std::string> bytes_of(std::string_view text);
std::string text_of_bytes(std::string_view bytes);

}  // namespace gptq::convert
