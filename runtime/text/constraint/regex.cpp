// SPDX-License-Identifier: Apache-2.0
#include "text/constraint/regex.h"

#include <algorithm>
#include <bitset>
#include <map>

#include "base/failure.h"

namespace gptq::text::constraint {
namespace {

constexpr uint32_t kNone = ~0u;

struct Node {  // a byte range leading to a, or, without one, a fork to a and b
  uint32_t a = kNone, b = kNone;
  uint8_t low = 1, high = 0;
  bool range() const { return low <= high; }
};
struct Part { uint32_t first, last; };
struct Class { std::bitset<128> ascii; bool others = false; };
struct Bytes { uint8_t low, high; };

class Parser {
 public:
  Parser(std::string_view text, const RegexLimits& limits, std::pmr::memory_resource* memory)
      : nodes(memory), text_(text), limits_(limits) {}
  Part whole() {
    const Part part = either();
    if (at_ < text_.size()) refuse("an unmatched )");
    return part;
  }
  std::pmr::vector<Node> nodes;

 private:
  [[noreturn]] void refuse(const char* what) const { base::fail_at(GPTQ_E_INVALID_ARGUMENT, at_, "regex: ", what, " at ", at_); }
  bool more() const { return at_ < text_.size(); }
  bool take(char c) { return more() && text_[at_] == c ? (++at_, true) : false; }
  uint32_t add(Node node = {}) {
    if (nodes.size() >= limits_.nodes) refuse("more nodes than the limit");
    nodes.push_back(node);
    return static_cast<uint32_t>(nodes.size() - 1);
  }
  void fork(uint32_t from, uint32_t to) {
    if (nodes[from].a == kNone) { nodes[from].a = to; return; }
    if (nodes[from].b != kNone) {
      const uint32_t moved = add({nodes[from].a, nodes[from].b});
      nodes[from].a = moved;
    }
    nodes[from].b = to;
  }
  void path(Part part, std::initializer_list<Bytes> bytes) {
    uint32_t to = part.last;
    for (auto b = bytes.end(); b-- != bytes.begin();) to = add({to, kNone, b->low, b->high});
    fork(part.first, to);
  }
  Part either() {
    if (++depth_ > limits_.nesting) refuse("groups nested too deeply");
    Part all{add(), add()};
    do {
      Part one{add(), 0};
      one.last = one.first;
      while (more() && text_[at_] != '|' && text_[at_] != ')') {
        const Part next = repeated();
        fork(one.last, next.first);
        one.last = next.last;
      }
      fork(all.first, one.first);
      fork(one.last, all.last);
    } while (take('|'));
    --depth_;
    return all;
  }
  uint32_t number() {
    if (!more() || text_[at_] < '0' || text_[at_] > '9') refuse("a number missing");
    uint32_t value = 0;
    for (; more() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_)
      if ((value = value * 10 + static_cast<uint32_t>(text_[at_] - '0')) > limits_.nodes) refuse("too many repeats");
    return value;
  }
  Part repeated() {
    const size_t begin = at_;
    Part part = atom();
    uint32_t least = 1, most = 1;
    if (take('*')) { least = 0; most = kNone; }
    else if (take('+')) most = kNone;
    else if (take('?')) least = 0;
    else if (take('{')) {
      least = most = number();
      if (take(',')) most = more() && text_[at_] == '}' ? kNone : number();
      if (!take('}') || most < least) refuse("a wrong {m,n}");
    } else {
      return part;
    }
    if (more() && (text_[at_] == '?' || text_[at_] == '+' || text_[at_] == '*')) refuse("a lazy or possessive repeat");
    const size_t after = at_;
    Part all{add(), add()};
    uint32_t here = all.first;
    const uint32_t copies = most == kNone ? std::max(least, 1u) : most;
    for (uint32_t i = 0; i < copies; ++i) {
      if (i) { at_ = begin; part = atom(); }
      if (i >= least) fork(here, all.last);
      fork(here, part.first);
      // A join of its own: the part's last node may lead elsewhere already.
      here = add();
      fork(part.last, here);
    }
    if (most == kNone) fork(here, part.first);
    fork(here, all.last);
    at_ = after;
    return all;
  }
  Part of(const Class& c) {
    if (c.ascii.none() && !c.others) refuse("a class that holds nothing");
    Part part{add(), add()};
    for (unsigned i = 0; i < 128; ++i) {
      if (!c.ascii[i]) continue;
      unsigned j = i;
      while (j + 1 < 128 && c.ascii[j + 1]) ++j;
      path(part, {{static_cast<uint8_t>(i), static_cast<uint8_t>(j)}});
      i = j;
    }
    if (c.others) {  // the well-formed sequences of UTF-8
      constexpr Bytes tail{0x80, 0xbf};
      path(part, {{0xc2, 0xdf}, tail});
      path(part, {{0xe0, 0xe0}, {0xa0, 0xbf}, tail});
      path(part, {{0xe1, 0xec}, tail, tail});
      path(part, {{0xed, 0xed}, {0x80, 0x9f}, tail});
      path(part, {{0xee, 0xef}, tail, tail});
      path(part, {{0xf0, 0xf0}, {0x90, 0xbf}, tail, tail});
      path(part, {{0xf1, 0xf3}, tail, tail, tail});
      path(part, {{0xf4, 0xf4}, {0x80, 0x8f}, tail, tail});
    }
    return part;
  }
  Class escape() {  // after the backslash
    if (!more()) refuse("a lone backslash");
    const char c = text_[at_++];
    Class out;
    const auto set = [&](char low, char high) { for (int i = low; i <= high; ++i) out.ascii.set(static_cast<size_t>(i)); };
    const char lower = static_cast<char>(c | 0x20);
    if (lower == 'd') set('0', '9');
    else if (lower == 'w') { set('0', '9'); set('a', 'z'); set('A', 'Z'); set('_', '_'); }
    else if (lower == 's') { set('\t', '\r'); set(' ', ' '); }
    else if (c == 'n') set('\n', '\n');
    else if (c == 't') set('\t', '\t');
    else if (c == 'r') set('\r', '\r');
    else if (c > ' ' && c < 127 && !(lower >= 'a' && lower <= 'z') && !(c >= '0' && c <= '9')) set(c, c);
    else { --at_; refuse("an unknown escape"); }
    if (c == 'D' || c == 'W' || c == 'S') { out.ascii.flip(); out.others = true; }
    return out;
  }
  Class one_of_class() {
    if (!more()) refuse("an open class");
    if (take('\\')) return escape();
    if (static_cast<uint8_t>(text_[at_]) >= 0x80) refuse("a character beyond ASCII in a class");
    Class out;
    out.ascii.set(static_cast<size_t>(text_[at_++]));
    return out;
  }
  Part atom() {
    if (take('(')) {
      if (take('?') && !take(':')) refuse("a group of a kind that is not supported");
      const Part part = either();
      if (!take(')')) refuse("an open group");
      return part;
    }
    Class c;
    if (take('.')) {
      c.ascii.set().reset('\n');
      c.others = true;
      return of(c);
    }
    if (take('[')) {
      const bool negated = take('^');
      if (more() && text_[at_] == ']') refuse("an empty class");
      while (!take(']')) {
        Class item = one_of_class();
        if (at_ + 1 < text_.size() && text_[at_] == '-' && text_[at_ + 1] != ']') {
          ++at_;
          const Class end = one_of_class();
          if (item.ascii.count() != 1 || end.ascii.count() != 1) refuse("a range between classes");
          size_t low = 0, high = 0;
          while (!item.ascii[low]) ++low;
          while (!end.ascii[high]) ++high;
          if (low > high) refuse("a range that runs backwards");
          for (; low <= high; ++low) item.ascii.set(low);
        }
        c.ascii |= item.ascii;
        c.others |= item.others;
      }
      if (negated) { c.ascii.flip(); c.others = !c.others; }
      return of(c);
    }
    if (take('\\')) return of(escape());
    const char first = text_[at_];
    if (std::string_view("*+?{}]^$").find(first) != std::string_view::npos) refuse("a sign that means nothing here");
    Part part{add(), 0};
    part.last = part.first;
    do {  // a whole character, so that a repeat takes all of it
      const uint8_t byte = static_cast<uint8_t>(text_[at_++]);
      const uint32_t to = add();
      fork(part.last, add({to, kNone, byte, byte}));
      part.last = to;
    } while (static_cast<uint8_t>(first) >= 0xc0 && more() && (static_cast<uint8_t>(text_[at_]) & 0xc0) == 0x80);
    return part;
  }

