// SPDX-License-Identifier: Apache-2.0
// What the entries of families.cpp are written in: keys of configs, lists of layers, rotary embeddings, and parts that several share.
#pragma once
#include <optional>

#include "converter/hf/families.h"

namespace gptq::convert::family {

using format::fb::SpecT;
using kernels::Activation, kernels::NormKind, kernels::Span;
using model::GroupScore, model::Mixer, model::Norms, model::Residual, model::Role, model::Score;
using C = const JsonObject&;

template <class Enum>
constexpr uint8_t u8(Enum value) { return static_cast<uint8_t>(value); }
constexpr uint8_t operator|(Norms a, Norms b) { return static_cast<uint8_t>(u8(a) | u8(b)); }
constexpr uint8_t operator|(uint8_t a, Norms b) { return static_cast<uint8_t>(a | u8(b)); }

// ---- keys that configs name differently ----

std::optional<uint32_t> first_count(C c, std::initializer_list<std::string_view> keys);

template <class F>
std::vector<uint8_t> per_layer(const SpecT& s, F f) {
  std::vector<uint8_t> out;
  for (uint32_t i = 0; i < s.n_layers; ++i) out.push_back(f(i));
  return out;
}

double first_number(C c, std::initializer_list<std::string_view> keys, double otherwise);
float f32(double value);
std::vector<std::string_view> layer_types(C c, const SpecT& s);
std::vector<uint8_t> sliding_layers(C c, const SpecT& s, uint32_t every = 0);
void use_windows(C c, SpecT& s, uint32_t every = 0);
void window_everywhere(C c, SpecT& s);
std::vector<uint8_t> number_list(C c, std::string_view key, const SpecT& s);
void rope_only_where(SpecT& s, const std::vector<uint8_t>& used);

struct RopeOptions {
  std::string_view section;               // of rope_parameters, where it has several
  std::optional<double> theta, part;      // instead of the config's
  bool plain = false;                     // without scaling
  uint32_t base = 0;                      // rows of a head that count; 0 = head_dim
};
std::optional<JsonObject> rope_fields(C c, std::string_view section);
std::vector<double> doubles(C c, std::string_view key);
void use_longrope(C c, C fields, const SpecT& s, format::fb::RopeT& rope);
format::fb::RopeT rope_of(C c, const SpecT& s, const RopeOptions& o = {});
void set_rope(C c, SpecT& s, const RopeOptions& options = {});
void add_rope(C c, SpecT& s, const std::vector<uint8_t>& where, const RopeOptions& options);
void no_rope(SpecT& s);
void use_alibi(SpecT& s, double most = 8, double factor = 1);
void learned_positions(SpecT& s, uint32_t offset);

void use_activation(C c, SpecT& s, std::string_view name);
void layer_norms(SpecT& s);
// An MLP of two matrices; the activation is the one that the config has under this key ("": none), or the usual one.
void ungated(C c, SpecT& s, std::string_view usual, std::string_view key = "hidden_act");
void parallel_one_norm(SpecT& s);
void head_norms(SpecT& s, Span span, NormKind kind = NormKind::rms);
void tied_by_default(C c, SpecT& s);
void out_norms_alone(SpecT& s, Layout& l);
void gpt_names(Layout& l);
void w1_experts(Layout& l);
void shared_names(Layout& l, const std::string& prefix);
format::fb::ExpertsT& mixture(C c, SpecT& s, std::initializer_list<std::string_view> n, std::initializer_list<std::string_view> active, Score score);
void qwen_layers(C c, SpecT& s);
void dense_first(C c, SpecT& s);
void deepseek_v3_route(C c, SpecT& s, Layout& l);
void latent(C c, SpecT& s, Layout& l, bool pairs, bool scale_by_rope);
void granite_scales(C c, SpecT& s);
void minicpm_scales(C c, SpecT& s);
void gemma(C c, SpecT& s, Layout& l);
void sandwich(C c, SpecT& s, Layout& l);
void delta(C c, SpecT& s, Layout& l);
void qwen_shared(C c, SpecT& s);
void lfm2(C c, SpecT& s, Layout& l);
void falcon(C c, SpecT& s, Layout& l);

}  // namespace gptq::convert::family
