// SPDX-License-Identifier: Apache-2.0
// Bytes as a sequence of calls on an engine and its sessions, in any order: each ends with a status, and in the end no page of the cache is held.
#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "tests/fuzz/target.h"
#include "tests/fuzz/tiny.h"

using namespace gptq;
using namespace gptq::fuzz;

namespace {

class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : at_(data), end_(data + size) {}
  bool empty() const { return at_ == end_; }
  uint32_t next() { return empty() ? 0 : *at_++; }
  std::string text(uint32_t most) {
    const size_t asked = next() % (most + 1), n = std::min(asked, static_cast<size_t>(end_ - at_));
    return {reinterpret_cast<const char*>(std::exchange(at_, at_ + n)), n};
  }

 private:
  const uint8_t *at_, *end_;
};

struct Rules {
  Rules() {
    const auto make = [](int32_t kind, std::string_view source) {
      gptq_constraint* c = nullptr;
      call([&](gptq_error* err) { return gptq_constraint_compile(tiny().model.get(), kind, source.data(), source.size(), &c, err); });
      return c;
    };
    constraints = {nullptr, make(GPTQ_CONSTRAINT_REGEX, "[a-c ]*"), make(GPTQ_CONSTRAINT_CHOICE, R"(["abab", "a", "bc"])")};
    banned = {nullptr, make(GPTQ_CONSTRAINT_BANNED, R"(["ab", "c"])")};
  }
  std::array<gptq_constraint*, 3> constraints;
  std::array<gptq_constraint*, 2> banned;
};

void start(gptq_session* s, Bytes& bytes) {
  static const Rules rules;
  auto sampling = make<gptq_sampling>();
  const uint32_t how_to_sample = bytes.next();
  sampling.temperature = how_to_sample & 1 ? 1.0f : 0.0f;
  sampling.top_p = how_to_sample & 2 ? 0.9f : 0.0f;
  sampling.repeat_penalty = how_to_sample & 4 ? 1.3f : 0.0f;
  sampling.mirostat_tau = how_to_sample & 8 ? 3.0f : 0.0f;
  sampling.dry_multiplier = how_to_sample & 16 ? 0.8f : 0.0f;
  sampling.seed = how_to_sample;
  auto how = make<gptq_generate_params>();
  how.flags = bytes.next() | (bytes.next() & 1) << 8;
  how.sampling = &sampling;
  how.max_tokens = bytes.next() % 20;
  how.pooling = static_cast<int32_t>(bytes.next() % 4);
  const std::string word = bytes.text(4);
  const gptq_string stop{word.data(), word.size()};
  how.stop = &stop, how.n_stop = word.empty() ? 0 : 1;
  how.constraint = rules.constraints[bytes.next() % rules.constraints.size()];
  how.banned = rules.banned[bytes.next() % rules.banned.size()];
  no_bug(gptq_session_start(s, &how, nullptr));
}

void read(gptq_session* s, uint32_t which) {
  char text[7];
  size_t n = 0;
  if (which % 4 == 0) no_bug(gptq_session_read(s, text, sizeof text, &n));
  if (which % 4 == 1) {
    gptq_token tokens[3];
    no_bug(gptq_session_read_tokens(s, tokens, 3, &n));
  }
  if (which % 4 == 2) {
    auto mark = make<gptq_marked>();
    no_bug(gptq_session_read_marked(s, text, sizeof text, &mark));
  }
  if (which % 4 == 3) {
    std::vector<float> logits(4096);
    uint32_t first = 0, rows = 0;
    no_bug(gptq_session_read_logits(s, logits.data(), logits.size(), &first, &rows));
  }
}

