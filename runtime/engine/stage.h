// SPDX-License-Identifier: Apache-2.0
// The seam between the scheduler and devices: some layers of a model on one device, with their part of the KV cache.
#pragma once
#include <functional>

#include "device/device.h"
#include "engine/costs.h"
#include "model/placer.h"

namespace gptq::engine {

class GpuStage;

// Where the host finds rows of logits, or what it wants of them, or of hidden states, once the stage is finished.
struct Logits {
  uint32_t n = 0;                                 // rows
  uint32_t n_candidates = 0;                      // of a row
  const float* all = nullptr;                     // [n][n_vocab], or instead:
  const int32_t* tokens = nullptr;                // [n]: the best, -1 where one is not finite
  const device::Candidate* candidates = nullptr;  // [n][n_candidates]: higher logits first, then lower tokens; the first token is -1 where one is not finite
  uint32_t n_hidden = 0;
  const float* hidden = nullptr;                  // [n_hidden][n_embd]: behind the last norm
};

class Stage {
 public:
  explicit Stage(const model::Placement& layers) : layers_(layers) {}
  virtual ~Stage() = default;
  Stage(const Stage&) = delete;
  const model::Placement& layers() const { return layers_; }

  // Takes up a batch, which stays as it is until all is done: embeds its tokens, or goes on with what the stage before has left.
  virtual void begin(const device::Batch& batch) = 0;
  // Computes layers from this one on, as many as a quantum has; the layer behind them.
  virtual uint32_t compute(uint32_t from) = 0;
  virtual uint32_t n_quanta() const = 0;  // of all layers
  // Leaves the last layer's output for the next stage, which can begin at once, or if false when this one is finished.
  virtual bool leave() = 0;
  // Of the batch's logit_rows first .. first + count - 1. n_candidates: how many of the best are enough; 0: all are wanted.
  virtual Logits logits(uint32_t first, uint32_t count, uint32_t n_candidates) = 0;
  // The same rows' hidden states, as many as the place for logits holds.
  virtual Logits hidden(uint32_t first, uint32_t count) = 0;
  // Whether all of that, from begin() on, and on the last stage all logits, can be done at once; and that done.
  virtual bool runs_whole(const device::Batch& batch, uint32_t n_candidates) const = 0;
  virtual Logits run(const device::Batch& batch, uint32_t n_candidates) = 0;
  // Work may go on when a call returns. Waits for it, at most so long (UINT32_MAX: to its end); whether all is done.
  virtual bool finish(uint32_t wait_us) = 0;

  // Called once: what comes behind it.
  virtual void go_on_with(const Stage& next) = 0;
  // The last layer's output, after leave(), on the host; NULL: it is on a GPU alone.
  virtual const float* left_on_host() const = 0;
  virtual GpuStage* gpu() { return nullptr; }
  virtual const GpuStage* gpu() const { return nullptr; }
  // Page `to` of the KV cache becomes a copy.
  virtual void copy_page(uint32_t from, uint32_t to) = 0;
  // What the first tokens of a page left in it, piece by piece: to be read, or to be written.
  using Pieces = std::function<void(std::span<std::byte>)>;
  virtual void read_kv(uint32_t page, uint32_t n_tokens, const Pieces& use) = 0;
  virtual void write_kv(uint32_t page, uint32_t n_tokens, const Pieces& fill) = 0;

  Costs costs;          // of a quantum of layers
  uint32_t queued = 0;  // quanta given in this step that were not seen to be done

 private:
  const model::Placement layers_;
};

}  // namespace gptq::engine
