// SPDX-License-Identifier: Apache-2.0
// Guesses that a constraint gives.
#include "engine/engine.h"

namespace gptq::engine {

// What the constraint leaves little choice about, in the longest tokens that say it: mostly those that models have learned to say it in.
uint32_t Engine::foresee(const Session& session, std::span<int32_t> out) const {
  constexpr size_t looked_at = 512;
  char text[looked_at], next[64];
  if (out.empty()) return 0;
  size_t begin = looked_at;
  for (uint32_t i = session.n_generated; i-- > 0;) {
    const std::string_view bytes = session.text.bytes_of(session.generated()[i], i == 0);
    if (bytes.size() > begin) break;
    begin -= bytes.size();
    bytes.copy(text + begin, bytes.size());
  }
  text::constraint::Constraint::Spaces spaces;
  spaces.learn({text + begin, looked_at - begin});
  std::string_view rest(next, session.constraint->foresee(session.constraint_state, begin < looked_at ? text[looked_at - 1] : 0, spaces, next));
  uint32_t n = 0;
  for (size_t bytes = 0; !rest.empty() && n < out.size(); rest.remove_prefix(bytes)) {
    const uint32_t token = session.constraint->tokens().longest(rest, bytes);
    if (token == text::constraint::TokenTrie::kNone) break;
    out[n++] = static_cast<int32_t>(token);
  }
  return n;
}

}  // namespace gptq::engine
