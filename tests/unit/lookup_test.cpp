// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "engine/costs.h"
#include "engine/lookup.h"
#include "tests/seed.h"

namespace gptq::engine {
namespace {

using Ids = std::vector<int32_t>;

TEST(Lookup, FindsTheLongestThenLatestCopy) {
  EXPECT_EQ(Lookup::find(Ids{}).at, 0u);
  EXPECT_EQ(Lookup::find(Ids{1}).at, 0u);
  EXPECT_EQ(Lookup::find(Ids{1, 2, 3}).at, 0u);
  EXPECT_EQ(Lookup::find(Ids{1, 2, 3, 2}).at, 0u);                    // one token is no copy
  EXPECT_EQ(Lookup::find(Ids{1, 2, 3, 1, 2}).at, 2u);
  EXPECT_EQ(Lookup::find(Ids{1, 2, 3, 1, 2, 4, 1, 2}).at, 5u);        // the latest
  EXPECT_EQ(Lookup::find(Ids{0, 1, 2, 3, 1, 2, 4, 0, 1, 2}).at, 3u);  // the longest
  EXPECT_EQ(Lookup::find(Ids{7, 7, 7}).at, 2u);
}

// Against all pairs of places looked at one by one.
TEST(Lookup, AsWrittenOut) {
  std::mt19937 random(test::seed(51));
  uint32_t found = 0, trusted = 0;
  for (int round = 0; round < 3000; ++round) {
    Ids ids(random() % 80);
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % 3);
    if (round % 3 == 0 && ids.size() > 40) std::copy_n(ids.begin(), 20, ids.end() - 20);
    size_t best = 1, at = 0;
    for (size_t end = 1; end < ids.size(); ++end) {
      size_t n = 0;
      while (n < 16 && n < end && ids[end - 1 - n] == ids[ids.size() - 1 - n]) ++n;
      if (n >= best && n >= 2) best = n, at = end;
    }
    const Lookup::Place place = Lookup::find(ids);
    ASSERT_EQ(place.at, at);
    if (!at) continue;
    ASSERT_EQ(place.trust(), best >= 8 ? 2u : best >= 4 ? 1u : 0u);
    ASSERT_EQ(place.length, best);
    ++found;
    trusted += place.trust() == 2;
  }
  EXPECT_GT(found, 2000u);
  EXPECT_GT(trusted, 100u);
}

TEST(Lookup, FindsTheNextCopyInAnotherText) {
  const Ids text{1, 2, 3, 4, 1, 2, 5, 9, 1, 2};
  const auto find = [&](const Ids& sequence, uint32_t from) { return Lookup::find(sequence, text, from); };
  EXPECT_EQ(find({1, 2}, 0).at, 2u);
  EXPECT_EQ(find({1, 2}, 2).at, 2u);  // behind where the last one stood, or there
  EXPECT_EQ(find({1, 2}, 3).at, 6u);
  EXPECT_EQ(find({1, 2}, 7).at, 2u);  // round; what ends the text is followed by nothing
  EXPECT_EQ(find({4, 1, 2}, 0).at, 6u);  // the longest
  EXPECT_EQ(find({4, 1, 2}, 0).length, 3u);
  EXPECT_EQ(find({9, 2}, 0).length, 0u);
  EXPECT_EQ(find({}, 0).length, 0u);
  EXPECT_EQ(Lookup::find(Ids{1, 2}, Ids{}, 0).length, 0u);
  EXPECT_EQ(Lookup::find(Ids{1, 2}, Ids{1, 2}, 0).length, 0u);
}

// What batches were never computed is told from what is known of others.
TEST(Costs, PredictsRows) {
  Costs costs;
  EXPECT_EQ(costs.predict(4, 1), 0);
  costs.note(1, 100);
  EXPECT_EQ(costs.predict(1, 1), 100);
  EXPECT_NEAR(costs.predict(4, 1), 100 + 3 * 35, 1e-9);
  costs.note(64, 150);  // it cannot be more than that
  EXPECT_EQ(costs.predict(8, 1), 150);
  costs.note(2, 110);
  EXPECT_NEAR(costs.predict(4, 1), 130, 1e-9);
  EXPECT_EQ(costs.predict(3, 1), 110);
  costs.note(4, 105);
  EXPECT_NEAR(costs.predict(8, 1), 100 + 7 * 5 / 3.0, 1e-9);
  for (int i = 0; i < 9; ++i) costs.note(1, 1000);  // something else ran just then
  EXPECT_EQ(costs.predict(1, 1), 105);
}

// One bad measurement of more rows does not rule them out for ever.
TEST(Costs, ForgetsWhatWasMeasuredBadly) {
  Costs costs;
  costs.note(1, 100);
  costs.note(4, 150);
  costs.note(8, 20000);
  EXPECT_EQ(costs.rows_within(1000, 64), 4u);
  for (int i = 0; i < 100; ++i) costs.note(1, 100);
  EXPECT_EQ(costs.rows_within(1000, 64), 8u);
  EXPECT_EQ(costs.estimate(4), 150);  // which is less than four times one row
  costs.note(1, 20000);
  EXPECT_EQ(costs.estimate(1), 125);
}

TEST(Lookup, TriesWhatPays) {
  const auto third = [](uint32_t n) { return 1 + n / 3.0; };
  Lookup lookup;
  EXPECT_GT(lookup.worth(2, 15, third), 1u);
  EXPECT_EQ(lookup.worth(2, 15, [](uint32_t n) { return 1.0 + n; }), 0u);  // each costs as much as a token
  EXPECT_EQ(lookup.worth(2, 0, third), 0u);
  for (int i = 0; i < 60; ++i) lookup.learn(2, 15, 15);
  EXPECT_EQ(lookup.worth(2, 15, third), 15u);
  EXPECT_EQ(lookup.worth(2, 4, third), 4u);
}

// Where guesses are wrong it costs next to nothing: one in 64; and it comes back where they are right again.
TEST(Lookup, SwitchesItselfOffAndOn) {
  const auto third = [](uint32_t n) { return 1 + n / 3.0; };
  Lookup lookup;
  uint32_t tried = 0;
  for (int i = 0; i < 6400; ++i) {
    const uint32_t n = lookup.worth(1, 15, third);
    if (n) lookup.learn(1, n, 0);
    tried += n;
  }
  EXPECT_LE(tried, 110u);
  EXPECT_GE(tried, 90u);
  tried = 0;
  for (int i = 0; i < 3000; ++i) {
    const uint32_t n = lookup.worth(1, 15, third);
    if (n) lookup.learn(1, n, n);
    tried += n;
  }
  EXPECT_GT(tried, 20000u);
}

}  // namespace
}  // namespace gptq::engine
