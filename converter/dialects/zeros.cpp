// SPDX-License-Identifier: Apache-2.0
#include "converter/dialects/zeros.h"

#include <algorithm>

#include "converter/dialects/bit_fields.h"

namespace gptq::convert {
namespace {

// What a dialect adds to word i of a row before its fields are read.
uint32_t restoring_word(ZerosDialect dialect, uint32_t bits, uint64_t i) {
  static constexpr uint32_t wrong_3bit[] = {0x24924924, 0x92492492, 0x49249249};
  if (dialect == ZerosDialect::wrong_3bit) return wrong_3bit[i % 3];
  if (dialect != ZerosDialect::word_wide) return 0;
  return bits == 2 ? 0x55555555 : bits == 4 ? 0x11111111 : 0x01010101;
}

// Calls visit(row, first column, 32 true zeros) over all fields.
template <class Visit>
void for_each_32(std::span<const uint32_t> words, uint32_t n, uint32_t n_groups, uint32_t bits, ZerosDialect dialect, Visit&& visit) {
  const uint64_t row_words = packed_words(n, bits);
  const uint32_t mask = (1u << bits) - 1;
  for (uint64_t g = 0; g < n_groups; ++g)
    for (uint64_t at = 0; at < row_words; at += bits) {
      uint32_t restored[8] = {};
      const auto count = static_cast<uint32_t>(std::min<uint64_t>(bits, row_words - at));
      for (uint32_t i = 0; i < count; ++i) restored[i] = words[g * row_words + at + i] + restoring_word(dialect, bits, at + i);
      uint8_t fields[32];
      unpack_32(restored, 1, count, bits, fields);
      if (dialect == ZerosDialect::field_wise)
        for (uint8_t& f : fields) f = static_cast<uint8_t>((f + 1) & mask);
      if (!visit(static_cast<uint32_t>(g), static_cast<uint32_t>(at / bits * 32), fields)) return;
    }
}

bool all_equal(std::span<const uint32_t> words, uint32_t n, uint32_t bits, ZerosDialect dialect, uint32_t value) {
  bool equal = true;
  for_each_32(words, n, static_cast<uint32_t>(words.size() / packed_words(n, bits)), bits, dialect,
              [&](uint32_t, uint32_t first, const uint8_t* fields) {
                const uint32_t count = std::min(32u, n - first);
                equal = std::all_of(fields, fields + count, [&](uint8_t f) { return f == value; });
                return equal;
              });
  return equal;
}

// A writer that forms zero - 1 in 32 bits and ORs it into place fills everything above a zero of 0 with ones. Counts words with ones
// from the start of some field to the top; none where a field of ones has something else above it, because then borrows are real, and
// none where no such run is longer than two fields, because zeros of 0 and 1 side by side look the same.
uint64_t count_damage(std::span<const uint32_t> words, uint32_t n, uint32_t bits) {
  const uint64_t row_words = packed_words(n, bits);
  uint64_t damaged = 0;
  uint32_t longest = 0;
  for (uint64_t w = 0; w < words.size(); ++w) {
    const uint64_t column = w % row_words;
    const uint32_t first = static_cast<uint32_t>((bits - 32 * column % bits) % bits), mask = (1u << bits) - 1;
    const auto fields_left = static_cast<uint32_t>((uint64_t{n} * bits - 32 * column - first) / bits);
    for (uint32_t f = 0, at = first; at + bits < 32 && f + 1 < fields_left; ++f, at += bits) {
      if ((words[w] >> at & mask) != mask) continue;
      const uint32_t used = std::min(32u, first + fields_left * bits);
      const uint32_t ones = used - at >= 32 ? ~0u : ((1u << (used - at)) - 1) << at;
      if ((words[w] & ones) != ones) return 0;
      ++damaged;
      longest = std::max(longest, (used - at) / bits);
      break;
    }
  }
  return longest > 2 ? damaged : 0;
}

ZerosDialect v1_dialect(uint32_t bits, const QuantConfig& config) {
  if (bits == 3) return config.wrong_3bit ? ZerosDialect::wrong_3bit : ZerosDialect::field_wise;
  return ZerosDialect::word_wide;
}

}  // namespace

ZerosChoice choose_zeros(std::span<const uint32_t> words, uint32_t n, uint32_t bits, bool symmetric, const QuantConfig& config) {
  const ZerosDialect said = config.v2_zeros ? ZerosDialect::plain : v1_dialect(bits, config);
  const uint32_t middle = 1u << (bits - 1);
  if (all_equal(words, n, bits, said, middle)) return {said, true, nullptr, 0};
  // The fingerprint of symmetric zeros in another dialect. Asymmetric zeros are not all the same by chance in more than a few fields.
  if (symmetric || words.size() * (32 / bits) >= 64) {
    if (said != ZerosDialect::plain && all_equal(words, n, bits, ZerosDialect::plain, middle))
      return {ZerosDialect::plain, true, "the config says gptq, the zero points are those of gptq_v2", 0};
    if (said == ZerosDialect::plain && all_equal(words, n, bits, ZerosDialect::field_wise, middle))
      return {ZerosDialect::field_wise, true, "the config says gptq_v2, the zero points are those of gptq", 0};
    for (const ZerosDialect other : {ZerosDialect::field_wise, ZerosDialect::wrong_3bit})
      if (bits == 3 && all_equal(words, n, bits, other, middle)) return {other, true, nullptr, 0};
  }
  ZerosChoice out{said, false, symmetric ? "the config says symmetric, the zero points are not all the same" : nullptr, 0};
  if (said == ZerosDialect::plain || config.tool == Tool::gptqmodel || config.tool == Tool::autoround) return out;
  out.damaged_words = count_damage(words, n, bits);
  if (out.damaged_words) out.dialect = ZerosDialect::field_wise;  // as its writer's own kernels read it
  return out;
}

std::vector<uint8_t> unpack_zeros(std::span<const uint32_t> words, uint32_t n, uint32_t n_groups, uint32_t bits, ZerosDialect dialect) {
  std::vector<uint8_t> out(uint64_t{n} * n_groups);
  for_each_32(words, n, n_groups, bits, dialect, [&](uint32_t g, uint32_t first, const uint8_t* fields) {
    for (uint32_t i = 0; i < 32 && first + i < n; ++i) out[uint64_t{first + i} * n_groups + g] = fields[i];
    return true;
  });
  return out;
}

}  // namespace gptq::convert
