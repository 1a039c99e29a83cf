// SPDX-License-Identifier: Apache-2.0
#include "converter/inspect.h"

#include <charconv>
#include <map>
#include <variant>
#include <vector>

#include "converter/inspect_spec.h"
#include "converter/json_writer.h"
#include "format/container.h"
#include "model/spec.h"
#include "text/tokenizer.h"

namespace gptq::convert {
namespace {

using Value = std::variant<std::string, uint64_t, double, bool>;
struct Section {
  std::string title;
  std::vector<std::pair<std::string, Value>> facts;
};
using Sections = std::vector<Section>;

std::string_view view(const flatbuffers::String* text) { return {text->c_str(), text->size()}; }

std::string number(auto value) {
  char digits[40];
  return {digits, std::to_chars(digits, digits + sizeof digits, value).ptr};
}

std::string hexadecimal(uint64_t value) {
  char digits[20];
  const std::string text(digits, std::to_chars(digits, digits + sizeof digits, value, 16).ptr);
  return std::string(16 - text.size(), '0') + text;
}

constexpr std::string_view kind_names[] = {"f32", "f16", "bf16", "q2", "q3", "q4", "q8"};

Section spec_facts(const format::fb::Spec& spec) {
  const format::fb::Rope& rope = *spec.rope();
  Section s{"spec", {}};
  s.facts = {{"n_vocab", uint64_t(spec.n_vocab())}, {"n_layers", uint64_t(spec.n_layers())}, {"n_embd", uint64_t(spec.n_embd())},
             {"n_ff", uint64_t(spec.n_ff())}, {"n_heads", uint64_t(spec.n_heads())}, {"n_kv_heads", uint64_t(spec.n_kv_heads())},
             {"head_dim", uint64_t(spec.head_dim())}, {"n_ctx_train", uint64_t(spec.n_ctx_train())}, {"norm_eps", double(spec.norm_eps())},
             {"attention_scale", double(spec.attention_scale())}, {"tied_head", spec.tied_head()}, {"qk_norm", spec.qk_norm()},
             {"window", uint64_t(spec.window())}, {"rope_dim", uint64_t(rope.dim())}, {"rope_theta", double(rope.theta())},
             {"rope_scale", double(rope.scale())}, {"rope_dynamic_factor", double(rope.dynamic_factor())}};
  for (auto& [key, text] : facts_beyond_llama(spec)) s.facts.emplace_back(key, std::move(text));
  return s;
}

Section generation_facts(const format::fb::Generation& g) {
  Section s{"generation", {}};
  s.facts = {{"temperature", double(g.temperature())}, {"top_k", double(g.top_k())}, {"top_p", double(g.top_p())}, 
             {"min_p", double(g.min_p())},
             {"repeat_penalty", double(g.repeat_penalty())}, {"bos", double(g.bos())}, {"eos", double(g.eos())}, {"pad", double(g.pad())}};
  std::string ends;
  if (g.end_tokens())
    for (int32_t token : *g.end_tokens()) ends.append(ends.empty() ? "" : " ").append(number(token));
  s.facts.emplace_back("end_tokens", ends);
  return s;
}

struct Total {
  uint64_t tensors = 0, parameters = 0, bytes = 0, stored = 0;
  void add(const format::fb::Tensor& tensor, const format::fb::Manifest& manifest) {
    ++tensors;
    parameters += uint64_t(tensor.n()) * tensor.k();
    for (const auto* part : *tensor.parts()) {
      bytes += part->bytes();
      for (uint32_t i = 0; i < part->n_chunks(); ++i) stored += manifest.chunks()->Get(part->first_chunk() + i)->stored();
    }
  }
  Section facts(std::string title) const {
    Section s{std::move(title), {{"tensors", tensors}, {"parameters", parameters}, {"bytes", bytes}, {"stored_bytes", stored}}};
    if (parameters) s.facts.emplace_back("bits_per_weight", 8.0 * double(bytes) / double(parameters));
    return s;
  }
};

std::string tensor_class(const format::fb::Tensor& tensor) {
  if (tensor.kind() >= std::size(kind_names)) return "kind " + number(tensor.kind());
  std::string name(kind_names[tensor.kind()]);
  if (tensor.group_size()) name += tensor.group_size() < 0 ? " one group" : " group " + number(tensor.group_size());
  for (const auto* part : *tensor.parts()) {
    if (part->role() == format::fb::Role::zeros) name += " asymmetric";
    if (part->role() == format::fb::Role::perm) name += " reordered";
  }
  return name;
}

void add_weights(const format::fb::Manifest& manifest, Sections& sections) {
  std::map<std::string, Total> totals;
  Total all;
  for (const auto* tensor : *manifest.tensors()) {
    totals[tensor_class(*tensor)].add(*tensor, manifest);
    all.add(*tensor, manifest);
  }
  for (const auto& [name, total] : totals) sections.push_back(total.facts("weights " + name));
  sections.push_back(all.facts("weights"));
}

std::vector<std::byte> read(const format::Reader& reader, const format::fb::Part& part) {
  std::vector<std::byte> bytes(part.bytes());
  reader.read_part(part, bytes, std::pmr::get_default_resource());
  return bytes;
}

Section tokenizer_facts(const format::Reader& reader, const format::fb::Part& part) {
  const auto blob = read(reader, part);
  const text::Tokenizer tokenizer(blob, reader.manifest().spec()->n_vocab(), std::pmr::get_default_resource());
  return {"tokenizer", {{"bytes", uint64_t(blob.size())}, {"bos", double(tokenizer.bos())}, {"eos", double(tokenizer.eos())}}};
}

Sections gather(const base::Source& file) {
  const format::Reader reader(file, std::pmr::get_default_resource());
  const format::fb::Manifest& manifest = reader.manifest();
  Sections out;
  const uint64_t n_chunks = manifest.chunks()->size();
  out.push_back({"file", {{"bytes", file.size()}, {"chunks", n_chunks}, {"fingerprint", hexadecimal(reader.manifest_hash())}}});
  Section meta{"meta", {}};
  if (manifest.meta())
    for (const auto* entry : *manifest.meta()) meta.facts.emplace_back(view(entry->key()), std::string(view(entry->value())));
  out.push_back(std::move(meta));
  out.push_back(spec_facts(*manifest.spec()));
  if (manifest.generation()) out.push_back(generation_facts(*manifest.generation()));
  if (manifest.tokenizer()) out.push_back(tokenizer_facts(reader, *manifest.tokenizer()));
  add_weights(manifest, out);
  return out;
}

// The beginning of it on one line: metadata may be a page long, or a terminal's control sequences.
std::string one_line(std::string_view text) {
  constexpr size_t bytes_max = 100;
  std::string out(text.substr(0, bytes_max));
  for (char& c : out)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = ' ';
  return text.size() > bytes_max ? out + " ..." : out;
}

std::string render(const Value& value, bool as_json) {
  if (const auto* text = std::get_if<std::string>(&value)) return as_json ? json_quoted(*text) : one_line(*text);
  if (const auto* flag = std::get_if<bool>(&value)) return as_json ? (*flag ? "true" : "false") : (*flag ? "yes" : "no");
  if (const auto* count = std::get_if<uint64_t>(&value)) return number(*count);
  const double real = std::get<double>(value);
  return as_json && !(real - real == 0) ? "null" : number(static_cast<float>(real));
}

std::string as_lines(const Sections& sections) {
  std::string out;
  for (const Section& section : sections) {
    out += one_line(section.title) + '\n';
    for (const auto& [key, value] : section.facts) {
      const std::string name = one_line(key);
      out += "  " + name + std::string(name.size() < 20 ? 20 - name.size() : 1, ' ') + render(value, false) + '\n';
    }
  }
  return out;
}

std::string as_object(const Sections& sections) {
  std::string out = "{";
  for (const Section& section : sections) {
    out.append(out.size() > 1 ? "," : "").append(json_quoted(section.title)).append(":{");
    std::string facts;
    for (const auto& [key, value] : section.facts)
      facts.append(facts.empty() ? "" : ",").append(json_quoted(key)).append(":").append(render(value, true));
    out.append(facts).append("}");
  }
  return out + "}\n";
}

}  // namespace

std::string inspect(const base::Source& file, bool as_json) {
  const Sections sections = gather(file);
  return as_json ? as_object(sections) : as_lines(sections);
}

}  // namespace gptq::convert
