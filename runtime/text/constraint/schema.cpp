// SPDX-License-Identifier: Apache-2.0
// From the document to nodes. Keywords that are not supported are refused with their JSON pointer; unknown ones are annotations.
#include "text/constraint/schema.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "base/failure.h"
#include "text/constraint/schema_formats.h"
#include "text/constraint/sources.h"
#include "text/json.h"

namespace gptq::text::constraint {
namespace {

using jinja::Value;
using JsonKind = jinja::Kind;

constexpr uint32_t none = SchemaNode::none, nodes_max = 20'000;

class Compiler {
 public:
  Compiler(Schema& schema, jinja::Heap& heap, std::pmr::memory_resource* memory)
      : schema_(schema),
        heap_(heap),
        memory_(memory),
        known_(memory),
        places_(memory),
        bases_(memory),
        names_(memory),
        open_(memory),
        regexes_(memory) {}
  // One document, which is at the pointer of the whole source; its root.
  uint32_t add(const Value& root, const std::pmr::string& pointer) {
    places_.clear();
    bases_.clear();
    dynamic_anchors_ = 0;
    old_ = digits_only_ = false;
    has_conditions_ = asserts_formats_ = true;
    if (const Value* dialect = root.is(JsonKind::dict) ? root.dict->find(heap_, "$schema") : nullptr;
        dialect && dialect->is(JsonKind::string)) {
      asserts_formats_ = dialect->view().find("/draft/20") == std::string_view::npos;
      old_ = dialect->view().find("draft-0") != std::string_view::npos;
      has_conditions_ = !old_ || dialect->view().find("draft-07") != std::string_view::npos;
      digits_only_ = dialect->view().find("draft-04") != std::string_view::npos || dialect->view().find("draft-03") != std::string_view::npos;
      if (dialect->view().find("json-schema.org") == std::string_view::npos) fail(pointer, "$schema", "an unknown dialect");
    }
    scan(root, Text(memory_), 0);
    const uint32_t node = node_of(root, pointer);
    for (; filled_ < open_.size(); ++filled_) {
      const Text place(open_[filled_].pointer, memory_);
      fill(open_[filled_].node, *open_[filled_].value, place);
    }
    return node;
  }
  [[noreturn]] void refuse(const Schema::Never& never, std::string_view document) const {
    const auto place = std::ranges::find(open_, never.node, &Open::node);
    const std::string_view pointer = place == open_.end() ? document : std::string_view(place->pointer);
    base::fail(GPTQ_E_INVALID_ARGUMENT, "schema: ", pointer, never.keyword.empty() ? "" : "/", never.keyword, pointer.empty() && never.keyword.empty() ? "" : ": ", never.reason, ", so no text is allowed");
  }
  void finish() {
    refuse_cycles();
    sort_names();
    if (!schema_.patterns.rules.empty()) schema_.patterns.finish("schema", false);
  }

 private:
  using Text = std::pmr::string;
  struct Open {
    uint32_t node;
    const Value* value;
    Text pointer;
  };
  template <class... Parts>
  [[noreturn]] void fail(std::string_view pointer, std::string_view keyword, const Parts&... parts) const {
    base::fail(GPTQ_E_INVALID_ARGUMENT, "schema: ", pointer, "/", keyword, ": ", parts...);
  }
  Text below(std::string_view pointer, std::string_view key) const {
    Text out(pointer, memory_);
    out += '/';
    for (const char c : key) {
      if (c == '~') out += "~0";
      else if (c == '/') out += "~1";
      else out += c;
    }
    return out;
  }
  Text below(std::string_view pointer, std::string_view key, size_t i) const {
    Text out = below(pointer, key);
    out += '/';
    out += std::string_view(std::to_string(i));
    return out;
  }

