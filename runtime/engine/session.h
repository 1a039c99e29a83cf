// SPDX-License-Identifier: Apache-2.0
// One sequence: its tokens, how far they are computed, and what of the output was read. Lives in a slot of its engine.
#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#include <span>

#include "engine/lookup.h"
#include "engine/mark_stream.h"
#include "engine/sampler.h"
#include "engine/text_stream.h"
#include "gptq/gptq.h"
#include "model/adapter.h"
#include "text/constraint/constraint.h"
#include "text/phrases.h"

namespace gptq::engine {

class Engine;
using Clock = std::chrono::steady_clock;
inline double us_since(Clock::time_point begin) { return std::chrono::duration<double, std::micro>(Clock::now() - begin).count(); }

// How a sequence's last hidden states become one vector.
enum class Pooling : uint8_t { none, last, mean };

struct Session {
  Engine* engine = nullptr;
  void* owner = nullptr;        // the API's handle of the engine
  bool in_use = false;
  std::atomic<uint32_t> references{1};
  Session* next_dead = nullptr;  // of those that wait to be destroyed
  bool generating = false;      // inside gptq_generate
  bool own_template = true;     // the last conversation was put into the model's own template,
  text::FoundFormat marks_of_template;  // or into the host's, which writes marks like this
  uint32_t n_dropped = 0;       // messages that the conversation was shortened by
  void* user = nullptr;
  gptq_user_free_fn user_free = nullptr;

  // The sequence.
  int32_t* tokens = nullptr;    // [ctx_tokens]
  uint32_t n_tokens = 0;
  uint32_t n_computed = 0;      // of them are in the KV cache
  uint32_t n_sure = UINT32_MAX; // so many at least, should a GPU fail now; within a step
  uint32_t* pages = nullptr;    // [ctx_tokens / page_tokens up]
  uint32_t n_pages = 0;
  static constexpr uint32_t no_state = UINT32_MAX;
  std::byte* states[2] = {};    // of recurrent layers: states[state] after n_computed tokens, the other after n_before
  uint32_t state = 0, n_before = no_state;

  // What changes the model for it. The KV cache is of this.
  const model::Adapter* adapter = nullptr;
  float adapter_scale = 0;
  void* adapter_owner = nullptr;  // the API's handle of it

  // The generation in progress, or the last one.
  bool running = false;
  std::atomic<bool> cancelled{false};
  uint32_t flags = 0;           // GPTQ_GEN_*
  Sampling sampling;
  LogitBias bias[logit_biases_max];  // what sampling.bias points to
  char dry_breakers[dry_breakers_max] = {};  // no repeat goes over a token with one of these; zeros behind them
  Random random;
  float mu = 0;                 // mirostat's
  const text::constraint::Constraint* constraint = nullptr;
  void* constraint_owner = nullptr;  // the API's handle of it
  text::constraint::Constraint::State constraint_state = 0;
  const text::Phrases* phrases = nullptr;  // that the text may not have
  void* phrases_owner = nullptr;           // the API's handle of them
  // Tokens that led to a phrase may not come again at their position in the sequence, as long as that can still be gone back to.
  struct Ban {
    static constexpr int32_t all_begins = -1;  // every token behind which a phrase may be begun
    uint32_t position;
    int32_t token;
  };
  static constexpr uint32_t bans_max = 256, bans_each_max = 16;
  Ban bans[bans_max];  // positions rise
  uint32_t n_bans = 0;
  std::span<const int32_t> prediction;     // of the host: what is generated is likely to begin with it or to have parts of it
  void* prediction_owner = nullptr;        // the API's handle of it
  uint32_t predicted = 0;                  // where in it a copy of the sequence's end was found last
  const Session* follows = nullptr;        // of a draft model's session: that which it stands for, and is cancelled with
  Lookup lookup;
  uint32_t n_guessed = 0, n_right = 0;  // tokens that speculation computed, and of them those that were sampled
  uint32_t max_tokens = 0;
  uint32_t first_generated = 0;  // index of the first generated token
  uint32_t n_generated = 0;
  int32_t stop_reason = 0, status = 0;
  uint32_t stop_index = 0;
  bool end_unseen = false;
  uint64_t prefill_us = 0, decode_us = 0, first_token_us = 0;
  Clock::time_point started;

  // Unread output.
  uint32_t tokens_read = 0;      // of the generated ones
  TextStream text;
  MarkStream marks;              // with GPTQ_GEN_MARKED
  float* logits = nullptr;       // [logits_rows][n_vocab], a ring
  uint32_t first_logits = 0, n_logits = 0;  // unread rows, the first of position logits_position
  uint32_t logits_position = 0;
  float* logprobs = nullptr;     // [ctx_tokens] of the tokens, NaN where they were not asked for
  Candidate* best = nullptr;     // [ctx_tokens][best_logprobs]: log-probabilities instead of logits
  Pooling pooling = Pooling::none;
  float* pooled = nullptr;       // [n_embd]: the sum of n_pooled tokens' hidden states
  uint32_t n_pooled = 0;
  bool offered = false;          // next_readable returned it since the last step

  // Whether it computes the same with this adapter.
  bool adapted_by(const model::Adapter* other, float scale) const {
    if (!adapter || !other) return adapter == other;
    return adapter->fingerprint() == other->fingerprint() && adapter_scale == scale;
  }
  uint32_t n_pending() const { return n_tokens - n_computed; }
  std::span<const int32_t> generated() const { return {tokens + first_generated, n_generated}; }
  bool in_background() const { return flags & GPTQ_GEN_BACKGROUND; }
  bool wants_logits() const { return flags & GPTQ_GEN_LOGITS; }
  // Log-probabilities of what is generated, or of the input.
  bool wants_logprobs() const { return flags & GPTQ_GEN_LOGPROBS; }
  bool pools() const { return running && pooling != Pooling::none; }
  // Every token's hidden state counts, so that none can be left out of what is computed.
  bool pools_all() const { return running && pooling == Pooling::mean; }
  bool embedded() const { return !running && stop_reason == GPTQ_STOP_PREFILLED && n_pooled; }
  bool scores_input() const { return wants_logprobs() && flags & GPTQ_GEN_PREFILL_ONLY; }
  uint32_t n_readable() const { return n_generated - text.tokens_held(); }
  bool wants_marks() const { return flags & GPTQ_GEN_MARKED; }
  MarkStream::Source marked() const {
    const uint32_t before = marks.n_before();
    return {text, {tokens + first_generated - before, before + n_generated}, n_readable(), !running};
  }
  bool readable() const {
    if (end_unseen || n_logits || tokens_read < n_readable()) return true;
    return wants_marks() ? marks.unread(marked()) : text.unread() > 0;
  }
};

}  // namespace gptq::engine