  std::string_view text_;
  const RegexLimits& limits_;
  size_t at_ = 0;
  uint32_t depth_ = 0;
};

using Set = std::pmr::vector<uint32_t>;

}  // namespace

Regex::Regex(std::string_view pattern, const RegexLimits& limits, std::pmr::memory_resource* memory)
    : next_(memory), accepting_(memory) {
  Parser parser(pattern, limits, memory);
  const Part whole = parser.whole();
  const auto& nodes = parser.nodes;
  std::bitset<257> border;
  border.set(0);
  for (const Node& n : nodes) if (n.range()) border.set(n.low).set(n.high + 1u);
  std::pmr::map<Set, uint32_t> known(memory);
  std::pmr::vector<const Set*> sets(memory);
  Set seen(nodes.size(), 0, memory), open(memory);
  uint32_t stamp = 0;
  uint64_t work = 0;
  // The state of all nodes reached from the open ones.
  const auto state_of = [&]() -> uint32_t {
    Set set(memory);
    for (++stamp; !open.empty();) {
      const uint32_t n = open.back();
      open.pop_back();
      if (n == kNone || seen[n] == stamp) continue;
      seen[n] = stamp;
      if (++work > limits.work) base::fail(GPTQ_E_INVALID_ARGUMENT, "regex: more work to compile than the limit");
      if (nodes[n].range() || n == whole.last) set.push_back(n);
      if (!nodes[n].range()) { open.push_back(nodes[n].a); open.push_back(nodes[n].b); }
    }
    std::sort(set.begin(), set.end());
    const auto [place, fresh] = known.emplace(std::move(set), static_cast<uint32_t>(sets.size()));
    if (fresh) {
      if (sets.size() >= limits.states) base::fail(GPTQ_E_INVALID_ARGUMENT, "regex: more than ", limits.states, " states");
      sets.push_back(&place->first);
      accepting_.push_back(std::binary_search(place->first.begin(), place->first.end(), whole.last));
      next_.resize(sets.size() * 256, kDead);
    }
    return place->second;
  };
  state_of();  // the empty set: kDead
  open.push_back(whole.first);
  start_ = state_of();
  for (uint32_t s = 1; s < sets.size(); ++s) {
    uint32_t to = kDead;
    for (unsigned byte = 0; byte < 256; ++byte) {
      if (border[byte]) {
        work += sets[s]->size();
        for (uint32_t n : *sets[s])
          if (nodes[n].low <= byte && byte <= nodes[n].high) open.push_back(nodes[n].a);
        to = state_of();
      }
      next_[s * 256 + byte] = to;
    }
    const auto row = next_.begin() + s * 256;
    if (accepting_[s] && std::all_of(row, row + 256, [](uint32_t next) { return next == kDead; })) accepting_[s] = 2;
  }
}

void Regex::mask(uint32_t state, bool skips_space, const TokenTrie& trie, std::span<uint32_t> bits) const {
  std::fill(bits.begin(), bits.end(), 0u);
  const auto nodes = trie.nodes();
  uint32_t stack[TokenTrie::kLongest + 1];
  stack[0] = state;
  for (uint32_t n = 0; n < nodes.size();) {
    const auto& node = nodes[n];
    const bool skipped = skips_space && node.depth == 1 && node.byte == ' ';
    const uint32_t to = skipped ? state : step(stack[node.depth - 1u], node.byte);
    if (to == kDead) { n = node.after; continue; }
    stack[node.depth] = to;
    for (uint32_t t = node.token; t != TokenTrie::kNone; t = trie.same(t)) bits[t / 32] |= 1u << (t % 32);
    ++n;
  }
}

}  // namespace gptq::text::constraint
