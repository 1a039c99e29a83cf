// SPDX-License-Identifier: Apache-2.0
// Reading sentencepiece_model.proto: the few fields of it that matter, by a small protobuf reader.
#include "converter/tokenizer/tokenizer_model.h"

#include <bit>
#include <cstring>

#include "base/failure.h"
#include "converter/tokenizer/pieces.h"

namespace gptq::convert {
namespace {

// The fields of one message, in order.
class Message {
 public:
  explicit Message(std::string_view bytes) : rest_(bytes) {}

  // The next field; false at the end.
  bool next() {
    if (rest_.empty()) return false;
    const uint64_t key = varint();
    number = key >> 3;
    value = 0;
    bytes = {};
    switch (key & 7) {
      case 0: value = varint(); break;
      case 1: bytes = take(8); break;
      case 2: bytes = take(varint()); break;
      case 5: bytes = take(4); break;
      default: damaged();
    }
    return true;
  }
  bool flag() const { return value != 0; }
  int32_t integer() const { return static_cast<int32_t>(static_cast<uint32_t>(value)); }
  float real() const {
    if (bytes.size() != 4) damaged();
    float result;
    std::memcpy(&result, bytes.data(), 4);
    return result;
  }

  uint64_t number = 0, value = 0;
  std::string_view bytes;

 private:
  [[noreturn]] static void damaged() { base::fail(GPTQ_E_FORMAT, "tokenizer.model: not a SentencePiece model, or damaged"); }
  std::string_view take(uint64_t n) {
    if (n > rest_.size()) damaged();
    const std::string_view taken = rest_.substr(0, static_cast<size_t>(n));
    rest_.remove_prefix(taken.size());
    return taken;
  }
  uint64_t varint() {
    uint64_t result = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      result |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return result;
    }
    damaged();
  }

  std::string_view rest_;
};

Piece read_piece(std::string_view bytes) {
  Piece piece;
  for (Message m(bytes); m.next();) {
    if (m.number == 1) piece.text = m.bytes;
    if (m.number == 2) piece.score = m.real();
    if (m.number == 3) piece.type = m.integer();
  }
  if (piece.type < Piece::normal || piece.type > Piece::byte) base::fail(GPTQ_E_UNSUPPORTED, "tokenizer.model: piece type ", piece.type);
  return piece;
}

struct Trainer {
  int model_type = 1, bos = 1, eos = 2, pad = -1, unk = 0;
  bool suffix = false;
};

Trainer read_trainer(std::string_view bytes) {
  Trainer trainer;
  for (Message m(bytes); m.next();) {
    if (m.number == 3) trainer.model_type = m.integer();
    if (m.number == 24) trainer.suffix = m.flag();
    if (m.number == 40) trainer.unk = m.integer();
    if (m.number == 41) trainer.bos = m.integer();
    if (m.number == 42) trainer.eos = m.integer();
    if (m.number == 43) trainer.pad = m.integer();
  }
  return trainer;
}

struct Normalizer {
  std::string_view name;
  bool has_map = false, prefix = true, trim = true, escape = true;
};

Normalizer read_normalizer_spec(std::string_view bytes) {
  Normalizer normalizer;
  for (Message m(bytes); m.next();) {
    if (m.number == 1) normalizer.name = m.bytes;
    if (m.number == 2) normalizer.has_map = !m.bytes.empty();
    if (m.number == 3) normalizer.prefix = m.flag();
    if (m.number == 4) normalizer.trim = m.flag();
    if (m.number == 5) normalizer.escape = m.flag();
  }
  return normalizer;
}

void check(const Trainer& trainer, const Normalizer& normalizer) {
  const auto refuse = [](auto... what) { base::fail(GPTQ_E_UNSUPPORTED, "tokenizer.model: ", what...); };
  constexpr const char* names[] = {"", "Unigram", "BPE", "Word", "Char"};
  if (trainer.model_type != 2) refuse("model type ", trainer.model_type >= 1 && trainer.model_type <= 4 ? names[trainer.model_type] : "?", "; supported is BPE");
  if (trainer.suffix) refuse("white space as suffix");
  if (normalizer.has_map) refuse("normalizer ", normalizer.name, " with a table of characters");
  if (!normalizer.escape) refuse("white space that is not escaped");
}

NamedToken named(const TokenizerDescription& t, int id) {
  if (id < 0 || static_cast<size_t>(id) >= t.tokens.size()) return {};
  return {id, t.tokens[static_cast<size_t>(id)].text};
}

}  // namespace

TokenizerDescription from_tokenizer_model(std::string_view bytes, bool legacy, bool add_prefix_space) {
  using text::fb::Prefix;
  std::vector<Piece> pieces;
  Trainer trainer;
  Normalizer normalizer;
  for (Message m(bytes); m.next();) {
    if (m.number == 1) pieces.push_back(read_piece(m.bytes));
    if (m.number == 2) trainer = read_trainer(m.bytes);
    if (m.number == 3) normalizer = read_normalizer_spec(m.bytes);
    if (pieces.size() > 1u << 20) base::fail(GPTQ_E_UNSUPPORTED, "tokenizer.model: more than 1048576 pieces");
  }
  check(trainer, normalizer);
  TokenizerDescription out = from_pieces(pieces);
  out.trim_spaces = normalizer.trim;
  out.mark_spaces_first = true;
  out.strips_leading_space = normalizer.prefix && add_prefix_space;
  if (out.strips_leading_space) out.prefix = legacy ? Prefix::always : Prefix::first_unless_space;
  out.bos = named(out, trainer.bos);
  out.eos = named(out, trainer.eos);
  out.pad = named(out, trainer.pad);
  out.unk = named(out, trainer.unk);
  if (out.bos.id >= 0) out.before = {static_cast<uint32_t>(out.bos.id)};
  return out;
}

}  // namespace gptq::convert
