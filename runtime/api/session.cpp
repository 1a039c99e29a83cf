// SPDX-License-Identifier: Apache-2.0
// C API: sessions and gptq_generate.
#include <algorithm>
#include <cstring>

#include "api/adapter.h"
#include "api/constraint.h"
#include "api/embedding.h"
#include "api/fit_chat.h"
#include "api/guard.h"
#include "api/prediction.h"
#include "api/text.h"
#include "base/os.h"

using namespace gptq;
using namespace gptq::api;

namespace {

void require_idle(const engine::Session& s) {
  require(!s.generating, "the session is inside gptq_generate, whose callback may not change it", GPTQ_E_INVALID_STATE);
  require(!s.running, "the session is running: step or cancel it first", GPTQ_E_INVALID_STATE);
}

// Replaces everything from `keep` on.
void append(engine::Session& s, std::span<const int32_t> tokens, uint32_t keep) {
  const uint32_t ctx = s.engine->shape().ctx_tokens, n_vocab = s.engine->model().spec.n_vocab;
  if (tokens.size() > ctx - keep)
    base::fail(GPTQ_E_CONTEXT_FULL, tokens.size(), " tokens do not fit behind ", keep, ": the context has ", ctx,
               "; raise ctx_tokens or shorten the input");
  for (int32_t token : tokens)
    if (token < 0 || static_cast<uint32_t>(token) >= n_vocab)
      base::fail(GPTQ_E_INVALID_ARGUMENT, "token ", token, " is outside the vocabulary of ", n_vocab);
  s.engine->truncate(s, keep);
  s.engine->append(s, tokens);
}

uint64_t random_seed() {
  uint64_t seed = 0;
  if (!base::os::random_bytes(&seed, sizeof seed))
    seed = static_cast<uint64_t>(engine::Clock::now().time_since_epoch().count());
  return seed;
}

float checked(float value, float most, const char* name, float least = 0) {
  if (!(value >= least && value <= most))
    base::fail(GPTQ_E_INVALID_ARGUMENT, name, " = ", static_cast<double>(value), " is not within ", static_cast<double>(least), " and ",
               static_cast<double>(most));
  return value;
}

void check_bias(std::span<const gptq_logit_bias> bias, uint32_t n_vocab) {
  if (bias.size() > engine::logit_biases_max)
    base::fail(GPTQ_E_INVALID_ARGUMENT, "n_bias = ", bias.size(), " is more than ", engine::logit_biases_max);
  for (size_t i = 0; i < bias.size(); ++i) {
    if (bias[i].token < 0 || static_cast<uint32_t>(bias[i].token) >= n_vocab)
      base::fail(GPTQ_E_INVALID_ARGUMENT, "bias: token ", bias[i].token, " is outside the vocabulary of ", n_vocab);
    checked(bias[i].bias, 1000, "bias", -1000);
    for (size_t j = 0; j < i; ++j)
      if (bias[j].token == bias[i].token) base::fail(GPTQ_E_INVALID_ARGUMENT, "bias: token ", bias[i].token, " is there twice");
  }
}

void set_breakers(engine::Session& s, gptq_string in) {
  const std::string_view set = in.ptr ? std::string_view(in.ptr, in.size) : "\n:\"*";
  require(set.size() <= engine::dry_breakers_max, "dry_breakers are more than 16");
  require(std::all_of(set.begin(), set.end(), [](char c) { return c > 0; }), "dry_breakers are not ASCII");
  std::fill(std::copy(set.begin(), set.end(), s.dry_breakers), std::end(s.dry_breakers), '\0');
}

void set_sampling(engine::Session& s, const gptq_sampling* in) {
  gptq_sampling p = read_struct_or_default(in, "gptq_sampling");
  if (p.flags & ~uint32_t(GPTQ_SAMPLE_RANDOM_SEED | GPTQ_SAMPLE_MODEL_DEFAULTS))
    base::fail(GPTQ_E_INVALID_ARGUMENT, "unknown sampling flags ", p.flags);
  if (p.flags & GPTQ_SAMPLE_MODEL_DEFAULTS) {
    const model::Generation& own = s.engine->model().generation;
    if (p.temperature == 0) p.temperature = own.temperature;
    if (p.top_k == 0) p.top_k = own.top_k;
    if (p.top_p == 0) p.top_p = own.top_p;
    if (p.min_p == 0) p.min_p = own.min_p;
    if (p.repeat_penalty == 0) p.repeat_penalty = own.repeat_penalty;
  }
  require(p.top_k >= 0, "top_k is negative");
  require(p.bias || !p.n_bias, "bias is NULL");
  engine::Sampling sampling;
  sampling.temperature = checked(p.temperature, 1000, "temperature");
  sampling.top_p = checked(p.top_p, 1, "top_p");
  sampling.min_p = checked(p.min_p, 1, "min_p");
  sampling.repeat_penalty = checked(p.repeat_penalty, 1000, "repeat_penalty");
  sampling.top_k = p.top_k;
  sampling.penalty_window = p.penalty_window;
  sampling.frequency_penalty = checked(p.frequency_penalty, 1000, "frequency_penalty", -1000);
  sampling.presence_penalty = checked(p.presence_penalty, 1000, "presence_penalty", -1000);
  sampling.dry_multiplier = checked(p.dry_multiplier, 1000, "dry_multiplier");
  if (p.dry_base != 0) sampling.dry_base = checked(p.dry_base, 16, "dry_base", 1);
  if (p.dry_allowed_length != 0) sampling.dry_allowed_length = p.dry_allowed_length;
  sampling.dry_window = p.dry_window;
  sampling.top_n_sigma = checked(p.top_n_sigma, 1000, "top_n_sigma");
  sampling.typical_p = checked(p.typical_p, 1, "typical_p");
  sampling.temperature_range = checked(p.temperature_range, 1000, "temperature_range");
  if (p.temperature_exponent != 0) sampling.temperature_exponent = checked(p.temperature_exponent, 100, "temperature_exponent");
  sampling.xtc_probability = checked(p.xtc_probability, 1, "xtc_probability");
  sampling.xtc_threshold = p.xtc_threshold != 0 ? checked(p.xtc_threshold, 1, "xtc_threshold") : 0.1f;
  sampling.mirostat_tau = checked(p.mirostat_tau, 100, "mirostat_tau");
  sampling.mirostat_eta = p.mirostat_eta != 0 ? checked(p.mirostat_eta, 10, "mirostat_eta") : 0.1f;
  set_breakers(s, p.dry_breakers);
  check_bias({p.bias, p.n_bias}, s.engine->model().spec.n_vocab);
  for (size_t i = 0; i < p.n_bias; ++i) s.bias[i] = {p.bias[i].token, p.bias[i].bias};
  sampling.bias = {s.bias, p.n_bias};
  s.sampling = sampling;
  s.mu = 2 * sampling.mirostat_tau;
  s.random = engine::Random(p.flags & GPTQ_SAMPLE_RANDOM_SEED ? random_seed() : p.seed);
}

// How marks are written, for a start that wants them.
text::MarkFormat marks_for(const engine::Session& s) {
  const text::FoundFormat found = s.own_template ? own_marks(engine_of(s).model) : s.marks_of_template;
  if (found.problem)
    base::fail(GPTQ_E_UNSUPPORTED, "GPTQ_GEN_MARKED: the format of the chat template is not known: ", found.problem);
  return found.format;
}

void start(engine::Session& s, const gptq_generate_params* params) {
  constexpr uint32_t known = GPTQ_GEN_PREFILL_ONLY | GPTQ_GEN_IGNORE_EOS | GPTQ_GEN_KEEP_STOP | GPTQ_GEN_CONTINUE_TEXT | GPTQ_GEN_LOGITS |
                             GPTQ_GEN_SPECULATE | GPTQ_GEN_LOGPROBS | GPTQ_GEN_BACKGROUND | GPTQ_GEN_MARKED;
  require_idle(s);
  const gptq_generate_params p = read_struct_or_default(params, "gptq_generate_params");
  refuse_extensions(p.next);
  if (p.flags & ~known) base::fail(GPTQ_E_INVALID_ARGUMENT, "unknown generation flags ", p.flags & ~known);
  const engine::Pooling pooling = pooling_of(p.pooling);
  require(pooling == engine::Pooling::none || (p.flags & GPTQ_GEN_PREFILL_ONLY && !(p.flags & GPTQ_GEN_LOGITS)), "pooling goes with PREFILL_ONLY, not with LOGITS");
  require(s.n_tokens > 0, "nothing to generate from: append text or tokens first", GPTQ_E_INVALID_STATE);
  require(p.stop || !p.n_stop, "stop is NULL");
  require(!p.constraint || &p.constraint->model == &engine_of(s).model, "the constraint is of another model");
  require(!p.constraint || p.constraint->rules, "banned phrases are no constraint");
  require(!p.constraint || !(p.flags & GPTQ_GEN_IGNORE_EOS), "with IGNORE_EOS no constraint can end: leave it out");
  require(!p.banned || (&p.banned->model == &engine_of(s).model && p.banned->phrases), "banned is not GPTQ_CONSTRAINT_BANNED of this model");
  require(!p.banned || !(p.flags & GPTQ_GEN_LOGITS), "what is banned is sampled again: not with GPTQ_GEN_LOGITS");
  engine::TextStream text;
  text.start(s.engine->tokenizer(), p.flags & GPTQ_GEN_CONTINUE_TEXT, p.flags & GPTQ_GEN_KEEP_STOP, p.banned ? &*p.banned->phrases : nullptr);
  for (size_t i = 0; i < p.n_stop; ++i) {
    const std::string_view stop = text_of(p.stop[i].ptr, p.stop[i].size, "stop");
    require(text.add_stop(stop.data(), stop.size()), "stop strings: at most 16, each of 1 to 256 bytes");
  }
  const text::MarkFormat marks = p.flags & GPTQ_GEN_MARKED ? marks_for(s) : text::MarkFormat();
  set_sampling(s, p.sampling);
  constrain(s, p.constraint);
  ban(s, p.banned);
  s.text = text;
  s.marks = {};
  if (p.flags & GPTQ_GEN_MARKED) s.marks.start(marks, s.text, {s.tokens, s.n_tokens});
  s.flags = p.flags;
  s.pooling = pooling;
  s.max_tokens = p.max_tokens;
  s.engine->start(s);
}

gptq_session_info info_of(const engine::Session& s) {
  gptq_session_info info{};
  info.state = s.running ? GPTQ_SESSION_RUNNING : GPTQ_SESSION_IDLE;
  info.stop_reason = s.stop_reason;
  info.status = s.status;
  info.n_tokens = s.n_tokens;
  info.n_pending = s.n_pending();
  info.n_generated = s.n_generated;
  info.n_ctx = s.engine->shape().ctx_tokens;
  info.stop_index = s.stop_index;
  info.bytes_unread = static_cast<uint32_t>(std::min<uint64_t>(s.text.unread(), UINT32_MAX));
  info.n_guessed = s.n_guessed;
  info.n_guessed_right = s.n_right;
  info.n_dropped = s.n_dropped;
  info.tokens_unread = s.n_readable() - s.tokens_read;
  info.logits_unread = s.n_logits;
  info.prefill_us = s.prefill_us;
  info.decode_us = s.decode_us;
  info.first_token_us = s.first_token_us;
  return info;
}

// The scheduler keeps the status alone.
const char* reason_of(gptq_status status) {
  if (status == GPTQ_E_NUMERIC) return "NaN or infinity in what the model computes";
  if (status == GPTQ_E_KV_FULL) return "no free page is left in the KV arena; raise kv_bytes";
  return gptq_status_name(status);
}

// For the time of a host's callback, which may use the engine.
class Outside {
 public:
  explicit Outside(Domain& domain) : domain_(domain) { domain_.leave(); }
  ~Outside() { domain_.wait_and_enter(); }

