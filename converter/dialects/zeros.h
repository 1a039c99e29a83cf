// SPDX-License-Identifier: Apache-2.0
// The zero points of a GPTQ layer, in whichever dialect they were written.
#pragma once
#include <span>
#include <string_view>
#include <vector>

#include "converter/dialects/quant_config.h"

namespace gptq::convert {

enum class ZerosDialect {
  plain,         // v2: the zero itself
  word_wide,     // zero - 1 per word, with borrows from field to field: restored by adding 1 to every field at once
  field_wise,    // zero - 1 within its field
  wrong_3bit,    // three constants subtracted that are not 1 per field
};

struct ZerosChoice {
  ZerosDialect dialect;
  bool symmetric;          // all zeros are 2^(bits-1)
  const char* warning;     // what contradicts the config, or NULL
  uint64_t damaged_words;  // by a writer that let a borrow fill the rest of the word
};

// words: [n_groups][words_of_row], each row n fields.
ZerosChoice choose_zeros(std::span<const uint32_t> words, uint32_t n, uint32_t bits, bool symmetric, const QuantConfig& config);
// Adds [n][n_groups] zeros in true form.
std::vector<uint8_t> unpack_zeros(std::span<const uint32_t> words, uint32_t n, uint32_t n_groups, uint32_t bits, ZerosDialect dialect);

}  // namespace gptq::convert
