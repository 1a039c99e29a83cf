// SPDX-License-Identifier: Apache-2.0
// Sessions, their KV arena, and the scheduler that computes them together. After construction nothing here allocates.
#pragma once
#include <functional>
#include <forward_list>
#include <memory_resource>
#include <optional>
#include <span>

#include "base/memory.h"
#include "base/threads.h"
#include "engine/forward.h"
#include "engine/gpu_stage.h"
#include "engine/host_stage.h"
#include "engine/kv_pages.h"
#include "engine/session.h"
#include "engine/shape.h"
#include "model/model.h"
#include "text/tokenizer.h"

namespace gptq::engine {

class Engine {
 public:
  // tokenizer may be NULL; gpus: by the number that a placement names it with.
  Engine(const model::Model& model, const text::Tokenizer* tokenizer, const EngineShape& shape, const kernels::Kernels& kernels,
         base::Pool& pool, std::span<const device::Gpu* const> gpus, std::pmr::memory_resource* memory);
  // What it takes on the host besides the KV arena.
  static uint64_t scratch_bytes(const model::ModelSpec& spec, const EngineShape& shape, const WeightShape& weights);

  const model::Model& model() const { return model_; }
  const text::Tokenizer* tokenizer() const { return tokenizer_; }
  const EngineShape& shape() const { return shape_; }
  // Whether tokens computed again, all at once, give the same numbers.
  bool replays_exactly() const;
  const KvPages& pages() const { return scratch_.pages; }

  Session* create_session();  // NULL when all slots are taken
  bool has_slot() const;
  void destroy_session(Session& session);
  // Whether what is computed can be given up: without recurrent layers, and where no position depends on the length.
  bool speculates() const { return speculates_; }
  // Guesses come from the model of another engine too, which has as many sessions, none created, and is for this alone; tokens below n_common are
  // the same to both. NULL: from none. It outlives this one, or the next call.
  void set_draft(Engine* draft, uint32_t n_common);
  // Another session that goes on as this one would; NULL when all slots are taken.
  Session* fork(const Session& from);
  void start(Session& session);
  // Fails with OUT_OF_MEMORY and BUDGET_EXCEEDED, where the adapter is wider than any before.
  void make_room(const model::Adapter& adapter) { widen_low_rank(adapter.width()); }
  // The sequence is computed anew with it, all of its tokens. NULL: none. Fails as make_room.
  void set_adapter(Session& session, const model::Adapter* adapter, float scale);
  void stop(Session& session);  // as cancelled
  // Leads the session's constraint over what was generated; false where that leaves it.
  bool constrain(Session& session) const;
  // What n_tokens of a sequence left in the pages, in their order, and in the state of recurrent layers.
  uint64_t kv_bytes(uint32_t n_tokens) const;
  uint64_t state_bytes() const { return state_bytes_; }
  void read_kv(const Session& session, uint32_t n_tokens, const Stage::Pieces& use) const;
  void write_kv(const Session& session, uint32_t n_tokens, const Stage::Pieces& fill);
  // Pages for so many tokens of a new session; false where they are not free.
  bool take_pages(Session& session, uint32_t n_tokens) { return reserve_pages(session, n_tokens); }
  // Puts tokens, which must have room, behind the session's own.
  void append(Session& session, std::span<const int32_t> tokens);
  // Keeps the first n_tokens; output of tokens that go is dropped.
  void truncate(Session& session, uint32_t n_tokens);

  // Works until the budget is spent or, with one_batch, until the batch in progress is complete, or the first that does not count ahead.
  gptq_status step(uint32_t budget_us, bool one_batch, gptq_step_info& info);
  // A session with unread output that was not offered since the last step, or NULL.
  Session* next_readable();