  // ---- addresses
  static bool is_absolute(std::string_view uri) {
    const size_t colon = uri.find(':');
    return colon != std::string_view::npos && uri.find_first_of("/?#") > colon;
  }
  Text resolve(std::string_view base, std::string_view uri) const {
    Text out(memory_);
    if (uri.empty() || is_absolute(uri)) return out = uri.empty() ? base : uri;
    const size_t scheme = base.find("://");
    const size_t host = scheme == std::string_view::npos ? 0 : base.find('/', scheme + 3);
    if (uri.starts_with('/')) out = base.substr(0, host == std::string_view::npos ? base.size() : host);
    else if (const size_t slash = base.rfind('/');
             slash != std::string_view::npos && (scheme == std::string_view::npos || slash > scheme + 2))
      out = base.substr(0, slash + 1);
    out += uri;
    return out;
  }
  // What every $id and anchor stands for, and under which base each part of the document is.
  // names: its keys are names of subschemas, not keywords.
  void scan(const Value& value, const Text& base, uint32_t depth, bool names = false) {
    if (value.is(JsonKind::list))
      for (uint32_t i = 0; i < value.array->size; ++i) scan(value.array->items[i], base, depth + 1);
    if (!value.is(JsonKind::dict)) return;
    if (names) {
      for (uint32_t i = 0; i < value.dict->size; ++i) scan(value.dict->entries[i].value, base, depth + 1);
      return;
    }
    Text here(base, memory_);
    if (const Value* id = value.dict->find(heap_, "$id"); id && id->is(JsonKind::string))
      here = resolve(base, without_fragment(id->view()));
    if (old_)
      if (const Value* id = value.dict->find(heap_, "id"); id && id->is(JsonKind::string) && depth == 0)
        here = resolve(base, without_fragment(id->view()));
    if (here != base || depth == 0) places_.emplace(here, &value);
    bases_.emplace(value.dict, here);
    for (const char* keyword : {"$anchor", "$dynamicAnchor"})
      if (const Value* anchor = value.dict->find(heap_, keyword); anchor && anchor->is(JsonKind::string)) {
        Text key(here, memory_);
        key += '#';
        key += anchor->view();
        places_.emplace(key, &value);
        if (keyword[1] == 'd') ++dynamic_anchors_;
      }
    for (uint32_t i = 0; i < value.dict->size; ++i) {
      const std::string_view key = value.dict->entries[i].key.view();
      const bool names = key == "properties" || key == "$defs" || key == "definitions" || key == "patternProperties" || key == "dependentSchemas" || key == "dependencies";
      if (key != "enum" && key != "const" && key != "default" && key != "examples") scan(value.dict->entries[i].value, here, depth + 1, names);
    }
  }
  static std::string_view without_fragment(std::string_view uri) { return uri.substr(0, uri.find('#')); }
  const Value& target(const Value& from, std::string_view ref, std::string_view pointer) {
    const auto base = bases_.find(from.dict);
    const size_t hash = ref.find('#');
    const Text uri = resolve(base == bases_.end() ? std::string_view() : std::string_view(base->second), without_fragment(ref));
    std::string_view fragment = hash == std::string_view::npos ? std::string_view() : ref.substr(hash + 1);
    const auto resource = places_.find(uri);
    if (!fragment.empty() && fragment[0] != '/') {
      Text key(uri, memory_);
      key += '#';
      key += fragment;
      const auto anchor = places_.find(key);
      if (anchor == places_.end()) fail(pointer, "$ref", "'", ref, "' is not in this document");
      return *anchor->second;
    }
    if (resource == places_.end()) fail(pointer, "$ref", "'", ref, "' is not in this document");
    const Value* at = resource->second;
    while (!fragment.empty()) {
      fragment.remove_prefix(1);
      const std::string_view step = fragment.substr(0, fragment.find('/'));
      fragment.remove_prefix(step.size());
      const Text key = unescaped(step);
      const Value* next = nullptr;
      if (at->is(JsonKind::dict)) next = at->dict->find(heap_, std::string_view(key));
      size_t index = 0;
      if (at->is(JsonKind::list) && std::from_chars(key.data(), key.data() + key.size(), index).ec == std::errc() &&
          index < at->array->size)
        next = &at->array->items[index];
      if (!next) fail(pointer, "$ref", "'", ref, "' leads nowhere");
      at = next;
    }
    return *at;
  }
  Text unescaped(std::string_view step) const {
    Text out(memory_);
    for (size_t i = 0; i < step.size(); ++i) {
      unsigned code = 0;
      if (step[i] == '%' && i + 2 < step.size() &&
          std::from_chars(step.data() + i + 1, step.data() + i + 3, code, 16).ptr == step.data() + i + 3) {
        out += static_cast<char>(code);
        i += 2;
      } else {
        out += step[i];
      }
    }
    size_t n = 0;
    for (size_t i = 0; i < out.size(); ++i, ++n) {
      out[n] = out[i];
      if (out[i] == '~' && i + 1 < out.size() && (out[i + 1] == '0' || out[i + 1] == '1')) out[n] = out[++i] == '0' ? '~' : '/';
    }
    out.resize(n);
    return out;
  }