 private:
  Domain& domain_;
};

// Keeps a session, and nobody starts it anew, while gptq_generate is in it.
class Generating {
 public:
  explicit Generating(engine::Session& s) : s_(*retain(&s)) { s_.generating = true; }
  ~Generating() {
    s_.generating = false;
    if (s_.running) s_.engine->stop(s_);  // a callback threw
    gptq_session_destroy(handle_of(&s_));
  }

 private:
  engine::Session& s_;
};

// Gives all text that may be read to the host's callback, which may cancel, or destroy the session.
void drain(engine::Session& s, gptq_text_fn on_text, void* user) {
  char buffer[512];
  while (const size_t n = s.text.read(s.generated(), buffer)) {
    if (!on_text) continue;
    const Outside outside(engine_of(s).domain);
    if (on_text(user, buffer, n) == 0 && s.references > 1) continue;
    s.cancelled.store(true, std::memory_order_relaxed);
    return;
  }
}

}  // namespace

gptq_status GPTQ_CALL gptq_session_create(gptq_engine* e, gptq_session** out, gptq_error* err) {
  return guard_inside(e, err, [&] {
    require(e && out, "e and out must not be NULL");
    engine::Session* s = e->engine->create_session();
    if (!s)
      base::fail(GPTQ_E_INVALID_STATE, "the engine has all its ", e->engine->shape().max_sessions,
                 " sessions; raise max_sessions or destroy one");
    s->owner = retain(e);
    *out = handle_of(s);
    return GPTQ_OK;
  });
}

