// SPDX-License-Identifier: Apache-2.0
// A recursive descent. Possessive repetition of a single character's set is a greedy one that such a character must not follow.
#include "converter/tokenizer/regex/syntax.h"

#include <algorithm>
#include <optional>

#include "base/failure.h"
#include "converter/tokenizer/regex/class_syntax.h"

namespace gptq::convert::regex {
namespace {

constexpr uint32_t no_limit = UINT32_MAX;

Node one(Set set) { return {.kind = Node::one, .set = std::move(set)}; }
Node look(Node::Kind kind, Set set, bool edge) { return {.kind = kind, .set = std::move(set), .edge = edge}; }
Node opposite(const Node& node) { return look(node.kind, node.set.inverted(), !node.edge); }

Node list(Node::Kind kind, std::vector<Node> parts) {
  if (parts.size() == 1) return std::move(parts[0]);
  return {.kind = kind, .parts = std::move(parts)};
}

Node repeated(Node node, uint32_t min, uint32_t max, bool lazy) {
  return {.kind = Node::repeat, .parts = {std::move(node)}, .min = min, .max = max, .lazy = lazy};
}

// set{min,max} of which nothing is given back.
Node possessive(const Node& node, uint32_t min, uint32_t max) {
  const Node end = look(Node::ahead, node.set.inverted(), true);
  if (max == no_limit) return list(Node::sequence, {repeated(node, min, max, false), end});
  Node full = repeated(node, max, max, false);
  if (min == max) return full;
  return list(Node::choice, {full, list(Node::sequence, {repeated(node, min, max - 1, false), end})});
}

class Parser {
 public:
  explicit Parser(std::string_view pattern) : in_(pattern) {}

  Node whole() {
    Node node = choice({});
    if (!in_.at_end()) in_.refuse("an unmatched )");
    return node;
  }

 private:
  struct Flags {
    bool ignore_case = false, dot_is_all = false, extended = false;
  };
  struct Count {
    uint32_t min, max;
    bool fixed_form;  // {n}, {n,m}: no possessive form
  };

  Node choice(Flags flags) {
    if (++depth_ > 50) in_.refuse("groups nested deeper than 50");
    std::vector<Node> parts;
    do parts.push_back(sequence(flags));
    while (in_.take('|'));
    --depth_;
    return list(Node::choice, std::move(parts));
  }

  Node sequence(const Flags& flags) {
    std::vector<Node> parts;
    while (!in_.at_end() && in_.peek() != '|' && in_.peek() != ')') {
      std::optional<Node> node = atom(flags);
      if (node) parts.push_back(quantified(std::move(*node)));
    }
    return list(Node::sequence, std::move(parts));
  }

  std::optional<Count> count() {
    if (in_.take('?')) return Count{0, 1, false};
    if (in_.take('*')) return Count{0, no_limit, false};
    if (in_.take('+')) return Count{1, no_limit, false};
    if (in_.peek() != '{') return {};
    const size_t start = in_.place();
    in_.take('{');
    const std::optional<uint32_t> low = in_.number();
    const bool comma = in_.take(',');
    const std::optional<uint32_t> high = in_.number();
    if (!in_.take('}') || (!low && !high)) {  // not a repetition: it stands for itself
      in_.go_to(start);
      return {};
    }
    const Count out{low.value_or(0), comma ? high.value_or(no_limit) : *low, true};
    if (out.min > 1000 || (out.max != no_limit && out.max > 1000) || out.max < out.min) in_.refuse("a repetition of more than 1000 times");
    return out;
  }

  Node quantified(Node node) {
    while (!in_.at_end()) {
      const std::optional<Count> n = count();
      if (!n) break;
      if (node.kind == Node::ahead || node.kind == Node::behind) in_.refuse("a repeated condition");
      if (in_.peek() == '?' && (!n->fixed_form || n->min != n->max)) {
        in_.take('?');
        node = repeated(std::move(node), n->min, n->max, true);
      } else if (!n->fixed_form && in_.take('+')) {
        if (node.kind != Node::one) in_.refuse("a possessive repetition of more than one character");
        node = possessive(node, n->min, n->max);
      } else {
        node = repeated(std::move(node), n->min, n->max, false);
      }
    }
    return node;
  }

