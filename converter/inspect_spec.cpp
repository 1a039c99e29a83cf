// SPDX-License-Identifier: Apache-2.0
#include "converter/inspect_spec.h"

#include <algorithm>
#include <charconv>

#include "base/failure.h"
#include "model/spec.h"

namespace gptq::convert {
namespace {

using model::LayerSpec, model::ModelSpec;

std::string number(auto value) {
  char digits[40];
  return {digits, std::to_chars(digits, digits + sizeof digits, value).ptr};
}

class Facts {
 public:
  explicit Facts(const ModelSpec& spec) : s_(spec) {
    layers();
    ropes();
    experts();
    mixers();
    block();
    numbers();
  }
  std::vector<std::pair<std::string, std::string>> take() { return std::move(facts_); }

 private:
  void add(const char* key, std::string text) { facts_.emplace_back(key, std::move(text)); }
  void add_if(bool holds, const char* key, std::string text) {
    if (holds) add(key, std::move(text));
  }
  template <class Holds>
  size_t count(Holds holds) const {
    return static_cast<size_t>(std::count_if(s_.layers.begin(), s_.layers.end(), holds));
  }
  static void append(std::string& list, size_t n, const std::string& what) {
    if (n) list += (list.empty() ? "" : ", ") + number(n) + " " + what;
  }

  void layers() {
    constexpr const char* names[] = {"attention", "latent attention", "gated delta", "short convolution"};
    std::string kinds;
    for (uint8_t i = 0; i < std::size(names); ++i)
      append(kinds, count([&](const LayerSpec& l) { return static_cast<uint8_t>(l.mixer) == i; }), names[i]);
    append(kinds, count([](const LayerSpec& l) { return l.window > 0; }), "with a window");
    append(kinds, count([](const LayerSpec& l) { return l.chunk > 0; }), "with chunks");
    append(kinds, count([](const LayerSpec& l) { return l.experts; }), "with experts");
    add("layers", kinds);
  }

  void ropes() {
    std::string text;
    for (size_t i = 0; i < s_.ropes.size(); ++i) {
      const model::Rope& rope = s_.ropes[i];
      std::string what = "of theta " + number(rope.theta) + " over " + number(rope.dim);
      if (!rope.long_inv_freq.empty())
        what += " and other frequencies beyond " + number(rope.n_ctx_original) + " tokens";
      append(text, count([&](const LayerSpec& l) { return l.rope == static_cast<int32_t>(i); }), what);
    }
    append(text, count([](const LayerSpec& l) { return l.rope < 0; }), "without");
    add("ropes", text);
    add_if(!s_.alibi_slopes.empty(), "alibi", number(s_.alibi_slopes.size()) + " slopes");
    add_if(s_.n_positions > 0, "learned_positions", number(s_.n_positions));
  }

  void experts() {
    if (!count([](const LayerSpec& l) { return l.experts; })) return;
    constexpr const char* scores[] = {"softmax", "sigmoid", "softmax of the chosen", "sparsemixer"};
    const model::Experts& e = s_.experts;
    std::string text = number(e.n_active) + " of " + number(e.n) + " of width " + number(e.n_ff);
    if (e.n_ff_shared) text += ", shared " + number(e.n_ff_shared);
    if (e.groups > 1) text += ", from " + number(e.groups_kept) + " of " + number(e.groups) + " groups";
    add("experts", text + ", by " + scores[static_cast<uint8_t>(e.score)]);
  }

  void mixers() {
    const model::Latent& l = s_.latent;
    if (s_.any(model::Mixer::latent))
      add("latent", "rank " + number(l.kv_rank) + " and " + number(l.d_rope) + " a token, queries " +
                        (l.q_rank ? "of rank " + number(l.q_rank) : "whole"));
    const model::Delta& d = s_.delta;
    if (s_.any(model::Mixer::delta))
      add("delta", number(d.n_v) + " heads of " + number(d.d_k) + " x " + number(d.d_v) + ", " + number(d.n_k) +
                       " of keys, kernel " + number(d.kernel));
    if (s_.any(model::Mixer::short_conv)) add("convolution", "kernel " + number(s_.conv_kernel));
  }

  void block() {
    constexpr const char* activations[] = {"silu", "gelu", "gelu_tanh", "relu", "relu2", "swiglu_clamped", "xielu"};
    constexpr const char* residuals[] = {"sequential", "parallel", "norm after the sum", "from the norm"};
    const auto activation = static_cast<size_t>(s_.activation);
    add("norm", s_.norm == kernels::NormKind::layer ? "layer" : "rms");
    add("activation",
        std::string(activation < std::size(activations) ? activations[activation] : "?") + (s_.gated ? ", gated" : ""));
    add("residual", residuals[static_cast<size_t>(s_.residual)]);
    add_if(s_.sinks, "sinks", "yes");
    add_if(s_.attention_gate, "attention_gate", "yes");
  }

  void numbers() {
    const std::pair<const char*, float> scales[] = {
        {"embed_scale", s_.embed_scale}, {"residual_scale", s_.residual_scale}, {"logit_scale", s_.logit_scale}};
    for (const auto& [key, value] : scales) add_if(value != 1, key, number(value));
    const std::pair<const char*, float> limits[] = {
        {"attention_softcap", s_.attention_softcap}, {"logit_softcap", s_.logit_softcap}, {"clip_qkv", s_.clip_qkv}};
    for (const auto& [key, value] : limits) add_if(value != 0, key, number(value));
  }

  const ModelSpec& s_;
  std::vector<std::pair<std::string, std::string>> facts_;
};

}  // namespace

std::vector<std::pair<std::string, std::string>> facts_beyond_llama(const format::fb::Spec& spec) {
  try {
    const ModelSpec checked = model::check_spec(spec, std::pmr::get_default_resource());
    if (!checked.beyond_llama) return {};
    return Facts(checked).take();
  } catch (const base::Failure& failure) {
    return {{"cannot be run", failure.detail.message}};
  }
}

}  // namespace gptq::convert
