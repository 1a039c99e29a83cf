// SPDX-License-Identifier: Apache-2.0
// What short pieces became before, within one call: small enough to stay near the core, where the whole vocabulary does not.
#pragma once
#include <cstdint>
#include <cstring>
#include <memory_resource>
#include <span>
#include <string_view>
#include <vector>

namespace gptq::text {

class PieceCache {
 public:
  static constexpr size_t piece_bytes_max = 16, ids_max = 3;

  // Without entries it finds and keeps nothing: worth its memory for long texts alone.
  PieceCache(bool used, std::pmr::memory_resource* memory) : entries_(used ? n_entries : 0, memory) {}

  // The ids of the piece; none where it is not here.
  std::span<const int32_t> find(std::string_view piece) const {
    if (entries_.empty() || piece.size() > piece_bytes_max) return {};
    const Key key = key_of(piece);
    const Entry& entry = entries_[index(key)];
    return entry.key == key ? std::span(entry.ids, entry.n_ids) : std::span<const int32_t>();
  }
  void keep(std::string_view piece, std::span<const int32_t> ids) {
    if (entries_.empty() || piece.size() > piece_bytes_max || ids.size() > ids_max) return;
    const Key key = key_of(piece);
    Entry& entry = entries_[index(key)];
    entry = {key, static_cast<uint8_t>(ids.size()), {}};
    std::memcpy(entry.ids, ids.data(), ids.size_bytes());
  }

 private:
  static constexpr size_t n_entries = 4096;
  struct Key {
    uint64_t first = 0, last = 0;  // overlapping where the piece has less than 16 bytes
    uint32_t bytes = 0;
    bool operator==(const Key&) const = default;
  };
  struct Entry {
    Key key;
    uint32_t n_ids = 0;
    int32_t ids[ids_max] = {};
  };

  static Key key_of(std::string_view piece) {
    Key key{0, 0, static_cast<uint32_t>(piece.size())};
    const size_t n = piece.size() < 8 ? piece.size() : 8;
    std::memcpy(&key.first, piece.data(), n);
    std::memcpy(&key.last, piece.data() + piece.size() - n, n);
    return key;
  }
  static size_t index(const Key& key) {
    const uint64_t mixed = (key.first * 0x9E3779B97F4A7C15u) ^ (key.last * 0xD6E8FEB86659FD93u) ^ key.bytes * 0xA24BAED4963EE407u;
    return static_cast<size_t>(mixed >> 40) % n_entries;
  }

  std::pmr::vector<Entry> entries_;
};

}  // namespace gptq::text
