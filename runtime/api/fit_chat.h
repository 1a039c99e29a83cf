// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "api/text.h"

namespace gptq::api {

struct FittedChat {
  std::pmr::vector<int32_t> tokens;
  uint32_t n_dropped;  // messages
};
// The conversation's tokens, with GPTQ_CHAT_DROP_OLDEST without its oldest turns, so that they fit. before: the session's tokens so far; of
// what fits, that which goes on from them.
FittedChat fit_chat(const gptq_model& m, const gptq_chat* chat, std::span<const int32_t> before, uint32_t ctx_tokens);

}  // namespace gptq::api