  // ---- nodes
  uint32_t add_node() {
    if (schema_.nodes.size() >= nodes_max) base::fail(GPTQ_E_INVALID_ARGUMENT, "schema: more than ", nodes_max, " subschemas");
    schema_.nodes.emplace_back(memory_);
    return static_cast<uint32_t>(schema_.nodes.size() - 1);
  }
  uint32_t node_of(const Value& value, std::string_view pointer) {
    if (value.is(JsonKind::boolean)) {
      uint32_t& node = value.boolean ? always_ : never_;
      if (node == none || schema_.nodes.empty()) {
        node = add_node();
        schema_.nodes[node].never = !value.boolean;
      }
      return node;
    }
    if (!value.is(JsonKind::dict)) base::fail(GPTQ_E_INVALID_ARGUMENT, "schema: ", pointer, ": a schema is an object or a boolean");
    const auto [place, fresh] = known_.emplace(value.dict, 0);
    if (fresh) {
      place->second = add_node();
      open_.push_back({place->second, &value, Text(pointer, memory_)});
    }
    return place->second;
  }
  uint32_t name_of(std::string_view name) {
    return names_.emplace(Text(name, memory_), static_cast<uint32_t>(names_.size())).first->second;
  }
  uint32_t count(const Value& v, std::string_view pointer, std::string_view keyword) const {
    const double n = v.is_numeric() && !v.is(JsonKind::boolean) ? v.as_number() : -1;
    if (n < 0 || n != std::floor(n)) fail(pointer, keyword, "a whole number from 0 is wanted");
    return static_cast<uint32_t>(std::min<double>(n, 1 << 30));
  }
  // limit: it stands for the numbers beyond it, so that a part of its digits may be enough.
  Decimal number(const Value& v, std::string_view pointer, std::string_view keyword, bool limit = false) const {
    if (v.is(JsonKind::integer)) return Decimal::of(std::string_view(std::to_string(v.integer)));
    if (!v.is(JsonKind::number)) fail(pointer, keyword, "a number is wanted");
    const std::string_view text = heap_.kept_number(v.size);
    const Decimal d = text.empty() ? Decimal::of(v.number) : Decimal::of(text);
    if (d.cut && !limit) fail(pointer, keyword, "a number of more than ", Decimal::digits_max, " digits");
    return d;
  }
  // A limit of more digits is between two numbers of as many as a text may have: beyond the one towards 0.
  void bound(SchemaNode& n, const Value& v, std::string_view pointer, const char* keyword, bool low, bool strict) const {
    const Decimal d = number(v, pointer, keyword, true);
    if (d.cut) strict = (d.digits > 0) == low;
    (low ? strict ? n.above : n.least : strict ? n.below : n.most) = d;
  }
  std::string_view string(const Value& v, std::string_view pointer, std::string_view keyword) const {
    if (!v.is(JsonKind::string)) fail(pointer, keyword, "a string is wanted");
    return v.view();
  }
  const jinja::Array& list(const Value& v, std::string_view pointer, std::string_view keyword) const {
    if (!v.is(JsonKind::list)) fail(pointer, keyword, "an array is wanted");
    return *v.array;
  }
  const jinja::Dict& dict(const Value& v, std::string_view pointer, std::string_view keyword) const {
    if (!v.is(JsonKind::dict)) fail(pointer, keyword, "an object is wanted");
    return *v.dict;
  }
  void types(SchemaNode& n, const Value& v, std::string_view pointer) const {
    constexpr std::pair<std::string_view, uint8_t> all[] = {
        {"null", type_null},     {"boolean", type_boolean}, {"integer", type_integer}, {"number", type_number | type_integer},
        {"string", type_string}, {"array", type_array},     {"object", type_object}};
    n.types = 0;
    n.digits_only = digits_only_;
    const auto add = [&](const Value& one) {
      for (const auto& [name, bit] : all)
        if (one.is(JsonKind::string) && one.view() == name) {
          n.types |= bit;
          return;
        }
      fail(pointer, "type", "an unknown type");
    };
    if (!v.is(JsonKind::list)) return add(v);
    for (uint32_t i = 0; i < v.array->size; ++i) add(v.array->items[i]);
  }
  // Rules of equal expressions are one.
  uint32_t pattern_of(std::string_view regex, std::string_view pointer, std::string_view keyword) {
    const auto [place, fresh] = regexes_.emplace(Text(regex, memory_), 0);
    if (!fresh) return place->second;
    try {
      place->second = add_regex(schema_.patterns, regex, true, "pattern");
    } catch (const base::Failure& failure) {
      base::fail_at(GPTQ_E_INVALID_ARGUMENT, failure.detail.offset, "schema: ", pointer, "/", keyword, ": ",
                    std::string_view(failure.detail.message));
    }
    return place->second;
  }

