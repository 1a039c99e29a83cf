// SPDX-License-Identifier: Apache-2.0
// {"tags": [{"begin": "<tool_call>", "json_schema": {}, "end": "</tool_call>"}], "triggers": [], "at_least_one": false, ...}
#include <algorithm>

#include "base/failure.h"
#include "text/constraint/sources.h"
#include "text/constraint/tags.h"
#include "text/json.h"

namespace gptq::text::constraint {
namespace {

using jinja::Kind;
using jinja::Value;
constexpr uint32_t tags_max = 256;
constexpr size_t literal_max = 256;

class Reader {
 public:
  Reader(TagSet& set, jinja::Heap& heap, std::pmr::memory_resource* memory)
      : set_(set), heap_(heap), memory_(memory), schemas_(memory), begins_(memory), triggers_(memory) {}

  void read(const Value& root) {
    only(root, "", {"tags", "triggers", "at_least_one", "stop_after_first"});
    set_.at_least_one = flag(root, "at_least_one");
    set_.stop_after_first = flag(root, "stop_after_first");
    const Value* tags = root.dict->find(heap_, "tags");
    if (!tags || !tags->is(Kind::list) || !tags->array->size) refuse("/tags", "an array of tags is wanted");
    if (tags->array->size > tags_max) refuse("/tags", "more than 256 tags");
    for (uint32_t i = 0; i < tags->array->size; ++i) tag(tags->array->items[i], place("/tags", i));
    triggers(root.dict->find(heap_, "triggers"));
    if (!schemas_.empty()) set_.schema.emplace(heap_, schemas_, memory_);
    if (set_.nfa) set_.nfa->finish("tags");
  }

 private:
  using Text = std::pmr::string;
  template <class... Parts>
  [[noreturn]] void refuse(std::string_view place, const Parts&... parts) const {
    base::fail(GPTQ_E_INVALID_ARGUMENT, "tags: ", place, ": ", parts...);
  }
  Text place(std::string_view list, uint32_t i) const {
    Text out(list, memory_);
    out += '/';
    out += std::string_view(std::to_string(i));
    return out;
  }
  Text below(std::string_view place, std::string_view key) const {
    Text out(place, memory_);
    out += '/';
    return out += key;
  }
  void only(const Value& v, std::string_view place, std::initializer_list<std::string_view> keys) const {
    if (!v.is(Kind::dict)) refuse(place, "an object is wanted");
    for (uint32_t i = 0; i < v.dict->size; ++i)
      if (const std::string_view key = v.dict->entries[i].key.view(); std::find(keys.begin(), keys.end(), key) == keys.end())
        refuse(below(place, key), "an unknown key");
  }
  bool flag(const Value& root, const char* key) const {
    const Value* v = root.dict->find(heap_, key);
    if (v && !v->is(Kind::boolean)) refuse(below("", key), "true or false is wanted");
    return v && v->boolean;
  }
  std::string_view literal(const Value* v, const Text& place) const {
    if (!v || !v->is(Kind::string) || v->view().empty() || v->view().size() > literal_max) refuse(place, "a text of 1 to 256 bytes is wanted");
    return v->view();
  }

  void tag(const Value& v, const Text& place) {
    only(v, place, {"begin", "end", "json_schema", "json_compact", "regex", "grammar", "choice"});
    begins_.push_back(literal(v.dict->find(heap_, "begin"), below(place, "begin")));
    TagSet::Tag tag{.end = Text(memory_)};
    if (const Value* end = v.dict->find(heap_, "end")) tag.end = literal(end, below(place, "end"));
    int kinds = 0;
    for (const char* kind : {"json_schema", "json_compact", "regex", "grammar", "choice"})
      if (const Value* rules = v.dict->find(heap_, kind)) {
        ++kinds;
        hold(tag, kind, *rules, below(place, kind));
      }
    if (kinds != 1) refuse(place, "one of json_schema, json_compact, regex, grammar and choice is wanted");
    set_.tags.push_back(std::move(tag));
  }

