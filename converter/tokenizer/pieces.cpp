// SPDX-License-Identifier: Apache-2.0
// SentencePiece merges whatever two pieces make a piece, the best score first: written out here as a list of merges.
#include "converter/tokenizer/pieces.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <unordered_map>

#include "base/failure.h"
#include "text/utf8.h"

namespace gptq::convert {
namespace {

constexpr size_t merged_bytes_max = 512;  // bounds the search for the parts of a piece

struct Candidate {
  text::Merge merge;
  float score;
  size_t left_bytes;
};

bool takes_part(const Piece& piece) { return piece.type == Piece::normal || piece.type == Piece::user_defined || piece.type == Piece::unused; }

bool is_boundary(std::string_view text, size_t at) { return (static_cast<unsigned char>(text[at]) & 0xC0) != 0x80; }

std::vector<text::Merge> find_merges(const std::vector<Piece>& pieces) {
  std::unordered_map<std::string_view, uint32_t> ids;
  for (uint32_t id = 0; id < pieces.size(); ++id)
    if (takes_part(pieces[id])) ids.emplace(pieces[id].text, id);
  std::vector<Candidate> found;
  for (uint32_t id = 0; id < pieces.size(); ++id) {
    const std::string_view text = pieces[id].text;
    if (!takes_part(pieces[id]) || text.size() > merged_bytes_max) continue;
    for (size_t at = 1; at < text.size(); ++at) {
      if (!is_boundary(text, at)) continue;
      const auto left = ids.find(text.substr(0, at)), right = ids.find(text.substr(at));
      if (left == ids.end() || right == ids.end()) continue;
      found.push_back({{left->second, right->second, id}, pieces[id].score, at});
    }
  }
  std::sort(found.begin(), found.end(), [](const Candidate& a, const Candidate& b) {
    if (a.score != b.score) return a.score > b.score;
    return a.merge.result != b.merge.result ? a.merge.result < b.merge.result : a.left_bytes < b.left_bytes;
  });
  std::vector<text::Merge> merges;
  for (const Candidate& candidate : found) merges.push_back(candidate.merge);
  return merges;
}

}  // namespace

std::string without_marks(std::string_view text) {
  constexpr std::string_view mark = "\xE2\x96\x81";
  std::string out;
  while (!text.empty()) {
    const bool is_mark = text.starts_with(mark);
    out.push_back(is_mark ? ' ' : text[0]);
    text.remove_prefix(is_mark ? mark.size() : 1);
  }
  return out;
}

TokenizerDescription::Token token_of_piece(std::string_view text) {
  TokenizerDescription::Token token;
  if (text.size() == 6 && text.starts_with("<0x") && text.ends_with(">")) {
    unsigned value = 0;
    const auto [end, error] = std::from_chars(text.data() + 3, text.data() + 5, value, 16);
    token.byte = error == std::errc() && end == text.data() + 5;
    token.text = static_cast<char>(value);
    if (token.byte) return token;
  }
  token.symbol = text.find(' ') == text.npos;
  token.text = without_marks(text);
  return token;
}

TokenizerDescription from_pieces(const std::vector<Piece>& pieces) {
  TokenizerDescription out;
  out.alphabet = text::fb::Alphabet::characters;
  out.fuse_unk = true;
  for (uint32_t id = 0; id < pieces.size(); ++id) {
    const Piece& piece = pieces[id];
    if (std::isnan(piece.score)) base::fail(GPTQ_E_FORMAT, "tokenizer: token ", id, " has a score that is no number");
    TokenizerDescription::Token token = takes_part(piece) || piece.type == Piece::byte ? token_of_piece(piece.text) : TokenizerDescription::Token{piece.text};
    if (piece.type == Piece::byte && !token.byte) base::fail(GPTQ_E_FORMAT, "tokenizer: token ", id, " \"", piece.text, "\" is no byte");
    token.special = piece.type == Piece::control || piece.type == Piece::unknown;
    out.byte_fallback |= token.byte;
    if (piece.type == Piece::unknown) out.unknown = static_cast<int32_t>(id);
    if ((token.special || piece.type == Piece::user_defined) && !piece.text.empty()) out.added.push_back({id, piece.text});
    out.tokens.push_back(std::move(token));
  }
  out.ids_max += pieces.size();
  out.merges = find_merges(pieces);
  return out;
}

}  // namespace gptq::convert