  // One of these values, as a node of its own kind.
  void enumerate(uint32_t node, const Value* values, uint32_t n, std::string_view pointer, std::string_view keyword) {
    std::pmr::vector<std::string_view> strings(memory_);
    SchemaNode first(memory_);
    first.has_enum = true;
    for (uint32_t i = 0; i < n; ++i) {
      const Value& v = values[i];
      if (v.is(JsonKind::none)) first.literals |= 1;
      else if (v.is(JsonKind::boolean)) first.literals |= v.boolean ? 4 : 2;
      else if (v.is(JsonKind::string)) strings.push_back(v.view());
      else if (v.is_numeric()) first.numbers.push_back(number(v, pointer, keyword));
      else first.values.push_back(constant(v, pointer, keyword, 0));
    }
    if (std::ranges::any_of(first.numbers, [](const Decimal& d) { return d.written() > Decimal::digits_max; }))
      fail(pointer, keyword, "a number that takes more than ", Decimal::digits_max, " bytes without an exponent");
    std::ranges::sort(strings);
    first.n_strings = static_cast<uint32_t>(std::unique(strings.begin(), strings.end()) - strings.begin());
    strings.resize(first.n_strings);
    if (!strings.empty()) first.strings = add_literals(schema_.patterns, strings);
    SchemaNode& target = schema_.nodes[node];
    if (target.has_enum) {  // beside a const
      const uint32_t other = add_node();
      schema_.nodes[other] = std::move(first);
      schema_.nodes[node].all.push_back(other);
      return;
    }
    target.has_enum = true;
    target.literals = first.literals;
    target.numbers = std::move(first.numbers);
    target.strings = first.strings;
    target.n_strings = first.n_strings;
    target.values = std::move(first.values);
  }
  uint32_t constant(const Value& v, std::string_view pointer, std::string_view keyword, uint32_t depth) {
    const uint32_t node = add_node();
    if (v.is(JsonKind::list)) {
      std::pmr::vector<uint32_t> items(memory_);
      for (uint32_t i = 0; i < v.array->size; ++i) items.push_back(constant(v.array->items[i], pointer, keyword, depth + 1));
      SchemaNode& n = schema_.nodes[node];
      n.types = type_array;
      n.min_items = n.max_items = v.array->size;
      n.prefix = std::move(items);
    } else if (v.is(JsonKind::dict)) {
      std::pmr::vector<std::pair<uint32_t, uint32_t>> properties(memory_);
      for (uint32_t i = 0; i < v.dict->size; ++i)
        properties.emplace_back(name_of(v.dict->entries[i].key.view()), constant(v.dict->entries[i].value, pointer, keyword, depth + 1));
      const uint32_t never = node_of(Value::of_bool(false), pointer);
      SchemaNode& n = schema_.nodes[node];
      n.types = type_object;
      for (const auto& [name, child] : properties) n.required.push_back(name), n.named.push_back(name);
      n.properties = std::move(properties);
      n.additional = never;
    } else {
      enumerate(node, &v, 1, pointer, keyword);
    }
    return node;
  }

