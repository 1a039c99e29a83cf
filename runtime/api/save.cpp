// SPDX-License-Identifier: Apache-2.0
// C API: saved sessions. A save is Saved, the logit biases, the sizes of the stop strings (u32), their text, the constraint's source, the tokens (i32),
// and XXH3-64 of all before; little-endian. Nothing of a save is believed before its hash, and no session is made before all of it was looked at.
#include <algorithm>
#include <cmath>
#include <memory>

#include "api/constraint.h"
#include "api/guard.h"
#include "api/handles.h"
#include "format/header.h"

using namespace gptq;
using namespace gptq::api;

namespace {

constexpr char saved_magic[9] = "GPTQSAV\n";
constexpr uint32_t saved_version = 2;  // 1: Saved up to constraint_bytes

struct Saved {
  char magic[8];
  uint32_t version, kind;
  uint64_t size;     // of the whole save
  // What it was made with. The model must be the same; the rest changes numbers alone.
  uint64_t model, kernels;
  uint32_t activations, kv_kind, first_device_layer, ctx_tokens;
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
};
constexpr size_t saved_bytes_of_1 = 192;
static_assert(sizeof(Saved) == 272 && sizeof(engine::LogitBias) == 8);

// What a save of format 1 says by not saying it.
void set_new_fields(Saved& saved, const engine::Sampling& s, float mu) {
  saved.frequency_penalty = s.frequency_penalty;
  saved.presence_penalty = s.presence_penalty;
  saved.dry_multiplier = s.dry_multiplier;
  saved.dry_base = s.dry_base;
  saved.dry_allowed_length = s.dry_allowed_length;
  saved.dry_window = s.dry_window;
  saved.top_n_sigma = s.top_n_sigma;
  saved.typical_p = s.typical_p;
  saved.temperature_range = s.temperature_range;
  saved.temperature_exponent = s.temperature_exponent;
  saved.xtc_probability = s.xtc_probability;
  saved.xtc_threshold = s.xtc_threshold;
  saved.mirostat_tau = s.mirostat_tau;
  saved.mirostat_eta = s.mirostat_eta;
  saved.mu = mu;
  saved.n_bias = static_cast<uint32_t>(s.bias.size());
}

engine::Sampling sampling_of(const Saved& s) {
  return {.temperature = s.temperature,
          .top_p = s.top_p,
          .min_p = s.min_p,
          .repeat_penalty = s.repeat_penalty,
          .top_k = s.top_k,
          .penalty_window = s.penalty_window,
          .frequency_penalty = s.frequency_penalty,
          .presence_penalty = s.presence_penalty,
          .dry_multiplier = s.dry_multiplier,
          .dry_base = s.dry_base,
          .dry_allowed_length = s.dry_allowed_length,
          .dry_window = s.dry_window,
          .top_n_sigma = s.top_n_sigma,
          .typical_p = s.typical_p,
          .temperature_range = s.temperature_range,
          .temperature_exponent = s.temperature_exponent,
          .xtc_probability = s.xtc_probability,
          .xtc_threshold = s.xtc_threshold,
          .mirostat_tau = s.mirostat_tau,
          .mirostat_eta = s.mirostat_eta};
}
size_t header_bytes(const Saved& saved) { return saved.version == 1 ? saved_bytes_of_1 : sizeof saved; }

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text.data(), text.size())); }

// What the numbers of an engine depend on.
void describe(const gptq_engine& e, Saved& saved) {
  const engine::EngineShape& shape = e.engine->shape();
  saved.model = e.model.model->fingerprint;
  saved.kernels = format::hash_bytes(bytes_of(e.model.runtime.kernel_text));
  saved.activations = static_cast<uint32_t>(shape.activations);
  saved.kv_kind = static_cast<uint32_t>(shape.kv_kind);
  saved.first_device_layer = shape.first_device_layer;
  saved.ctx_tokens = shape.ctx_tokens;
}

