// SPDX-License-Identifier: Apache-2.0
// What is around the blocks: embedding, norms and residuals, logits.
#include "engine/forward.h"

namespace gptq::engine {

using model::Residual;
using model::Role;

device::Norm Forward::norm_of(const model::Linear& weights) const { return {weights.values(), weights.bias, spec_.norm_eps, spec_.norm}; }

void Forward::embed(uint32_t rows, const model::Ends& model) {
  float* embedded = model.embed_proj ? ws_.embedded : ws_.x;
  device_.embed(model.embed.w, embedded);
  if (spec_.embed_scale != 1) device_.scale(embedded, uint64_t{rows} * spec_.n_embed, spec_.embed_scale);
  if (model.embed_proj) {
    const device::Product product{&model.embed_proj.w, model.embed_proj.bias, ws_.x};
    device_.prepare({.x = embedded}, rows);
    device_.matmul({&product, 1}, false);
  }
  if (model.positions) device_.add_positions(model.positions.w, spec_.position_offset, ws_.x);
  if (model.embed_norm) device_.norm(ws_.x, norm_of(model.embed_norm), ws_.x, rows, spec_.n_embd);
}

// ws_.branch -> x
void Forward::add_branch(uint32_t rows, const model::Linear& out_norm) {
  if (out_norm) device_.norm(ws_.branch, norm_of(out_norm), ws_.branch, rows, spec_.n_embd);
  device_.add(ws_.x, ws_.branch, uint64_t{rows} * spec_.n_embd, spec_.residual_scale);
}

void Forward::layer(uint32_t rows, const model::Layer& layer, uint32_t index) {
  const device::Norm attn_norm = norm_of(layer[Role::attn_norm]), mlp_norm = norm_of(layer[Role::mlp_norm]);
  const bool sequential = spec_.residual == Residual::sequential, from_norm = spec_.residual == Residual::from_norm;
  const auto norm_x = [&](const device::Norm& norm) { device_.norm(ws_.x, norm, ws_.x, rows, spec_.n_embd); };
  const bool norms_input = layer[Role::attn_norm] && (sequential || spec_.residual == Residual::parallel);
  if (from_norm) norm_x(attn_norm);
  mix(rows, layer, index, {.x = ws_.x, .norm = norms_input ? &attn_norm : nullptr});

  if (spec_.residual == Residual::parallel) {
    // The MLP reads x as it was, so attention's part is added last.
    mix_output(rows, layer, ws_.branch, false);
    const model::Linear& norm = layer[Role::mlp_norm] ? layer[Role::mlp_norm] : layer[Role::attn_norm];
    if (layer[Role::attn_out_norm]) device_.norm(ws_.branch, norm_of(layer[Role::attn_out_norm]), ws_.branch, rows, spec_.n_embd);
    mlp(rows, layer, index, norm, ws_.branch, true);
    device_.add(ws_.x, ws_.branch, uint64_t{rows} * spec_.n_embd, spec_.residual_scale);
    return;
  }
  const bool plain = plain_output(layer[Role::attn_out_norm]);
  mix_output(rows, layer, plain ? ws_.x : ws_.branch, plain);
  if (!plain) add_branch(rows, layer[Role::attn_out_norm]);
  if (spec_.residual == Residual::norm_after_add) norm_x(attn_norm);
  if (from_norm) norm_x(mlp_norm);

  const bool plain_mlp = plain_output(layer[Role::mlp_out_norm]) && layer.experts.empty();
  mlp(rows, layer, index, sequential ? layer[Role::mlp_norm] : model::Linear(), plain_mlp ? ws_.x : ws_.branch, plain_mlp);
  if (!plain_mlp) add_branch(rows, layer[Role::mlp_out_norm]);
  if (spec_.residual == Residual::norm_after_add) norm_x(mlp_norm);
}

void Forward::mix(uint32_t rows, const model::Layer& layer, uint32_t index, const device::Input& input) {
  switch (spec_.layers[index].mixer) {
    case model::Mixer::attention: return attend(rows, layer, index, input);
    case model::Mixer::latent: return attend_latent(rows, layer, index, input);
    case model::Mixer::delta: return apply_delta(rows, layer, index, input);
    case model::Mixer::short_conv: return convolve(rows, layer, index, input);
  }
}

void Forward::mix_output(uint32_t rows, const model::Layer& layer, float* y, bool accumulate) {
  const device::Product product = product_of(layer[Role::o], y);
  device_.prepare({.x = ws_.attended}, rows);
  device_.matmul({&product, 1}, accumulate);
}

void Forward::hidden(uint32_t first, uint32_t count, const model::Ends& model) {
  device_.select_rows(ws_.x, spec_.n_embd, first, count, ws_.h);
  if (model.final_norm) device_.norm(ws_.h, norm_of(model.final_norm), ws_.h, count, spec_.n_embd);
}

void Forward::logits(uint32_t first, uint32_t count, const model::Ends& model) {
  device_.select_rows(ws_.x, spec_.n_embd, first, count, ws_.h);
  const device::Norm norm = norm_of(model.final_norm);
  device::Input input{.x = ws_.h, .norm = model.final_norm ? &norm : nullptr};
  if (model.head_proj) {
    const device::Product product{&model.head_proj.w, model.head_proj.bias, ws_.embedded};
    device_.prepare(input, count);
    device_.matmul({&product, 1}, false);
    input = {.x = ws_.embedded};
  }
  const device::Product product{&model.head.w, model.head.bias, ws_.logits};
  device_.prepare(input, count);
  device_.matmul({&product, 1}, false);
  const uint64_t n = uint64_t{count} * spec_.n_vocab;
  if (spec_.logit_scale != 1) device_.scale(ws_.logits, n, spec_.logit_scale);
  if (spec_.logit_softcap != 0) device_.softcap(ws_.logits, n, spec_.logit_softcap);
}

}  // namespace gptq::engine
