// SPDX-License-Identifier: Apache-2.0
// How attention's work on a batch is cut: into rows of a sequence with all that they see, or into blocks of positions that leave partials,
// which are merged afterwards: where there are too few rows for all threads, and where several sequences see the same pages, whose blocks
// are read once for all of them. The result is the same either way.
#pragma once
#include <span>

#include "device/device.h"

namespace gptq::device {

// The part's rows, all of one sequence but where all_seen.
struct AttentionPart {
  const uint32_t* pages;
  uint32_t first_row, n_rows, first_position;
  bool all_seen;             // all rows see all of the blocks, whichever sequence they are of
  uint32_t first_block, last_block;
  float* partials;           // of first_block and the first row; NULL: the rows' results go out
  uint64_t block_stride;
};

// Rows of a sequence whose blocks' partials are to be merged.
struct AttentionMerge {
  uint32_t first_row, n_rows, first_position, first_block;
  const float* partials;
  uint64_t block_stride;
};

struct AttentionRoom {
  AttentionPart* parts;      // [n_partials + rows]
  AttentionMerge* merges;    // [rows]
  float* partials;           // [n_partials][heads][value_dim + 2]
  uint64_t n_partials;       // (row, block) pairs
};

struct AttentionPlan {
  std::span<const AttentionPart> parts;
  std::span<const AttentionMerge> merges;
};

// What a layer's queries see.
struct AttentionSight {
  uint32_t window, chunk;
  bool distance_counts;      // ALiBi: no two positions see the same
};

// A part makes `units` tasks; splits where whole rows make less than `tasks_wanted`. partial_floats: of one row and block.
AttentionPlan plan_attention(std::span<const Sequence> sequences, const AttentionSight& sight, uint32_t page_tokens, uint32_t units, uint32_t tasks_wanted,
                             uint64_t partial_floats, const AttentionRoom& room);

}  // namespace gptq::device
