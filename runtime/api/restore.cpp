// SPDX-License-Identifier: Apache-2.0
// C API: restoring a saved session. Nothing of a save is believed before its hash, and no session is left where something was wrong.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "api/adapter.h"
#include "api/constraint.h"
#include "api/guard.h"
#include "api/opened_source.h"
#include "api/saved.h"
#include "base/checked.h"

using namespace gptq;
using namespace gptq::api;

namespace {

void require_format(bool holds, const char* what) { require(holds, what, GPTQ_E_FORMAT); }

// All up to the first hash, which has been found right, without that.
struct Head {
  Saved saved{};
  std::pmr::vector<std::byte> bytes;
};
Head read_head(const base::Source& source, std::pmr::memory_resource* memory) {
  Head head{.bytes = std::pmr::vector<std::byte>(memory)};
  Saved& saved = head.saved;
  const uint64_t size = source.size();
  require_format(size >= saved_bytes_of_1 + sizeof(uint64_t), "the save is shorter than an empty one");
  source.read_at(0, {reinterpret_cast<std::byte*>(&saved), static_cast<size_t>(std::min<uint64_t>(size, sizeof saved))});
  if (saved.version == 1) saved.kv_bytes = saved.state_bytes = 0;  // its tokens are there
  require_format(std::memcmp(saved.magic, saved_magic, sizeof saved.magic) == 0, "this is no saved session");
  if (saved.version < 1 || saved.version > saved_version || saved.kind > (saved.version == 1 ? GPTQ_SAVE_REPLAY : GPTQ_SAVE_FULL))
    base::fail(GPTQ_E_UNSUPPORTED, "a save of format ", saved.version, " and kind ", saved.kind, ": use a newer library");
  require_format(saved.size == size && size >= header_bytes(saved) + sizeof(uint64_t), "the save is not as long as it says");
  require_format(saved.kv_bytes <= size && saved.state_bytes <= size && header_bytes(saved) + sizeof(uint64_t) + rest_bytes(saved) <= size,
                 "the save is not as long as it says");
  head.bytes.resize(base::to_size(size - rest_bytes(saved)));
  source.read_at(0, head.bytes);
  uint64_t hash;
  std::memcpy(&hash, &*head.bytes.end() - sizeof hash, sizeof hash);
  head.bytes.resize(head.bytes.size() - sizeof hash);
  require(hash == format::hash_bytes(head.bytes), "the save is damaged", GPTQ_E_CHECKSUM);
  saved = {};
  std::memcpy(static_cast<void*>(&saved), head.bytes.data(), saved_bytes_of_1);
  if (saved.version == 1) set_sampling(saved, {}, 0);  // what it says by not saying it
  std::memcpy(static_cast<void*>(&saved), head.bytes.data(), header_bytes(saved));
  return head;
}

bool within(float value, float most, float least = 0) { return value >= least && value <= most; }

// A hash can be made by anybody: the session must be one that this library could have saved.
void check(const Saved& s) {
  constexpr uint32_t flags = GPTQ_GEN_PREFILL_ONLY | GPTQ_GEN_IGNORE_EOS | GPTQ_GEN_KEEP_STOP | GPTQ_GEN_CONTINUE_TEXT | GPTQ_GEN_LOGITS | GPTQ_GEN_BACKGROUND |
                             GPTQ_GEN_SPECULATE | GPTQ_GEN_LOGPROBS | GPTQ_GEN_MARKED;
  const uint64_t end = uint64_t{s.first_generated} + s.n_generated;
  bool good = s.running <= 1 && !(s.flags & ~flags) && end <= s.n_tokens && s.tokens_read <= s.n_generated;
  good = good && s.stop_reason >= GPTQ_STOP_NONE && s.stop_reason <= GPTQ_STOP_PREFILLED && s.status <= 0;
  good = good && within(s.temperature, 1000) && within(s.top_p, 1) && within(s.min_p, 1) && within(s.repeat_penalty, 1000) && s.top_k >= 0;
  good = good && within(s.frequency_penalty, 1000, -1000) && within(s.presence_penalty, 1000, -1000) && within(s.dry_multiplier, 1000);
  good = good && within(s.dry_base, 16, 1) && s.dry_allowed_length && within(s.top_n_sigma, 1000) && within(s.typical_p, 1);
  good = good && within(s.temperature_range, 1000) && within(s.temperature_exponent, 100) && within(s.xtc_probability, 1);
  good = good && within(s.xtc_threshold, 1) && within(s.mirostat_tau, 100) && within(s.mirostat_eta, 10) && std::isfinite(s.mu);
  good = good && s.n_computed <= s.n_tokens && (s.kind == GPTQ_SAVE_FULL || !(s.n_computed | s.kv_bytes | s.state_bytes));
  good = good && std::isfinite(s.adapter_scale) && s.tokens_settled <= s.n_generated && s.n_bias <= engine::logit_biases_max && s.n_bans <= engine::Session::bans_max && s.n_stops <= engine::stop_strings_max;
  if (s.running)
    good = good && s.n_computed < s.n_tokens && end == s.n_tokens && !(s.flags & GPTQ_GEN_LOGITS) && (!s.max_tokens || s.n_generated < s.max_tokens);
  require_format(good, "the save describes no session");
}

// The text of what was generated, and how much of it was read.
engine::TextStream stream_of(const Saved& saved, const text::Tokenizer* tokenizer, const text::Phrases* phrases, std::span<const std::byte> stops,
                           std::span<const int32_t> generated) {
  engine::TextStream text;
  text.start(tokenizer, saved.keep_leading_space, saved.keep_stop, phrases);
  const std::byte* at = stops.data() + saved.n_stops * sizeof(uint32_t);
  for (uint32_t i = 0; i < saved.n_stops; ++i) {
    uint32_t size;
    std::memcpy(&size, stops.data() + i * sizeof size, sizeof size);
    require_format(text.add_stop(reinterpret_cast<const char*>(at), size), "a stop string is empty or too long");
    at += size;
  }
  const bool end_token = !saved.running && saved.stop_reason == GPTQ_STOP_EOS && !generated.empty();
  for (size_t n = 1; n + end_token <= generated.size(); ++n)
    require_format(text.push(generated.first(n)) != engine::TextStream::has_phrase, "a banned phrase is in what was generated");
  if (phrases) text.settle(saved.tokens_settled);
  if (!saved.running) text.finish();
  require_format(saved.tokens_read <= generated.size() - text.tokens_held(), "what was read could still be gone back to");
  require_format(text.go_to({saved.text_read, saved.text_token, saved.text_byte}, generated), "what was read is not in the text");
  require_format(text.release(saved.marks_looked_at), "what was looked at for marks is not in the text");
  return text;
}

// Finds the marks again, up to where they were read.
void restore_marks(engine::Session& s, const Saved& saved) {
  text::MarkFormat format;
  require_format(format.set_code(saved.marks_format), "marks of an unknown format");
  s.marks.start(format, s.text, {s.tokens, s.first_generated});
  require_format(s.marks.go_to(saved.marks_taken, saved.marks_looked_at, s.marked()),
                 "the marks that were read are not in the text");
}

// Reads on behind the first hash: KV rows and the state into s, or to nowhere where s has no place for them.
class Rest {
 public:
  Rest(const base::Source& source, uint64_t at) : source_(source), at_(at) {}
  void read(std::span<std::byte> to) {
    source_.read_at(at_, to);
    at_ += to.size();
    hash_.add(to);
  }
  void skip(uint64_t size) {
    std::byte buffer[16384];
    for (; size; size -= std::min<uint64_t>(size, sizeof buffer)) read(std::span(buffer).first(static_cast<size_t>(std::min<uint64_t>(size, sizeof buffer))));
  }
  void check() const {
    uint64_t hash;
    source_.read_at(at_, {reinterpret_cast<std::byte*>(&hash), sizeof hash});
    require(hash == hash_.value(), "the save is damaged", GPTQ_E_CHECKSUM);
  }