gptq_status GPTQ_CALL gptq_session_fork(const gptq_session* s, gptq_session** out, gptq_error* err) {
  return guard_inside(s, err, [&] {
    require(s && out, "s and out must not be NULL");
    gptq_engine& e = engine_of(session_of(s));
    engine::Session* fork = e.engine->fork(session_of(s));
    if (!fork)
      base::fail(GPTQ_E_INVALID_STATE, "the engine has all its ", e.engine->shape().max_sessions,
                 " sessions; raise max_sessions or destroy one");
    constrain(*fork, constraint_of(session_of(s)));
    ban(*fork, phrases_of(session_of(s)));
    hold_adapter(*fork, adapter_of(session_of(s)));
    predict(*fork, prediction_of(session_of(s)));
    fork->owner = retain(&e);
    *out = handle_of(fork);
    return GPTQ_OK;
  });
}

void gptq::api::destroy_now(engine::Session& s) {
  gptq_engine& e = engine_of(s);
  e.engine->destroy_session(s);
  constrain(s, nullptr);
  ban(s, nullptr);
  hold_adapter(s, nullptr);
  predict(s, nullptr);
  if (s.user_free) s.user_free(s.user);
  gptq_engine_destroy(&e);
}

void GPTQ_CALL gptq_session_destroy(gptq_session* s) {
  if (!s || !drop(&session_of(s))) return;
  gptq_engine* const e = retain(&engine_of(session_of(s)));
  e->domain.destroy(session_of(s));
  gptq_engine_destroy(e);
}

