// SPDX-License-Identifier: Apache-2.0
// C API: saving a session.
#include <algorithm>
#include <cstring>

#include "api/constraint.h"
#include "api/guard.h"
#include "api/saved.h"
#include "base/checked.h"

using namespace gptq;
using namespace gptq::api;

namespace {

Saved saved_of(const engine::Session& s, int32_t kind) {
  const engine::TextStream::Place place = s.text.place();
  Saved saved{};
  std::memcpy(saved.magic, saved_magic, sizeof saved.magic);
  saved.version = saved_version;
  saved.kind = static_cast<uint32_t>(kind);
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
  set_sampling(saved, s.sampling, s.mu);
  std::memcpy(saved.dry_breakers, s.dry_breakers, sizeof saved.dry_breakers);
  if (s.adapter) saved.adapter = s.adapter->fingerprint(), saved.adapter_scale = s.adapter_scale;
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
  if (const gptq_constraint* c = phrases_of(s)) saved.phrases_bytes = static_cast<uint32_t>(c->source.size());
  saved.n_bans = s.running ? s.n_bans : 0;
  if (s.phrases) saved.tokens_settled = s.text.settled();
  saved.n_dropped = s.n_dropped;
  if (s.wants_marks()) {
    saved.marks_taken = s.marks.taken();
    saved.marks_looked_at = s.marks.looked_at();
    saved.marks_format = s.marks.format().code();
  }
  if (kind == GPTQ_SAVE_FULL) {
    saved.n_computed = s.n_computed;
    saved.page_tokens = s.engine->shape().page_tokens;
    saved.kv_bytes = s.engine->kv_bytes(s.n_computed);
    saved.state_bytes = s.n_computed ? s.engine->state_bytes() : 0;
  }
  return saved;
}

// Where the bytes of a save go, in order; hashed on their way.
class Out {
 public:
  virtual ~Out() = default;
  void add(const void* from, size_t size) {
    if (!size) return;
    hash_.add({static_cast<const std::byte*>(from), size});
    put(static_cast<const std::byte*>(from), size);
  }
  void add_hash() {
    const uint64_t hash = hash_.value();
    put(reinterpret_cast<const std::byte*>(&hash), sizeof hash);
    hash_ = {};
  }

 private:
  virtual void put(const std::byte* from, size_t size) = 0;
  format::Hash hash_;
};

class ToBuffer final : public Out {
 public:
  explicit ToBuffer(void* to) : at_(static_cast<std::byte*>(to)) {}

 private:
  void put(const std::byte* from, size_t size) override { at_ = std::copy_n(from, size, at_); }
  std::byte* at_;
};

// In pieces that are not small.
class ToHost final : public Out {
 public:
  ToHost(gptq_write_fn write, void* user) : write_(write), user_(user) {}
  void flush() {
    if (n_) tell(buffer_, n_);
    n_ = 0;
  }

 private:
  void put(const std::byte* from, size_t size) override {
    if (size > sizeof buffer_ - n_) flush();
    if (size > sizeof buffer_) return tell(from, size);
    std::memcpy(buffer_ + n_, from, size);
    n_ += size;
  }
  void tell(const std::byte* from, size_t size) {
    if (const int32_t answer = write_(user_, from, size)) base::fail(GPTQ_E_IO, "the host's write function returned ", answer, " instead of 0");
  }
  const gptq_write_fn write_;
  void* const user_;
  size_t n_ = 0;
  std::byte buffer_[16384];
};

uint64_t bytes_of(const engine::Session& s, const Saved& saved) {
  uint64_t size = sizeof saved + s.sampling.bias.size_bytes() + saved.n_bans * sizeof *s.bans + s.n_tokens * sizeof(int32_t) + sizeof(uint64_t) + rest_bytes(saved);
  for (uint32_t i = 0; i < s.text.n_stops(); ++i) size += sizeof(uint32_t) + s.text.stop(i).size();
  return size + saved.constraint_bytes + saved.phrases_bytes;
}

void write(const engine::Session& s, const Saved& saved, Out& out) {
  out.add(&saved, sizeof saved);
  out.add(s.bias, s.sampling.bias.size_bytes());
  out.add(s.bans, saved.n_bans * sizeof *s.bans);
  for (uint32_t i = 0; i < saved.n_stops; ++i) {
    const auto bytes = static_cast<uint32_t>(s.text.stop(i).size());
    out.add(&bytes, sizeof bytes);
  }
  for (uint32_t i = 0; i < saved.n_stops; ++i) out.add(s.text.stop(i).data(), s.text.stop(i).size());
  for (const gptq_constraint* c : {constraint_of(s), phrases_of(s)})
    if (c) out.add(c->source.data(), c->source.size());
  out.add(s.tokens, s.n_tokens * sizeof(int32_t));
  out.add_hash();
  if (saved.kind != GPTQ_SAVE_FULL) return;
  s.engine->read_kv(s, s.n_computed, [&](std::span<std::byte> piece) { out.add(piece.data(), piece.size()); });
  out.add(s.states[s.state], static_cast<size_t>(saved.state_bytes));
  out.add_hash();
}

// What the session would be saved as, its size included.
Saved to_save(const gptq_session* s, int32_t kind) {
  if (kind != GPTQ_SAVE_REPLAY && kind != GPTQ_SAVE_FULL) base::fail(GPTQ_E_INVALID_ARGUMENT, "unknown kind of save ", kind);
  const engine::Session& session = session_of(s);
  require(!session.running || !session.wants_logits(), "a session that is generating with GPTQ_GEN_LOGITS cannot be saved", GPTQ_E_INVALID_STATE);
  require(!session.pools(), "a session that computes an embedding cannot be saved", GPTQ_E_INVALID_STATE);
  Saved saved = saved_of(session, kind);
  saved.size = bytes_of(session, saved);
  return saved;
}

}  // namespace

gptq_status GPTQ_CALL gptq_session_save(const gptq_session* s, int32_t kind, void* buf, size_t cap, size_t* needed, gptq_error* err) {
  return guard_inside(s, err, [&] {
    require(s && needed && (buf || !cap), "s, buf and needed must not be NULL");
    const Saved saved = to_save(s, kind);
    *needed = base::to_size(saved.size);
    if (cap < *needed) return gptq_status(GPTQ_E_BUFFER_TOO_SMALL);
    ToBuffer out(buf);
    write(session_of(s), saved, out);
    return gptq_status(GPTQ_OK);
  });
}

gptq_status GPTQ_CALL gptq_session_save_to(const gptq_session* s, int32_t kind, gptq_write_fn write_fn, void* user, gptq_error* err) {
  return guard_inside(s, err, [&] {
    require(s && write_fn, "s and write must not be NULL");
    const Saved saved = to_save(s, kind);
    ToHost out(write_fn, user);
    write(session_of(s), saved, out);
    out.flush();
    return gptq_status(GPTQ_OK);
  });
}
