// SPDX-License-Identifier: Apache-2.0
// The MLP: a dense one, gated or not, or a mixture of experts.
#include <algorithm>

#include "engine/forward.h"
#include "engine/route.h"

namespace gptq::engine {

using model::Role;

void Forward::mlp(uint32_t rows, const model::Layer& layer, uint32_t index, const model::Linear& norm_weights, float* y, bool accumulate) {
  const device::Norm norm = norm_of(norm_weights);
  if (!spec_.layers[index].experts) {
    gate_up(rows, layer, {.x = ws_.x, .norm = norm_weights ? &norm : nullptr});
    return mlp_output(rows, layer, activated(layer), y, accumulate);
  }
  const float* h = ws_.x;
  if (norm_weights) device_.norm(ws_.x, norm, ws_.h, rows, spec_.n_embd), h = ws_.h;
  experts(rows, layer, h, y, accumulate);
}

void Forward::gate_up(uint32_t rows, const model::Layer& layer, const device::Input& input) {
  const device::Product products[] = {product_of(layer[Role::gate], ws_.gate), product_of(layer[Role::up], ws_.up)};
  device_.prepare(input, rows);
  device_.matmul(std::span(products).subspan(spec_.gated ? 0 : 1), false);
}

device::Input Forward::activated(const model::Layer& layer) const {
  return {.x = spec_.gated ? ws_.gate : ws_.up,
          .up = spec_.gated ? ws_.up : nullptr,
          .activated = true,
          .activation = spec_.activation,
          .act_params = layer.vector(Role::act_params)};
}

void Forward::mlp_output(uint32_t rows, const model::Layer& layer, const device::Input& input, float* y, bool accumulate) {
  const device::Product product = product_of(layer[Role::down], y);
  device_.prepare(input, rows);
  device_.matmul({&product, 1}, accumulate);
}

// Chooses every row's experts and sorts the pairs of row and choice by expert.
void Forward::route(uint32_t rows, const model::Layer& layer, const float* h) {
  const model::Experts& e = spec_.experts;
  const device::Product product = product_of(layer[Role::router], ws_.scores);
  device_.prepare({.x = h}, rows);
  device_.matmul({&product, 1}, false);
  choose_experts(e, ws_.scores, layer.vector(Role::router_bias), rows, routing_.chosen, routing_.weight, routing_.scratch);
  const uint32_t pairs = rows * e.n_active;
  std::fill_n(routing_.begin, e.n + 1, 0u);
  for (uint32_t i = 0; i < pairs; ++i) ++routing_.begin[routing_.chosen[i] + 1];
  for (uint32_t i = 0; i < e.n; ++i) routing_.begin[i + 1] += routing_.begin[i];
  for (uint32_t i = 0; i < pairs; ++i) {
    const uint32_t slot = routing_.begin[routing_.chosen[i]]++;
    routing_.slot[i] = slot;
    routing_.row[slot] = i / e.n_active;
  }
  for (uint32_t i = e.n; i > 0; --i) routing_.begin[i] = routing_.begin[i - 1];
  routing_.begin[0] = 0;
}

void Forward::experts(uint32_t rows, const model::Layer& layer, const float* h, float* y, bool accumulate) {
  const model::Experts& e = spec_.experts;
  route(rows, layer, h);
  const uint32_t pairs = rows * e.n_active;
  const auto product = [&](const model::Linear& w, float* out, uint32_t expert) {
    return device::Product{&w.w, w.bias, out, routing_.begin[expert], routing_.begin[expert + 1] - routing_.begin[expert]};
  };
  // One row's experts all read the same.
  const bool one = rows == 1 && !e.weigh_input;
  if (!one) device_.gather_rows(h, routing_.row, pairs, spec_.n_embd, ws_.sorted);
  if (e.weigh_input)
    for (uint32_t i = 0; i < pairs; ++i) device_.scale(ws_.sorted + uint64_t{routing_.slot[i]} * spec_.n_embd, spec_.n_embd, routing_.weight[i]);
  uint32_t n = 0;
  for (uint32_t expert = 0; expert < e.n; ++expert) {
    if (routing_.begin[expert] == routing_.begin[expert + 1]) continue;
    const model::Expert& x = layer.experts[expert];
    routing_.products[n++] = product(x.up, ws_.up, expert);
    if (spec_.gated) routing_.products[n++] = product(x.gate, ws_.gate, expert);
  }
  if (one) {  // the row stands for every slot
    for (uint32_t i = 0; i < n; ++i) {
      device::Product& p = routing_.products[i];
      p.y += uint64_t{p.first_row} * p.w->n;
      p.first_row = 0;
    }
  }
  device_.prepare({.x = one ? h : ws_.sorted}, one ? 1 : pairs);
  device_.matmul({routing_.products, n}, false);
  n = 0;
  for (uint32_t expert = 0; expert < e.n; ++expert)
    if (routing_.begin[expert] != routing_.begin[expert + 1]) routing_.products[n++] = product(layer.experts[expert].down, ws_.parts, expert);
  device_.prepare(activated(layer), pairs);
  device_.matmul({routing_.products, n}, false);
  if (e.weigh_input) std::fill_n(routing_.weight, pairs, 1.0f);
  device_.mix_parts({.parts = ws_.parts, .slot = routing_.slot, .weight = routing_.weight, .n_parts = e.n_active, .y = y, .rows = rows, .n = spec_.n_embd, .accumulate = accumulate});
  if (e.n_ff_shared) shared_expert(rows, layer, h, y);
}

// y += the expert that every row goes to, perhaps times sigmoid(shared_switch h).
void Forward::shared_expert(uint32_t rows, const model::Layer& layer, const float* h, float* y) {
  const bool gated = spec_.experts.shared_gated;
  const auto product = [&](Role role, float* out) { return product_of(layer[role], out); };
  const device::Product products[] = {product(Role::shared_up, ws_.up), product(Role::shared_gate, ws_.gate), product(Role::shared_switch, ws_.scores)};
  device_.prepare({.x = h}, rows);
  device_.matmul({products, spec_.gated ? 2u : 1u}, false);
  if (gated) device_.matmul({products + 2, 1}, false);
  const device::Product down = product(Role::shared_down, gated ? ws_.sorted : y);
  device_.prepare(activated(layer), rows);
  device_.matmul({&down, 1}, !gated);
  if (!gated) return;
  for (uint32_t row = 0; row < rows; ++row)
    device_.add(y + uint64_t{row} * spec_.n_embd, ws_.sorted + uint64_t{row} * spec_.n_embd, spec_.n_embd, sigmoid(ws_.scores[row]));
}

}  // namespace gptq::engine
