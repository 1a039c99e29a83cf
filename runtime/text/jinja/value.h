// SPDX-License-Identifier: Apache-2.0
// Values of a template: what Python would hold, immutable (namespaces and loops aside), and text that knows which of its bytes to trust.
#pragma once
#include <span>
#include <string_view>
#include <vector>

#include "text/jinja/heap.h"

namespace gptq::text::jinja {

enum class Kind : uint8_t {
  undefined,
  none,
  boolean,
  integer,
  number,
  string,
  list,
  tuple,
  view,
  range,
  generator,
  dict,
  space,
  loop,
  function
};

struct Array;
struct Dict;
struct Namespace;
struct Loop;
struct Function;
struct Scope;

// Bytes of text and, beside each, 1 where it came from the template. Strings are slices of such a buffer; the one that ends where
// the buffer ends may be extended in place, which keeps accumulating text in a loop linear.
struct Buffer {
  char* bytes;
  uint8_t* trust;
  uint32_t used, capacity;
};

struct Value {
  Kind kind = Kind::undefined;
  bool safe = false;                // a string marked by `safe`: joining others to it escapes them
  uint32_t offset = 0, size = 0;    // of a string in its buffer; an undefined value holds the name it was looked up by; of a number what
                                    // the heap keeps of it, 0: nothing
  union {
    Buffer* buffer = nullptr;
    bool boolean;
    int64_t integer;
    double number;
    Array* array;                   // list, tuple, view, range, generator
    const Dict* dict;
    Namespace* space;
    Loop* loop;
    const Function* function;
  };

  static Value none() { return of(Kind::none); }
  static Value of(Kind kind) { Value v; v.kind = kind; return v; }
  static Value of_bool(bool b) { Value v = of(Kind::boolean); v.boolean = b; return v; }
  static Value of_int(int64_t i) { Value v = of(Kind::integer); v.integer = i; return v; }
  static Value of_number(double d) { Value v = of(Kind::number); v.number = d; return v; }
  static Value of_array(Kind kind, Array* a) { Value v = of(kind); v.array = a; return v; }
  static Value of_dict(const Dict* d) { Value v = of(Kind::dict); v.dict = d; return v; }
  static Value of_function(const Function* f) { Value v = of(Kind::function); v.function = f; return v; }

  bool is(Kind k) const { return kind == k; }
  bool is_integer() const { return kind == Kind::integer || kind == Kind::boolean; }
  bool is_numeric() const { return is_integer() || kind == Kind::number; }
  bool is_array() const { return kind >= Kind::list && kind <= Kind::generator; }
  bool is_sequence() const { return kind == Kind::list || kind == Kind::tuple || kind == Kind::range; }
  int64_t as_integer() const { return kind == Kind::boolean ? boolean : integer; }
  double as_number() const { return kind == Kind::number ? number : static_cast<double>(as_integer()); }
  std::string_view view() const { return size ? std::string_view(buffer->bytes + offset, size) : std::string_view(); }
  const uint8_t* trust() const { return size ? buffer->trust + offset : nullptr; }
};

struct Array {
  Value* items;
  uint32_t size;
  uint32_t depth;
  uint32_t taken = 0;  // generators: items already consumed
};

struct Entry {
  Value key, value;
};

// In order of insertion; `order` lists the entries by key where all keys are strings and there are many.
struct Dict {
  Entry* entries;
  uint32_t* order;
  uint32_t size;
  uint32_t depth;
  const Value* find(Heap& heap, const Value& key) const;
  const Value* find(Heap& heap, std::string_view key) const;
};

struct Namespace {
  std::pmr::vector<Entry> entries;
};

struct Loop {
  std::span<const Value> items;
  size_t done = 0;                        // items begun; the current one is done - 1
  bool entered = false;                   // a pass went to its end
  bool filters = false;                   // a pass that only chooses items
  Scope* scope = nullptr;                 // around the loop
  std::pmr::vector<Value> kept;
  std::pmr::vector<Value> last_changed;   // arguments of the last loop.changed()
};

// Collects values for an Array.
class ArrayBuilder {
 public:
  explicit ArrayBuilder(Heap& heap) : heap_(heap) {}
  void add(const Value& value);
  Value finish(Kind kind);

 private:
  Heap& heap_;
  Value* items_ = nullptr;
  uint32_t size_ = 0, capacity_ = 0;
};

// Takes the entries over. A later entry of the same key replaces an earlier one; with a document's name that is an error in it.
Value make_dict(Heap& heap, Entry* entries, uint32_t n, std::string_view document = {});
Value make_array(Heap& heap, Kind kind, std::span<const Value> items);

bool truth(const Value& v);
bool equal(Heap& heap, const Value& a, const Value& b);
int compare(Heap& heap, const Value& a, const Value& b);  // fails on kinds without an order
uint32_t depth_of(const Value& v);
std::string_view kind_name(const Value& v);  // as Python calls it

// The items that iterating gives; fails on what cannot be iterated. A generator is consumed.
std::span<const Value> iterate(Heap& heap, const Value& v);
// len(): fails where Python has none.
int64_t length(Heap& heap, const Value& v);

}  // namespace gptq::text::jinja