  void hold(TagSet::Tag& tag, std::string_view kind, const Value& rules, const Text& place) {
    const bool compact = kind == "json_compact";
    tag.is_schema = compact || kind == "json_schema";
    if (tag.is_schema) {
      tag.root = static_cast<uint32_t>(schemas_.size());
      schemas_.push_back({&rules, place, compact});
      return;
    }
    if (!rules.is(kind == "choice" ? Kind::list : Kind::string)) refuse(place, kind == "choice" ? "an array of strings is wanted" : "a string is wanted");
    if (!set_.nfa) set_.nfa.emplace(NfaLimits{}, memory_);
    try {
      // Alone first: what is wrong with it is found at its place.
      Nfa alone(NfaLimits{}, memory_);
      add(alone, kind, rules, place);
      alone.finish(kind);
      tag.root = add(*set_.nfa, kind, rules, place);
    } catch (const base::Failure& failure) {
      const std::string_view message = failure.detail.message;
      if (message.starts_with("tags: ")) throw;
      base::fail_at(GPTQ_E_INVALID_ARGUMENT, failure.detail.offset, "tags: ", place, ": ", message);
    }
  }
  uint32_t add(Nfa& nfa, std::string_view kind, const Value& rules, const Text& place) const {
    if (kind == "regex") return add_regex(nfa, rules.view(), false, kind);
    if (kind == "grammar") return add_grammar(nfa, rules.view());
    std::pmr::vector<std::string_view> texts(memory_);
    for (uint32_t i = 0; i < rules.array->size; ++i) {
      if (!rules.array->items[i].is(Kind::string)) refuse(this->place(place, i), "a string is wanted");
      texts.push_back(rules.array->items[i].view());
    }
    if (texts.empty()) refuse(place, "there is nothing to choose from");
    return add_literals(nfa, texts);
  }

  // None within another, so that only one can be the first; each begin starts with one.
  void triggers(const Value* list) {
    if (list && (!list->is(Kind::list) || !list->array->size)) refuse("/triggers", "an array of texts is wanted");
    const auto place_of = [&](size_t i) {
      const Text at = place(list ? "/triggers" : "/tags", static_cast<uint32_t>(i));
      return list ? at : below(at, "begin");
    };
    if (!list) triggers_ = begins_;
    for (uint32_t i = 0; list && i < list->array->size; ++i) triggers_.push_back(literal(&list->array->items[i], place_of(i)));
    for (size_t i = 0; i < triggers_.size(); ++i)
      for (size_t j = 0; j < triggers_.size(); ++j)
        if (i != j && triggers_[i].find(triggers_[j]) != std::string_view::npos)
          refuse(place_of(i), "'", triggers_[i], "' has the trigger '", triggers_[j], "' in it");
    for (uint32_t i = 0; i < begins_.size(); ++i) {
      const Text at = below(place("/tags", i), "begin");
      if (std::none_of(triggers_.begin(), triggers_.end(), [&](std::string_view t) { return begins_[i].starts_with(t); }))
        refuse(at, "no trigger is its beginning");
      for (uint32_t j = 0; j < begins_.size(); ++j)
        if (i != j && begins_[i].starts_with(begins_[j])) refuse(at, "it starts with all of another tag's begin");
      set_.begins.nodes[set_.begins.add(begins_[i])].value = i;
    }
    for (size_t i = 0; i < triggers_.size(); ++i) {
      if (std::none_of(begins_.begin(), begins_.end(), [&](std::string_view b) { return b.starts_with(triggers_[i]); }))
        refuse(place_of(i), "no tag begins with it");
      set_.begins.nodes[set_.begins.add(triggers_[i])].marked = true;
    }
    set_.begins.find_backs([](const LiteralTree::Node&) {});
  }

  TagSet& set_;
  jinja::Heap& heap_;
  std::pmr::memory_resource* const memory_;
  std::pmr::vector<SchemaDocument> schemas_;
  std::pmr::vector<std::string_view> begins_, triggers_;
};

}  // namespace

TagSet::TagSet(std::string_view source, std::pmr::memory_resource* memory) : tags(memory), begins(memory) {
  jinja::Heap heap(memory);
  Reader(*this, heap, memory).read(read_json(heap, source, "tags"));
}

}  // namespace gptq::text::constraint
