// SPDX-License-Identifier: Apache-2.0
// Banned phrases: what goes back, what comes instead, and that nobody ever reads one.
#include <algorithm>
#include <cstring>

#include "tests/api/fixture.h"

namespace gptq::test {
namespace {

struct Phrase {
  size_t end = std::string::npos, size = 0;
};
// The phrase that ends first in a text of ASCII.
Phrase phrase_in(std::string text, const std::vector<std::string>& phrases) {
  std::transform(text.begin(), text.end(), text.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  Phrase first;
  for (const std::string& phrase : phrases)
    if (const size_t at = text.find(phrase); at != std::string::npos)
      if (const size_t end = at + phrase.size(); end < first.end || (end == first.end && phrase.size() < first.size)) first = {end, phrase.size()};
  return first;
}

std::string json_of(const std::vector<std::string>& phrases) {
  std::string json = "[";
  for (const std::string& phrase : phrases) json += (json.size() > 1 ? ", \"" : "\"") + phrase + "\"";
  return json + "]";
}

// Of letters that the model says: some of one token, some of several, some within tokens.
std::vector<std::string> common_phrases() { return {"th", "a", "ee", "oh ", " s", "x", "i", "re", "un", "ur"}; }

gptq_sampling warm(float temperature, uint64_t seed) {
  auto sampling = make<gptq_sampling>();
  sampling.temperature = temperature;
  sampling.top_p = 0.98f;
  sampling.seed = seed;
  return sampling;
}

class Banned : public testing::Test {
 protected:
  gptq_generate_params way(const gptq_sampling& sampling, const Constraint* banned, uint32_t flags = GPTQ_GEN_IGNORE_EOS, uint32_t n = 90) const {
    auto how = generation(n, flags);
    how.sampling = &sampling;
    how.banned = banned ? banned->get() : nullptr;
    return how;
  }
  static void begin(Session& session, const gptq_generate_params& how) {
    session.truncate(0);
    session.append("the sea", GPTQ_TEXT_ADD_BOS);
    session.start(how);
  }
  std::string piece(gptq_token token) const {
    const char* bytes = nullptr;
    size_t size = 0;
    uint32_t attributes = 0;
    check(gptq_token_bytes(c.model.get(), token, &bytes, &size, &attributes));
    return attributes & GPTQ_TOKEN_SPECIAL ? "" : std::string(bytes, size);
  }
  // As the model's text begins: without a space.
  std::string text_of(const Tokens& tokens) const {
    std::string text;
    for (const gptq_token token : tokens) text += piece(token);
    return !tokens.empty() && piece(tokens[0]).starts_with(' ') ? text.substr(1) : text;
  }
  Chain c{text_model(), engine_of(0, 6), with_threads(2)};
};

// The rule written out: after each token the text is searched as a whole. Of three letters alone, so that phrases come often and overlap.
TEST_F(Banned, TheBestThatLeadsToNone) {
  const Constraint letters(c.model, GPTQ_CONSTRAINT_REGEX, "[abc]{60,}");
  const auto greedy = warm(0, 0);
  const auto allowed = [&](gptq_token token, bool first) {
    std::string text = piece(token);
    if (first && text.starts_with(' ')) text.erase(0, 1);
    return !piece(token).empty() && text.find_first_not_of("abc") == std::string::npos;
  };
  int taken_back = 0, within = 0, settled_first = 0, ends = 0;
  const uint32_t seeds = cases_here(60, 12);
  for (uint32_t seed = 1; seed <= seeds; ++seed) {
    const Tokens prompt = some_tokens(6, seed);
    std::vector<std::string> phrases;
    for (uint32_t i = 0, x = seed * 2654435761u; i < 2 + seed % 5; ++i) {
      phrases.emplace_back();
      for (uint32_t n = 2 + (x >> 28) % 4; n; --n, x = x * 1664525u + 1013904223u) phrases.back() += "abc"[(x >> 20) % 3];
    }
    const Constraint banned(c.model, GPTQ_CONSTRAINT_BANNED, json_of(phrases));
    Tokens said;
    size_t settled = 0;  // so many tokens could have been read
    std::vector<std::pair<size_t, gptq_token>> bans;
    gptq_token token = 0;
    while (said.size() < 25) {
      Tokens all = prompt;
      all.insert(all.end(), said.begin(), said.end());
      Session judge(c.engine);
      const std::vector<float> logits = all_logits(c.model, c.engine, judge, all);
      const float* last = logits.data() + (all.size() - 1) * 512;
      const auto best = [&](bool only_clean) {
        gptq_token best = -1;
        for (gptq_token token = 0; token < 512; ++token) {
          if (!allowed(token, said.empty())) continue;
          if (only_clean && (phrase_in(piece(token), phrases).size || std::count(bans.begin(), bans.end(), std::pair(said.size(), token)))) continue;
          if (best < 0 || last[token] > last[best]) best = token;
        }
        return best;
      };
      const bool again = std::any_of(bans.begin(), bans.end(), [&](const auto& ban) { return ban.first == said.size(); });
      token = best(again);
      if (token >= 0 && phrase_in(piece(token), phrases).size) token = best(true), ++within;
      if (token < 0) break;
      said.push_back(token);
      const std::string text = text_of(said);
      const auto bytes_of = [&](size_t n) { return text_of({said.begin(), said.begin() + static_cast<std::ptrdiff_t>(n)}).size(); };
      if (const Phrase found = phrase_in(text, phrases); found.size) {
        size_t first = 0;  // its first token
        while (bytes_of(first + 1) <= found.end - found.size) ++first;
        settled_first += first < settled;
        first = std::max(first, settled);
        std::erase_if(bans, [&](const auto& ban) { return ban.first > first; });
        bans.emplace_back(first, said[first]);
        said.resize(first);
        ++taken_back;
      } else {
        size_t open = 0;
        for (const std::string& phrase : phrases)
          for (size_t n = 1; n < phrase.size(); ++n)
            if (text.ends_with(phrase.substr(0, n))) open = std::max(open, n);
        size_t first = said.size();
        while (text.size() - bytes_of(first) < open) --first;
        settled = std::max(settled, first);
      }
    }
    ends += token < 0;
    c.session.truncate(0);
    c.session.append(prompt);
    auto how = way(greedy, &banned, 0, 25);
    how.constraint = letters.get();
    c.session.start(how);
    finish(c.engine);
    EXPECT_EQ(c.session.read_tokens(), said) << seed;
    EXPECT_EQ(c.session.info().status, token < 0 ? GPTQ_E_TEXT : GPTQ_OK) << seed;
  }
  if (seeds < 60) return;
  EXPECT_GT(taken_back, 100);
  EXPECT_GT(within, 3);
  EXPECT_GT(settled_first, 3);
  EXPECT_GT(ends, 0);
}

// Read after every step; what was read is never taken back.
TEST_F(Banned, NeverRead) {
  const auto phrases = common_phrases();
  const Constraint banned(c.model, GPTQ_CONSTRAINT_BANNED, json_of(phrases));
  int without = 0;
  for (uint64_t seed = 0; seed < 30; ++seed) {
    const auto sampling = warm(seed % 5 ? 1.2f : 0, seed);
    begin(c.session, way(sampling, nullptr));
    finish(c.engine);
    without += phrase_in(c.session.read(), phrases).size > 0;
    begin(c.session, way(sampling, &banned));
    std::string text;
    Tokens tokens;
    bool more = true;
    while (more) {
      more = c.engine.step(seed % 2 ? 1 : GPTQ_BUDGET_UNLIMITED, nullptr) == GPTQ_MORE;
      const Tokens news = c.session.read_tokens();
      tokens.insert(tokens.end(), news.begin(), news.end());
      text += c.session.read();
      ASSERT_EQ(phrase_in(text, phrases).size, 0u) << text;
    }
    const gptq_session_info info = c.session.info();
    EXPECT_EQ(info.stop_reason, GPTQ_STOP_LENGTH);
    EXPECT_EQ(tokens.size(), 90u);
    Tokens all(info.n_tokens);
    size_t n = 0;
    check(gptq_session_tokens(c.session.get(), all.data(), all.size(), &n));
    EXPECT_TRUE(std::equal(tokens.rbegin(), tokens.rend(), all.rbegin()));
    EXPECT_EQ(phrase_in(text_of(tokens), phrases).size, 0u);
  }
  EXPECT_GT(without, 25);
}

// Speculation, small budgets, forks and saves at any place, also while text is held back: the same text.
TEST_F(Banned, GoesOnTheSame) {
  const Constraint banned(c.model, GPTQ_CONSTRAINT_BANNED, json_of(common_phrases()));
  const Constraint lines(c.model, GPTQ_CONSTRAINT_REGEX, "([a-z]{2,9} ){3,12}[a-z]{4}");
  Chain other(text_model(), engine_of(0, 2));
  for (uint64_t seed = 0; seed < 8; ++seed) {
    const auto sampling = warm(1, seed);
    auto how = way(sampling, &banned, seed % 4 < 2 ? GPTQ_GEN_IGNORE_EOS : 0);
    if (seed % 4 >= 2) how.constraint = lines.get();
    begin(c.session, how);
    finish(c.engine);
    const std::string expected = c.session.read();
    const Tokens tokens = c.session.read_tokens();
    const gptq_session_info end = c.session.info();
    if (seed % 2) how.flags |= GPTQ_GEN_SPECULATE;
    for (int steps = 0; steps < 420; steps += 23) {
      Session session(c.engine);
      begin(session, how);
      std::string text, forked;
      for (int i = 0; i < steps; ++i) {
        c.engine.step(1, nullptr);
        text += session.read();
      }
      forked = text;
      Session fork = session.fork();
      for (const int32_t kind : {GPTQ_SAVE_REPLAY, GPTQ_SAVE_FULL}) {
        Session restored(other.engine, session.save(kind));
        finish(other.engine, 20);
        EXPECT_EQ(text + restored.read(), expected) << seed << " " << steps;
      }
      finish(c.engine, 3);
      EXPECT_EQ(text + session.read(), expected) << seed << " " << steps;
      EXPECT_EQ(forked + fork.read(), expected) << seed << " " << steps;
      EXPECT_EQ(session.read_tokens(), tokens);
      // What is over can be cut and saved too.
      fork.truncate(static_cast<uint32_t>(8 + steps % 20));
      const Session again(c.engine, fork.save());
      EXPECT_EQ(again.info().n_tokens, fork.info().n_tokens);
      EXPECT_EQ(session.info().stop_reason, end.stop_reason);
      EXPECT_EQ(session.info().n_generated, end.n_generated);
    }
  }
}

// No two letters in a row: whatever letter comes first, too many may follow for them to be tried one by one.
TEST_F(Banned, ManyAtOnePlace) {
  std::vector<std::string> pairs;
  const std::string letters = "abcdefghijklmnopqrstuvwxyz";
  for (const char first : letters)
    for (const char second : letters) pairs.push_back({first, second});
  const Constraint banned(c.model, GPTQ_CONSTRAINT_BANNED, json_of(pairs));
  for (uint64_t seed = 0; seed < 6; ++seed) {
    const auto sampling = warm(seed ? 1.0f : 0, seed);
    begin(c.session, way(sampling, &banned, GPTQ_GEN_IGNORE_EOS, 60));
    finish(c.engine);
    EXPECT_EQ(phrase_in(c.session.read(), pairs).size, 0u);
    EXPECT_EQ(c.session.info().stop_reason, GPTQ_STOP_LENGTH);
    // The same without a sea of other tokens: letters alone may come.
    const Constraint words(c.model, GPTQ_CONSTRAINT_REGEX, "[a-z]{3}");
    auto how = way(sampling, &banned, 0, 60);
    how.constraint = words.get();
    begin(c.session, how);
    finish(c.engine);
    EXPECT_EQ(phrase_in(c.session.read(), pairs).size, 0u);
    EXPECT_EQ(c.session.info().stop_reason, GPTQ_STOP_ERROR);
    EXPECT_EQ(c.session.info().status, GPTQ_E_TEXT);
  }
}

TEST_F(Banned, AConstraintGoesAnotherWayOrEnds) {
  const Constraint banned(c.model, GPTQ_CONSTRAINT_BANNED, R"(["The Word", "yes"])");
  const Constraint both(c.model, GPTQ_CONSTRAINT_CHOICE, R"(["the word", "go on", "yes", "YES!"])");
  const Constraint one(c.model, GPTQ_CONSTRAINT_CHOICE, R"(["say the word!"])");
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const auto sampling = warm(2, seed);
    auto how = way(sampling, &banned, 0);
    how.constraint = both.get();
    begin(c.session, how);
    finish(c.engine);
    EXPECT_EQ(c.session.read(), "go on");
    EXPECT_EQ(c.session.info().status, GPTQ_OK);
    how.constraint = one.get();
    begin(c.session, how);
    finish(c.engine);
    const std::string said = c.session.read();
    EXPECT_TRUE(std::string("say the ").starts_with(said)) << said;
    EXPECT_EQ(c.session.info().status, GPTQ_E_TEXT);
  }
}

// What ends first counts; at the same place, the phrase.
TEST_F(Banned, BesideStopStrings) {
  const auto phrases = common_phrases();
  const Constraint banned(c.model, GPTQ_CONSTRAINT_BANNED, json_of(phrases));
  int stopped = 0;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const auto sampling = warm(1.2f, seed);
    const gptq_string stops[] = {{"e", 1}, {"th", 2}, {"hro", 3}};
    auto how = way(sampling, &banned, GPTQ_GEN_IGNORE_EOS | (seed % 2 ? GPTQ_GEN_KEEP_STOP : 0));
    how.stop = stops, how.n_stop = 3;
    begin(c.session, how);
    finish(c.engine);
    const std::string text = c.session.read();
    EXPECT_EQ(phrase_in(text, phrases).size, 0u) << text;
    if (c.session.info().stop_reason != GPTQ_STOP_STRING) continue;
    ++stopped;
    EXPECT_NE(c.session.info().stop_index, 1u);
    if (seed % 2) EXPECT_TRUE(text.ends_with(c.session.info().stop_index ? "hro" : "e")) << text;
    else EXPECT_EQ(text.find('e'), std::string::npos) << text;
  }
  EXPECT_GT(stopped, 20);
}

TEST_F(Banned, MisuseIsRefused) {
  const Constraint banned(c.model, GPTQ_CONSTRAINT_BANNED, R"(["x"])"), rules(c.model, GPTQ_CONSTRAINT_REGEX, "a+");
  const auto sampling = warm(1, 1);
  c.session.append("the sea", GPTQ_TEXT_ADD_BOS);
  const auto refuse = [&](const gptq_generate_params& how) { EXPECT_EQ(gptq_session_start(c.session.get(), &how, nullptr), GPTQ_E_INVALID_ARGUMENT); };
  refuse(way(sampling, &rules));
  refuse(way(sampling, &banned, GPTQ_GEN_LOGITS));
  auto how = way(sampling, nullptr, 0);
  how.constraint = banned.get();
  refuse(how);
  Chain other(text_model());
  other.session.append("the sea", GPTQ_TEXT_ADD_BOS);
  how = way(sampling, &banned);
  EXPECT_EQ(gptq_session_start(other.session.get(), &how, nullptr), GPTQ_E_INVALID_ARGUMENT);
}

TEST(NoAllocation, WhileBanned) {
  Host host;
  Chain c(text_model(), engine_of(0, 2), host.desc(2));
  const Constraint banned(c.model, GPTQ_CONSTRAINT_BANNED, json_of(common_phrases()));
  const auto sampling = warm(1, 3);
  auto how = generation(80);
  how.sampling = &sampling;
  how.banned = banned.get();
  c.session.append("the sea", GPTQ_TEXT_ADD_BOS);
  const uint64_t host_before = host.calls, heap_before = heap_calls();
  c.session.start(how);
  while (gptq_engine_step(c.engine.get(), 100, nullptr) == GPTQ_MORE) {}
  const uint64_t host_calls = host.calls - host_before, heap = heap_calls() - heap_before;
  EXPECT_EQ(host_calls, 0u);
  EXPECT_EQ(heap, 0u);
  EXPECT_EQ(c.session.info().n_generated, 80u);
}

}  // namespace
}  // namespace gptq::test
