// SPDX-License-Identifier: Apache-2.0
// Speculation without a second model: where the sequence's last tokens stood before, what followed there may follow again. A guess only
// saves time: a token counts when it is what the sampler picks, so the tokens are those of plain decoding.
#pragma once
#include <cstdint>
#include <functional>
#include <span>

namespace gptq::engine {

// What a session knows about its guesses.
class Lookup {
 public:
  static constexpr uint32_t most = 15;  // guesses at once
  static constexpr uint32_t by_constraint = 3;  // the trust in what a constraint foresees
  struct Place {
    uint32_t at = 0;     // 0 = none
    uint32_t trust = 0;  // by the length of the copy
  };
  // Behind the longest, then latest, earlier copy of the sequence's end.
  static Place find(std::span<const int32_t> sequence);
  // How many guesses to compute, at most so many: none where that takes longer than it saves. cost(n): of a batch with n tokens more.
  uint32_t worth(uint32_t trust, uint32_t most, const std::function<double(uint32_t)>& cost);
  // Of n guesses the first `right` were.
  void learn(uint32_t trust, uint32_t n, uint32_t right);

 private:
  static constexpr uint32_t trusts = 4;
  float right_[trusts] = {0.3f, 0.5f, 0.7f, 0.8f};  // how often the next one is
  uint32_t passed_[trusts] = {};              // guesses not tried since the last that was
};

}  // namespace gptq::engine
