// SPDX-License-Identifier: Apache-2.0
// Any bytes as an adapter of the tiny model, with right hashes: with what is loaded a session generates.
#include "tests/fuzz/repaired.h"
#include "tests/fuzz/target.h"
#include "tests/fuzz/tiny.h"

using namespace gptq;
using namespace gptq::fuzz;

FUZZ_TARGET(adapter) {
  const std::vector<std::byte> file = repaired_container(data, size);
  auto source = make<gptq_source>();
  source.data = file.data(), source.data_size = file.size();
  gptq_adapter* adapter = nullptr;
  if (no_bug(gptq_adapter_load(tiny().model.get(), &source, &adapter, nullptr)) < 0) return require(!adapter, "no adapter where it failed");
  const Engine engine(tiny().model, small(1));
  const Session session(engine);
  const gptq_token tokens[] = {3, 4, 5};
  require(gptq_session_append_tokens(session.get(), tokens, 3, nullptr) == GPTQ_OK, "tokens are taken");
  no_bug(gptq_session_set_adapter(session.get(), adapter, 1, nullptr));
  auto how = make<gptq_generate_params>();
  how.max_tokens = 4, how.flags = GPTQ_GEN_IGNORE_EOS;
  require(gptq_session_start(session.get(), &how, nullptr) == GPTQ_OK, "a generation begins");
  while (no_bug(gptq_engine_step(engine.get(), GPTQ_BUDGET_UNLIMITED, nullptr)) == GPTQ_MORE) {
  }
  gptq_adapter_release(adapter);
}