 private:
  struct Member {  // of the batch in progress
    Session* session;
    uint32_t n_rows, first_logit, n_logits;  // n_rows: without guesses; then its part of logit_rows
    uint32_t first_pooled, n_pooled;         // its part of the rows whose hidden states are wanted
    uint32_t n_guesses, trust;               // tokens behind the sequence's own that are computed with it
    uint32_t n_right = 0;                    // guesses that were sampled, from the first
    bool settled = false;                    // the token behind those is known
    int32_t sampled = -1;                    // it, or why there is none (sampler.h)
    struct Sampler {
      Random random{};
      float mu = 0;
    } sampler;                               // after sampling
    Sampler after[Lookup::most];             // after each right guess
    text::constraint::Constraint::State constraint_state;  // after all of them
  };
  struct Scratch {
    Scratch(const model::ModelSpec& spec, const EngineShape& shape, const WeightShape& weights, base::Arena& arena);
    Rotation rotation;
    Workspace workspace;
    Routing routing;
    Absorbed absorbed;
    device::CpuScratch device;
    KvPages pages;
    Member* members;              // [max_sessions]
    Session** singles;            // [max_sessions]: those that a batch takes one row of
    device::Sequence* sequences;  // [max_sessions]
    device::Adapted* adapted;     // [max_sessions]
    int32_t* tokens;              // [batch_tokens]
    uint32_t* logit_rows;         // [batch_tokens]: behind them those whose hidden states are wanted
    uint32_t* pooled_rows;        // [batch_tokens]: these, until the batch is formed
    float* pooled;                // [max_sessions][n_embd]: of a member, what the session's own will be
    Candidate* candidates;        // [n_vocab]
    float* changed_logits;        // [n_vocab]: with bias and penalties
    uint32_t* mask;               // [n_vocab / 32 up], of a constraint and of bans
    int32_t* session_tokens;      // [max_sessions][ctx_tokens]
    uint32_t* session_pages;      // [max_sessions][pages_per_session]
    float* session_logits;        // [max_sessions][logits_rows][n_vocab]
    float* session_logprobs;      // [max_sessions][ctx_tokens]
    Candidate* session_best;      // [max_sessions][ctx_tokens][best_logprobs]
    float* session_pooled;        // [max_sessions][n_embd]
  };
  // scheduler.cpp: what is computed next
  void work(Clock::time_point begin, uint32_t budget_us, bool one_batch, gptq_step_info& info);
  bool form_batch(uint32_t budget_us);
  uint32_t rows_at_most(uint32_t budget_us) const;
  uint32_t rows_wanted(const Session& session) const;
  bool foreground_waits() const;
  bool join(Session& session, uint32_t n_rows, uint32_t n_guesses = 0, uint32_t trust = 0);
  uint32_t guess(Session& session, uint32_t most, uint32_t rows, uint32_t& trust);
  struct Copy {  // of the sequence's end, and what is behind it
    std::span<const int32_t> behind;
    uint32_t trust = 0;
  };
  Copy find_copy(Session& session) const;
  uint32_t foresee(const Session& session, std::span<int32_t> out) const;
  double batch_cost(uint32_t rows, uint32_t known) const;
  double prefill_cost(uint32_t rows) const;
  void widen_low_rank(uint32_t width);
  void adapt_rows(const Session& session, uint32_t n_rows);
  uint32_t pages_missing(const Session& session, uint32_t n_tokens) const;
  bool reserve_pages(Session& session, uint32_t n_tokens);
  void share_pages(Session& session, const Session& from, uint32_t n_pages);
  void share_prefix(Session& session);
  void rewind(Session& session, uint32_t n_computed);
  double next_quantum() const;
  void run_quantum();
  bool run_whole();
  bool leads_on() const;
  void commit_ahead(gptq_step_info& info);
  void make_sure();
  size_t stage_at() const;
  void run_layers(size_t at);
  void note_costs();
  bool finish_stages(uint32_t wait_us);
  uint32_t hidden_at_once() const;
  uint32_t candidates_wanted() const;
  bool settle(uint32_t wait_us, gptq_step_info& info);
  bool take_logits(Clock::time_point begin, uint32_t within_us, gptq_step_info& info);
  void take_row(uint32_t row);
  void await_nothing();
  void take_hidden();
  void end_all(gptq_status status);
  void commit(gptq_step_info& info);
  void accept(Session& session, int32_t token);
  bool loses_space(const Session& session) const;
  text::constraint::Constraint::State constrained(const Session& session, text::constraint::Constraint::State state, int32_t token, bool first) const;
  text::constraint::Constraint::State led(const Session& session, uint32_t n) const;
  bool find_mask(Member& member);
  // draft.cpp
  Session& mirror_of(const Session& session) const { return draft_->sessions_[static_cast<size_t>(&session - sessions_.data())]; }
  uint32_t mirrored(const Session& session) const;
  bool may_draft(const Session& session) const;
  bool make_drafts(Clock::time_point begin, uint32_t budget_us, gptq_step_info& info);
  void plan_drafts(uint32_t budget_us);
  uint32_t draft_worth(Session& session, uint32_t most, const Lookup::Cost& cost) const;
  void start_draft(const Session& session, uint32_t n, bool near);
  bool draft_fits(const Session& session, uint32_t n) const;
  void note_failed_drafts();
  uint32_t drafted(const Session& session, std::span<int32_t> out) const;
  void stop_draft(const Session& session);
  // bans.cpp
  bool banned_at(const Session& session, uint32_t position) const;
  void take_bans(const Member& member, std::span<uint32_t> mask) const;
  void take_back(Session& session, uint32_t n);
  void take_sampled(Member& member, size_t row);
  void note_logprob(const Session& session, uint32_t position, int32_t token, size_t row);
  uint32_t unbroken(const Session& session, uint32_t n_tokens) const;
  void end(Session& session, int32_t reason, gptq_status status = GPTQ_OK);
  void end_cancelled();
  void leave_batch(const Session& session);
  bool is_end_token(int32_t token) const;
  void report(gptq_step_info& info) const;
  device::Batch batch() const;

