// SPDX-License-Identifier: Apache-2.0
// Rules over bytes run on a text: all ways at once, their open calls in a graph that shares what they have in common.
#pragma once
#include <cstdint>
#include <memory_resource>
#include <span>
#include <string_view>
#include <vector>

#include "text/constraint/machine.h"
#include "text/constraint/nfa.h"

namespace gptq::text::constraint {

struct GrammarSize {
  uint32_t states = 16'000;
  uint32_t words = 1 << 20;     // of states and calls
  uint32_t work = 200'000;      // nodes looked at for one byte
};

class Grammar final : public Machine {
 public:
  // Takes a finished graph over.
  Grammar(Nfa nfa, const GrammarSize& size, std::pmr::memory_resource* memory);
  uint32_t start() override { return start_of(0); }
  // The state at the beginning of a rule's text.
  uint32_t start_of(uint32_t rule);
  // Endless or 0.
  uint32_t plain_run(uint32_t state) override;
  int likely(uint32_t state) override;
  bool accepting(uint32_t state) override { return states_.at(state).size() && (states_.at(state)[0] & 1); }
  void clear() override;
  // Bytes that no rule tells apart.
  Run run_of(uint8_t byte) const { return runs_[byte]; }

 private:
  struct Item {
    uint32_t node, calls;  // calls: an id, or pending + a rule
    bool operator==(const Item&) const = default;
    auto operator<=>(const Item&) const = default;
  };
  static constexpr uint32_t pending = 1u << 31, copies = ~0u;
  uint32_t find(uint32_t state, uint8_t byte) override;
  Run alike(uint32_t, uint8_t byte) const override { return run_of(byte); }
  bool keeps_plain();
  void find_runs();
  uint32_t close(bool at_start);
  void push(uint32_t node, uint32_t calls);
  void call(const Nfa::Node& node, uint32_t calls);
  uint32_t place_of(uint32_t rule);
  bool intern_calls();
  bool ends_at_once(uint32_t node) const;
  bool reaches_end(uint32_t node) const;

  const Nfa nfa_;
  const uint32_t work_max_;
  Run runs_[256];
  std::pmr::vector<uint32_t> tried_;
  std::pmr::vector<uint8_t> plain_;  // of states: 0 not known, 1 no, 2 yes
  Interner states_, calls_;  // calls_: pairs of the node after and the calls around, sorted
  Interner steps_;           // what a byte led to, before what follows without one
  std::pmr::vector<uint32_t> step_states_;
  std::pmr::vector<uint8_t> returns_;  // nodes that lead to their rule's end alone
  // For one byte; of fixed capacity.
  std::pmr::vector<Item> open_, kept_;
  std::pmr::vector<uint32_t> used_;  // slots of seen_
  std::pmr::vector<uint64_t> seen_;
  struct Place {
    uint32_t rule, id, first;  // first: of its edges, a chain
  };
  struct Edge {
    uint32_t node, calls, next;
  };
  std::pmr::vector<Place> places_;
  std::pmr::vector<Edge> edges_;
  std::pmr::vector<uint32_t> place_of_rule_;
  std::pmr::vector<uint32_t> key_;
  uint32_t work_ = 0;
};

}  // namespace gptq::text::constraint