Saved saved_of(const engine::Session& s) {
  const engine::TextStream::Place place = s.text.place();
  Saved saved{};
  std::memcpy(saved.magic, saved_magic, sizeof saved.magic);
  saved.version = saved_version;
  saved.kind = GPTQ_SAVE_REPLAY;
  describe(engine_of(s), saved);
  saved.n_tokens = s.n_tokens;
  saved.running = s.running;
  saved.flags = s.flags;
  saved.max_tokens = s.max_tokens;
  saved.first_generated = s.first_generated;
  saved.n_generated = s.n_generated;
  saved.tokens_read = s.tokens_read;
  saved.stop_index = s.stop_index;
  saved.stop_reason = s.stop_reason;
  saved.status = s.status;
  saved.end_unseen = s.end_unseen;
  saved.top_k = s.sampling.top_k;
  saved.temperature = s.sampling.temperature;
  saved.top_p = s.sampling.top_p;
  saved.min_p = s.sampling.min_p;
  saved.repeat_penalty = s.sampling.repeat_penalty;
  saved.penalty_window = s.sampling.penalty_window;
  set_new_fields(saved, s.sampling, s.mu);
  std::memcpy(saved.dry_breakers, s.dry_breakers, sizeof saved.dry_breakers);
  saved.n_stops = s.text.n_stops();
  saved.keep_leading_space = s.text.keeps_leading_space();
  saved.keep_stop = s.text.keeps_stop();
  saved.random = s.random.state();
  saved.prefill_us = s.prefill_us;
  saved.decode_us = s.decode_us;
  saved.first_token_us = s.first_token_us;
  saved.text_read = place.read;
  saved.text_token = place.token;
  saved.text_byte = place.byte;
  if (const gptq_constraint* c = constraint_of(s)) {
    saved.constraint_kind = c->kind;
    saved.constraint_bytes = static_cast<uint32_t>(c->source.size());
  }
  return saved;
}

class Writer {
 public:
  explicit Writer(void* to) : begin_(static_cast<std::byte*>(to)), at_(begin_) {}
  void add(const void* from, size_t size) {
    if (size) std::memcpy(at_, from, size);
    at_ += size;
  }
  std::span<const std::byte> written() const { return {begin_, at_}; }

 private:
  std::byte* begin_;
  std::byte* at_;
};

size_t saved_bytes(const engine::Session& s) {
  size_t size = sizeof(Saved) + s.sampling.bias.size_bytes() + s.n_tokens * sizeof(int32_t) + sizeof(uint64_t);
  for (uint32_t i = 0; i < s.text.n_stops(); ++i) size += sizeof(uint32_t) + s.text.stop(i).size();
  if (const gptq_constraint* c = constraint_of(s)) size += c->source.size();
  return size;
}

void write(const engine::Session& s, size_t size, void* to) {
  Saved saved = saved_of(s);
  saved.size = size;
  Writer out(to);
  out.add(&saved, sizeof saved);
  out.add(s.bias, s.sampling.bias.size_bytes());
  for (uint32_t i = 0; i < saved.n_stops; ++i) {
    const auto bytes = static_cast<uint32_t>(s.text.stop(i).size());
    out.add(&bytes, sizeof bytes);
  }
  for (uint32_t i = 0; i < saved.n_stops; ++i) out.add(s.text.stop(i).data(), s.text.stop(i).size());
  if (const gptq_constraint* c = constraint_of(s)) out.add(c->source.data(), c->source.size());
  out.add(s.tokens, s.n_tokens * sizeof(int32_t));
  const uint64_t hash = format::hash_bytes(out.written());
  out.add(&hash, sizeof hash);
}

void require_format(bool holds, const char* what) { require(holds, what, GPTQ_E_FORMAT); }

Saved read_header(std::span<const std::byte> bytes) {
  Saved saved{};
  require_format(bytes.size() >= saved_bytes_of_1 + sizeof(uint64_t), "the save is shorter than an empty one");
  std::memcpy(&saved, bytes.data(), saved_bytes_of_1);
  require_format(std::memcmp(saved.magic, saved_magic, sizeof saved.magic) == 0, "this is no saved session");
  require_format(saved.size == bytes.size(), "the save is not as long as it says");
  uint64_t hash;
  std::memcpy(&hash, bytes.data() + bytes.size() - sizeof hash, sizeof hash);
  require(hash == format::hash_bytes(bytes.first(bytes.size() - sizeof hash)), "the save is damaged", GPTQ_E_CHECKSUM);
  if (saved.version < 1 || saved.version > saved_version || saved.kind != GPTQ_SAVE_REPLAY)
    base::fail(GPTQ_E_UNSUPPORTED, "a save of format ", saved.version, " and kind ", saved.kind, ": use a newer library");
  require_format(bytes.size() >= header_bytes(saved) + sizeof(uint64_t), "the save ends early");
  if (saved.version == 1) set_new_fields(saved, {}, 0);
  std::memcpy(&saved, bytes.data(), header_bytes(saved));
  return saved;
}

