// SPDX-License-Identifier: Apache-2.0
// Sessions, their KV arena, and the scheduler that computes them together. After construction nothing here allocates.
#pragma once
#include <memory_resource>
#include <span>

#include "base/memory.h"
#include "base/threads.h"
#include "device/cpu/cpu_device.h"
#include "engine/forward.h"
#include "engine/gpu_part.h"
#include "engine/kv_pages.h"
#include "engine/session.h"
#include "engine/shape.h"
#include "model/model.h"
#include "text/tokenizer.h"

namespace gptq::engine {

// Layers that are on one device.
struct Stage {
  device::Device& device;
  Forward forward;
  uint32_t first_layer, end_layer;
  uint32_t layers_at_once;  // a quantum
};

class Engine {
 public:
  // tokenizer may be NULL; gpu is there where the model has layers on one.
  Engine(const model::Model& model, const text::Tokenizer* tokenizer, const EngineShape& shape, const kernels::Kernels& kernels,
         base::Pool& pool, const device::Gpu* gpu, std::pmr::memory_resource* memory);
  // What it takes on the host besides the KV arena.
  static uint64_t scratch_bytes(const model::ModelSpec& spec, const EngineShape& shape, const WeightShape& weights);

  const model::Model& model() const { return model_; }
  const text::Tokenizer* tokenizer() const { return tokenizer_; }
  const EngineShape& shape() const { return shape_; }
  // Whether tokens computed again, all at once, give the same numbers.
  bool replays_exactly() const;
  const KvPages& pages() const { return scratch_.pages; }

  Session* create_session();  // NULL when all slots are taken
  void destroy_session(Session& session);
  // Another session that goes on as this one would; NULL when all slots are taken.
  Session* fork(const Session& from);
  void start(Session& session);
  void stop(Session& session);  // as cancelled
  // Leads the session's constraint over what was generated; false where that leaves it.
  bool constrain(Session& session) const;
  // Keeps the first n_tokens; output of tokens that go is dropped.
  void truncate(Session& session, uint32_t n_tokens);

  // Works until the budget is spent or, with one_batch, until the batch in progress is complete.
  gptq_status step(uint32_t budget_us, bool one_batch, gptq_step_info& info);
  // A session with unread output that was not offered since the last step, or NULL.
  Session* next_readable();

 private:
  struct Member {  // of the batch in progress
    Session* session;
    uint32_t n_rows, first_logit, n_logits;  // its part of logit_rows
    int32_t sampled;                         // its next token, or why there is none (sampler.h)
    Random random;                           // after sampling
    float mu;                                // the same
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
    int32_t* tokens;              // [batch_tokens]
    uint32_t* logit_rows;         // [batch_tokens]
    Candidate* candidates;        // [n_vocab]
    uint32_t* mask;               // [n_vocab / 32 up], of a constraint
    int32_t* session_tokens;      // [max_sessions][ctx_tokens]
    uint32_t* session_pages;      // [max_sessions][pages_per_session]
    float* session_logits;        // [max_sessions][logits_rows][n_vocab]
  };
  // What a quantum (a layer, or a slice of logits) cost lately, by the power of two of its rows. Microseconds; 0 = not known.
  struct Costs {
    double us[32] = {};
    void note(uint32_t rows, double us);
    double estimate(uint32_t rows) const;
    uint32_t rows_within(double budget_us, uint32_t most) const;
  };

  // scheduler.cpp: what is computed next
  void work(Clock::time_point begin, uint32_t budget_us, bool one_batch, gptq_step_info& info);
  bool form_batch(uint32_t budget_us);
  uint32_t rows_wanted(const Session& session) const;
  bool join(Session& session, uint32_t n_rows);
  bool reserve_pages(Session& session, uint32_t n_tokens);
  void share_pages(Session& session, const Session& from, uint32_t n_pages);
  void share_prefix(Session& session);
  void rewind(Session& session, uint32_t n_computed);
  double next_quantum() const;
  void run_quantum();
  void begin_stage(Stage& stage);
  void run_layers(Stage& stage);
  void run_logits(Stage& stage);
  uint32_t candidates_wanted() const;
  bool settle(uint32_t wait_us, gptq_step_info& info);
  void take_logits();
  void end_all(gptq_status status);
  void commit(gptq_step_info& info);
  void accept(Session& session, int32_t token);
  bool loses_space(const Session& session) const;
  text::constraint::Constraint::State constrained(const Session& session, text::constraint::Constraint::State state, int32_t token, bool first) const;
  bool find_mask(Session& session);
  uint32_t unbroken(const Session& session) const;
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
  base::Buffer memory_, kv_memory_;
  Scratch scratch_;
  const uint64_t state_bytes_;  // of a sequence in recurrent layers
  const uint64_t page_bytes_;   // on the host
  const bool shares_prefixes_;  // what a page holds follows from the tokens up to its end
  device::CpuDevice cpu_;
  std::optional<GpuPart> gpu_;
  std::pmr::vector<Stage> stages_;  // in the order of their layers
  std::pmr::vector<Session> sessions_;

  // The batch in progress; n_members_ == 0: none. It is a transaction: nothing of it counts until commit.
  uint32_t n_members_ = 0, n_rows_ = 0, n_logit_rows_ = 0;
  uint32_t next_layer_ = 0, next_logit_ = 0;
  double batch_us_ = 0;
  // A device's work that the batch cannot go on without, and where its results will be.
  struct Awaited {
    bool any = false;
    uint32_t n_logits = 0;
    const float* logits = nullptr;
    const int32_t* tokens = nullptr;  // instead of logits
    const Candidate* candidates = nullptr;  // or these: [n_logits][n_candidates]
    uint32_t n_candidates = 0;
  } awaited_;
  double queued_us_ = 0;       // what a device was given in this step, by what it should take
  uint32_t queued_ = 0;        // quanta of it
  Clock::time_point queued_at_;
  Costs layer_costs_, logit_costs_;
  uint32_t turn_ = 0;  // the session that is asked first for the next batch
};

}  // namespace gptq::engine