  void fill(uint32_t node, const Value& value, const Text& pointer) {
    const auto at = [&]() -> SchemaNode& { return schema_.nodes[node]; };
    const auto find = [&](const char* keyword) { return value.dict->find(heap_, keyword); };
    const auto child = [&](const char* keyword) {
      const Value* v = find(keyword);
      return v ? node_of(*v, below(pointer, keyword)) : none;
    };
    const auto children = [&](const char* keyword, SchemaNode::List<uint32_t> SchemaNode::* to) {
      const Value* v = find(keyword);
      if (!v) return;
      const jinja::Array& all = list(*v, pointer, keyword);
      for (uint32_t i = 0; i < all.size; ++i) {
        const uint32_t one = node_of(all.items[i], below(pointer, keyword, i));
        (at().*to).push_back(one);
      }
    };
    if (const Value* ref = find("$ref")) {
      const uint32_t to = node_of(target(value, string(*ref, pointer, "$ref"), pointer), below(pointer, "$ref"));
      at().all.push_back(to);
      if (old_) return;
    }
    for (const char* keyword : {"$dynamicRef", "$recursiveRef"})
      if (const Value* ref = find(keyword)) {
        if (keyword[1] == 'r' || dynamic_anchors_ > 1) fail(pointer, keyword, "is not supported with several dynamic anchors");
        const uint32_t to = node_of(target(value, string(*ref, pointer, keyword), pointer), below(pointer, keyword));
        at().all.push_back(to);
      }
    if (const Value* v = find("type")) types(at(), *v, pointer);
    if (const Value* v = find("const")) enumerate(node, v, 1, pointer, "const");
    if (const Value* v = find("enum")) {
      const jinja::Array& all = list(*v, pointer, "enum");
      enumerate(node, all.items, all.size, pointer, "enum");
    }
    children("allOf", &SchemaNode::all);
    children("anyOf", &SchemaNode::any);
    children("oneOf", &SchemaNode::one);
    for (const auto& [keyword, member] : {std::pair{"not", &SchemaNode::refuse},
                                          {"if", &SchemaNode::condition},
                                          {"then", &SchemaNode::then},
                                          {"else", &SchemaNode::otherwise},
                                          {"additionalProperties", &SchemaNode::additional},
                                          {"propertyNames", &SchemaNode::names},
                                          {"unevaluatedProperties", &SchemaNode::unevaluated_properties},
                                          {"contains", &SchemaNode::contains},
                                          {"unevaluatedItems", &SchemaNode::unevaluated_items}}) {
      if (!has_conditions_ && (member == &SchemaNode::condition || member == &SchemaNode::then || member == &SchemaNode::otherwise)) continue;
      const uint32_t one = child(keyword);
      at().*member = one;
    }
    for (const auto& [keyword, member] : {std::pair{"minLength", &SchemaNode::min_length},
                                          {"maxLength", &SchemaNode::max_length},
                                          {"minProperties", &SchemaNode::min_properties},
                                          {"maxProperties", &SchemaNode::max_properties},
                                          {"minItems", &SchemaNode::min_items},
                                          {"maxItems", &SchemaNode::max_items},
                                          {"minContains", &SchemaNode::min_contains},
                                          {"maxContains", &SchemaNode::max_contains}})
      if (const Value* v = find(keyword)) at().*member = count(*v, pointer, keyword);
    for (const auto& [keyword, strict, low] : {std::tuple{"minimum", "exclusiveMinimum", true}, {"maximum", "exclusiveMaximum", false}}) {
      const Value* exclusive = find(strict);
      const bool is_flag = exclusive && exclusive->is(JsonKind::boolean);  // as in draft 4
      if (const Value* v = find(keyword)) bound(at(), *v, pointer, keyword, low, is_flag && exclusive->boolean);
      if (exclusive && !is_flag) bound(at(), *exclusive, pointer, strict, low, true);
    }
    if (const Value* v = find("multipleOf")) {
      at().multiple = number(*v, pointer, "multipleOf");
      if (at().multiple->digits <= 0) fail(pointer, "multipleOf", "a number above 0 is wanted");
    }
    if (const Value* v = find("pattern")) {
      const uint32_t rule = pattern_of(string(*v, pointer, "pattern"), pointer, "pattern");
      at().pattern = rule;
    }
    if (const Value* v = find("format"); v && asserts_formats_ && v->is(JsonKind::string)) {
      const auto at_name = std::find_if(std::begin(formats), std::end(formats), [&](const auto& f) { return f.first == v->view(); });
      if (at_name != std::end(formats)) {
        const uint32_t rule = pattern_of(at_name->second, pointer, "format"), one = add_node();
        schema_.nodes[one].pattern = rule;
        at().all.push_back(one);
      }
      if (std::find(std::begin(formats_refused), std::end(formats_refused), v->view()) != std::end(formats_refused))
        fail(pointer, "format", "'", v->view(), "' is not supported");
    }
    fill_object(node, value, pointer);
    fill_array(node, value, pointer);
  }
  static bool names_last(const jinja::Dict& keywords) {
    constexpr std::string_view in_place[] = {"$ref", "$dynamicRef", "$recursiveRef", "allOf", "anyOf", "oneOf"};
    for (uint32_t i = 0; i < keywords.size && keywords.entries[i].key.view() != "properties"; ++i)
      if (std::ranges::find(in_place, keywords.entries[i].key.view()) != std::end(in_place)) return true;
    return false;
  }
  void fill_object(uint32_t node, const Value& value, const Text& pointer) {
    const auto at = [&]() -> SchemaNode& { return schema_.nodes[node]; };
    at().named_last = names_last(*value.dict);
    const auto named = [&](std::string_view key) {
      const uint32_t name = name_of(key);
      at().named.push_back(name);
      return name;
    };
    const auto each = [&](const char* keyword, auto&& use) {
      const Value* v = value.dict->find(heap_, keyword);
      if (!v) return;
      const jinja::Dict& all = dict(*v, pointer, keyword);
      for (uint32_t i = 0; i < all.size; ++i)
        use(all.entries[i].key.view(), all.entries[i].value, below(below(pointer, keyword), all.entries[i].key.view()));
    };
    each("properties", [&](std::string_view key, const Value& v, const Text& place) {
      const uint32_t one = node_of(v, place);
      at().properties.emplace_back(named(key), one);
    });
    each("patternProperties", [&](std::string_view key, const Value& v, const Text& place) {
      const uint32_t one = node_of(v, place), rule = pattern_of(key, pointer, "patternProperties");
      at().patterns.emplace_back(rule, one);
    });
    const auto dependency = [&](const char* keyword) {
      each(keyword, [&](std::string_view key, const Value& v, const Text& place) {
        const uint32_t name = named(key);
        for (uint32_t i = 0; v.is(JsonKind::list) && i < v.array->size; ++i)
          at().dependent_required.emplace_back(name, named(string(v.array->items[i], pointer, keyword)));
        if (v.is(JsonKind::list)) return;
        const uint32_t one = node_of(v, place);
        at().dependent_schemas.emplace_back(name, one);
      });
    };
    if (const Value* v = value.dict->find(heap_, "required"); v && !v->is(JsonKind::boolean)) {
      const jinja::Array& all = list(*v, pointer, "required");
      for (uint32_t i = 0; i < all.size; ++i) at().required.push_back(named(string(all.items[i], pointer, "required")));
    }
    for (const char* keyword : {"dependentRequired", "dependentSchemas", "dependencies"}) dependency(keyword);
    const Value* names = value.dict->find(heap_, "propertyNames");
    for (int steps = 0; names && names->is(JsonKind::dict) && steps < 16; ++steps) {
      for (const char* keyword : {"const", "enum"})
        if (const Value* v = names->dict->find(heap_, keyword)) {
          at().names_listed = true;
          for (const Value& one : v->is(JsonKind::list) ? std::span<const Value>(v->array->items, v->array->size) : std::span<const Value>(v, 1))
            if (one.is(JsonKind::string)) named(one.view());
        }
      const Value* ref = names->dict->find(heap_, "$ref");
      names = ref ? &target(*names, string(*ref, pointer, "$ref"), pointer) : nullptr;
    }
  }
  void fill_array(uint32_t node, const Value& value, const Text& pointer) {
    const auto at = [&]() -> SchemaNode& { return schema_.nodes[node]; };
    const auto find = [&](const char* keyword) { return value.dict->find(heap_, keyword); };
    const auto prefix = [&](const Value& v, const char* keyword) {
      const jinja::Array& all = list(v, pointer, keyword);
      for (uint32_t i = 0; i < all.size; ++i) {
        const uint32_t one = node_of(all.items[i], below(pointer, keyword, i));
        at().prefix.push_back(one);
      }
    };
    if (const Value* v = find("prefixItems")) prefix(*v, "prefixItems");
    if (const Value* v = find("items")) {
      if (v->is(JsonKind::list)) {  // before 2020-12
        prefix(*v, "items");
        if (const Value* more = find("additionalItems")) {
          const uint32_t one = node_of(*more, below(pointer, "additionalItems"));
          at().items = one;
        }
      } else {
        const uint32_t one = node_of(*v, below(pointer, "items"));
        at().items = one;
      }
    }
    if (const Value* v = find("uniqueItems"); v && v->is(JsonKind::boolean) && v->boolean) at().unique = true;
  }

