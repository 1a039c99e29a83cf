// SPDX-License-Identifier: Apache-2.0
// Rotary embeddings as configs name them.
#include <algorithm>
#include <cmath>

#include "base/failure.h"
#include "converter/hf/config.h"
#include "converter/hf/family_parts.h"
#include "converter/json_writer.h"

namespace gptq::convert::family {

using base::fail;

// ---- rotary embedding: the setting in the words of one kind of config, so that the frequencies come from one place ----


std::optional<JsonObject> rope_fields(C c, std::string_view section) {
  const auto parameters = c.object("rope_parameters");
  if (parameters && !section.empty())
    if (const auto own = parameters->object(section)) return own;
  if (parameters && !parameters->object("full_attention")) return parameters;
  if (parameters) return parameters->object("full_attention");
  return c.object("rope_scaling");
}

std::vector<double> doubles(C c, std::string_view key) {
  std::vector<double> out;
  const auto list = c.array(key);
  if (!list) c.refuse(key, "is missing");
  for (const auto item : *list) {
    double value;
    if (item.get_double().get(value) || !(value > 0)) c.refuse(key, "must hold positive numbers");
    out.push_back(value);
  }
  return out;
}

void use_longrope(C c, C fields, const SpecT& s, format::fb::RopeT& rope) {
  const double original = first_number(c, {"original_max_position_embeddings"}, fields.number("original_max_position_embeddings", 0));
  if (!(original >= 1)) fields.refuse("original_max_position_embeddings", "is missing");
  const double ratio = fields.number("factor", s.n_ctx_train / original);
  const double worked_out = ratio > 1 ? std::sqrt(1 + std::log(ratio) / std::log(original)) : 1;
  rope.scale = f32(first_number(fields, {"attention_factor", "short_mscale"}, worked_out));
  const std::vector<double> near = doubles(fields, "short_factor"), far = doubles(fields, "long_factor");
  if (near.size() != rope.inv_freq.size() || far.size() != rope.inv_freq.size()) fields.refuse("short_factor", "and long_factor must have a number a pair");
  for (size_t j = 0; j < near.size(); ++j) {
    rope.long_inv_freq.push_back(rope.inv_freq[j] / f32(far[j]));
    rope.inv_freq[j] /= f32(near[j]);
  }
  rope.n_ctx_original = static_cast<uint32_t>(original);
}

format::fb::RopeT rope_of(C c, const SpecT& s, const RopeOptions& o) {
  const auto fields = rope_fields(c, o.section);
  const uint32_t base = o.base ? o.base : s.head_dim;
  double theta = o.theta ? *o.theta : fields ? fields->number("rope_theta", first_number(c, {"rope_theta", "rotary_emb_base"}, 10000))
                                             : first_number(c, {"rope_theta", "rotary_emb_base"}, 10000);
  const Family* family = find_family(c);
  const FamilyKeys keys = family ? keys_of(family->model_type) : FamilyKeys{.partial_rope = true};
  const bool partial = keys.partial_rope;
  const double said = partial ? first_number(c, {"partial_rotary_factor", keys.rope_part}, 1) : 1;
  const double part = o.part ? *o.part : fields && partial ? fields->number("partial_rotary_factor", said) : said;
  const auto dim = static_cast<uint32_t>(base * part);
  const std::string_view kind = fields && !o.plain ? fields->string("rope_type").value_or(fields->string("type").value_or("default")) : "default";
  const bool longrope = kind == "longrope" || kind == "su";
  JsonWriter scaling;
  bool scaled = fields && !o.plain && !longrope && kind != "default" && kind != "mrope";
  if (scaled && kind == "dynamic" && fields->number("alpha", 0) > 0) {
    theta *= std::pow(fields->number("alpha", 1), dim / (dim - 2.0));
    scaled = false;
  }
  // InternLM2 and others say "dynamic" and mean it beyond their context alone, which the runtime does too.
  if (scaled)
    for (const auto field : fields->fields()) {
      const std::string_view key = field.key;
      constexpr std::string_view elsewhere[] = {"rope_theta", "partial_rotary_factor", "llama_4_scaling_beta", "mrope_section", "mrope_interleaved", "max_position_embeddings"};
      if (field.value.is_null() || std::find(std::begin(elsewhere), std::end(elsewhere), key) != std::end(elsewhere)) continue;
      scaling.add_raw(key, simdjson::minify(field.value));
    }
  JsonWriter text;
  text.add("rope_theta", theta);
  if (dim < base) text.add("partial_rotary_factor", (dim + 0.25) / base);  // rounded down to dim again
  if (scaled) text.add_raw("rope_scaling", scaling.object());
  if (scaled && c.has("original_max_position_embeddings")) text.add("original_max_position_embeddings", c.count("original_max_position_embeddings"));
  const JsonDocument document("config.json", text.object());
  format::fb::RopeT rope = read_rope(document.root(), base, s.n_ctx_train);
  if (longrope) use_longrope(c, *fields, s, rope);
  return rope;
}

void set_rope(C c, SpecT& s, const RopeOptions& options) { s.rope = std::make_unique<format::fb::RopeT>(rope_of(c, s, options)); }
void add_rope(C c, SpecT& s, const std::vector<uint8_t>& where, const RopeOptions& options) {
  s.ropes.push_back(std::make_unique<format::fb::RopeT>(rope_of(c, s, options)));
  s.rope_of_layer.assign(where.begin(), where.end());
}
void no_rope(SpecT& s) {
  s.rope = std::make_unique<format::fb::RopeT>();
  s.rope_of_layer.assign(s.n_layers, -1);
}

// Press, Smith and Lewis 2021; for other numbers of heads as their code has it.
void use_alibi(SpecT& s, double most, double factor) {
  no_rope(s);
  const auto n = static_cast<uint32_t>(1u << static_cast<uint32_t>(std::log2(s.n_heads)));
  for (uint32_t i = 0; i < n; ++i) s.alibi_slopes.push_back(f32(factor * std::exp2(-most * (i + 1) / n)));
  for (uint32_t i = 1; s.alibi_slopes.size() < s.n_heads; i += 2) s.alibi_slopes.push_back(f32(factor * std::exp2(-most * i / (2 * n))));
}

void learned_positions(SpecT& s, uint32_t offset) {
  no_rope(s);
  s.n_positions = s.n_ctx_train + offset;
  s.position_offset = offset;
}

}  // namespace gptq::convert::family
