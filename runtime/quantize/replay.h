// SPDX-License-Identifier: Apache-2.0
// The calibration tokens on their way through the model, one layer at a time, some rows at a time. A row is a sequence of its own.
#pragma once
#include <optional>
#include <span>
#include <vector>

#include "engine/forward.h"
#include "quantize/panels.h"
#include "quantize/token_store.h"

namespace gptq::quantize {

// Whole rows that are computed together.
struct Chunk {
  Chunk(uint64_t first_token, std::pmr::memory_resource* memory) : first_token(first_token), sequences(memory) {}
  uint64_t first_token;
  uint32_t n_tokens = 0, n_pages = 0;
  std::pmr::vector<device::Sequence> sequences;
};

class Plan {
 public:
  // Chunks of about 2048 tokens, of which the first has n_apart rows, if that is not 0. logits: of how many tokens at a time they are asked for.
  Plan(std::span<const uint32_t> row_tokens, std::pmr::memory_resource* memory, uint32_t n_apart = 0, uint32_t logits = 0);
  std::pmr::vector<Chunk> chunks;
  uint64_t n_tokens = 0;
  uint32_t chunk_tokens = 0, chunk_pages = 0, row_tokens = 0;  // the most of any
  const uint32_t logits;

 private:
  std::pmr::vector<uint32_t> pages_;  // 0, 1, 2, ...: what the sequences point into
};

class Replay {
 public:
  // What the tokens pass through: the matrices as they have become, or, some of them, those of the model as it was.
  enum Stream { quantized, original };
  // original_tokens: of the original stream, the first so many. folder: where the activations are kept; empty = in memory.
  Replay(const model::ModelSpec& spec, const Plan& plan, uint64_t original_tokens, std::string_view folder, const kernels::Kernels& kernels, base::Pool& pool,
         std::pmr::memory_resource* memory);
  static uint64_t scratch_bytes(const model::ModelSpec& spec, uint32_t row_tokens);
  static uint32_t chunk_tokens(uint32_t row_tokens);  // of rows of one length, the most
  static uint64_t store_bytes(const model::ModelSpec& spec, uint64_t n_tokens);

  // Whose tokens the steps from now on work on; both use the same memory for what they return.
  void follow(Stream stream) { now_ = &streams_[stream]; }

  // What stands for a matrix in the layer's steps from now on, until drop_all().
  kernels::Matrix hold(const kernels::Matrix& w) { return device_.hold(w); }
  void drop_all() { device_.drop_all(); }

  // Each step is taken with every chunk before the next one is. Those of a layer, in order; all but the last return what the
  // matrices named read, [n_tokens][k].
  void embed(const Chunk& chunk, std::span<const int32_t> tokens, const model::Ends& ends);
  void begin_layer(uint32_t index);
  const float* mixer_input(const Chunk& chunk, const model::Layer& layer);   // q, k, v, ...
  const float* mix(const Chunk& chunk, const model::Layer& layer);           // o
  const float* add_mixed(const Chunk& chunk, const model::Layer& layer);     // gate, up, experts: o is added
  const float* activate(const Chunk& chunk, const model::Layer& layer);      // down
  void finish(const Chunk& chunk, const model::Layer& layer);
  // Whether what o or down gives is added to the residual stream as it is; and, right after mix or activate, that stream, [n_tokens][n_embd],
  // in units of what is added.
  bool adds_to_residual(const model::Layer& layer, model::Role role) const;
  const float* residual(const Chunk& chunk, model::Role role);
  const float* head_input(const Chunk& chunk, const model::Ends& ends);      // the head

  // Besides: as far as the tap wants, leaving nothing behind. token_weights [n_tokens] or NULL.
  void tap_mixer(const Chunk& chunk, const model::Layer& layer, Tap& tap, const float* token_weights);
  void tap_experts(const Chunk& chunk, const model::Layer& layer, const float* input, Tap& tap, const float* token_weights);
  // What any MLP of the layer reads, once o is added; and what its down reads of all tokens.
  const float* mlp_input(const Chunk& chunk, const model::Layer& layer);
  const float* activate(const Chunk& chunk, const model::Layer& layer, const model::Linear& gate, const model::Linear& up);

  // The same without stores, for hidden states [n_tokens][n_embd] that lie elsewhere: made of tokens, taken through the whole layer that
  // was begun, and the logits of some of the chunk's rows, [rows][n_vocab].
  void embed_to(const Chunk& chunk, std::span<const int32_t> tokens, const model::Ends& ends, float* x);
  void pass(const Chunk& chunk, const model::Layer& layer, float* x);
  void pass(const Chunk& chunk, const model::Layer& layer, float* x, Tap& tap, const float* token_weights);
  const float* logits(const Chunk& chunk, const float* x, std::span<const uint32_t> rows, const model::Ends& ends);

 private:
  struct Scratch {
    Scratch(const model::ModelSpec& spec, const Plan& plan, base::Arena& arena);
    engine::Rotation rotation;
    engine::Workspace workspace;
    engine::Routing routing;
    device::CpuScratch device;
    std::byte *kv, *state;  // of one layer; what recurrent layers would remember nobody reads
  };
  void begin_chunk(const Chunk& chunk);
  const float* norm(const Chunk& chunk, const model::Linear& weights, float* out);  // of x
  const float* mlp_norm(const Chunk& chunk, const model::Layer& layer);
  template <class Step>
  void tapped(const Chunk& chunk, Tap& tap, const float* token_weights, Step&& step);
  void add_branch(const Chunk& chunk, const model::Linear& out_norm);
  void load(const Chunk& chunk);
  void store(const Chunk& chunk);

  const model::ModelSpec& spec_;
  base::Buffer memory_;
  Scratch scratch_;
  PanelDevice device_;
  std::optional<engine::Forward> forward_;
  uint32_t layer_ = 0;
  std::vector<device::Sequence> sequences_;
  struct Stores {
    Stores(const model::ModelSpec& spec, uint64_t n_tokens, std::string_view folder, std::pmr::memory_resource* memory);
    TokenStore x, inner;  // the residual stream; what o or down reads
    std::optional<TokenStore> branch;  // of parallel residuals: what o gave
  };
  Stores streams_[2], *now_ = streams_;
};

}  // namespace gptq::quantize