  // A schema that applies itself to the same value would never come to an end.
  void refuse_cycles() {
    auto& nodes = schema_.nodes;
    std::pmr::vector<uint8_t> mark(nodes.size(), 0, memory_);
    std::pmr::vector<std::pair<uint32_t, bool>> open(memory_);
    for (uint32_t root = 0; root < nodes.size(); ++root) {
      open.emplace_back(root, false);
      while (!open.empty()) {
        const auto [n, done] = open.back();
        open.pop_back();
        if (done) { mark[n] = 2; continue; }
        if (mark[n]) continue;
        mark[n] = 1;
        open.emplace_back(n, true);
        const auto visit = [&](uint32_t to) {
          if (to == none) return;
          if (mark[to] == 1) base::fail(GPTQ_E_INVALID_ARGUMENT, "schema: /$ref: a schema that applies itself to the same value");
          if (!mark[to]) open.emplace_back(to, false);
        };
        for (const auto* list : {&nodes[n].all, &nodes[n].any, &nodes[n].one, &nodes[n].values})
          for (const uint32_t to : *list) visit(to);
        for (const auto& [name, to] : nodes[n].dependent_schemas) visit(to);
        for (const uint32_t to : {nodes[n].refuse, nodes[n].condition, nodes[n].then, nodes[n].otherwise}) visit(to);
      }
    }
  }
  void sort_names() {
    std::pmr::vector<uint32_t> place(names_.size(), 0, memory_);
    for (const auto& [name, number] : names_) {  // in order
      place[number] = static_cast<uint32_t>(schema_.names.size());
      schema_.names.push_back(name);
    }
    for (SchemaNode& n : schema_.nodes) {
      for (auto* list : {&n.properties, &n.dependent_schemas}) {
        for (auto& [name, child] : *list) name = place[name];
        std::sort(list->begin(), list->end());
      }
      for (auto& [name, other] : n.dependent_required) name = place[name], other = place[other];
      for (uint32_t& name : n.required) name = place[name];
      for (uint32_t& name : n.named) name = place[name];
      std::sort(n.required.begin(), n.required.end());
      n.required.erase(std::unique(n.required.begin(), n.required.end()), n.required.end());
    }
  }

