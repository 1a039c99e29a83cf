// SPDX-License-Identifier: Apache-2.0
// What tests of speculation compare: all of a generation that can be seen, beside how much of it was guessed.
#pragma once
#include <algorithm>

#include "tests/api/fixture.h"

namespace gptq::test {

struct Guesses {
  uint32_t tried = 0, right = 0;
};

// Reads all tokens and all text that are unread, and says how the session is.
inline gptq_session_info read_all(gptq_session* s, Tokens& tokens, std::string& text) {
  auto info = make<gptq_session_info>();
  check(gptq_session_info_get(s, &info));
  tokens.resize(info.tokens_unread);
  size_t n = 0;
  check(gptq_session_read_tokens(s, tokens.data(), tokens.size(), &n));
  char buffer[256];
  do {
    check(gptq_session_read(s, buffer, sizeof buffer, &n));
    text.append(buffer, n);
  } while (n);
  return info;
}

// All that can be seen of a generation.
struct Outcome {
  Tokens tokens;
  std::string text;
  int32_t stop_reason = 0, status = 0;
  uint32_t n_tokens = 0;
  bool operator==(const Outcome&) const = default;
};
inline Outcome outcome(const gptq_session* session, Guesses* guesses = nullptr) {
  Outcome out;
  const gptq_session_info info = read_all(const_cast<gptq_session*>(session), out.tokens, out.text);
  out.stop_reason = info.stop_reason, out.status = info.status, out.n_tokens = info.n_tokens;
  if (guesses) guesses->tried += info.n_guessed, guesses->right += info.n_guessed_right;
  return out;
}

// What repeats itself: the tokens twice, and their beginning.
inline Tokens repeated(const Tokens& ids) {
  Tokens all = ids;
  all.insert(all.end(), ids.begin(), ids.end());
  all.insert(all.end(), ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(ids.size() / 2 + 1));
  return all;
}

inline gptq_sampling warm(float temperature, uint64_t seed = 5) {
  auto sampling = make<gptq_sampling>();
  sampling.temperature = temperature;
  sampling.top_p = 0.95f;
  sampling.seed = seed;
  return sampling;
}

}  // namespace gptq::test
