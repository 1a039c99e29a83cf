// SPDX-License-Identifier: Apache-2.0
#include "text/jinja/operators.h"

#include <cmath>

#include "text/jinja/print.h"

namespace gptq::text::jinja {
namespace {

std::string_view symbol(Op op) {
  switch (op) {
    case Op::add: return "+";
    case Op::subtract: return "-";
    case Op::multiply: return "*";
    case Op::divide: return "/";
    case Op::floor_divide: return "//";
    case Op::modulo: return "%";
    default: return "**";
  }
}

[[noreturn]] void overflow(Heap& heap) { heap.fail(GPTQ_E_TEMPLATE, "an integer beyond 64 bits"); }

int64_t power(Heap& heap, int64_t base, int64_t exponent) {
  int64_t result = 1;
  for (; exponent > 0; exponent /= 2) {
    if (exponent % 2 && __builtin_mul_overflow(result, base, &result)) overflow(heap);
    if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) overflow(heap);
  }
  return result;
}

Value integers(Heap& heap, Op op, int64_t a, int64_t b) {
  int64_t r = 0;
  bool over = false;
  switch (op) {
    case Op::add: over = __builtin_add_overflow(a, b, &r); break;
    case Op::subtract: over = __builtin_sub_overflow(a, b, &r); break;
    case Op::multiply: over = __builtin_mul_overflow(a, b, &r); break;
    case Op::floor_divide: over = a == INT64_MIN && b == -1; if (!over) r = a / b - (a % b != 0 && (a < 0) != (b < 0)); break;
    case Op::modulo: r = b == -1 ? 0 : a % b; if (r != 0 && (r < 0) != (b < 0)) r += b; break;
    default: r = power(heap, a, b); break;
  }
  if (over) overflow(heap);
  return Value::of_int(r);
}

Value numbers(Heap& heap, Op op, double a, double b) {
  switch (op) {
    case Op::add: return Value::of_number(a + b);
    case Op::subtract: return Value::of_number(a - b);
    case Op::multiply: return Value::of_number(a * b);
    case Op::divide: return Value::of_number(a / b);
    case Op::floor_divide: heap.fail(GPTQ_E_TEMPLATE, "// of numbers that are not integers is outside the supported subset");
    case Op::modulo: {
      double r = std::fmod(a, b);
      if (r != 0 && (r < 0) != (b < 0)) r += b;
      return Value::of_number(r == 0 ? std::copysign(0.0, b) : r);
    }
    default: {
      const double r = std::pow(a, b);
      if (!std::isfinite(r)) heap.fail(GPTQ_E_TEMPLATE, "the result of ** is out of range");
      return Value::of_number(r);
    }
  }
}

Value arithmetic(Heap& heap, Op op, const Value& a, const Value& b) {
  const bool divides = op == Op::divide || op == Op::floor_divide || op == Op::modulo;
  if (divides && b.as_number() == 0) heap.fail(GPTQ_E_TEMPLATE, "division by zero");
  const bool whole = a.is_integer() && b.is_integer() && op != Op::divide && !(op == Op::power && b.as_integer() < 0);
  if (whole) return integers(heap, op, a.as_integer(), b.as_integer());
  return numbers(heap, op, a.as_number(), b.as_number());
}

Value join_arrays(Heap& heap, const Value& a, const Value& b) {
  ArrayBuilder out(heap);
  for (const Value& v : iterate(heap, a)) out.add(v);
  for (const Value& v : iterate(heap, b)) out.add(v);
  return out.finish(a.kind);
}

Value repeat_array(Heap& heap, const Value& a, int64_t n) {
  ArrayBuilder out(heap);
  for (; n > 0 && a.array->size > 0; --n)
    for (const Value& v : iterate(heap, a)) out.add(v);
  return out.finish(a.kind);
}

Value join_strings(Heap& heap, const Value& a, const Value& b) {
  if (a.safe == b.safe) return concat(heap, a, b);
  return concat(heap, escape(heap, a), escape(heap, b));
}

bool is_list(const Value& v) { return v.is(Kind::list) || v.is(Kind::tuple); }

}  // namespace

bool contains(Heap& heap, const Value& container, const Value& what) {
  if (container.is(Kind::string)) {
    if (!what.is(Kind::string)) heap.fail(GPTQ_E_TEMPLATE, "'in <string>' requires string as left operand, not ", kind_name(what));
    return find(heap, container.view(), what.view()) != not_found;
  }
  if (container.is(Kind::dict)) {
    if (what.is(Kind::list) || what.is(Kind::dict)) heap.fail(GPTQ_E_TEMPLATE, "unhashable type: '", kind_name(what), "'");
    return container.dict->find(heap, what) != nullptr;
  }
  for (const Value& v : iterate(heap, container))
    if (equal(heap, v, what)) return true;
  return false;
}

Value apply(Heap& heap, Op op, const Value& a, const Value& b) {
  switch (op) {
    case Op::concat: {
      Value x = to_string(heap, a), y = to_string(heap, b);
      x.safe = y.safe = false;
      return concat(heap, x, y);
    }
    case Op::equal: return Value::of_bool(equal(heap, a, b));
    case Op::not_equal: return Value::of_bool(!equal(heap, a, b));
    case Op::in: return Value::of_bool(contains(heap, b, a));
    case Op::not_in: return Value::of_bool(!contains(heap, b, a));
    case Op::less: case Op::less_equal: case Op::greater: case Op::greater_equal: {
      if ((a.is(Kind::number) && std::isnan(a.number)) || (b.is(Kind::number) && std::isnan(b.number))) return Value::of_bool(false);
      const int c = compare(heap, a, b);
      return Value::of_bool(op == Op::less ? c < 0 : op == Op::less_equal ? c <= 0 : op == Op::greater ? c > 0 : c >= 0);
    }
    default: break;
  }
  if (a.is_numeric() && b.is_numeric()) return arithmetic(heap, op, a, b);
  if (op == Op::add && a.is(Kind::string) && b.is(Kind::string)) return join_strings(heap, a, b);
  if (op == Op::add && is_list(a) && a.kind == b.kind) return join_arrays(heap, a, b);
  if (op == Op::multiply) {
    const Value &many = a.is_integer() ? b : a, &times = a.is_integer() ? a : b;
    if (many.is(Kind::string) && times.is_integer()) return repeat(heap, many, times.as_integer());
    if (is_list(many) && times.is_integer()) return repeat_array(heap, many, times.as_integer());
  }
  if (op == Op::modulo && a.is(Kind::string)) heap.fail(GPTQ_E_TEMPLATE, "formatting with % is outside the supported subset");
  for (const Value* v : {&a, &b})
    if (v->is(Kind::undefined)) heap.fail(GPTQ_E_TEMPLATE, "'", v->view(), "' is undefined");
  heap.fail(GPTQ_E_TEMPLATE, "unsupported operand types for ", symbol(op), ": '", kind_name(a), "' and '", kind_name(b), "'");
}

Value negate(Heap& heap, const Value& v) {
  if (v.is(Kind::number)) return Value::of_number(-v.number);
  if (!v.is_integer()) heap.fail(GPTQ_E_TEMPLATE, "bad operand type for unary -: '", kind_name(v), "'");
  return integers(heap, Op::subtract, 0, v.as_integer());
}

}  // namespace gptq::text::jinja