bool within(float value, float most, float least = 0) { return value >= least && value <= most; }

// A hash can be made by anybody: the session must be one that this library could have saved.
void check(const Saved& s) {
  constexpr uint32_t flags = GPTQ_GEN_PREFILL_ONLY | GPTQ_GEN_IGNORE_EOS | GPTQ_GEN_KEEP_STOP | GPTQ_GEN_CONTINUE_TEXT | GPTQ_GEN_LOGITS;
  const uint64_t end = uint64_t{s.first_generated} + s.n_generated;
  bool good = s.running <= 1 && !(s.flags & ~flags) && end <= s.n_tokens && s.tokens_read <= s.n_generated;
  good = good && s.stop_reason >= GPTQ_STOP_NONE && s.stop_reason <= GPTQ_STOP_PREFILLED && s.status <= 0;
  good = good && within(s.temperature, 1000) && within(s.top_p, 1) && within(s.min_p, 1) && within(s.repeat_penalty, 1000) && s.top_k >= 0;
  good = good && within(s.frequency_penalty, 1000, -1000) && within(s.presence_penalty, 1000, -1000) && within(s.dry_multiplier, 1000);
  good = good && within(s.dry_base, 16, 1) && s.dry_allowed_length && within(s.top_n_sigma, 1000) && within(s.typical_p, 1);
  good = good && within(s.temperature_range, 1000) && within(s.temperature_exponent, 100) && within(s.xtc_probability, 1);
  good = good && within(s.xtc_threshold, 1) && within(s.mirostat_tau, 100) && within(s.mirostat_eta, 10) && std::isfinite(s.mu);
  good = good && s.n_bias <= engine::logit_biases_max && s.n_stops <= engine::stop_strings_max;
  if (s.running)
    good = good && s.n_tokens && end == s.n_tokens && !(s.flags & GPTQ_GEN_LOGITS) && (!s.max_tokens || s.n_generated < s.max_tokens);
  require_format(good, "the save describes no session");
}

// The text of what was generated, and how much of it was read.
engine::TextStream text_of(const Saved& saved, const text::Tokenizer* tokenizer, std::span<const std::byte> stops, std::span<const int32_t> generated) {
  engine::TextStream text;
  text.start(tokenizer, saved.keep_leading_space, saved.keep_stop);
  const std::byte* at = stops.data() + saved.n_stops * sizeof(uint32_t);
  for (uint32_t i = 0; i < saved.n_stops; ++i) {
    uint32_t size;
    std::memcpy(&size, stops.data() + i * sizeof size, sizeof size);
    require_format(text.add_stop(reinterpret_cast<const char*>(at), size), "a stop string is empty or too long");
    at += size;
  }
  const bool end_token = !saved.running && saved.stop_reason == GPTQ_STOP_EOS && !generated.empty();
  for (const int32_t token : generated.first(generated.size() - end_token)) text.push(token);
  if (!saved.running) text.finish();
  require_format(text.go_to({saved.text_read, saved.text_token, saved.text_byte}, generated), "what was read is not in the text");
  return text;
}