gptq_session* GPTQ_CALL gptq_session_retain(gptq_session* s) {
  if (s) retain(&session_of(s));
  return s;
}

void GPTQ_CALL gptq_session_set_user(gptq_session* s, void* user) {
  if (s) session_of(s).user = user;
}
void GPTQ_CALL gptq_session_set_user_free(gptq_session* s, gptq_user_free_fn user_free) {
  if (s) session_of(s).user_free = user_free;
}
void* GPTQ_CALL gptq_session_user(const gptq_session* s) { return s ? session_of(s).user : nullptr; }

gptq_status GPTQ_CALL gptq_session_append_text(gptq_session* s, const char* text, size_t size, uint32_t flags, size_t* n_tokens,
                                               gptq_error* err) {
  return guard_inside(s, err, [&] {
    require(s, "s is NULL");
    require_idle(session_of(s));
    const auto tokens = encode(engine_of(session_of(s)).model, text_of(text, size, "text"), flags);
    append(session_of(s), tokens, session_of(s).n_tokens);
    if (n_tokens) *n_tokens = tokens.size();
    return GPTQ_OK;
  });
}

gptq_status GPTQ_CALL gptq_session_append_tokens(gptq_session* s, const gptq_token* tokens, size_t n, gptq_error* err) {
  return guard_inside(s, err, [&] {
    require(s && (tokens || !n), "s and tokens must not be NULL");
    require_idle(session_of(s));
    append(session_of(s), {tokens, n}, session_of(s).n_tokens);
    return GPTQ_OK;
  });
}

