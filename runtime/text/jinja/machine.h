// SPDX-License-Identifier: Apache-2.0
// Runs a program. All its stacks are in the arena: neither loops nor macros use the stack of the thread.
#pragma once
#include <vector>

#include "text/jinja/program.h"
#include "text/jinja/strings.h"

namespace gptq::text::jinja {

struct Variable {
  uint32_t symbol;
  Value value;
};

// The variables of a loop pass, a macro call or a block. Lookups go outwards, by where the code was written.
struct Scope {
  std::pmr::vector<Variable> variables;
  Scope* outer;
  bool kept = false;  // a macro was defined in it
};

class Machine {
 public:
  Machine(Heap& heap, const Program& program);
  void set(std::string_view name, const Value& value);
  Value run();

 private:
  struct Frame {
    size_t back;      // instruction to go on with
    Scope* scope;
    size_t n_stack;
  };

  void step(const Instruction& i);
  void step_control(const Instruction& i);
  void step_loop(const Instruction& i);
  Value pop();
  void push(const Value& v) { stack_.push_back(v); }
  void jump(const Instruction& i) { pc_ = static_cast<size_t>(static_cast<ptrdiff_t>(pc_) - 1 + i.a); }
  Value take_array(Kind kind, size_t n);
  Value take_dict(size_t n);

  Value load(uint32_t symbol);
  void store(uint32_t symbol, const Value& v);
  Value* own(uint32_t symbol);
  void store_attribute(std::string_view name);
  void unpack(size_t n);
  Scope* open_scope(Scope* outer);
  void check_filtering(const Value& object) const;

  void begin_loop(bool filters);
  void next_item(const Instruction& i);
  void end_loop();

  // Arguments lie on the stack above the callee or subject.
  struct Arguments {
    std::span<const Value> positional, named;
    std::span<const std::string_view> names;
  };
  Arguments arguments(const CallShape& shape);
  void call(const Instruction& i);
  void call_macro(const Function& f, const Arguments& a, size_t n_stack);
  void bind(const Macro& m, const Arguments& a);
  void filter(const Instruction& i);
  void give_back();

  Heap& heap_;
  const Program& program_;
  size_t pc_ = 0;
  std::pmr::vector<Value> stack_, globals_;
  std::pmr::vector<Loop*> loops_;
  std::pmr::vector<Frame> frames_;
  std::pmr::vector<Writer> outputs_;
  std::pmr::vector<std::string_view> names_;  // of the call in progress
  Scope* scope_ = nullptr;
  uint32_t loop_symbol_, n_filtering_ = 0;
  bool uses_loop_;
};

}  // namespace gptq::text::jinja
