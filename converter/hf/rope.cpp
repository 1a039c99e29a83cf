// SPDX-License-Identifier: Apache-2.0
// Rotary frequencies of every supported kind, in the float32 steps in which transformers computes them: at position 100,000 the
// rounding of a frequency shows.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/checked.h"
#include "converter/hf/config.h"
#include "converter/json_writer.h"

namespace gptq::convert {
namespace {

using base::fail;
using Frequencies = std::vector<float>;

float power(double base, float exponent) {
  return static_cast<float>(std::pow(static_cast<double>(static_cast<float>(base)), static_cast<double>(exponent)));
}

// base ^ (2j / dim)
Frequencies wave_powers(double base, uint32_t dim) {
  Frequencies out;
  for (uint32_t j = 0; j < dim; j += 2) out.push_back(power(base, static_cast<float>(j) / static_cast<float>(dim)));
  return out;
}

Frequencies plain(double base, uint32_t dim) {
  Frequencies out = wave_powers(base, dim);
  for (float& f : out) f = 1.0f / f;
  return out;
}

// One rotary setting: the fields of rope_parameters / rope_scaling, defaults from the config around it.
struct Setting {
  JsonObject fields;
  double theta;
  uint32_t dim, max_positions;
  double original_positions;

  double need(std::string_view key) const {
    const auto value = fields.number(key);
    if (!value) fields.refuse(key, "is missing");
    return *value;
  }
  double positive(std::string_view key) const {
    const double value = need(key);
    if (!(value > 0)) fields.refuse(key, "must be positive");
    return value;
  }
};

void use_linear(const Setting& s, format::fb::RopeT& rope) {
  const float factor = static_cast<float>(s.positive("factor"));
  for (float& f : rope.inv_freq) f /= factor;
}

// With alpha, as HunYuan has it, one theta for all lengths.
void use_dynamic(const Setting& s, format::fb::RopeT& rope) {
  if (s.fields.number("alpha", 0) != 0 && s.dim > 2) {
    rope.inv_freq = plain(s.theta * std::pow(s.positive("alpha"), s.dim / (s.dim - 2.0)), s.dim);
    return;
  }
  rope.dynamic_factor = static_cast<float>(s.positive("factor"));
  rope.n_ctx_original = s.max_positions;
}

void use_llama3(const Setting& s, format::fb::RopeT& rope) {
  const float factor = static_cast<float>(s.positive("factor"));
  const double low = s.positive("low_freq_factor"), high = s.positive("high_freq_factor"), context = s.original_positions;
  if (!(high > low)) s.fields.refuse("high_freq_factor", "must be greater than low_freq_factor");
  for (float& f : rope.inv_freq) {
    const float wave = static_cast<float>(2 * std::numbers::pi) / f;
    if (wave > static_cast<float>(context / low)) {
      f /= factor;
    } else if (!(wave < static_cast<float>(context / high))) {
      const float smooth = (static_cast<float>(context) / wave - static_cast<float>(low)) / static_cast<float>(high - low);
      f = (1 - smooth) * f / factor + smooth * f;
    }
  }
}

double yarn_scale(double factor, double mscale) { return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1; }

// attention_factor is the whole of it; attn_factor multiplies what follows from the factor, as vLLM and llama.cpp have it.
double yarn_attention(const Setting& s, double factor) {
  if (const auto said = s.fields.number("attention_factor")) return *said;
  const double more = s.fields.number("attn_factor", 1);
  if (!s.fields.boolean("apply_yarn_scaling", true)) return more;
  const double mscale = s.fields.number("mscale", 0), all = s.fields.number("mscale_all_dim", 0);
  return more * (mscale != 0 && all != 0 ? yarn_scale(factor, mscale) / yarn_scale(factor, all) : yarn_scale(factor, 1));
}

// The pair of dimensions between which frequencies pass from untouched to divided by the factor.
std::pair<double, double> yarn_range(const Setting& s) {
  const auto or_default = [&](std::string_view key, double otherwise) {
    const double value = s.fields.number(key, otherwise);
    return value == 0 ? otherwise : value;
  };
  const auto dimension = [&](double rotations) {
    if (!(rotations > 0)) s.fields.refuse("beta_fast", "and beta_slow must be positive");
    return s.dim * std::log(s.original_positions / (rotations * 2 * std::numbers::pi)) / (2 * std::log(s.theta));
  };
  double low = dimension(or_default("beta_fast", 32)), high = dimension(or_default("beta_slow", 1));
  if (s.fields.boolean("truncate", true)) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  return {std::max(low, 0.0), std::min(high, s.dim - 1.0)};
}

void use_yarn(const Setting& s, format::fb::RopeT& rope) {
  const double factor = s.fields.has("factor") ? s.positive("factor") : s.max_positions / s.original_positions;
  if (!(s.theta > 1)) s.fields.refuse("rope_theta", "must be above 1 for yarn");
  rope.scale = static_cast<float>(yarn_attention(s, factor));
  const auto [low, high_said] = yarn_range(s);
  const double high = low == high_said ? high_said + 0.001 : high_said;
  const Frequencies powers = wave_powers(s.theta, s.dim);
  const auto extrapolated = static_cast<float>(s.fields.number("extrapolation_factor", 1));
  for (size_t j = 0; j < powers.size(); ++j) {
    const float ramp = std::clamp((static_cast<float>(j) - static_cast<float>(low)) / static_cast<float>(high - low), 0.0f, 1.0f);
    const float kept = (1 - ramp) * extrapolated;
    rope.inv_freq[j] = 1.0f / (static_cast<float>(factor) * powers[j]) * (1 - kept) + 1.0f / powers[j] * kept;
  }
}

struct Kind {
  std::string_view name;
  void (*use)(const Setting&, format::fb::RopeT&);
  std::vector<std::string_view> keys;  // its own, beside those that every kind has
};

const std::vector<Kind>& kinds() {
  static const std::vector<Kind> table{
      {"default", [](const Setting&, format::fb::RopeT&) {}, {}},
      {"linear", use_linear, {}},
      {"dynamic", use_dynamic, {"alpha"}},
      {"llama3", use_llama3, {"low_freq_factor", "high_freq_factor"}},
      {"yarn",
       use_yarn,
       {"attention_factor", "attn_factor", "apply_yarn_scaling", "beta_fast", "beta_slow", "extrapolation_factor", "mscale",
        "mscale_all_dim", "truncate"}},
      {"mrope", [](const Setting&, format::fb::RopeT&) {}, {}},  // text has the same position in all its sections
  };
  return table;
}

std::string_view type_of(const JsonObject& fields) {
  return fields.string("rope_type").value_or(fields.string("type").value_or("default"));
}

const Kind& find_kind(const JsonObject& fields) {
  const std::string_view name = type_of(fields);
  std::string known;
  for (const Kind& kind : kinds()) {
    if (kind.name == name) return kind;
    known += (known.empty() ? "" : ", ") + std::string(kind.name);
  }
  fail(GPTQ_E_UNSUPPORTED, "'", fields.where(), "': rope type '", name, "' is not supported; these are: ", known);
}

// Keys that every kind may have; mrope's sections are the same for text alone.
constexpr std::string_view common_keys[] = {
    "type", "rope_type", "rope_theta", "partial_rotary_factor", "factor", "original_max_position_embeddings", "finetuned",
    "mrope_section", "mrope_interleaved"};
// Keys of kinds that are not among ours.
constexpr std::string_view foreign_keys[] = {"short_factor", "long_factor", "short_mscale", "long_mscale"};

enum class KeyUse { own, leftover, unknown };

KeyUse use_of(std::string_view key, const Kind& kind) {
  const auto holds = [&](const auto& keys) { return std::find(std::begin(keys), std::end(keys), key) != std::end(keys); };
  if (holds(common_keys) || holds(kind.keys)) return KeyUse::own;
  const bool others = std::any_of(kinds().begin(), kinds().end(), [&](const Kind& other) { return holds(other.keys); });
  return others || holds(foreign_keys) ? KeyUse::leftover : KeyUse::unknown;
}

void refuse_unknown_keys(const JsonObject& fields, const Kind& kind) {
  for (const auto field : fields.fields())
    if (!field.value.is_null() && use_of(field.key, kind) == KeyUse::unknown)
      fail(GPTQ_E_UNSUPPORTED, "'", fields.where(), "': '", field.key, "' is not supported with rope type '", kind.name, "'");
}

// The object that has the settings, where there is one.
std::optional<JsonObject> scaling_of(const JsonObject& config) {
  const auto scaling = config.object("rope_scaling");
  return scaling ? scaling : config.object("rope_parameters");
}

}  // namespace

void warn_of_rope(const JsonObject& config, const Options& options) {
  const auto fields = scaling_of(config);
  for (const Kind& kind : kinds()) {
    if (!fields || type_of(*fields) != kind.name) continue;  // longrope is read elsewhere
    for (const auto field : fields->fields())
      if (!field.value.is_null() && use_of(field.key, kind) == KeyUse::leftover)
        options.warn(fields->where() + ": '" + std::string(field.key) + "' belongs to another rope type than '" + std::string(kind.name) +
                     "' and is left out");
  }
}

std::string rope_settings(const JsonObject& config) {
  const auto found = scaling_of(config);
  if (!found) return {};
  const JsonObject& fields = *found;
  const Kind& kind = find_kind(fields);
  if (kind.name == "default" || kind.name == "mrope") return {};
  constexpr std::string_view original = "original_max_position_embeddings";
  constexpr std::string_view elsewhere[] = {"type", "rope_type", "rope_theta", "partial_rotary_factor", original};
  JsonWriter out;
  out.add("rope_type", kind.name);
  if (config.has(original) || fields.has(original)) out.add(original, (config.has(original) ? config : fields).count(original));
  for (const auto field : fields.fields())
    if (!field.value.is_null() && use_of(field.key, kind) == KeyUse::own && !field.key.starts_with("mrope_") &&
        std::find(std::begin(elsewhere), std::end(elsewhere), field.key) == std::end(elsewhere))
      out.add_raw(field.key, simdjson::minify(field.value));
  // transformers does not know attn_factor: with both, it and vLLM compute the same.
  if (kind.name == "yarn" && fields.has("attn_factor") && fields.has("factor") && !fields.has("attention_factor"))
    out.add("attention_factor", yarn_attention({fields, 1, 0, 0, 0}, fields.number("factor", 1)));
  return out.object();
}

format::fb::RopeT read_rope(const JsonObject& config, uint32_t head_dim, uint32_t max_positions) {
  const auto scaling = scaling_of(config);
  const bool given = scaling.has_value();
  const JsonObject fields = given ? *scaling : config;
  const Kind& kind = given ? find_kind(fields) : kinds().front();
  if (given) refuse_unknown_keys(fields, kind);

  const double theta = fields.number("rope_theta", config.number("rope_theta", 10000));
  const double part = fields.number("partial_rotary_factor", config.number("partial_rotary_factor", 1));
  if (!(theta > 0)) fields.refuse("rope_theta", "must be positive");
  if (!(part > 0 && part <= 1)) fields.refuse("partial_rotary_factor", "must be above 0 and at most 1");
  const auto dim = static_cast<uint32_t>(head_dim * part);
  if (dim < 2 || dim % 2 != 0 || dim > 512)
    fail(GPTQ_E_UNSUPPORTED, "'", config.where(), "': ", dim, " rotary dimensions: they must be even, at least 2 and at most 512");

  const double original = config.has("original_max_position_embeddings") ? config.count("original_max_position_embeddings")
                          : given                                        ? fields.count("original_max_position_embeddings", max_positions)
                                                                         : max_positions;
  format::fb::RopeT rope;
  rope.dim = dim;
  rope.theta = static_cast<float>(theta);
  rope.inv_freq = plain(theta, dim);
  kind.use(Setting{fields, theta, dim, max_positions, original}, rope);
  return rope;
}

}  // namespace gptq::convert