gptq_status restore(gptq_engine& e, std::span<const std::byte> bytes, gptq_session** out) {
  const Saved saved = read_header(bytes);
  Saved here = saved;
  describe(e, here);
  if (here.model != saved.model) base::fail(GPTQ_E_UNSUPPORTED, "the save is of another model file");
  check(saved);
  const engine::EngineShape& shape = e.engine->shape();
  if (saved.n_tokens > shape.ctx_tokens)
    base::fail(GPTQ_E_CONTEXT_FULL, "the save has ", saved.n_tokens, " tokens, the context ", shape.ctx_tokens, "; raise ctx_tokens");
  std::span<const std::byte> rest = bytes.subspan(header_bytes(saved), bytes.size() - header_bytes(saved) - sizeof(uint64_t));
  engine::LogitBias bias[engine::logit_biases_max];
  require_format(rest.size() >= saved.n_bias * sizeof *bias, "the save ends early");
  std::memcpy(bias, rest.data(), saved.n_bias * sizeof *bias);
  rest = rest.subspan(saved.n_bias * sizeof *bias);
  for (const engine::LogitBias& b : std::span(bias, saved.n_bias))
    require_format(b.token >= 0 && static_cast<uint32_t>(b.token) < e.engine->model().spec.n_vocab && within(b.bias, 1000, -1000), "a bias is out of range");
  uint64_t stop_bytes = saved.n_stops * sizeof(uint32_t);
  require_format(rest.size() >= stop_bytes, "the save ends early");
  for (uint32_t i = 0; i < saved.n_stops; ++i) {
    uint32_t size;
    std::memcpy(&size, rest.data() + i * sizeof size, sizeof size);
    stop_bytes += size;
  }
  const uint64_t rules_bytes = saved.constraint_bytes, tokens_at = stop_bytes + rules_bytes;
  require_format(rest.size() == tokens_at + uint64_t{saved.n_tokens} * sizeof(int32_t), "the save's parts do not add up");
  require_format(saved.constraint_kind || !rules_bytes, "a constraint of no kind");
  std::pmr::vector<int32_t> tokens(saved.n_tokens, &e.model.runtime.memory);
  if (saved.n_tokens) std::memcpy(tokens.data(), rest.data() + tokens_at, saved.n_tokens * sizeof(int32_t));
  for (const int32_t token : tokens)
    require_format(token >= 0 && static_cast<uint32_t>(token) < e.engine->model().spec.n_vocab, "a token is outside the vocabulary");
  const std::span<const int32_t> generated = std::span<const int32_t>(tokens).subspan(saved.first_generated, saved.n_generated);
  const engine::TextStream text = text_of(saved, e.engine->tokenizer(), rest.first(static_cast<size_t>(stop_bytes)), generated);
  const char* rules = reinterpret_cast<const char*>(rest.data()) + stop_bytes;
  const std::unique_ptr<gptq_constraint, void (*)(gptq_constraint*)> constraint(
      saved.constraint_kind ? constraint_of(e.model, saved.constraint_kind, {rules, static_cast<size_t>(rules_bytes)}) : nullptr,
      gptq_constraint_destroy);

  engine::Session* const s = e.engine->create_session();
  if (!s) base::fail(GPTQ_E_INVALID_STATE, "the engine has all its ", shape.max_sessions, " sessions; raise max_sessions or destroy one");
  std::copy(tokens.begin(), tokens.end(), s->tokens);
  s->n_tokens = saved.n_tokens;
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
  constrain(*s, constraint.get());
  if (!e.engine->constrain(*s) && s->running) {
    gptq_session_destroy(handle_of(s));
    base::fail(GPTQ_E_FORMAT, "what was generated is not what the save's constraint allows");
  }
  *out = handle_of(s);
  return std::memcmp(&here, &saved, sizeof saved) == 0 && e.engine->replays_exactly() ? GPTQ_OK : GPTQ_REPLAYED;
}

}  // namespace

gptq_status GPTQ_CALL gptq_session_save(const gptq_session* s, int32_t kind, void* buf, size_t cap, size_t* needed, gptq_error* err) {
  return guard(err, [&] {
    require(s && needed && (buf || !cap), "s, buf and needed must not be NULL");
    if (kind != GPTQ_SAVE_REPLAY) base::fail(GPTQ_E_INVALID_ARGUMENT, "unknown kind of save ", kind);
    const engine::Session& session = session_of(s);
    require(!session.running || !session.wants_logits(), "a session that is generating with GPTQ_GEN_LOGITS cannot be saved",
            GPTQ_E_INVALID_STATE);
    const size_t size = saved_bytes(session);
    *needed = size;
    if (cap < size) return gptq_status(GPTQ_E_BUFFER_TOO_SMALL);
    write(session, size, buf);
    return gptq_status(GPTQ_OK);
  });
}

gptq_status GPTQ_CALL gptq_session_restore(gptq_engine* e, const void* bytes, size_t size, gptq_session** out, gptq_error* err) {
  return guard(err, [&] {
    require(e && bytes && out, "e, bytes and out must not be NULL");
    return restore(*e, {static_cast<const std::byte*>(bytes), size}, out);
  });
}