 private:
  const base::Source& source_;
  uint64_t at_;
  format::Hash hash_;
};

void read_rest(const Saved& saved, Rest rest, engine::Session& s, bool fits) {
  if (fits) {
    engine::Engine& engine = *s.engine;
    if (!engine.take_pages(s, saved.n_computed)) base::fail(GPTQ_E_KV_FULL, "no pages are free for the save's ", saved.n_computed, " computed tokens");
    engine.write_kv(s, saved.n_computed, [&](std::span<std::byte> piece) { rest.read(piece); });
    rest.read({s.states[s.state], static_cast<size_t>(saved.state_bytes)});
    s.n_computed = saved.n_computed;
  } else {
    rest.skip(saved.kv_bytes + saved.state_bytes);
  }
  rest.check();
}

gptq_status restore(gptq_engine& e, const base::Source& source, gptq_session** out) {
  const Head head = read_head(source, &e.model.runtime.memory);
  const Saved& saved = head.saved;
  Saved here = saved;
  describe(e, here);
  if (here.model != saved.model) base::fail(GPTQ_E_UNSUPPORTED, "the save is of another model file");
  check(saved);
  const engine::EngineShape& shape = e.engine->shape();
  if (saved.n_tokens > shape.ctx_tokens)
    base::fail(GPTQ_E_CONTEXT_FULL, "the save has ", saved.n_tokens, " tokens, the context ", shape.ctx_tokens, "; raise ctx_tokens");
  std::span<const std::byte> rest = std::span(head.bytes).subspan(header_bytes(saved));
  engine::LogitBias bias[engine::logit_biases_max];
  require_format(rest.size() >= saved.n_bias * sizeof *bias, "the save ends early");
  std::memcpy(bias, rest.data(), saved.n_bias * sizeof *bias);
  rest = rest.subspan(saved.n_bias * sizeof *bias);
  for (const engine::LogitBias& b : std::span(bias, saved.n_bias))
    require_format(b.token >= 0 && static_cast<uint32_t>(b.token) < e.engine->model().spec.n_vocab && within(b.bias, 1000, -1000), "a bias is out of range");
  engine::Session::Ban bans[engine::Session::bans_max];
  require_format(rest.size() >= saved.n_bans * sizeof *bans, "the save ends early");
  std::memcpy(static_cast<void*>(bans), rest.data(), saved.n_bans * sizeof *bans);
  rest = rest.subspan(saved.n_bans * sizeof *bans);
  for (const engine::Session::Ban& b : std::span(bans, saved.n_bans))
    require_format(b.token >= engine::Session::Ban::all_begins && b.token < static_cast<int64_t>(e.engine->model().spec.n_vocab) && b.position <= saved.n_tokens,
                   "a ban is out of range");
  uint64_t stop_bytes = saved.n_stops * sizeof(uint32_t);
  require_format(rest.size() >= stop_bytes, "the save ends early");
  for (uint32_t i = 0; i < saved.n_stops; ++i) {
    uint32_t size;
    std::memcpy(&size, rest.data() + i * sizeof size, sizeof size);
    stop_bytes += size;
  }
  const uint64_t rules_bytes = saved.constraint_bytes, phrases_at = stop_bytes + rules_bytes, tokens_at = phrases_at + saved.phrases_bytes;
  require_format(rest.size() == tokens_at + uint64_t{saved.n_tokens} * sizeof(int32_t), "the save's parts do not add up");
  require_format(saved.constraint_kind || !rules_bytes, "a constraint of no kind");
  std::pmr::vector<int32_t> tokens(saved.n_tokens, &e.model.runtime.memory);
  if (saved.n_tokens) std::memcpy(tokens.data(), rest.data() + tokens_at, saved.n_tokens * sizeof(int32_t));
  for (const int32_t token : tokens)
    require_format(token >= 0 && static_cast<uint32_t>(token) < e.engine->model().spec.n_vocab, "a token is outside the vocabulary");
  const auto generated = std::span<const int32_t>(tokens).subspan(saved.first_generated, saved.n_generated);
  const char* rules = reinterpret_cast<const char*>(rest.data()) + stop_bytes;
  const std::unique_ptr<gptq_constraint, void (*)(gptq_constraint*)> constraint(
      saved.constraint_kind ? constraint_of(e.model, saved.constraint_kind, {rules, static_cast<size_t>(rules_bytes)}) : nullptr,
      gptq_constraint_destroy);
  require_format(!constraint || constraint->rules, "banned phrases are no constraint");
  const std::unique_ptr<gptq_constraint, void (*)(gptq_constraint*)> phrases(
      saved.phrases_bytes ? constraint_of(e.model, GPTQ_CONSTRAINT_BANNED, {rules + rules_bytes, saved.phrases_bytes}) : nullptr, gptq_constraint_destroy);
  require_format(phrases || !saved.n_bans, "bans without phrases");
  const engine::TextStream text =
      stream_of(saved, e.engine->tokenizer(), phrases ? &*phrases->phrases : nullptr, rest.first(static_cast<size_t>(stop_bytes)), generated);
  const std::unique_ptr<gptq_adapter, void (*)(gptq_adapter*)> adapter(saved.adapter ? adapter_of(e.model, saved.adapter) : nullptr, gptq_adapter_release);
  require(!saved.adapter || adapter, "the session has an adapter that is not loaded: call gptq_adapter_load first", GPTQ_E_NOT_FOUND);
  require(!adapter || !e.model.on_gpu(), adapters_on_gpu, GPTQ_E_UNSUPPORTED);
  if (adapter) e.engine->make_room(adapter->changes);

  const bool same = std::memcmp(&here, &saved, sizeof saved) == 0;
  const bool fits = same && saved.kind == GPTQ_SAVE_FULL && saved.page_tokens == shape.page_tokens &&
                    saved.kv_bytes == e.engine->kv_bytes(saved.n_computed) && saved.state_bytes == (saved.n_computed ? e.engine->state_bytes() : 0);
  engine::Session* const s = e.engine->create_session();
  if (!s) base::fail(GPTQ_E_INVALID_STATE, "the engine has all its ", shape.max_sessions, " sessions; raise max_sessions or destroy one");
  e.engine->append(*s, tokens);
  s->running = saved.running;
  s->flags = saved.flags;
  s->sampling = sampling_of(saved);
  std::copy_n(bias, saved.n_bias, s->bias);
  s->sampling.bias = {s->bias, saved.n_bias};
  std::memcpy(s->dry_breakers, saved.dry_breakers, sizeof saved.dry_breakers);
  s->mu = saved.mu;
  s->random = engine::Random(saved.random);
  s->max_tokens = saved.max_tokens;
  s->first_generated = saved.first_generated;
  s->n_generated = saved.n_generated;
  s->tokens_read = saved.tokens_read;
  s->stop_reason = saved.stop_reason;
  s->status = saved.status;
  s->stop_index = saved.stop_index;
  s->end_unseen = saved.end_unseen != 0;
  s->prefill_us = saved.prefill_us;
  s->decode_us = saved.decode_us;
  s->first_token_us = saved.first_token_us;
  s->started = engine::Clock::now();
  s->text = text;
  s->owner = retain(&e);
  std::unique_ptr<gptq_session, void (*)(gptq_session*)> made(handle_of(s), gptq_session_destroy);
  adapt(*s, adapter.get(), saved.adapter_scale);
  constrain(*s, constraint.get());
  ban(*s, phrases.get());
  std::copy_n(bans, saved.n_bans, s->bans);
  s->n_bans = saved.n_bans;
  s->n_dropped = saved.n_dropped;
  if (s->wants_marks()) restore_marks(*s, saved);
  require_format(e.engine->constrain(*s) || !s->running, "what was generated is not what the save's constraint allows");
  if (saved.kind == GPTQ_SAVE_FULL) read_rest(saved, Rest(source, source.size() - rest_bytes(saved)), *s, fits);
  *out = made.release();
  return same && (fits || e.engine->replays_exactly()) ? GPTQ_OK : GPTQ_REPLAYED;
}

}  // namespace

gptq_status GPTQ_CALL gptq_session_restore(gptq_engine* e, const void* bytes, size_t size, gptq_session** out, gptq_error* err) {
  return guard_inside(e, err, [&] {
    require(e && bytes && out, "e, bytes and out must not be NULL");
    return restore(*e, base::MemorySource({static_cast<const std::byte*>(bytes), size}), out);
  });
}

gptq_status GPTQ_CALL gptq_session_restore_from(gptq_engine* e, const gptq_source* src, gptq_session** out, gptq_error* err) {
  return guard_inside(e, err, [&] {
    require(e && src && out, "e, src and out must not be NULL");
    const OpenedSource source(read_struct(src, "gptq_source"));
    return restore(*e, *source, out);
  });
}
