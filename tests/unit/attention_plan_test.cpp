// SPDX-License-Identifier: Apache-2.0
// Attention's work, however it is cut: every row gets every block it sees once, from its own pages, and no two partials share a place.
#include "device/cpu/attention_plan.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

#include "kernels/kv.h"

namespace gptq::device {
namespace {

constexpr uint32_t page = 32, block = kernels::attention_block, blocks_max = 8, floats = 7;

struct Case {
  std::vector<std::vector<uint32_t>> pages;
  std::vector<Sequence> sequences;
  uint32_t n_rows = 0;
};

// Sequences that have a random part of their beginning in common with an earlier one, most of them with one row.
Case random_case(std::mt19937& random) {
  const auto below = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
  Case c;
  const uint32_t n = 1 + below(12);
  uint32_t next_page = 0;
  for (uint32_t i = 0; i < n; ++i) {
    std::vector<uint32_t> pages;
    if (i && below(4)) {
      const std::vector<uint32_t>& other = c.pages[below(2) ? i - 1 : 0];
      pages.assign(other.begin(), other.begin() + below(blocks_max * block / page));
    }
    while (pages.size() < blocks_max * block / page) pages.push_back(next_page++);
    c.pages.push_back(pages);
  }
  for (uint32_t i = 0; i < n; ++i) {
    const uint32_t rows = below(4) ? 1 : 1 + below(60);
    c.sequences.push_back({.first_row = c.n_rows, .n_rows = rows, .first_position = below(blocks_max * block - rows), .pages = c.pages[i].data()});
    c.n_rows += rows;
  }
  return c;
}

struct Room {
  std::vector<AttentionPart> parts;
  std::vector<AttentionMerge> merges;
  std::vector<float> partials;
  AttentionRoom room;
  Room(uint32_t rows, uint64_t n_partials) : parts(n_partials + rows), merges(rows), partials(n_partials * floats), room{parts.data(), merges.data(), partials.data(), n_partials} {}
};

void check(const Case& c, const AttentionSight& sight, uint32_t tasks_wanted, uint64_t n_partials, uint64_t& shared) {
  Room room(c.n_rows, n_partials);
  const AttentionPlan plan = plan_attention(c.sequences, sight, page, 3, tasks_wanted, floats, room.room);
  ASSERT_LE(plan.parts.size(), room.parts.size());
  ASSERT_LE(plan.merges.size(), room.merges.size());
  std::vector<uint32_t> whole(c.n_rows);
  std::map<std::pair<uint32_t, uint32_t>, const float*> partial_of;  // of a row and block
  std::map<const float*, int> places;
  const auto sequence_of = [&](uint32_t row) -> const Sequence& {
    size_t i = 0;
    while (row >= c.sequences[i].first_row + c.sequences[i].n_rows) ++i;
    return c.sequences[i];
  };
  for (const AttentionPart& part : plan.parts) {
    for (uint32_t i = 0; i < part.n_rows; ++i) {
      const uint32_t row = part.first_row + i;
      const Sequence& s = sequence_of(row);
      const uint32_t position = s.first_position + row - s.first_row, seen = kernels::first_seen(position, sight.window, sight.chunk);
      if (!part.all_seen) {
        EXPECT_EQ(part.pages, s.pages);
        EXPECT_EQ(part.first_position + i, position);
      }
      if (!part.partials) {
        ++whole[row];
        continue;
      }
      for (uint32_t b = part.first_block; b < part.last_block; ++b) {
        const float* place = part.partials + (b - part.first_block) * part.block_stride + i * floats;
        EXPECT_TRUE(partial_of.emplace(std::pair{row, b}, place).second) << "block " << b << " of row " << row << " twice";
        EXPECT_EQ(places[place]++, 0);
        EXPECT_GE(place, room.partials.data());
        EXPECT_LE(place + floats, room.partials.data() + room.partials.size());
        if (!part.all_seen) continue;
        ++shared;
        EXPECT_LE(seen, b * block);
        EXPECT_GE(position + 1, (b + 1) * block);
        EXPECT_FALSE(sight.distance_counts);
        for (uint32_t p = b * block / page; p < (b + 1) * block / page; ++p) EXPECT_EQ(part.pages[p], s.pages[p]);
      }
    }
  }
  std::vector<uint32_t> merged(c.n_rows);
  for (const AttentionMerge& merge : plan.merges)
    for (uint32_t i = 0; i < merge.n_rows; ++i) {
      const uint32_t row = merge.first_row + i, position = merge.first_position + i;
      ++merged[row];
      for (uint32_t b = kernels::first_seen(position, sight.window, sight.chunk) / block; b <= position / block; ++b) {
        const auto found = partial_of.find({row, b});
        ASSERT_NE(found, partial_of.end()) << "block " << b << " of row " << row;
        EXPECT_EQ(found->second, merge.partials + (b - merge.first_block) * merge.block_stride + i * floats);
      }
    }
  for (uint32_t row = 0; row < c.n_rows; ++row) EXPECT_EQ(whole[row] + merged[row], 1u) << row;
}

TEST(AttentionPlan, CoversWhatEveryRowSeesOnce) {
  std::mt19937 random(5);
  uint64_t shared = 0;
  for (int i = 0; i < 2000; ++i) {
    const Case c = random_case(random);
    const AttentionSight sight{random() % 3 ? 0 : 1 + static_cast<uint32_t>(random() % 900), random() % 4 ? 0 : 300u, random() % 5 == 0};
    check(c, sight, random() % 3 ? 8 : 0, random() % 3 ? 4096 : random() % 40, shared);
    if (HasFailure()) FAIL() << "case " << i;
  }
  EXPECT_GT(shared, 1000u);
}

}  // namespace
}  // namespace gptq::device
