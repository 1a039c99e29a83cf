// SPDX-License-Identifier: Apache-2.0
// Loops and calls of the machine.
#include <algorithm>

#include "text/jinja/machine.h"

namespace gptq::text::jinja {

void Machine::step_loop(const Instruction& i) {
  switch (i.op) {
    case Op::loop_begin: return begin_loop(i.flag);
    case Op::loop_next: return next_item(i);
    case Op::loop_entered: loops_.back()->entered = true; return;
    case Op::loop_keep:
      if (Loop& loop = *loops_.back(); truth(pop())) loop.kept.push_back(loop.items[loop.done - 1]);
      return;
    case Op::loop_kept: {
      const Value kept = make_array(heap_, Kind::list, loops_.back()->kept);
      end_loop();
      return push(kept);
    }
    case Op::loop_end: {
      const bool entered = loops_.back()->entered;
      end_loop();
      return push(Value::of_bool(entered));
    }
    default: heap_.fail(GPTQ_E_INTERNAL, "an instruction without meaning");
  }
}

void Machine::begin_loop(bool filters) {
  const std::span<const Value> items = iterate(heap_, pop());
  const auto empty = [&] { return std::pmr::vector<Value>(heap_.arena()); };
  loops_.push_back(heap_.make<Loop>(items, 0u, false, filters, scope_, empty(), empty()));
  n_filtering_ += filters;
  scope_ = open_scope(scope_);
}

void Machine::next_item(const Instruction& i) {
  Loop& loop = *loops_.back();
  if (loop.done == loop.items.size()) return jump(i);
  if (scope_->kept) scope_ = open_scope(loop.scope);
  scope_->variables.clear();
  if (uses_loop_ && !loop.filters) {
    Value v = Value::of(Kind::loop);
    v.loop = &loop;
    scope_->variables.push_back({loop_symbol_, v});
  }
  push(loop.items[loop.done++]);
}

void Machine::end_loop() {
  scope_ = loops_.back()->scope;
  n_filtering_ -= loops_.back()->filters;
  loops_.pop_back();
}

Machine::Arguments Machine::arguments(const CallShape& shape) {
  names_.clear();
  for (uint32_t i = 0; i < shape.n_names; ++i) names_.push_back(program_.symbols[program_.names[shape.first_name + i]]);
  heap_.spend(shape.n_positional + shape.n_names);
  const std::span<const Value> all = std::span(stack_).last(shape.n_positional + shape.n_names);
  return {all.first(shape.n_positional), all.last(shape.n_names), names_};
}

void Machine::call(const Instruction& i) {
  const Arguments a = arguments(program_.shapes[static_cast<size_t>(i.a)]);
  const size_t n_stack = stack_.size() - a.positional.size() - a.named.size() - 1;
  const Value callee = stack_[n_stack];
  if (callee.is(Kind::undefined)) {
    if (callee.view() == "strftime_now")
      heap_.fail(GPTQ_E_TEMPLATE, "strftime_now needs the time: pass the template variable `now`, in seconds since 1970");
    heap_.fail(GPTQ_E_TEMPLATE, "'", callee.view(), "' is undefined and cannot be called");
  }
  if (!callee.is(Kind::function)) heap_.fail(GPTQ_E_TEMPLATE, "'", kind_name(callee), "' object is not callable");
  if (callee.function->macro >= 0) return call_macro(*callee.function, a, n_stack);
  const Value result = invoke({heap_, *callee.function->native, callee.function->self, a.positional, a.names, a.named});
  stack_.resize(n_stack);
  push(result);
}

void Machine::filter(const Instruction& i) {
  const Arguments a = arguments(program_.shapes[static_cast<size_t>(i.b)]);
  const size_t n_stack = stack_.size() - a.positional.size() - a.named.size() - 1;
  const Value result = invoke({heap_, *program_.natives[static_cast<size_t>(i.a)], stack_[n_stack], a.positional, a.names, a.named});
  stack_.resize(n_stack);
  push(i.flag ? Value::of_bool(!truth(result)) : result);
}

void Machine::call_macro(const Function& f, const Arguments& a, size_t n_stack) {
  if (frames_.size() == max_nesting) heap_.fail(GPTQ_E_TEMPLATE, "macro calls nested deeper than ", max_nesting);
  const Macro& m = program_.macros[static_cast<size_t>(f.macro)];
  frames_.push_back({pc_, scope_, n_stack});
  scope_ = open_scope(f.scope);
  bind(m, a);
  stack_.resize(n_stack);
  outputs_.emplace_back(heap_);
  pc_ = m.entry;
}

// Parameters without a value are left unset where they have a default, which the macro's code then evaluates.
void Machine::bind(const Macro& m, const Arguments& a) {
  const std::string_view name = program_.symbols[m.name];
  const auto parameter = [&](size_t i) { return program_.names[m.first_parameter + i]; };
  ArrayBuilder more(heap_);
  std::pmr::vector<Entry> more_names(heap_.arena());
  for (size_t i = 0; i < a.positional.size(); ++i) {
    if (i < m.n_parameters) store(parameter(i), a.positional[i]);
    else if (m.takes_more) more.add(a.positional[i]);
    else heap_.fail(GPTQ_E_TEMPLATE, "macro '", name, "' takes not more than ", m.n_parameters, " arguments");
  }
  for (size_t i = 0; i < a.named.size(); ++i) {
    const uint32_t symbol = program_.ids.at(a.names[i]);
    size_t p = 0;
    while (p < m.n_parameters && parameter(p) != symbol) ++p;
    heap_.spend(m.n_parameters / 8);
    if (p < a.positional.size() && p < m.n_parameters)
      heap_.fail(GPTQ_E_TEMPLATE, "macro '", name, "' got two values for '", a.names[i], "'");
    if (p < m.n_parameters || (m.takes_caller && a.names[i] == "caller")) store(symbol, a.named[i]);
    else if (m.takes_more_names && a.names[i] != "caller") more_names.push_back({make_string(heap_, a.names[i], true), a.named[i]});
    else heap_.fail(GPTQ_E_TEMPLATE, "macro '", name, "' takes no argument '", a.names[i], "'");
  }
  for (size_t i = 0; i < m.n_required; ++i)
    if (!own(parameter(i))) {
      Value v = make_string(heap_, program_.symbols[parameter(i)], true);
      v.kind = Kind::undefined;
      store(parameter(i), v);
    }
  if (m.takes_more) store(program_.ids.at("varargs"), more.finish(Kind::tuple));
  if (m.takes_more_names) {
    Entry* entries = heap_.array<Entry>(more_names.size());
    std::copy(more_names.begin(), more_names.end(), entries);
    store(program_.ids.at("kwargs"), make_dict(heap_, entries, static_cast<uint32_t>(more_names.size())));
  }
  if (m.takes_caller && !own(program_.ids.at("caller"))) store(program_.ids.at("caller"), Value());
}

void Machine::give_back() {
  const Frame frame = frames_.back();
  frames_.pop_back();
  const Value text = outputs_.back().finish();
  outputs_.pop_back();
  scope_ = frame.scope;
  stack_.resize(frame.n_stack);
  push(text);
  pc_ = frame.back;
}

}  // namespace gptq::text::jinja