gptq_status GPTQ_CALL gptq_session_set_chat(gptq_session* s, const gptq_chat* chat, size_t* n_tokens, gptq_error* err) {
  return guard_inside(s, err, [&] {
    require(s && chat, "s and chat must not be NULL");
    engine::Session& session = session_of(s);
    require_idle(session);
    const FittedChat fitted = fit_chat(engine_of(session).model, chat, {session.tokens, session.n_tokens}, session.engine->shape().ctx_tokens);
    const auto& tokens = fitted.tokens;
    const auto common =
        std::mismatch(tokens.begin(), tokens.end(), session.tokens, session.tokens + session.n_tokens).first - tokens.begin();
    append(session, std::span(tokens).subspan(static_cast<size_t>(common)), static_cast<uint32_t>(common));
    session.n_dropped = fitted.n_dropped;
    const gptq_chat given = read_struct(chat, "gptq_chat");
    const std::string_view host_template =
        text_of(given.template_override, given.template_override_size, "template_override");
    session.own_template = host_template.empty();
    if (!session.own_template) session.marks_of_template = marks_of(engine_of(session).model, host_template);
    if (n_tokens) *n_tokens = tokens.size();
    return GPTQ_OK;
  });
}

gptq_status GPTQ_CALL gptq_session_start(gptq_session* s, const gptq_generate_params* params, gptq_error* err) {
  return guard_inside(s, err, [&] {
    require(s, "s is NULL");
    start(session_of(s), params);
    return GPTQ_OK;
  });
}

gptq_status GPTQ_CALL gptq_session_read(gptq_session* s, char* buf, size_t cap, size_t* size) {
  return guard_logged(s, [&] {
    require(s && size && (buf || !cap), "s, buf and size must not be NULL");
    *size = session_of(s).text.read(session_of(s).generated(), {buf, cap});
    return GPTQ_OK;
  });
}

gptq_status GPTQ_CALL gptq_session_read_marked(gptq_session* s, char* buf, size_t cap, gptq_marked* out) {
  return guard_logged(s, [&] {
    require(s && out && (buf || !cap), "s, buf and out must not be NULL");
    check_version(out, "gptq_marked");
    engine::Session& session = session_of(s);
    require(session.wants_marks(), "the generation was not started with GPTQ_GEN_MARKED", GPTQ_E_INVALID_STATE);
    text::MarkReader::Call call;
    const engine::MarkStream::Piece piece = session.marks.read(session.marked(), {buf, cap}, call);
    gptq_marked marked{};
    marked.kind = static_cast<int32_t>(piece.kind);
    marked.size = piece.size;
    if (piece.call) {
      marked.call = piece.number;
      marked.more = piece.goes_on;
      static_assert(sizeof marked.name == sizeof call.name && sizeof marked.id == sizeof call.id);
      std::memcpy(marked.name, call.name, sizeof marked.name);
      std::memcpy(marked.id, call.id, sizeof marked.id);
    }
    write_struct(out, marked);
    return GPTQ_OK;
  });
}

gptq_status GPTQ_CALL gptq_session_read_tokens(gptq_session* s, gptq_token* buf, size_t cap, size_t* n) {
  return guard_logged(s, [&] {
    require(s && n && (buf || !cap), "s, buf and n must not be NULL");
    engine::Session& session = session_of(s);
    const auto unread = session.generated().first(session.n_readable()).subspan(session.tokens_read);
    *n = std::min(cap, unread.size());
    std::copy_n(unread.begin(), *n, buf);
    session.tokens_read += static_cast<uint32_t>(*n);
    return GPTQ_OK;
  });
}

