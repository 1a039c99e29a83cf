// SPDX-License-Identifier: Apache-2.0
// What constraints are asked: which tokens may come, and which most likely will.
#include <algorithm>
#include <array>

#include "engine/engine.h"

namespace gptq::engine {

// The state of the session's constraint after this generated token.
text::constraint::Constraint::State Engine::constrained(const Session& session, text::constraint::Constraint::State state, int32_t token,
                                                        bool first) const {
  if (is_end_token(token)) return state;
  std::string_view bytes = tokenizer_->token_bytes(token);
  if (first && loses_space(session) && bytes.starts_with(' ')) bytes.remove_prefix(1);
  return session.constraint->step(state, bytes);
}

// The state after the first n tokens behind the input, guesses among them. A constraint that forgot its states while it was led over them
// has place for them alone the second time.
text::constraint::Constraint::State Engine::led(const Session& session, uint32_t n) const {
  auto state = session.constraint->start();
  for (int attempt = 0; attempt < 2; ++attempt) {
    state = session.constraint->start();
    for (uint32_t i = 0; i < n; ++i) state = constrained(session, state, session.tokens[session.first_generated + i], i == 0);
    if (state != text::constraint::Constraint::lost) break;
  }
  return state;
}

bool Engine::constrain(Session& session) const {
  using text::constraint::Constraint;
  if (!session.constraint) return true;
  session.constraint_state = led(session, session.n_generated);
  return session.constraint_state != Constraint::dead && session.constraint_state != Constraint::lost;
}

// The mask of what may follow the member's right guesses.
bool Engine::find_mask(Member& member) {
  using text::constraint::Constraint;
  const Session& session = *member.session;
  const uint32_t n = session.n_generated + member.n_right;
  const std::span<uint32_t> bits{scratch_.mask, session.constraint->mask_words()};
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (session.constraint->mask(member.constraint_state, n == 0 && loses_space(session), bits)) return true;
    member.constraint_state = led(session, n);
    if (member.constraint_state == Constraint::dead || member.constraint_state == Constraint::lost) return false;
  }
  return false;
}

// What the constraint leaves little choice about, in the tokens that the tokenizer makes of it: models have mostly learned to say it so.
uint32_t Engine::foresee(const Session& session, std::span<int32_t> out) const {
  constexpr size_t looked_at = 512, token_bytes = 8, before = 24;
  if (out.empty()) return 0;
  // The end of the text, and behind it what is foreseen.
  char text[looked_at + (Lookup::most + 1) * token_bytes];
  size_t begin = looked_at, joint = looked_at;  // joint: where a token begins, near the end
  for (uint32_t i = session.n_generated; i-- > 0;) {
    const std::string_view bytes = session.text.bytes_of(session.generated()[i], i == 0);
    if (bytes.size() > begin) break;
    begin -= bytes.size();
    bytes.copy(text + begin, bytes.size());
    if (looked_at - begin <= before) joint = begin;
  }
  text::constraint::Constraint::Spaces spaces;
  spaces.learn({text + begin, looked_at - begin});
  const std::span<char> next(text + looked_at, std::min(sizeof text - looked_at, (out.size() + 1) * token_bytes));
  const size_t n_next = session.constraint->foresee(session.constraint_state, begin < looked_at ? text[looked_at - 1] : '\0', spaces, next);
  if (!n_next) return 0;
  alignas(16) std::array<std::byte, 12288> room;
  std::pmr::monotonic_buffer_resource memory(room.data(), room.size(), std::pmr::null_memory_resource());
  std::pmr::vector<int32_t> ids(&memory);
  try {
    ids.reserve(looked_at);
    tokenizer_->encode({text + joint, looked_at + n_next - joint}, {}, ids);
  } catch (const std::bad_alloc&) {
    return 0;  // a tokenizer that needs more
  }
  // Those behind the text's end, if one begins there. Some tokenizers put a space in front.
  size_t at = joint;
  uint32_t n = 0;
  for (size_t i = 0; i < ids.size() && n < out.size(); ++i) {
    if (at >= looked_at) out[n++] = ids[i];
    const std::string_view bytes = tokenizer_->token_bytes(ids[i]);
    at += bytes.size() - (i == 0 && bytes.starts_with(' ') && text[joint] != ' ');
    if (!n && at > looked_at) return 0;
  }
  return n;
}

}  // namespace gptq::engine
