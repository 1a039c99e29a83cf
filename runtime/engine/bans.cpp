// SPDX-License-Identifier: Apache-2.0
// Banned phrases: tokens that made one go, and others come in their place.
#include <algorithm>

#include "engine/engine.h"

namespace gptq::engine {

bool Engine::banned_at(const Session& session, uint32_t position) const {
  return std::any_of(session.bans, session.bans + session.n_bans, [&](const Session::Ban& ban) { return ban.position == position; });
}

// Leaves of the mask, a constraint's or none yet, what may follow the member's right guesses.
void Engine::take_bans(const Member& member, std::span<uint32_t> mask) const {
  const Session& session = *member.session;
  const uint32_t position = session.n_tokens + member.n_right, n_vocab = model_.spec.n_vocab;
  const std::span<const uint32_t> clean = session.phrases->clean();
  for (size_t i = 0; i < mask.size(); ++i) mask[i] = session.constraint ? mask[i] & clean[i] : clean[i];
  const auto take = [&](size_t token) { mask[token / 32] &= ~(1u << (token % 32)); };
  bool all_begins = false;
  for (const Session::Ban& ban : std::span(session.bans, session.n_bans)) {
    if (ban.position != position) continue;
    if (ban.token != Session::Ban::all_begins) take(static_cast<size_t>(ban.token));
    all_begins |= ban.token == Session::Ban::all_begins;
  }
  if (!all_begins) return;
  const auto place = session.text.phrase_place({session.tokens + session.n_tokens, member.n_right}, session.n_generated == 0);
  for (uint32_t token = 0; token < n_vocab; ++token) {
    if (!(mask[token / 32] >> (token % 32) & 1)) continue;
    text::Phrases::Place after = place;
    const bool hit = session.phrases->read(after, session.text.bytes_of(static_cast<int32_t>(token), position == session.first_generated)).size;
    if (hit || after.open()) take(token);
  }
}

// The last n tokens end with a phrase: the first of them may not come again there, and the next is sampled in its place. Where many were
// tried, none may that begins a phrase; where none is left then, the generation ends as with a constraint that nothing fulfils.
void Engine::take_back(Session& session, uint32_t n) {
  const uint32_t position = session.n_tokens - n;
  const Session::Ban ban{position, session.tokens[position]};
  session.n_tokens = position;
  session.n_generated -= n;
  session.text.go_back(session.generated());
  // What stands behind a position that is gone back to follows from other tokens; what stands before all that can still go stays.
  const uint32_t first = position - session.text.tokens_held();
  const auto last = std::remove_if(session.bans, session.bans + session.n_bans,
                                  [&](const Session::Ban& b) { return b.position > position || b.position < first; });
  session.n_bans = static_cast<uint32_t>(last - session.bans);
  uint32_t here = 0;
  for (uint32_t i = session.n_bans; i-- > 0 && session.bans[i].position == position;) ++here;
  if (here == Session::bans_each_max) session.n_bans -= here;
  if (session.n_bans == Session::bans_max) return end(session, GPTQ_STOP_ERROR, GPTQ_E_TEXT);
  session.bans[session.n_bans++] = here == Session::bans_each_max ? Session::Ban{position, Session::Ban::all_begins} : ban;
  rewind(session, position - 1);
  constrain(session);
}

}  // namespace gptq::engine
