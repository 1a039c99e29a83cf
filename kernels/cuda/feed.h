// SPDX-License-Identifier: Apache-2.0
// A warp's weights on their way from memory, piece by piece (two tiles of a block, or one of 16-bit weights), while earlier ones are
// multiplied: quantized ones through a ring of shared memory, others in registers. A piece gives its tiles and its scales when they are asked for.
#pragma once
#include "kernels/cuda/fragments.h"

namespace gptq::cuda {

// Which pieces: `n` one behind another, from one of a block on; a block (or its part of K) has `of_block`, of which the last has
// `last_tiles` tiles.
struct Run {
  uint32_t block, piece, n, of_block, first_tile, last_tiles;
};

constexpr uint32_t tile_bytes_max(kernels::Kind kind) { return kernels::tile_bytes(kind == kernels::Kind::q2 ? kernels::Kind::q3 : kind); }
constexpr uint32_t stage_bytes(uint32_t tile_bytes, uint32_t n_scales) { return 2 * tile_bytes + n_scales * block_rows * 5; }

// plain: float16 scales, each for a group of its own, and no zeros but the middle of the codes.
template <class Form, uint32_t n_scales, bool plain>
class RingFeed {
 public:
  static constexpr uint32_t tiles = 2, steps_of_scale = tiles * tile_steps / n_scales;
  // A stage: codes, then of every scale 16 rows' scales (64 bytes), then their zeros.
  static constexpr uint32_t codes_bytes = tiles * tile_bytes_max(Form::kind), stage_bytes = cuda::stage_bytes(tile_bytes_max(Form::kind), n_scales);

  struct Piece {
    const uint8_t* stage;
    GPTQ_MEMBER typename Form::Raw raw(const Job& job, uint32_t tile) const { return Form::of_tile(stage + tile * Form::tile_bytes(job), job); }
    GPTQ_MEMBER Scale scale(const Job& job, uint32_t i) const {
      const uint32_t g = lane_index() / 4;
      const uint8_t *scales = stage + codes_bytes + i * block_rows * 4, *zeros = stage + codes_bytes + n_scales * block_rows * 4 + i * block_rows;
      const auto value = [&](uint32_t row) {
        return !plain && job.scales_f32 ? reinterpret_cast<const float*>(scales)[row] : half_value(reinterpret_cast<const uint16_t*>(scales)[row]);
      };
      const float symmetric = static_cast<float>(job.symmetric_zero);
      Scale s{{value(g), value(g + 8) * (1 / Form::lower_rows)}, {symmetric, symmetric * Form::lower_rows}};
      if (!plain && !job.symmetric_zero) {
        s.zero[0] = static_cast<float>(zeros[g]);
        s.zero[1] = static_cast<float>(zeros[g + 8]) * Form::lower_rows;
      }
      return s;
    }
  };

  // memory: the warp's own stages, job.stages of them.
  GPTQ_MEMBER RingFeed(const Job& job, const Run& run, uint8_t* memory)
      : run_(run), begin_(memory), end_(memory + job.stages * stage_bytes), read_(memory), write_(memory),
        zeros_(!plain && !job.symmetric_zero && lane_index() == 4),
        copies_groups_(zeros_ || lane_index() < (!plain && job.scales_f32 ? 4u : 2u)),
        groups_at_(codes_bytes + (zeros_ ? n_scales * block_rows * 4 : lane_index() * 16)),
        group_bytes_(zeros_ ? block_rows : block_rows * (!plain && job.scales_f32 ? 4 : 2)), left_(run.n), block_(run.block) {
    if (left_) open(job, run.piece);
    // Of a tile that does not exist scales are never written; they must be numbers.
    for (uint32_t stage = 0; stage < job.stages; ++stage)
      for (uint32_t i = codes_bytes + lane_index() * 16; i < stage_bytes; i += warp_size * 16) *reinterpret_cast<Vec4*>(memory + stage * stage_bytes + i) = {};
    sync_warp();
  }
  // Fills the ring.
  GPTQ_MEMBER void begin(const Job& job) {
    for (uint32_t i = 0; i + 1 < job.stages; ++i) next(job);
  }
  // The oldest piece that is on its way; another follows.
  GPTQ_MEMBER Piece take(const Job& job) {
    wait(job.stages - 2);
    sync_warp();  // all copies are there, and all have read the piece before, whose place is taken
    next(job);
    const Piece piece{read_};
    read_ = after(read_);
    return piece;
  }

 private:
  const Run run_;
  uint8_t *const begin_, *const end_, *read_, *write_;
  const uint8_t *codes_, *groups_;  // groups_: the lane's 16 bytes of a group's scales, or its zeros
  const bool zeros_, copies_groups_;             // what the lane copies of a group: zeros or some scales, or nothing
  const uint32_t groups_at_, group_bytes_;       // from where on in a stage; from one group's to the next's
  uint32_t left_, block_, event_, steps_left_;  // event_: pieces until the next one does not lie behind the last

