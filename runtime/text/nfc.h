// SPDX-License-Identifier: Apache-2.0
// Canonical composition (NFC) of valid UTF-8.
#pragma once
#include <memory_resource>
#include <string>
#include <string_view>

namespace gptq::text {

// Where the first character stands near which NFC may change something; the size of text where it is surely NFC.
size_t nfc_quick_check(std::string_view text);

void append_nfc(std::string_view text, std::pmr::string& out);

}  // namespace gptq::text
