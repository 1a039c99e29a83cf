// SPDX-License-Identifier: Apache-2.0
#include "text/jinja/machine.h"

#include <algorithm>

#include "text/jinja/operators.h"
#include "text/jinja/print.h"

namespace gptq::text::jinja {
namespace {

constexpr uint32_t no_symbol = UINT32_MAX;

Value undefined(Heap& heap, std::string_view name) {
  Value v = make_string(heap, name, true);
  v.kind = Kind::undefined;
  return v;
}

uint32_t find_symbol(const Program& program, std::string_view name) {
  const auto at = program.ids.find(name);
  return at == program.ids.end() ? no_symbol : at->second;
}

}  // namespace

Machine::Machine(Heap& heap, const Program& program)
    : heap_(heap),
      program_(program),
      stack_(heap.arena()),
      globals_(program.symbols.size(), heap.arena()),
      loops_(heap.arena()),
      frames_(heap.arena()),
      outputs_(heap.arena()),
      names_(heap.arena()),
      loop_symbol_(find_symbol(program, "loop")),
      uses_loop_(loop_symbol_ != no_symbol) {
  for (size_t i = 0; i < program.symbols.size(); ++i)
    if (const Native* native = find_global(program.symbols[i])) globals_[i] = Value::of_function(heap.make<Function>(native, Value()));
}

void Machine::set(std::string_view name, const Value& value) {
  const uint32_t symbol = find_symbol(program_, name);
  if (symbol != no_symbol) globals_[symbol] = value;
}

Value Machine::run() {
  outputs_.emplace_back(heap_);
  for (uint32_t n = 1;; ++n) {
    const Instruction& i = program_.code[pc_++];
    heap_.at = i.at;
    if (n % 8 == 0) heap_.spend(1);
    if (i.op == Op::halt) break;
    step(i);
  }
  return outputs_.back().finish();
}

Value Machine::pop() {
  const Value v = stack_.back();
  stack_.pop_back();
  return v;
}

void Machine::step(const Instruction& i) {
  const auto a = static_cast<size_t>(i.a);
  switch (i.op) {
    case Op::text: return outputs_.back().add(program_.constants[a]);
    case Op::print: return outputs_.back().add(to_string(heap_, pop()));
    case Op::constant: return push(program_.constants[a]);
    case Op::undefined: return push(undefined(heap_, "an inline if without else"));
    case Op::load: return push(load(static_cast<uint32_t>(a)));
    case Op::store: return store(static_cast<uint32_t>(a), pop());
    case Op::store_attribute: return store_attribute(program_.symbols[a]);
    case Op::unpack: return unpack(a);
    case Op::attribute: {
      const Value object = pop();
      check_filtering(object);
      return push(get_attribute(heap_, object, program_.symbols[a]));
    }
    case Op::item: {
      const Value key = pop(), object = pop();
      check_filtering(object);
      return push(get_item(heap_, object, key));
    }
    case Op::slice: {
      const Value by = pop(), end = pop(), start = pop(), object = pop();
      return push(get_slice(heap_, object, start, end, by));
    }
    case Op::list: return push(take_array(Kind::list, a));
    case Op::tuple: return push(take_array(Kind::tuple, a));
    case Op::dict: return push(take_dict(a));
    case Op::negate: return push(negate(heap_, pop()));
    case Op::plus:
      if (!stack_.back().is_numeric()) heap_.fail(GPTQ_E_TEMPLATE, "bad operand type for unary +: '", kind_name(stack_.back()), "'");
      return push(Value(stack_.back().is(Kind::number) ? pop() : Value::of_int(pop().as_integer())));
    case Op::logical_not: return push(Value::of_bool(!truth(pop())));
    case Op::call: return call(i);
    case Op::filter: case Op::test: return filter(i);
    case Op::unknown:
      heap_.fail(GPTQ_E_TEMPLATE, "no ", i.flag ? "test" : "filter", " named '", program_.symbols[a], "' in the supported subset");
    default: break;
  }
  if (i.op < Op::add || i.op > Op::not_in) return step_control(i);
  const Value right = pop(), left = pop();
  push(apply(heap_, i.op, left, right));
}

void Machine::step_control(const Instruction& i) {
  switch (i.op) {
    case Op::chain: {
      const Value right = pop(), left = pop();
      const bool holds = truth(apply(heap_, static_cast<Op>(i.b), left, right));
      push(holds ? right : Value::of_bool(false));
      if (!holds) jump(i);
      return;
    }
    case Op::jump: return jump(i);
    case Op::jump_if_false: if (!truth(pop())) jump(i); return;
    case Op::jump_if_true: if (truth(pop())) jump(i); return;
    case Op::jump_false_keep: if (truth(stack_.back())) pop(); else jump(i); return;
    case Op::jump_true_keep: if (truth(stack_.back())) jump(i); else pop(); return;
    case Op::pop: pop(); return;
    case Op::scope_begin: scope_ = open_scope(scope_); return;
    case Op::scope_end: scope_ = scope_->outer; return;
    case Op::capture_begin: outputs_.emplace_back(heap_); return;
    case Op::capture_end:
      push(outputs_.back().finish());
      outputs_.pop_back();
      return;
    case Op::macro:
      for (Scope* s = scope_; s; s = s->outer) s->kept = true;
      return push(Value::of_function(heap_.make<Function>(nullptr, Value(), i.a, scope_)));
    case Op::default_argument:
      if (own(static_cast<uint32_t>(i.a))) pc_ = static_cast<size_t>(static_cast<ptrdiff_t>(pc_) - 1 + i.b);
      return;
    case Op::give_back: return give_back();
    default: return step_loop(i);
  }
}

Value Machine::take_array(Kind kind, size_t n) {
  const Value v = make_array(heap_, kind, std::span(stack_).last(n));
  stack_.resize(stack_.size() - n);
  return v;
}

Value Machine::take_dict(size_t n) {
  Entry* entries = heap_.array<Entry>(n);
  const Value* from = stack_.data() + stack_.size() - 2 * n;
  for (size_t i = 0; i < n; ++i) entries[i] = {from[2 * i], from[2 * i + 1]};
  stack_.resize(stack_.size() - 2 * n);
  return make_dict(heap_, entries, static_cast<uint32_t>(n));
}

Value* Machine::own(uint32_t symbol) {
  if (!scope_) return globals_[symbol].is(Kind::undefined) ? nullptr : &globals_[symbol];
  heap_.spend(scope_->variables.size() / 16);
  for (Variable& v : scope_->variables)
    if (v.symbol == symbol) return &v.value;
  return nullptr;
}

Value Machine::load(uint32_t symbol) {
  for (Scope* s = scope_; s; s = s->outer) {
    heap_.spend(s->variables.size() / 16);
    for (const Variable& v : s->variables)
      if (v.symbol == symbol) return v.value;
  }
  if (!globals_[symbol].is(Kind::undefined)) return globals_[symbol];
  const std::string_view name = program_.symbols[symbol];
  for (const std::string_view known : {"self", "super", "cycler", "joiner", "lipsum"})
    if (name == known) heap_.fail(GPTQ_E_TEMPLATE, "'", name, "' is outside the supported subset");
  return undefined(heap_, name);
}

void Machine::store(uint32_t symbol, const Value& v) {
  if (!scope_) globals_[symbol] = v;
  else if (Value* old = own(symbol)) *old = v;
  else scope_->variables.push_back({symbol, v});
}

void Machine::store_attribute(std::string_view name) {
  const Value space = pop(), value = pop();
  if (!space.is(Kind::space)) heap_.fail(GPTQ_E_TEMPLATE, "cannot assign attribute '", name, "' of a value that is no namespace");
  if (name[0] == '_') heap_.fail(GPTQ_E_TEMPLATE, "a namespace attribute must not begin with an underscore: '", name, "'");
  heap_.spend(space.space->entries.size() / 16);
  for (Entry& e : space.space->entries) {
    if (e.key.view() != name) continue;
    e.value = value;
    return;
  }
  space.space->entries.push_back({make_string(heap_, name, true), value});
}

void Machine::unpack(size_t n) {
  const std::span<const Value> items = iterate(heap_, pop());
  if (items.size() != n) heap_.fail(GPTQ_E_TEMPLATE, items.size() < n ? "not enough" : "too many", " values to unpack (expected ", n, ")");
  for (size_t i = n; i-- > 0;) push(items[i]);
}

Scope* Machine::open_scope(Scope* outer) { return heap_.make<Scope>(std::pmr::vector<Variable>(heap_.arena()), outer); }

// The items of a loop with a filter are chosen before its first pass, while Jinja asks the filter between passes.
void Machine::check_filtering(const Value& object) const {
  if (n_filtering_ > 0 && object.is(Kind::space))
    heap_.fail(GPTQ_E_TEMPLATE, "a namespace in the filter of a loop that uses `loop` is outside the supported subset");
}

}  // namespace gptq::text::jinja
