// SPDX-License-Identifier: Apache-2.0
// Any bytes as a saved session of the tiny model, with right hashes: what is restored generates to its end, and is saved again as anything is.
#include <cstring>
#include <vector>

#include "format/hash.h"
#include "tests/fuzz/target.h"
#include "tests/fuzz/tiny.h"

using namespace gptq;
using namespace gptq::fuzz;

namespace {

// Where they are in a save: after magic, version and kind; kv_bytes and state_bytes from format 2 on.
constexpr size_t size_at = 16, model_at = 24, kv_bytes_at = 280, header_of_1 = 192;

uint64_t number(const std::vector<std::byte>& save, size_t at) {
  uint64_t value = 0;
  if (at + sizeof value <= save.size()) std::memcpy(&value, save.data() + at, sizeof value);
  return value;
}

void put_hash(std::vector<std::byte>& save, size_t begin, size_t end) {
  const uint64_t hash = format::hash_bytes(std::span<const std::byte>(save).subspan(begin, end - begin));
  std::memcpy(save.data() + end, &hash, sizeof hash);
}

void repair(std::vector<std::byte>& save, uint64_t model) {
  if (save.size() < header_of_1 + sizeof(uint64_t)) return;
  std::memcpy(save.data(), "GPTQSAV\n", 8);
  const uint64_t size = save.size();
  std::memcpy(save.data() + size_at, &size, sizeof size);
  std::memcpy(save.data() + model_at, &model, sizeof model);
  const bool full = (number(save, 8) >> 32) != 0;
  const uint64_t kv = number(save, kv_bytes_at), state = number(save, kv_bytes_at + 8);
  if (full && (kv > size || state > size || header_of_1 + kv + state + 16 > size)) return;
  const uint64_t head = size - 8 - (full ? kv + state + 8 : 0);
  put_hash(save, 0, head);
  if (full) put_hash(save, head + 8, size - 8);
}

}  // namespace

FUZZ_TARGET(save) {
  static const Engine engine(tiny().model, [] {
    auto params = small(2);
    params.flags = GPTQ_ENGINE_EXACT;
    return params;
  }());
  static const uint64_t model = [] {
    const std::string saved = Session(engine).save(GPTQ_SAVE_REPLAY);
    uint64_t value;
    std::memcpy(&value, saved.data() + model_at, sizeof value);
    return value;
  }();
  std::vector<std::byte> save(size);
  if (size) std::memcpy(save.data(), data, size);
  repair(save, model);
  gptq_session* s = nullptr;
  if (no_bug(gptq_session_restore(engine.get(), save.data(), save.size(), &s, nullptr)) < 0) {
    require(!s, "no session where it failed");
    return;
  }
  size_t n = 0;
  std::vector<char> again, text(4096);
  if (gptq_session_save(s, GPTQ_SAVE_FULL, nullptr, 0, &n, nullptr) == GPTQ_E_BUFFER_TOO_SMALL) {
    again.resize(n);
    require(gptq_session_save(s, GPTQ_SAVE_FULL, again.data(), n, &n, nullptr) == GPTQ_OK, "what is restored can be saved");
    gptq_session* copy = nullptr;
    require(gptq_session_restore(engine.get(), again.data(), n, &copy, nullptr) >= 0, "what was restored and saved can be restored");
    gptq_session_destroy(copy);
  }
  for (int i = 0; no_bug(gptq_engine_step(engine.get(), 20, nullptr)) == GPTQ_MORE; ++i) require(i < 10000, "a generation ends");
  auto mark = make<gptq_marked>();
  while (gptq_session_read_marked(s, text.data(), text.size(), &mark) == GPTQ_OK && mark.kind != GPTQ_MARK_NONE) {
  }
  no_bug(gptq_session_read(s, text.data(), text.size(), &n));
  gptq_session_destroy(s);
}
