// SPDX-License-Identifier: Apache-2.0
// Every rule of a model description has a value that breaks it; the weights that a description implies.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "base/failure.h"
#include "tests/unit/tiny_model.h"

namespace gptq::test {
namespace {

auto* memory = std::pmr::get_default_resource();

// The empty text where the spec is accepted, else the message.
std::string verdict(const std::function<void(fb::SpecT&)>& change) {
  TinyModel tiny;
  change(*tiny.manifest.spec);
  flatbuffers::FlatBufferBuilder builder;
  builder.Finish(fb::Spec::Pack(builder, tiny.manifest.spec.get()));
  try {
    model::check_spec(*flatbuffers::GetRoot<fb::Spec>(builder.GetBufferPointer()), memory);
    return "";
  } catch (const base::Failure& failure) {
    return failure.detail.message;
  }
}

void expect_refused(std::string_view field, const std::function<void(fb::SpecT&)>& change) {
  const std::string message = verdict(change);
  EXPECT_NE(message.find(field), message.npos) << "'" << field << "' gave '" << message << "'";
}

TEST(Spec, Accepted) {
  EXPECT_EQ(verdict([](fb::SpecT&) {}), "");
  EXPECT_EQ(verdict([](fb::SpecT& s) { s.windowed_layers.clear(); }), "");
  EXPECT_EQ(verdict([](fb::SpecT& s) { s.window = 0; }), "");
  EXPECT_EQ(verdict([](fb::SpecT& s) { s.rope->dynamic_factor = 2, s.rope->n_ctx_original = 32; }), "");
}

TEST(Spec, Counts) {
  struct Field {
    std::string_view name;
    uint32_t fb::SpecT::*field;
    std::vector<uint32_t> bad;
  };
  const Field fields[] = {{"n_vocab", &fb::SpecT::n_vocab, {0, (1 << 20) + 1, UINT32_MAX}},
                          {"n_layers", &fb::SpecT::n_layers, {0, 1025, UINT32_MAX}},
                          {"n_embd", &fb::SpecT::n_embd, {0, 65537, UINT32_MAX}},
                          {"n_ff", &fb::SpecT::n_ff, {0, 262145, UINT32_MAX}},
                          {"n_heads", &fb::SpecT::n_heads, {0, 1025, UINT32_MAX}},
                          {"n_kv_heads", &fb::SpecT::n_kv_heads, {0, 3, UINT32_MAX}},
                          {"head_dim", &fb::SpecT::head_dim, {0, 1, 513, UINT32_MAX}},
                          {"n_ctx_train", &fb::SpecT::n_ctx_train, {0, (1 << 24) + 1, UINT32_MAX}},
                          {"window", &fb::SpecT::window, {(1 << 24) + 1, UINT32_MAX}}};
  for (const Field& f : fields)
    for (uint32_t value : f.bad) expect_refused(f.name, [&](fb::SpecT& s) { s.*f.field = value; });
}

TEST(Spec, Reals) {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  for (float value : {nan, infinity, -infinity, -1.0f, 1e30f}) {
    expect_refused("norm_eps", [&](fb::SpecT& s) { s.norm_eps = value; });
    expect_refused("attention_scale", [&](fb::SpecT& s) { s.attention_scale = value; });
    expect_refused("rope.inv_freq", [&](fb::SpecT& s) { s.rope->inv_freq[7] = value; });
    expect_refused("rope.scale", [&](fb::SpecT& s) { s.rope->scale = value; });
    expect_refused("rope.theta", [&](fb::SpecT& s) { s.rope->theta = value; });
    expect_refused("rope.dynamic_factor", [&](fb::SpecT& s) { s.rope->dynamic_factor = value; });
  }
  expect_refused("norm_eps", [](fb::SpecT& s) { s.norm_eps = 0; });
  expect_refused("attention_scale", [](fb::SpecT& s) { s.attention_scale = 0; });
  expect_refused("rope.scale", [](fb::SpecT& s) { s.rope->scale = 0; });
}

TEST(Spec, FieldsAgainstEachOther) {
  expect_refused("n_kv_heads", [](fb::SpecT& s) { s.n_heads = 3, s.n_kv_heads = 2; });
  expect_refused("n_heads * head_dim", [](fb::SpecT& s) { s.n_heads = 1024, s.head_dim = 512; });
  expect_refused("rope.dim", [](fb::SpecT& s) { s.rope->dim = 18, s.rope->inv_freq.resize(9); });
  expect_refused("rope.dim", [](fb::SpecT& s) { s.rope->dim = 15; });
  expect_refused("rope.dim", [](fb::SpecT& s) { s.rope->dim = 0, s.rope->inv_freq.clear(); });
  expect_refused("rope.inv_freq", [](fb::SpecT& s) { s.rope->inv_freq.pop_back(); });
  expect_refused("rope.inv_freq", [](fb::SpecT& s) { s.rope->inv_freq.push_back(1); });
  expect_refused("windowed_layers", [](fb::SpecT& s) { s.windowed_layers = {1, 1}; });
  expect_refused("windowed_layers", [](fb::SpecT& s) { s.windowed_layers = {2}; });
  expect_refused("rope.n_ctx_original", [](fb::SpecT& s) { s.rope->dynamic_factor = 2; });
  expect_refused("rope.theta", [](fb::SpecT& s) { s.rope->dynamic_factor = 2, s.rope->n_ctx_original = 32, s.rope->theta = 0; });
  expect_refused("rope.dynamic_factor", [](fb::SpecT& s) { s.rope->dynamic_factor = 0.5f; });
  expect_refused("rope.dim", [](fb::SpecT& s) {
    s.rope->dim = 2, s.rope->inv_freq.resize(1), s.rope->dynamic_factor = 2, s.rope->n_ctx_original = 32;
  });
}

TEST(Spec, BlocksBeyondTheLlamaLine) {
  const auto with_experts = [](const std::function<void(fb::ExpertsT&)>& change) {
    return [change](fb::SpecT& s) {
      s.experts = std::make_unique<fb::ExpertsT>();
      s.experts->n = 8, s.experts->n_active = 2, s.experts->n_ff = 16;
      change(*s.experts);
    };
  };
  EXPECT_EQ(verdict(with_experts([](fb::ExpertsT&) {})), "");
  expect_refused("experts.n", with_experts([](fb::ExpertsT& e) { e.n = 0; }));
  expect_refused("experts.n_active", with_experts([](fb::ExpertsT& e) { e.n_active = 9; }));
  expect_refused("experts.n_ff", with_experts([](fb::ExpertsT& e) { e.n_ff = 0; }));
  expect_refused("experts.score", with_experts([](fb::ExpertsT& e) { e.score = 4; }));
  expect_refused("no multiple of groups", with_experts([](fb::ExpertsT& e) { e.groups = 3; }));
  expect_refused("groups_kept", with_experts([](fb::ExpertsT& e) { e.groups = 8, e.groups_kept = 1; }));
  expect_refused("experts.n_active", with_experts([](fb::ExpertsT& e) { e.score = 3, e.n_active = 1; }));
  expect_refused("experts.n_ff_shared", with_experts([](fb::ExpertsT& e) { e.shared_gated = true; }));
  expect_refused("expert_layers", [&](fb::SpecT& s) { with_experts([](fb::ExpertsT&) {})(s), s.expert_layers = {1, 1}; });
  expect_refused("n_layers * experts.n", [&](fb::SpecT& s) { with_experts([](fb::ExpertsT& e) { e.n = 4096; })(s), s.n_layers = 1024, s.windowed_layers.clear(); });
  expect_refused("mixers", [](fb::SpecT& s) { s.mixers = {4}; });
  expect_refused("latent", [](fb::SpecT& s) { s.mixers = {1}; });
  expect_refused("delta", [](fb::SpecT& s) { s.mixers = {2}; });
  expect_refused("conv_kernel", [](fb::SpecT& s) { s.mixers = {3}; });
  expect_refused("rope_of_layer", [](fb::SpecT& s) { s.rope_of_layer = {1}; });
  expect_refused("rope_of_layer", [](fb::SpecT& s) { s.rope_of_layer = {-2}; });
  EXPECT_EQ(verdict([](fb::SpecT& s) { s.rope_of_layer = {-1}, s.rope = std::make_unique<fb::RopeT>(); }), "");
  expect_refused("activation", [](fb::SpecT& s) { s.activation = 7; });
  expect_refused("activation", [](fb::SpecT& s) { s.activation = 6; });
  expect_refused("norms", [](fb::SpecT& s) { s.norms = 64; });
  expect_refused("residual", [](fb::SpecT& s) { s.residual = 4; });
  expect_refused("alibi_slopes", [](fb::SpecT& s) { s.alibi_slopes = {0.5f}; });
  expect_refused("n_positions", [](fb::SpecT& s) { s.n_positions = 63; });
  expect_refused("embed_scale", [](fb::SpecT& s) { s.embed_scale = NAN; });
  expect_refused("attention_scales", [](fb::SpecT& s) { s.attention_scales = {1, 1}; });
  expect_refused("n_ff_of_layer", [](fb::SpecT& s) { s.n_ff_of_layer = {0}; });
}

// A file of few tensors cannot have many parts: their list would be larger than it.
TEST(Spec, PartsThatTheFileCannotHave) {
  TinyModel tiny;
  const auto verdict_of_file = [&] {
    flatbuffers::FlatBufferBuilder builder;
    builder.Finish(fb::Manifest::Pack(builder, &tiny.manifest));
    try {
      model::check_spec(*flatbuffers::GetRoot<fb::Manifest>(builder.GetBufferPointer()), memory);
      return std::string();
    } catch (const base::Failure& failure) {
      return std::string(failure.detail.message);
    }
  };
  tiny.manifest.tensors.clear();
  for (int i = 0; i < 10; ++i) tiny.manifest.tensors.push_back(std::make_unique<fb::TensorT>());
  tiny.manifest.spec->windowed_layers.clear();
  tiny.manifest.spec->n_layers = 10;
  EXPECT_EQ(verdict_of_file(), "");
  tiny.manifest.spec->n_layers = 11;
  EXPECT_EQ(verdict_of_file(), "the file has 10 tensors for 11 layers and experts");
  tiny.manifest.spec->n_layers = 2;
  tiny.manifest.spec->experts = std::make_unique<fb::ExpertsT>();
  tiny.manifest.spec->experts->n = 5, tiny.manifest.spec->experts->n_active = 1, tiny.manifest.spec->experts->n_ff = 8;
  EXPECT_EQ(verdict_of_file(), "the file has 10 tensors for 12 layers and experts");
}

TEST(Spec, SlotsAreUniqueAndComplete) {
  model::ModelSpec spec(memory);
  spec.n_vocab = 10, spec.n_layers = 12, spec.n_embd = 8, spec.n_ff = 24, spec.n_heads = 4, spec.n_kv_heads = 2, spec.head_dim = 6;
  spec.n_embed = 8, spec.norms = 37, spec.layers.resize(12);
  for (model::LayerSpec& layer : spec.layers) layer.n_ff = 24;
  const auto count = [&] {
    const auto slots = model::weight_slots(spec, memory);
    std::set<std::string_view> names;
    for (const auto& slot : slots) names.insert(slot.name);
    EXPECT_EQ(names.size(), slots.size());
    size_t n = 0;
    model::each_slot(spec, memory, [&](const model::Slot& slot) { EXPECT_TRUE(n < slots.size() && slots[n++].name == slot.name); });
    EXPECT_EQ(n, slots.size());
    return slots.size();
  };
  EXPECT_EQ(count(), 2 + 2 + 12 * (2 + 14));
  spec.tied_head = spec.qk_norm = true;
  EXPECT_EQ(count(), 2 + 12 * (4 + 14));
  for (const auto& slot : model::weight_slots(spec, memory)) {
    if (slot.name == "layers.11.o") {
      EXPECT_TRUE(slot.n == 8 && slot.k == 24 && slot.required && !slot.is_vector);
    } else if (slot.name == "layers.3.k.bias") {
      EXPECT_TRUE(slot.n == 12 && slot.k == 1 && !slot.required && slot.is_vector);
    }
  }
}

}  // namespace
}  // namespace gptq::test
