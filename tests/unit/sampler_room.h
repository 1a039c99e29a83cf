// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <vector>

#include "engine/sampler.h"

namespace gptq::engine {

// What sampling writes over, for so many logits. What was there before must not matter.
struct SamplerRoom {
  explicit SamplerRoom(size_t n) : candidates(n, Candidate{7, 3}), logits(n, -7.0f) {}
  SamplerScratch data() { return {candidates.data(), logits.data()}; }
  std::vector<Candidate> candidates;
  std::vector<float> logits;
};

}  // namespace gptq::engine
