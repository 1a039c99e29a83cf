// SPDX-License-Identifier: Apache-2.0
// A conversation that is longer than the context, shortened at the borders of its turns.
#include "api/fit_chat.h"

#include <algorithm>

namespace gptq::api {
namespace {

using Tokens = std::pmr::vector<int32_t>;
using Messages = std::pmr::vector<text::ChatMessage>;

size_t common(std::span<const int32_t> a, std::span<const int32_t> b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

class Shortened {
 public:
  Shortened(const gptq_model& m, const Chat& chat) : m_(m), chat_(chat), borders_(&m.runtime.memory) {
    const Messages& all = chat.messages;
    while (lead_ < all.size() && (all[lead_].role == "system" || all[lead_].role == "developer")) ++lead_;
    borders_.push_back(lead_);
    for (size_t i = lead_ + 1; i < all.size(); ++i)
      if (all[i].role == "user" && all[i - 1].role != "user") borders_.push_back(i);
  }
  // How many turns may go: all but the last.
  size_t most() const { return borders_.size() - 1; }
  uint32_t n_messages(size_t turns) const { return static_cast<uint32_t>(borders_[turns] - lead_); }
  // Without its oldest turns, up to the message `end`.
  Tokens encode(size_t turns, size_t end) const {
    Messages kept(chat_.messages.begin(), chat_.messages.begin() + static_cast<ptrdiff_t>(lead_), &m_.runtime.memory);
    kept.insert(kept.end(), chat_.messages.begin() + static_cast<ptrdiff_t>(borders_[turns]), chat_.messages.begin() + static_cast<ptrdiff_t>(end));
    return encode_chat(m_, chat_, kept);
  }
  Tokens encode(size_t turns) const { return encode(turns, chat_.messages.size()); }
  // Of the turns from `least` on without which the tokens may be, those that `before` was without; alike beginnings are told apart by what follows.
  size_t nearest(size_t least, std::span<const int32_t> before) const {
    size_t best = least, agreed = 0;
    for (size_t i = least; i <= most(); ++i) {
      const size_t n = common(encode(i, borders_[i] + 1), before);
      if (n < agreed || (n == agreed && common(encode(i), before) <= common(encode(best), before))) continue;
      best = i;
      agreed = n;
    }
    return best;
  }
  // The fewest turns, from `first` on, without which the tokens are at most so many; most() where they are not.
  size_t fewest(size_t first, size_t n_tokens) const {
    size_t last = most();
    while (first < last) {
      const size_t middle = (first + last) / 2;
      if (encode(middle).size() <= n_tokens) last = middle;
      else first = middle + 1;
    }
    return last;
  }

 private:
  const gptq_model& m_;
  const Chat& chat_;
  size_t lead_ = 0;                  // messages that always stay
  std::pmr::vector<size_t> borders_;  // where turns begin
};

}  // namespace

FittedChat fit_chat(const gptq_model& m, const gptq_chat* given, std::span<const int32_t> before, uint32_t ctx_tokens) {
  const Chat chat(m, given);
  Tokens whole = encode_chat(m, chat, chat.messages);
  if (!(chat.params.flags & GPTQ_CHAT_DROP_OLDEST)) return {std::move(whole), 0};
  const uint32_t reserve = chat.params.reserve_tokens ? chat.params.reserve_tokens : ctx_tokens / 4;
  if (reserve >= ctx_tokens) base::fail(GPTQ_E_INVALID_ARGUMENT, "reserve_tokens = ", reserve, " leaves nothing of a context of ", ctx_tokens);
  const uint32_t most = ctx_tokens - reserve, target = chat.params.keep_tokens ? std::min(chat.params.keep_tokens, most) : most / 2;
  if (whole.size() <= most) return {std::move(whole), 0};
  const Shortened shortened(m, chat);
  const size_t least = shortened.fewest(0, most);
  // It stays where it stood last time if more agrees than the system messages, which all have.
  size_t turns = shortened.nearest(least, before);
  Tokens tokens = shortened.encode(turns);
  if (common(tokens, before) <= common(shortened.encode(least), shortened.encode(shortened.most()))) {
    turns = shortened.fewest(least, target);
    tokens = shortened.encode(turns);
  }
  if (tokens.size() > most)
    base::fail(GPTQ_E_CONTEXT_FULL, "the system messages and the last turn are ", tokens.size(), " tokens, beside ", reserve,
               " for the reply more than the context of ", ctx_tokens, "; raise ctx_tokens or lower reserve_tokens");
  return {std::move(tokens), shortened.n_messages(turns)};
}

}  // namespace gptq::api
