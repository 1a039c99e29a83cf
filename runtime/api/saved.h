// SPDX-License-Identifier: Apache-2.0
// What a saved session is, little-endian: Saved, the logit biases, the bans, the sizes of the stop strings (u32), their text, the constraint's source,
// that of the banned phrases, the tokens (i32), and XXH3-64 of all before. With GPTQ_SAVE_FULL the KV rows of n_computed tokens follow (page by page, as
// engine::KvLayout::for_each_piece gives them; in a page the CPU's layers and each GPU's in their order), the state of recurrent layers, and XXH3-64 of these two.
#pragma once
#include "api/handles.h"
#include "format/header.h"

namespace gptq::api {

constexpr char saved_magic[9] = "GPTQSAV\n";
constexpr uint32_t saved_version = 5;  // 1: Saved up to constraint_bytes; 2: up to state_bytes; 3: up to tokens_settled, 0 there; 4: up to n_bans

struct Saved {
  char magic[8];
  uint32_t version, kind;
  uint64_t size;     // of the whole save
  // What it was made with. The model must be the same; the rest changes numbers alone.
  uint64_t model, kernels;
  uint32_t activations, kv_kind, on_host, ctx_tokens;  // on_host: which layers, first << 16 | end
  uint32_t n_tokens, running, flags, max_tokens;
  uint32_t first_generated, n_generated, tokens_read, stop_index;
  int32_t stop_reason, status, end_unseen, top_k;
  float temperature, top_p, min_p, repeat_penalty;
  uint32_t penalty_window, n_stops, keep_leading_space, keep_stop;
  uint64_t random, prefill_us, decode_us, first_token_us;
  uint64_t text_read;
  uint32_t text_token, text_byte;
  int32_t constraint_kind;    // 0 = none
  uint32_t constraint_bytes;  // its source; where it stands follows from the tokens
  float frequency_penalty, presence_penalty, dry_multiplier, dry_base;
  uint32_t dry_allowed_length, dry_window;
  float top_n_sigma, typical_p, temperature_range, temperature_exponent, xtc_probability, xtc_threshold, mirostat_tau, mirostat_eta, mu;
  uint32_t n_bias;
  char dry_breakers[engine::dry_breakers_max];
  uint32_t n_computed, page_tokens;  // of a full save; 0 otherwise
  uint64_t kv_bytes, state_bytes;
  uint64_t adapter;           // its fingerprint; 0 = none
  float adapter_scale;
  uint32_t tokens_settled;    // that never go back for a banned phrase
  uint32_t phrases_bytes;     // 0 = none are banned
  uint32_t n_bans;
  uint64_t marks_taken, marks_looked_at;  // bytes of pieces that were read, of text that was looked at for them
  uint32_t marks_format, n_dropped;       // text::MarkFormat's code; messages
};
constexpr size_t saved_bytes_of_1 = 192, saved_bytes_of_2 = 296, saved_bytes_of_3 = 312, saved_bytes_of_4 = 320;
static_assert(sizeof(Saved) == 344 && sizeof(engine::LogitBias) == 8 && sizeof(engine::Session::Ban) == 8);

inline size_t header_bytes(const Saved& saved) {
  constexpr size_t before[] = {saved_bytes_of_1, saved_bytes_of_2, saved_bytes_of_3, saved_bytes_of_4};
  return saved.version < saved_version ? before[saved.version - 1] : sizeof saved;
}
// Of what follows the first hash.
inline uint64_t rest_bytes(const Saved& saved) { return saved.kind == GPTQ_SAVE_FULL ? saved.kv_bytes + saved.state_bytes + sizeof(uint64_t) : 0; }

// What the numbers of an engine depend on.
void describe(const gptq_engine& e, Saved& saved);
// A save of format 1 says the defaults of what it has no field for.
void set_sampling(Saved& saved, const engine::Sampling& s, float mu);
engine::Sampling sampling_of(const Saved& s);  // without the biases

}  // namespace gptq::api
