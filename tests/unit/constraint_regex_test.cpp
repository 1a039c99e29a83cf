// SPDX-License-Identifier: Apache-2.0
// The constraint's regex against std::regex, and its masks against trying every token alone.
#include <gtest/gtest.h>

#include <memory_resource>
#include <random>
#include <regex>
#include <string>
#include <vector>

#include "base/failure.h"
#include "text/constraint/regex.h"

namespace {

using gptq::text::constraint::Regex;
using gptq::text::constraint::RegexLimits;
using gptq::text::constraint::TokenTrie;

std::pmr::memory_resource* heap() { return std::pmr::new_delete_resource(); }

uint32_t run(const Regex& regex, std::string_view text, uint32_t state) {
  for (char c : text) state = regex.step(state, static_cast<uint8_t>(c));
  return state;
}

bool matches(const char* pattern, std::string_view text) {
  const Regex regex(pattern, {}, heap());
  return regex.accepting(run(regex, text, regex.start()));
}

uint64_t refused_at(std::string_view pattern, const RegexLimits& limits = {}) {
  try {
    const Regex regex(pattern, limits, heap());
  } catch (const gptq::base::Failure& failure) {
    EXPECT_EQ(failure.detail.status, GPTQ_E_INVALID_ARGUMENT);
    return failure.detail.offset;
  }
  return 9999;
}

TEST(ConstraintRegex, AgreesWithTheStandardLibrary) {
  std::mt19937 random(7);
  for (const char* pattern : {"a*b", "(a|b)*c{2,3}", "a{0}b?", "(?:ab|a)(b|c)+", "[^ab]c*", "(a*)*b", "(a?b){1,}", "a||b",
                              "[a-b]{2}|c", "\\w\\d?", "((a|b)(c|)){2}", "(a{2}|b{0,2})c", ".?b", ""}) {
    const Regex regex(pattern, {}, heap());
    const std::regex standard(pattern);
    for (int i = 0; i < 400; ++i) {
      std::string text;
      for (unsigned n = random() % 8; n; --n) text += "abc1"[random() % 4];
      EXPECT_EQ(regex.accepting(run(regex, text, regex.start())), std::regex_match(text, standard)) << pattern << " " << text;
    }
  }
}

TEST(ConstraintRegex, TakesWholeCharactersOfUtf8) {
  EXPECT_TRUE(matches("\xc3\xa9+", "\xc3\xa9\xc3\xa9"));
  EXPECT_FALSE(matches("\xc3\xa9+", "\xc3\xa9\xa9"));
  EXPECT_TRUE(matches("[^a].", "\xe2\x82\xac\xf0\x9f\x98\x80"));
  EXPECT_FALSE(matches(".", "\xed\xa0\x80"));  // a surrogate
  EXPECT_FALSE(matches(".", "\xc0\x80"));      // too long a form
}

TEST(ConstraintRegex, RefusesWithThePlace) {
  EXPECT_EQ(refused_at("ab)"), 2u);
  EXPECT_EQ(refused_at("(ab"), 3u);
  EXPECT_EQ(refused_at("a**"), 2u);
  EXPECT_EQ(refused_at("a\\q"), 2u);
  EXPECT_EQ(refused_at("(?=a)"), 2u);
  EXPECT_EQ(refused_at("[^\\d\\D]"), 7u);
  EXPECT_NE(refused_at(std::string(60000, '(')), 9999u);
  EXPECT_NE(refused_at("((a{99}){99}){99}"), 9999u);
  EXPECT_NE(refused_at("(a|b)*a(a|b){14}"), 9999u);
}

TEST(ConstraintRegex, MasksEqualTryingEveryToken) {
  std::mt19937 random(3);
  std::vector<std::string> words{"", "a", "a"};
  for (int i = 0; i < 500; ++i) {
    words.emplace_back();
    for (unsigned n = 1 + random() % 5; n; --n) words.back() += "abc1"[random() % 4];
  }
  const std::vector<std::string_view> pieces(words.begin(), words.end());
  const TokenTrie trie(pieces, heap());
  std::vector<uint32_t> bits((pieces.size() + 31) / 32);
  for (const char* pattern : {"a*b", "(a|b)*c{2,3}", "[^1]{1,4}", "abc1|a1+"}) {
    const Regex regex(pattern, {}, heap());
    for (uint32_t state = 0; state < regex.states(); ++state) {
      regex.mask(state, false, trie, bits);
      for (size_t id = 0; id < pieces.size(); ++id) {
        const bool expected = !pieces[id].empty() && run(regex, pieces[id], state) != Regex::kDead;
        EXPECT_EQ((bits[id / 32] >> (id % 32)) & 1u, expected ? 1u : 0u) << pattern << " " << pieces[id];
      }
    }
  }
}

}  // namespace
