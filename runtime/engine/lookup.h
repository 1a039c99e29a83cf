// SPDX-License-Identifier: Apache-2.0
// Speculation: where the sequence's last tokens stood before, what followed there may follow again; and how far guesses of any kind are worth
// computing. A guess only saves time: a token counts when it is what the sampler picks, so the tokens are those of plain decoding.
#pragma once
#include <cstdint>
#include <functional>
#include <span>

namespace gptq::engine {

// What a session knows about its guesses.
class Lookup {
 public:
  static constexpr uint32_t most = 15;  // guesses at once
  static constexpr uint32_t by_constraint = 3, by_draft = 4;  // the trust in what a constraint foresees, and a draft model
  struct Place {
    uint32_t at = 0;
    uint32_t length = 0;  // of the copy; 0 = none
    uint32_t trust() const { return length >= 8 ? 2 : length >= 4 ? 1 : 0; }
  };
  // Behind the longest, then latest, earlier copy of the sequence's end.
  static Place find(std::span<const int32_t> sequence);
  // The same in another text: the longest, then first from `from` on, going round.
  static Place find(std::span<const int32_t> sequence, std::span<const int32_t> text, uint32_t from);
  // How many guesses to compute, at most so many: none where that takes longer than it saves. cost(n): of a batch with n tokens more.
  using Cost = std::function<double(uint32_t)>;
  struct Worth {
    uint32_t n;
    double gain;  // tokens by cost
  };
  Worth best(uint32_t trust, uint32_t most, const Cost& cost) const;
  // The same, but now and then one is tried whatever is known, in case the text has changed.
  uint32_t worth(uint32_t trust, uint32_t most, const Cost& cost);
  // Whether worth would give any.
  bool tries(uint32_t trust, uint32_t most, const Cost& cost) const;
  // Of n guesses the first `right` were.
  void learn(uint32_t trust, uint32_t n, uint32_t right);

 private:
  static constexpr uint32_t trusts = 5;
  float right_[trusts] = {0.3f, 0.5f, 0.7f, 0.8f, 0.7f};  // how often the next one is
  uint32_t passed_[trusts] = {};              // guesses not tried since the last that was
};

}  // namespace gptq::engine