gptq_status GPTQ_CALL gptq_session_read_logits(gptq_session* s, float* out, size_t cap_floats, uint32_t* first_position, uint32_t* n_rows) {
  return guard_logged(s, [&] {
    require(s && first_position && n_rows && (out || !cap_floats), "s, out, first_position and n_rows must not be NULL");
    engine::Session& session = session_of(s);
    const size_t n_vocab = session.engine->model().spec.n_vocab;
    if (session.n_logits && cap_floats < n_vocab) return gptq_status(GPTQ_E_BUFFER_TOO_SMALL);
    *first_position = session.logits_position;
    *n_rows = static_cast<uint32_t>(std::min<size_t>(session.n_logits, cap_floats / n_vocab));
    for (uint32_t i = 0; i < *n_rows; ++i) {
      std::memcpy(out + i * n_vocab, session.logits + session.first_logits * n_vocab, n_vocab * sizeof(float));
      session.first_logits = (session.first_logits + 1) % session.engine->shape().logits_rows;
    }
    session.n_logits -= *n_rows;
    session.logits_position += *n_rows;
    return gptq_status(GPTQ_OK);
  });
}

gptq_status GPTQ_CALL gptq_session_cancel(gptq_session* s) {
  if (!s) return GPTQ_E_INVALID_ARGUMENT;
  session_of(s).cancelled.store(true, std::memory_order_relaxed);
  return GPTQ_OK;
}

gptq_status GPTQ_CALL gptq_session_info_get(const gptq_session* s, gptq_session_info* out) {
  return guard_logged(s, [&] {
    require(s && out, "s and out must not be NULL");
    check_version(out, "gptq_session_info");
    write_struct(out, info_of(session_of(s)));
    return GPTQ_OK;
  });
}

gptq_status GPTQ_CALL gptq_session_tokens(const gptq_session* s, gptq_token* buf, size_t cap, size_t* needed) {
  return guard_logged(s, [&] {
    require(s && needed, "s and needed must not be NULL");
    return copy_out(session_of(s).tokens, session_of(s).n_tokens, buf, cap, needed);
  });
}

gptq_status GPTQ_CALL gptq_session_truncate(gptq_session* s, uint32_t n_tokens) {
  return guard_logged(s, [&] {
    require(s, "s is NULL");
    require_idle(session_of(s));
    session_of(s).engine->truncate(session_of(s), n_tokens);
    return GPTQ_OK;
  });
}

gptq_status GPTQ_CALL gptq_generate(gptq_session* s, const char* text, size_t size, const gptq_generate_params* params,
                                    gptq_text_fn on_text, void* user, gptq_session_info* result, gptq_error* err) {
  return guard_inside(s, err, [&] {
    require(s, "s is NULL");
    if (result) check_version(result, "gptq_session_info");
    engine::Session& session = session_of(s);
    require_idle(session);
    const uint32_t before = session.n_tokens;
    const uint32_t flags = GPTQ_TEXT_PARSE_SPECIAL | (before == 0 ? GPTQ_TEXT_ADD_BOS : 0);
    const std::string_view input = text_of(text, size, "text");
    if (!input.empty() || before == 0) append(session, encode(engine_of(session).model, input, flags), before);
    try {
      start(session, params);
    } catch (...) {
      session.engine->truncate(session, before);
      throw;
    }
    const Generating generating(session);
    while (session.running) {
      gptq_step_info info{};
      const gptq_status status = session.engine->step(GPTQ_BUDGET_UNLIMITED, true, info);
      drain(session, on_text, user);
      if (status == GPTQ_IDLE && session.running) {
        session.engine->stop(session);
        base::fail(GPTQ_E_INVALID_STATE,
                   "logits_rows are full: with GPTQ_GEN_LOGITS use gptq_session_start, gptq_engine_step and gptq_session_read_logits");
      }
    }
    if (result) write_struct(result, info_of(session));
    if (session.status != GPTQ_OK) base::fail(session.status, "generation ended early: ", reason_of(session.status));
    return GPTQ_OK;
  });
}
