// SPDX-License-Identifier: Apache-2.0
// What a job takes, from the manifest alone.
#include <algorithm>
#include <chrono>

#include "base/checked.h"
#include "model/weights.h"
#include "quantize/aim.h"
#include "quantize/quantize.h"
#include "quantize/replay.h"

namespace gptq::quantize {
namespace {

// Of what inputs are to each other, in the order of work, and its factor.
uint64_t squares(uint64_t k) { return base::mul(k, k, 3 * sizeof(double)); }

// Memory for one layer: its weights as they are read, what they become, and the matrix at hand.
struct LayerNeeds {
  void add(const model::Slot& slot, uint64_t read, uint64_t made) {
    const uint64_t elements = uint64_t{slot.n} * slot.k;
    weights = base::add(weights, read);
    if (slot.is_vector) return;
    if (slot.id.expert == model::no_index) weights += base::mul(elements, sizeof(float) + 1), dense += elements;  // computed with as floats
    else weights += made, passing = std::max(passing, base::mul(elements, sizeof(float) + 1)), expert = std::max<uint64_t>(expert, slot.k);
    if (made) widest = std::max<uint64_t>(widest, slot.k);
  }
  // What aiming takes: the matrices as they were, computed with as floats, and what is added to them.
  uint64_t aim_bytes(const model::ModelSpec& spec, uint32_t chunk_tokens, uint32_t threads) const {
    return base::add(base::mul(dense, 2 * sizeof(float)), widest ? Aim::bytes(static_cast<uint32_t>(widest), spec.n_embd, chunk_tokens, threads) : 0);
  }
  uint64_t bytes(const model::ModelSpec& spec, uint64_t memory_max, uint32_t threads) const {
    const uint64_t gram = expert ? Gram::bytes(static_cast<uint32_t>(expert), threads) : 0;
    return weights + passing + squares(widest) + std::min(gram * spec.experts.n, std::max(gram, grams_bytes_max(memory_max)));
  }
  uint64_t weights = 0, dense = 0, passing = 0, widest = 0, expert = 0;
};

// Floating-point operations for one matrix. The gates and ups of experts are gone through once more for the sake of their downs.
double operations_of(const model::Slot& slot, const model::Experts& experts, double tokens, bool aim) {
  const double n = slot.n, k = slot.k;
  const bool is_expert = slot.id.expert != model::no_index;
  if (is_expert) tokens *= static_cast<double>(experts.n_active) / experts.n;
  const double passes = is_expert && slot.id.role != model::Role::expert_down ? 2 : 1;
  const double aiming = aim && !is_expert ? 2 * tokens * k * (n + k) + 8 * n * k * k : 0;
  return 2 * passes * tokens * n * k + tokens * k * k + 16 * n * k * k + aiming;
}

// Floating-point operations a second, of what most of the time goes to.
double measure_rate(const kernels::Kernels& kernels, base::Pool& pool, std::pmr::memory_resource* memory) {
  constexpr uint32_t size = 192, depth = 512, rounds = 8;
  const uint32_t tasks = pool.threads() * rounds;
  std::pmr::vector<float> values(size_t{size} * depth, 1.0f, memory), out(size_t{size} * size * tasks, memory);
  const auto begin = std::chrono::steady_clock::now();
  pool.run(tasks, [&](uint32_t task) {
    kernels.add_product({values.data(), values.data(), out.data() + size_t{task} * size * size, depth, 1, size, size, size, depth});
  });
  return 2.0 * size * size * depth * tasks / std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

uint64_t packed_bytes(uint64_t n, uint64_t k, const ModuleOptions& options) {
  const uint64_t group = options.group_size < 0 ? k : std::min<uint64_t>(k, static_cast<uint64_t>(options.group_size));
  const uint64_t rows = base::round_up(n, 16), groups = base::divide_up(k, group);
  return base::mul(rows, base::round_up(k, 64), options.bits) / 8 + base::mul(rows, groups, options.symmetric ? 2 : 3);
}

std::pmr::vector<ModuleOptions> choose_options(const format::Reader& reader, const Options& options, std::pmr::memory_resource* memory) {
  const model::ModelSpec spec = model::check_spec(reader.manifest(), memory);
  std::pmr::vector<ModuleOptions> out(memory);
  for (const model::Slot& slot : model::weight_slots(spec, memory)) {
    ModuleOptions& chosen = out.emplace_back(ModuleOptions{.bits = 0});
    if (slot.is_vector || !reader.find(slot.name)) continue;
    if (slot.id.role == model::head_role(spec)) chosen = options.head;
    if (!slot.quantizable()) continue;
    chosen = options.module;
    if (options.choose) options.choose(slot.name, slot.n, slot.k, chosen);
  }
  return out;
}

bool keeps_on_disk(uint64_t store_bytes, uint64_t memory_max) { return memory_max && store_bytes > memory_max / 2; }

gptq_quantize_estimate estimate(const format::Reader& reader, std::span<const ModuleOptions> chosen, uint64_t rows, uint32_t row_tokens,
                                const Options& options, const kernels::Kernels& kernels, base::Pool& pool, std::pmr::memory_resource* memory) {
  const bool aim = options.aim;
  const uint64_t memory_max = options.memory_max;
  const model::ModelSpec spec = model::check_spec(reader.manifest(), memory);
  const double tokens = static_cast<double>(rows) * row_tokens;
  gptq_quantize_estimate out{};
  std::pmr::vector<LayerNeeds> layers(spec.n_layers, memory);
  uint64_t others = 0, head = 0;  // what is around the layers is read at once
  double operations = 0;
  const ModuleOptions* next = chosen.data();
  for (const model::Slot& slot : model::weight_slots(spec, memory)) {
    const ModuleOptions& wanted = *next++;
    const format::fb::Tensor* tensor = reader.find(slot.name);
    if (!tensor) continue;
    const uint64_t bytes = model::placed_bytes(*tensor), made = wanted.bits ? packed_bytes(slot.n, slot.k, wanted) : bytes;
    out.file_bytes = base::add(out.file_bytes, made);
    if (slot.in_layer()) layers[slot.id.layer].add(slot, bytes, wanted.bits ? made : 0);
    else others = base::add(others, bytes);
    if (!wanted.bits) continue;
    ++out.n_modules;
    out.work_bytes += made;
    operations += operations_of(slot, spec.experts, tokens, aim);
    if (!slot.in_layer()) head = bytes + made + base::mul(slot.n, slot.k, sizeof(float) + 1) + squares(slot.k);
  }
  uint64_t most = std::max(others, head);
  for (const LayerNeeds& layer : layers)
    most = std::max(most, base::add(layer.bytes(spec, memory_max, pool.threads()), aim ? layer.aim_bytes(spec, Replay::chunk_tokens(row_tokens), pool.threads()) : 0));
  const uint64_t stores = Replay::store_bytes(spec, base::mul(rows, row_tokens, aim ? 2 : 1));
  const uint64_t work = Replay::scratch_bytes(spec, row_tokens) + most;
  out.host_bytes = base::add(work, keeps_on_disk(stores, memory_max) ? 0 : stores);
  if (keeps_on_disk(stores, memory_max)) out.work_bytes += stores;
  out.seconds = operations / measure_rate(kernels, pool, memory);
  return out;
}

}  // namespace gptq::quantize