  std::optional<Node> atom(const Flags& flags) {
    const uint32_t c = in_.next();
    switch (c) {
      case '(': return group(flags);
      case '[': return one(read_class(in_, flags.ignore_case));
      case '.': return one(flags.dot_is_all ? Set::all() : Set('\n', '\n').inverted());
      case '^': return look(Node::behind, {'\n', '\n'}, true);
      case '$': return look(Node::ahead, {'\n', '\n'}, true);
      case '\\': return escape(flags);
      case '*': case '+': case '?': in_.refuse("a repetition of nothing");
      default: break;
    }
    if (flags.extended && space_set().contains(c)) return {};
    if (flags.extended && c == '#') in_.refuse("a comment");
    return one(cased({c, c}, flags));
  }

  Set cased(Set set, const Flags& flags) { return flags.ignore_case ? without_case(set) : set; }

  Node escape(const Flags& flags) {
    switch (in_.peek()) {
      case 'A': in_.next(); return look(Node::behind, {}, true);
      case 'z': in_.next(); return look(Node::ahead, {}, true);
      case 'b': case 'B': return boundary(in_.next() == 'b');
      default: return one(cased(read_escape(in_), flags));
    }
  }

  Node boundary(bool wanted) {
    const Node before = look(Node::behind, word_set(), false), after = look(Node::ahead, word_set(), false);
    const Node rises = list(Node::sequence, {opposite(before), wanted ? after : opposite(after)});
    const Node falls = list(Node::sequence, {before, wanted ? opposite(after) : after});
    return list(Node::choice, {rises, falls});
  }

  // Behind the bracket. Flags alone hold up to the end of the group around.
  Node group(const Flags& flags) {
    Flags inner = flags;
    if (!in_.take('?')) return closed(choice(inner));
    if (in_.take(':')) return closed(choice(inner));
    if (in_.take('=')) return condition(Node::ahead, inner);
    if (in_.take('!')) return opposite(condition(Node::ahead, inner));
    if (in_.take('>')) return atomic(closed(choice(inner)));
    if (in_.take("<=")) return condition(Node::behind, inner);
    if (in_.take("<!")) return opposite(condition(Node::behind, inner));
    if (in_.take('<')) {
      while (in_.next() != '>') {}
      return closed(choice(inner));
    }
    for (bool on = true; in_.peek() != ':' && in_.peek() != ')';) {
      const uint32_t flag = in_.next();
      if (flag == '-') on = false;
      else if (flag == 'i') inner.ignore_case = on;
      else if (flag == 'm') inner.dot_is_all = on;
      else if (flag == 'x') inner.extended = on;
      else in_.refuse("an unknown kind of group");
    }
    if (in_.take(':')) return closed(choice(inner));
    in_.next();
    // What follows is one more group, with these flags, up to the end of the one around.
    return choice(inner);
  }

  Node closed(Node node) {
    if (!in_.take(')')) in_.refuse("an unclosed (");
    return node;
  }

  Node atomic(Node node) {
    if (node.kind == Node::one) return node;
    if (node.kind == Node::repeat && node.parts[0].kind == Node::one && !node.lazy) return possessive(node.parts[0], node.min, node.max);
    in_.refuse("an atomic group of more than one character");
  }

  // One character's set, or the edge of the text, or a choice of such.
  Node condition(Node::Kind kind, Flags flags) {
    const Node node = closed(choice(flags));
    Node out = look(kind, {}, false);
    const std::vector<Node> self{node};
    for (const Node& part : node.kind == Node::choice ? node.parts : self) {
      if (part.kind != Node::one && part.kind != kind) in_.refuse("a condition on more than one character");
      out.set.add(part.set);
      out.edge |= part.edge;
    }
    return out;
  }

  Input in_;
  int depth_ = 0;
};

}  // namespace

Node parse(std::string_view pattern) { return Parser(pattern).whole(); }

Node literal(std::string_view text) {
  Node out;
  for (Input in(text); !in.at_end();) {
    const uint32_t c = in.next();
    out.parts.push_back(one({c, c}));
  }
  return out;
}

}  // namespace gptq::convert::regex
