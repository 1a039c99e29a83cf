// SPDX-License-Identifier: Apache-2.0
// The tokenizer section of a model file, checked: every id in range, every size within its limit.
#pragma once
#include <memory_resource>
#include <span>
#include <string_view>

#include "base/memory.h"
#include "tokenizer_generated.h"

namespace gptq::text {

struct Merge {
  uint32_t left, right, result;
};

class TokenizerFile {
 public:
  // n_vocab: rows of the model's embedding. Fails with FORMAT.
  TokenizerFile(std::span<const std::byte> blob, uint32_t n_vocab, std::pmr::memory_resource* memory);

  const fb::Tokenizer& facts() const { return *facts_; }
  uint32_t n_tokens() const { return facts_->text_end()->size(); }
  uint32_t n_vocab() const { return n_vocab_; }
  std::string_view text(uint32_t id) const {
    const uint32_t* ends = facts_->text_end()->data();
    const uint32_t begin = id ? ends[id - 1] : 0;
    return {reinterpret_cast<const char*>(facts_->text()->data()) + begin, ends[id] - begin};
  }
  // What the added token at that place of the list is found by.
  std::string_view added_text(uint32_t i) const {
    const uint32_t* ends = facts_->added_text_end()->data();
    const uint32_t begin = i ? ends[i - 1] : 0;
    return {reinterpret_cast<const char*>(facts_->added_text()->data()) + begin, ends[i] - begin};
  }
  uint8_t flags(uint32_t id) const { return facts_->flags()->data()[id]; }
  bool has(uint32_t id, fb::TokenFlag flag) const { return flags(id) & static_cast<uint8_t>(flag); }
  uint32_t n_merges() const { return facts_->merges()->size() / 3; }
  Merge merge(uint32_t rank) const {
    const uint32_t* p = facts_->merges()->data() + 3 * size_t{rank};
    return {p[0], p[1], p[2]};
  }

 private:
  void check_texts() const;
  void check_ids() const;
  void check_added() const;
  void check_enums() const;
  void check_patterns() const;
  void check_id(uint32_t id, std::string_view what) const;

  base::Buffer aligned_;  // a copy where the section is not aligned
  const fb::Tokenizer* facts_ = nullptr;
  uint32_t n_vocab_;
};

}  // namespace gptq::text
