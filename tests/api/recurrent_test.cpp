// SPDX-License-Identifier: Apache-2.0
// Models whose layers keep a state instead of keys and values: whatever is cut off, cancelled or gone back over, what follows is what a fresh
// session gives, bit by bit.
#include <algorithm>

#include "tests/api/fixture.h"

namespace gptq::test {
namespace {

class Recurrent : public testing::TestWithParam<std::string> {
 protected:
  static gptq_engine_params params(uint32_t batch_tokens = 16) {
    auto params = engine_of(0, 2);
    params.ctx_tokens = 128;
    params.logits_rows = 64;
    params.batch_tokens = batch_tokens;
    return params;
  }
  const Prompt prompt = prompts_of(GetParam()).at(0);
  Chain chain{converted(GetParam()), params(), with_threads(2)};
  // What a session of its own gives.
  Tokens fresh(const Tokens& ids, uint32_t n) {
    Session session(chain.engine);
    return greedy(chain.engine, session, ids, n);
  }
};

TEST_P(Recurrent, CutBackAndGoneOn) {
  const Tokens ids = prompt.ids;
  for (const size_t kept : {size_t{1}, ids.size() / 2, ids.size() - 1}) {
    chain.session.truncate(0);
    greedy(chain.engine, chain.session, ids, 6);
    chain.session.truncate(static_cast<uint32_t>(kept));
    chain.session.append(Tokens(ids.rbegin(), ids.rbegin() + 5));
    Tokens whole(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(kept));
    whole.insert(whole.end(), ids.rbegin(), ids.rbegin() + 5);
    EXPECT_EQ(continue_with(chain.engine, chain.session, 8), fresh(whole, 8)) << "kept " << kept;
  }
}

TEST_P(Recurrent, TheLastTokenIsDoneAgain) {
  const Tokens first = greedy(chain.engine, chain.session, prompt.ids, 5);
  const Tokens more = continue_with(chain.engine, chain.session, 5);  // computes the last one once more
  Tokens all = first;
  all.insert(all.end(), more.begin(), more.end());
  EXPECT_EQ(all, fresh(prompt.ids, 10));
}

TEST_P(Recurrent, ACancelledBatchLeavesTheState) {
  const Tokens expected = fresh(prompt.ids, 9);
  for (uint32_t steps = 1; steps < 12; ++steps) {
    chain.session.truncate(0);
    chain.session.append(prompt.ids);
    chain.session.start(generation(9));
    for (uint32_t i = 0; i < steps; ++i) chain.engine.step(1, nullptr);  // a quantum each
    chain.session.cancel();
    finish(chain.engine);
    chain.session.truncate(static_cast<uint32_t>(prompt.ids.size()));
    EXPECT_EQ(continue_with(chain.engine, chain.session, 9), expected) << "after " << steps << " steps";
  }
}

TEST_P(Recurrent, SessionsTogetherGiveWhatTheyGiveAlone) {
  const Tokens other(prompt.ids.rbegin(), prompt.ids.rend());
  const Tokens expected = fresh(prompt.ids, 9), expected_other = fresh(other, 9);
  Session second(chain.engine);
  chain.session.append(prompt.ids);
  second.append(other);
  chain.session.start(generation(9));
  second.start(generation(9));
  finish(chain.engine);
  EXPECT_EQ(chain.session.read_tokens(), expected);
  EXPECT_EQ(second.read_tokens(), expected_other);
}

std::vector<std::string> recurrent_folders() {
  std::vector<std::string> out;
  for (const std::string& folder : family_folders())
    for (const std::string_view family : {"lfm2", "qwen3-next", "qwen3-5"})
      if (name_of(folder).starts_with(family)) {
        out.push_back(folder);
        break;
      }
  return out;
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, Recurrent, testing::ValuesIn(recurrent_folders()), [](const auto& info) {
  std::string name = name_of(info.param);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

}  // namespace
}  // namespace gptq::test
