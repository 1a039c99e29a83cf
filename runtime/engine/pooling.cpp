// SPDX-License-Identifier: Apache-2.0
// Hidden states on their way into embeddings; a part of the batch in progress as logits are.
#include <algorithm>

#include "engine/engine.h"

namespace gptq::engine {

// As many as the place for logits holds on their way to the host.
uint32_t Engine::hidden_at_once() const {
  const uint64_t room = uint64_t{shape_.max_logits()} * logits_width(model_.spec) / model_.spec.n_embd;
  return static_cast<uint32_t>(std::clamp<uint64_t>(room, 1, n_pooled_rows_ - next_pooled_));
}

// Adds the hidden states that were waited for up, in the order of their tokens.
void Engine::take_hidden() {
  const uint32_t n_embd = model_.spec.n_embd, first = next_pooled_, end = first + logits_.n_hidden;
  for (uint32_t m = 0; m < n_members_; ++m) {
    const Member& member = scratch_.members[m];
    float* const sum = scratch_.pooled + size_t{m} * n_embd;
    for (uint32_t i = std::max(first, member.first_pooled); i < std::min(end, member.first_pooled + member.n_pooled); ++i) {
      const float* const row = logits_.hidden + size_t{i - first} * n_embd;
      for (uint32_t j = 0; j < n_embd; ++j) sum[j] += row[j];
    }
  }
}

}  // namespace gptq::engine