  const model::Model& model_;
  const text::Tokenizer* tokenizer_;
  const EngineShape shape_;
  base::Pool& pool_;
  std::pmr::memory_resource* const resource_;
  base::Buffer memory_, kv_memory_;
  base::Buffer low_rank_;       // [batch_tokens][low_rank_width_]: between the matrices of adapters
  uint32_t low_rank_width_ = 0;
  Scratch scratch_;
  const uint64_t state_bytes_;  // of a sequence in recurrent layers
  const bool speculates_;       // what is computed can be given up
  const bool shares_prefixes_;  // what a page holds follows from the tokens up to its end
  const bool on_gpu_;           // some layers are
  std::optional<HostStage> host_;
  std::pmr::forward_list<GpuStage> gpus_;
  std::pmr::vector<Stage*> stages_;  // in the order of their layers
  std::pmr::vector<Session> sessions_;

  // The batch in progress; n_members_ == 0: none. It is a transaction: nothing of it counts until commit.
  uint32_t n_members_ = 0, n_rows_ = 0, n_logit_rows_ = 0, n_pooled_rows_ = 0, n_adapted_ = 0;
  uint32_t next_layer_ = 0, next_logit_ = 0, next_pooled_ = 0;
  double batch_us_ = 0;
  bool awaits_ = false;        // devices have work that the batch cannot go on without
  bool arrived_ = false;       // it is done, and its rows of logits are being sampled from
  uint32_t n_taken_ = 0;       // of them were
  double row_us_ = 0;          // what one takes
  Logits logits_;              // of it
  bool ahead_ = false;         // batches count that are not done; within a step alone
  double queued_us_ = 0;       // what a device was given in this step, by what it should take
  uint32_t queued_ = 0;        // quanta of it, of layers and logits
  Clock::time_point queued_at_;
  Costs logit_costs_;
  uint32_t turn_ = 0;  // the session that is asked first for the next batch

  // A second model's engine. Its sessions are mirrors of ours, slot by slot: they are brought to have the same tokens, and generate what is guessed.
  Engine* draft_ = nullptr;
  uint32_t n_common_ = 0;
  bool drafting_ = false;    // planned for the next batch
  double draft_us_ = 0;      // what that took
};

}  // namespace gptq::engine