  GPTQ_MEMBER uint8_t* after(uint8_t* stage) const { return stage + stage_bytes == end_ ? begin_ : stage + stage_bytes; }

  GPTQ_MEMBER void open(const Job& job, uint32_t piece) {
    const uint32_t index = target_of(job, block_), tile = run_.first_tile + piece * tiles;
    const Target& target = job.targets[index];
    const uint64_t block = block_ - target.first_block;
    codes_ = target.codes + (block * job.tiles + tile) * Form::tile_bytes(job) + lane_index() * 16;
    const uint32_t group = tile * tile_steps / job.group_steps;
    steps_left_ = (group + 1) * job.group_steps - tile * tile_steps;
    const uint64_t first = (block * job.groups + group) * block_rows;
    groups_ = zeros_ ? target.zeros + first : target.scales + first * (job.scales_f32 ? 4 : 2) + lane_index() * 16;
    event_ = run_.of_block - piece;
    if (job.parts == 1 && job.tiles % tiles == 0 && job.tiles * tile_steps % job.group_steps == 0)  // up to the target's end
      event_ += ((index + 1 < job.n_targets ? job.targets[index + 1].first_block : job.n_blocks) - block_ - 1) * run_.of_block;
  }

  // One more piece on its way.
  GPTQ_MEMBER void next(const Job& job) {
    if (left_) {
      const bool whole = event_ > 1 || run_.last_tiles == tiles;
      const uint32_t bytes = Form::tile_bytes(job);
      copy_codes(write_, bytes);
      if (whole) copy_codes(write_ + bytes, bytes);
      copy_groups(job, whole);
      write_ = after(write_);
      --left_;
      if (--event_ == 0 && left_) {
        // Blocks that end at a piece of their own begin at one; several may have been read since the last.
        block_ = run_.block + (run_.piece + run_.n - left_) / run_.of_block;
        open(job, 0);
      }
    }
    copy_commit();
  }
  GPTQ_MEMBER void copy_codes(uint8_t* to, uint32_t bytes) {
    constexpr uint32_t at_once = warp_size * 16;
    GPTQ_UNROLL for (uint32_t at = 0; at < tile_bytes_max(Form::kind); at += at_once)
      if (at + lane_index() * 16 < bytes) copy_async(to + at + lane_index() * 16, codes_ + at);
    codes_ += bytes;
  }
  GPTQ_MEMBER void copy_groups(const Job& job, bool whole) {
    GPTQ_UNROLL for (uint32_t i = 0; i < n_scales; ++i) {
      if (!whole && i * steps_of_scale >= tile_steps) return;
      if (copies_groups_) copy_async(write_ + groups_at_ + i * (zeros_ ? block_rows : block_rows * 4), groups_);
      if (plain) {
        groups_ += group_bytes_;
        continue;
      }
      steps_left_ -= n_scales == 1 && !whole ? tile_steps : steps_of_scale;
      if (steps_left_) continue;
      steps_left_ = job.group_steps;
      groups_ += group_bytes_;
    }
  }
  // All but the last n, or fewer.
  GPTQ_MEMBER static void wait(uint32_t n) {
    if (n >= 6) copy_wait<6>();
    else if (n >= 3) copy_wait<3>();
    else if (n == 2) copy_wait<2>();
    else if (n == 1) copy_wait<1>();
    else copy_wait<0>();
  }
};

template <class Form>
class RegisterFeed {
 public:
  static constexpr uint32_t tiles = 1, steps_of_scale = tile_steps, stage_bytes = 0;
  struct Piece {
    typename Form::Raw data;
    GPTQ_MEMBER const typename Form::Raw& raw(const Job&, uint32_t) const { return data; }
  };

  GPTQ_MEMBER RegisterFeed(const Job& job, const Run& run, uint8_t*) : run_(run), left_(run.n), of_block_(run.of_block - run.piece), block_(run.block) {
    if (left_) open(job, run.first_tile + run.piece);
  }
  GPTQ_MEMBER void begin(const Job& job) { next(job); }
  GPTQ_MEMBER Piece take(const Job& job) {
    const Piece piece{ahead_};
    next(job);
    return piece;
  }

 private:
  const Run run_;
  Form form_;
  typename Form::Raw ahead_;
  uint32_t left_, of_block_, block_;

  GPTQ_MEMBER void open(const Job& job, uint32_t tile) {
    const Target& target = job.targets[target_of(job, block_)];
    form_.open(job, target, block_ - target.first_block, tile);
  }
  GPTQ_MEMBER void next(const Job& job) {
    if (!left_) return;
    --left_;
    form_.next(job, ahead_);
    if (--of_block_ || !left_) return;
    of_block_ = run_.of_block;
    ++block_;
    open(job, run_.first_tile);
  }
};

}  // namespace gptq::cuda
