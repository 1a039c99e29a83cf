// SPDX-License-Identifier: Apache-2.0
// A template as code for the stack machine: expressions push values, everything nested is flat, so running it needs no recursion.
#pragma once
#include <map>
#include <string_view>
#include <vector>

#include "text/jinja/native.h"
#include "text/jinja/value.h"

namespace gptq::text::jinja {

// In the comments a and b are the instruction's; jumps are relative to it.
enum class Op : uint8_t {
  text,         // print constant a
  print,        // pop and print
  constant,     // push constant a
  undefined,    // push undefined: an inline if without else
  load,         // push the variable of symbol a
  store,        // pop into the variable of symbol a
  store_attribute,  // pop a namespace, then a value for its attribute of symbol a
  unpack,       // pop a sequence of a items and push them, the first on top
  attribute,    // pop, push its attribute of symbol a
  item,         // pop index and object, push the item
  slice,        // pop step, end, start and object, push the slice
  list, tuple,  // pop a items
  dict,         // pop a pairs
  negate, plus, logical_not,
  add, subtract, multiply, divide, floor_divide, modulo, power, concat,
  equal, not_equal, less, less_equal, greater, greater_equal, in, not_in,
  chain,        // compare by operator b; true: keep the right operand, false: push False and jump a
  jump, jump_if_false, jump_if_true,   // the last two pop
  jump_false_keep, jump_true_keep,     // jump with the value kept, or pop it
  pop,
  call,         // pop a call of shape a and its callee
  filter,       // pop a call of shape b and its subject, apply native a
  test,         // the same; flag: negated
  unknown,      // fail: there is no filter (flag 0) or test (flag 1) of symbol a
  loop_begin,   // pop an iterable; flag: a pass that only filters
  loop_next,    // push the next item in a fresh scope, or jump a
  loop_entered, // a pass went to its end
  loop_keep,    // pop a condition; true: keep the item
  loop_kept,    // end the filter pass and push the items kept
  loop_end,     // push whether any pass went to its end
  scope_begin, scope_end,
  capture_begin, capture_end,          // print into a text; push it
  macro,        // push macro a
  default_argument,                    // jump b if the parameter of symbol a was given
  give_back,    // end of a macro
  halt,
};

struct Instruction {
  Op op;
  uint8_t flag;
  int32_t a, b;
  uint32_t at;  // byte offset in the template
};

// Arguments on the stack: positional ones, then named ones.
struct CallShape {
  uint32_t n_positional, first_name, n_names;
};

struct Macro {
  uint32_t name, entry;
  uint32_t first_parameter, n_parameters;  // in Program::names
  uint32_t n_required;                     // parameters before the first that has a default
  bool takes_more, takes_more_names, takes_caller;
};

struct Program {
  explicit Program(std::pmr::memory_resource* arena)
      : code(arena), constants(arena), symbols(arena), ids(arena), names(arena), shapes(arena), macros(arena), natives(arena) {}
  uint32_t intern(std::string_view name);

  std::pmr::vector<Instruction> code;
  std::pmr::vector<Value> constants;
  std::pmr::vector<std::string_view> symbols;
  std::pmr::map<std::string_view, uint32_t> ids;
  std::pmr::vector<uint32_t> names;  // symbols of named arguments and of parameters
  std::pmr::vector<CallShape> shapes;
  std::pmr::vector<Macro> macros;
  std::pmr::vector<const Native*> natives;
};

// Parses the whole template or fails at the first thing outside the subset.
Program compile(Heap& heap, std::string_view source);

}  // namespace gptq::text::jinja
