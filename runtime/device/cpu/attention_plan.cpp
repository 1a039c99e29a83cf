// SPDX-License-Identifier: Apache-2.0
#include "device/cpu/attention_plan.h"

#include <algorithm>

#include "kernels/kv.h"

namespace gptq::device {
namespace {

constexpr uint32_t size = kernels::attention_block;
constexpr uint32_t rows_per_part = 16;

struct BlockRange {
  uint32_t first, last;
  uint32_t count() const { return last > first ? last - first : 0; }
  bool has(uint32_t block) const { return first <= block && block < last; }
};

uint32_t first_seen(uint32_t position, const AttentionSight& sight) { return kernels::first_seen(position, sight.window, sight.chunk); }

// Blocks that the rows of a sequence see something of, and those of which its first row sees all.
BlockRange blocks_of(const Sequence& s, const AttentionSight& sight) {
  return {first_seen(s.first_position, sight) / size, (s.first_position + s.n_rows - 1) / size + 1};
}
BlockRange whole_blocks_of(const Sequence& s, const AttentionSight& sight) {
  return {(first_seen(s.first_position, sight) + size - 1) / size, (s.first_position + 1) / size};
}

// Sequences that lie one behind another in the batch and are cut together.
struct Run {
  uint32_t n_sequences, n_rows;
  BlockRange blocks, shared;
  uint64_t n_partials() const { return uint64_t{n_rows} * blocks.count(); }
  uint32_t row_pieces() const { return (n_rows + rows_per_part - 1) / rows_per_part; }
};

// How many of the first n blocks lie on the same pages.
uint32_t common_blocks(const Sequence& a, const Sequence& b, uint32_t n, uint32_t page_tokens) {
  const uint32_t n_pages = (n * size + page_tokens - 1) / page_tokens;
  const auto common = std::mismatch(a.pages, a.pages + n_pages, b.pages).first - a.pages;
  return std::min(n, static_cast<uint32_t>(common) * page_tokens / size);
}

Run run_at(std::span<const Sequence> sequences, const AttentionSight& sight, uint32_t page_tokens) {
  const Sequence& first = sequences[0];
  Run run{1, first.n_rows, blocks_of(first, sight), {0, 0}};
  if (first.n_rows != 1 || sight.distance_counts) return run;
  BlockRange shared = whole_blocks_of(first, sight);
  for (const Sequence& next : sequences.subspan(1)) {
    if (next.n_rows != 1 || run.n_rows == rows_per_part) break;
    const BlockRange whole = whole_blocks_of(next, sight);
    BlockRange both = {std::max(shared.first, whole.first), std::min(shared.last, whole.last)};
    if (both.count() == 0) break;
    both.last = common_blocks(first, next, both.last, page_tokens);
    if (both.count() == 0 || 2 * both.count() < run.shared.count()) break;
    const BlockRange own = blocks_of(next, sight);
    run = {run.n_sequences + 1, run.n_rows + 1, {std::min(run.blocks.first, own.first), std::max(run.blocks.last, own.last)}, both};
    shared = both;
  }
  return run;
}

class Writer {
 public:
  Writer(const AttentionRoom& room, const AttentionSight& sight, uint64_t partial_floats) : room_(room), sight_(sight), partial_floats_(partial_floats) {}
  uint64_t left() const { return room_.n_partials - used_; }
  AttentionPlan plan() const { return {{room_.parts, n_parts_}, {room_.merges, n_merges_}}; }

  void add_whole(const Sequence& s) {
    for (uint32_t row = 0; row < s.n_rows; row += rows_per_part) add(s, row, {0, 0}, nullptr, 0);
  }

  void add_split(std::span<const Sequence> sequences, const Run& run) {
    float* const partials = room_.partials + used_ * partial_floats_;
    const uint64_t stride = run.n_rows * partial_floats_;
    used_ += run.n_partials();
    const auto at = [&](uint32_t row, uint32_t block) { return partials + (block - run.blocks.first) * stride + (row - sequences[0].first_row) * partial_floats_; };
    for (uint32_t block = run.shared.first; block < run.shared.last; ++block)
      room_.parts[n_parts_++] = {.pages = sequences[0].pages,
                                 .first_row = sequences[0].first_row,
                                 .n_rows = run.n_rows,
                                 .first_position = (block + 1) * size - 1,
                                 .all_seen = true,
                                 .first_block = block,
                                 .last_block = block + 1,
                                 .partials = at(sequences[0].first_row, block),
                                 .block_stride = stride};
    for (const Sequence& s : sequences) {
      const BlockRange own = blocks_of(s, sight_);
      for (uint32_t block = own.first; block < own.last; ++block)
        for (uint32_t row = 0; row < s.n_rows && !run.shared.has(block); row += rows_per_part)
          add(s, row, {block, block + 1}, at(s.first_row + row, block), stride);
      room_.merges[n_merges_++] = {.first_row = s.first_row,
                                   .n_rows = s.n_rows,
                                   .first_position = s.first_position,
                                   .first_block = run.blocks.first,
                                   .partials = at(s.first_row, run.blocks.first),
                                   .block_stride = stride};
    }
  }

 private:
  void add(const Sequence& s, uint32_t row, BlockRange blocks, float* partials, uint64_t stride) {
    room_.parts[n_parts_++] = {.pages = s.pages,
                               .first_row = s.first_row + row,
                               .n_rows = std::min(rows_per_part, s.n_rows - row),
                               .first_position = s.first_position + row,
                               .all_seen = false,
                               .first_block = blocks.first,
                               .last_block = blocks.last,
                               .partials = partials,
                               .block_stride = stride};
  }

  const AttentionRoom& room_;
  const AttentionSight& sight_;
  const uint64_t partial_floats_;
  uint64_t used_ = 0;
  size_t n_parts_ = 0, n_merges_ = 0;
};

}  // namespace

AttentionPlan plan_attention(std::span<const Sequence> sequences, const AttentionSight& sight, uint32_t page_tokens, uint32_t units, uint32_t tasks_wanted,
                             uint64_t partial_floats, const AttentionRoom& room) {
  const auto each_run = [&](auto&& f) {
    for (size_t i = 0; i < sequences.size();) {
      const Run run = run_at(sequences.subspan(i), sight, page_tokens);
      f(sequences.subspan(i, run.n_sequences), run);
      i += run.n_sequences;
    }
  };
  uint64_t whole_tasks = 0, n_partials = 0;
  each_run([&](std::span<const Sequence>, const Run& run) {
    whole_tasks += uint64_t{run.row_pieces()} * units;
    n_partials += run.n_partials();
  });
  const bool too_few = whole_tasks < tasks_wanted && n_partials <= room.n_partials;
  Writer writer(room, sight, partial_floats);
  each_run([&](std::span<const Sequence> of_run, const Run& run) {
    if (too_few || (run.n_sequences > 1 && run.n_partials() <= writer.left())) return writer.add_split(of_run, run);
    for (const Sequence& s : of_run) writer.add_whole(s);
  });
  return writer.plan();
}

}  // namespace gptq::device
