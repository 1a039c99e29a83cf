// SPDX-License-Identifier: Apache-2.0
// A byte for the kind, then the source of a constraint or of banned phrases: with what compiles a session generates, and what it says can be continued as the
// constraint allows.
#include <algorithm>
#include <vector>

#include "tests/fuzz/target.h"
#include "tests/fuzz/tiny.h"

using namespace gptq;
using namespace gptq::fuzz;

FUZZ_TARGET(constraint) {
  if (!size) return;
  static const Engine engine(tiny().model, small(2, 48));
  const int32_t kind = data[0] % 8;
  const char* source = reinterpret_cast<const char*>(data) + 1;
  gptq_constraint* constraint = nullptr;
  auto err = make<gptq_error>();
  if (no_bug(gptq_constraint_compile(tiny().model.get(), kind, source, size - 1, &constraint, &err)) < 0) {
    require(!constraint && err.message[0], "a refusal says why");
    return;
  }
  auto sampling = make<gptq_sampling>();
  sampling.temperature = 2;
  auto how = make<gptq_generate_params>();
  how.sampling = &sampling;
  how.max_tokens = 20;
  (kind == GPTQ_CONSTRAINT_BANNED ? how.banned : how.constraint) = constraint;
  gptq_session* sessions[2] = {};
  const gptq_token tokens[] = {3, 4, 5};
  for (gptq_session*& s : sessions) {
    check(gptq_session_create(engine.get(), &s, nullptr));
    check(gptq_session_append_tokens(s, tokens, 3, nullptr));
    how.flags = s == sessions[1] ? GPTQ_GEN_SPECULATE : 0;
    sampling.seed = 1;
    check(gptq_session_start(s, &how, nullptr));
  }
  gptq_constraint_destroy(constraint);
  for (int i = 0; no_bug(gptq_engine_step(engine.get(), GPTQ_BUDGET_UNLIMITED, nullptr)) == GPTQ_MORE; ++i) require(i < 1000, "a generation ends");
  std::vector<gptq_token> said[2];
  for (int i = 0; i < 2; ++i) {
    said[i].resize(64);
    size_t n = 0;
    check(gptq_session_read_tokens(sessions[i], said[i].data(), said[i].size(), &n));
    said[i].resize(n);
    gptq_session_destroy(sessions[i]);
  }
  require(said[0] == said[1], "the same tokens with guesses");
}