  Schema& schema_;
  jinja::Heap& heap_;
  std::pmr::memory_resource* const memory_;
  bool old_ = false;              // before 2019-09
  bool digits_only_ = false;      // 1.0 is no integer: up to draft 4
  bool has_conditions_ = true;    // if, then and else are of draft 7 and later
  bool asserts_formats_ = true;  // since then they are annotations
  uint32_t always_ = none, never_ = none, dynamic_anchors_ = 0;
  std::pmr::map<const jinja::Dict*, uint32_t> known_;
  std::pmr::map<Text, const Value*> places_;
  std::pmr::map<const jinja::Dict*, Text> bases_;
  std::pmr::map<Text, uint32_t> names_;
  std::pmr::vector<Open> open_;
  size_t filled_ = 0;  // of them
  std::pmr::map<Text, uint32_t> regexes_;
};

}  // namespace

Schema::Schema(jinja::Heap& heap, std::span<const SchemaDocument> documents, std::pmr::memory_resource* memory)
    : nodes(memory), names(memory), patterns({}, memory), roots(memory) {
  Compiler compiler(*this, heap, memory);
  for (const SchemaDocument& document : documents) roots.push_back({compiler.add(*document.value, document.pointer), document.compact});
  compiler.finish();
  if (const auto never = find_types(memory)) compiler.refuse(*never, documents[never->root].pointer);
}

Schema Schema::of(std::string_view json, bool compact, std::pmr::memory_resource* memory) {
  jinja::Heap heap(memory);
  const Value root = read_json(heap, json, "schema");
  const SchemaDocument documents[] = {{&root, std::pmr::string(memory), compact}};
  return Schema(heap, documents, memory);
}

}  // namespace gptq::text::constraint