void call_one(Engine& engine, std::array<gptq_session*, 4>& sessions, std::string& saved, Bytes& bytes) {
  const uint32_t what = bytes.next();
  gptq_session*& s = sessions[bytes.next() % sessions.size()];
  gptq_session*& other = sessions[bytes.next() % sessions.size()];
  switch (what % 16) {
    case 0:
      if (!s) no_bug(gptq_session_create(engine.get(), &s, nullptr));
      break;
    case 1: gptq_session_destroy(std::exchange(s, nullptr)); break;
    case 2: {
      const std::string text = bytes.text(12);
      std::vector<gptq_token> tokens;
      for (const char c : text) tokens.push_back(static_cast<unsigned char>(c) % 10);
      if (s) no_bug(gptq_session_append_tokens(s, tokens.data(), tokens.size(), nullptr));
      break;
    }
    case 3: {
      const std::string text = bytes.text(12);
      size_t n = 0;
      if (s) no_bug(gptq_session_append_text(s, text.data(), text.size(), bytes.next() % 8, &n, nullptr));
      break;
    }
    case 4:
    case 5:
      if (s) start(s, bytes);
      break;
    case 6:
    case 7:
    case 8: no_bug(gptq_engine_step(engine.get(), bytes.next() % 32, nullptr)); break;
    case 9:
      if (s) read(s, bytes.next());
      break;
    case 10:
      if (s) no_bug(gptq_session_truncate(s, bytes.next() % 32));
      break;
    case 11:
      if (s && !other) no_bug(gptq_session_fork(s, &other, nullptr));
      break;
    case 12: {
      size_t n = 0;
      if (!s || gptq_session_save(s, static_cast<int32_t>(what / 16 % 2), nullptr, 0, &n, nullptr) != GPTQ_E_BUFFER_TOO_SMALL) break;
      saved.resize(n);
      require(gptq_session_save(s, static_cast<int32_t>(what / 16 % 2), saved.data(), n, &n, nullptr) == GPTQ_OK, "a save has the size it said");
      break;
    }
    case 13:
      if (!s && !saved.empty()) {
        const gptq_status status = no_bug(gptq_session_restore(engine.get(), saved.data(), saved.size(), &s, nullptr));
        require(status >= 0 || status == GPTQ_E_INVALID_STATE || status == GPTQ_E_KV_FULL, "what was saved can be restored");
      }
      break;
    case 14:
      if (s && what & 16) no_bug(gptq_session_cancel(s));
      else if (s) {
        const std::string text = bytes.text(20);
        no_bug(gptq_session_set_prediction(s, text.data(), text.size(), 0, nullptr));
      }
      break;
    case 15: {
      const std::string text = bytes.text(6);
      const gptq_string texts[] = {{text.data(), text.size()}, {"ab", 2}};
      double logprobs[2];
      std::vector<float> vectors(4096);
      if (what & 16) no_bug(gptq_embed(engine.get(), texts, 2, static_cast<int32_t>(bytes.next() % 3), 0, vectors.data(), nullptr));
      else if (s && what & 32) no_bug(gptq_score(s, texts, 2, logprobs, nullptr, nullptr));
      else engine.set_draft(what & 64 ? &tiny().model : nullptr);
      break;
    }
  }
}

}  // namespace

FUZZ_TARGET(calls) {
  Bytes bytes(data, std::min<size_t>(size, 600));
  const uint32_t shape = bytes.next();
  auto params = small(shape % 4 + 1);
  params.kv_type = std::array{GPTQ_KV_F16 + 0, GPTQ_KV_I8 + 0, GPTQ_KV_I4 + 0, GPTQ_KV_I8 | GPTQ_KV_VALUES_I4}[shape / 4 % 4];
  params.flags = shape & 16 ? GPTQ_ENGINE_EXACT : 0;
  params.logits_rows = shape & 32 ? 3 : 0;
  params.best_logprobs = shape & 64 ? 2 : 0;
  Engine engine(tiny().model, params);
  std::array<gptq_session*, 4> sessions{};
  std::string saved;
  while (!bytes.empty()) call_one(engine, sessions, saved, bytes);
  for (gptq_session*& s : sessions) gptq_session_destroy(s);
  auto memory = make<gptq_memory_info>();
  check(gptq_engine_memory(engine.get(), &memory));
  require(memory.kv_pages_used == 0, "pages come back");
}
