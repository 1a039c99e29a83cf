// SPDX-License-Identifier: Apache-2.0
#include "quantize/mixture.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <map>

#include "base/checked.h"
#include "base/failure.h"
#include "quantize/nearest.h"
#include "quantize/sensitivity.h"

namespace gptq::quantize {
namespace {

using model::Role;

constexpr std::array<uint32_t, 4> bits_known = {2, 3, 4, 8};
constexpr std::array<int32_t, 3> groups_known = {32, 64, 128};
constexpr uint64_t matrix_overhead = 256;  // in the manifest

// Roles that fused kernels join, by the first of them.
Role joined(Role role) {
  switch (role) {
    case Role::k: case Role::v: case Role::attn_gate: return Role::q;
    case Role::up: return Role::gate;
    case Role::shared_up: return Role::shared_gate;
    case Role::expert_up: return Role::expert_gate;
    case Role::v_b: return Role::k_b;
    default: return role;
  }
}

class Mixture {
 public:
  Mixture(const format::Reader& reader, std::span<const ModuleOptions> chosen, const Calibration& calibration, const Options& options,
          const kernels::Kernels& kernels, base::Pool& pool, std::pmr::memory_resource* memory)
      : reader_(reader), options_(options), kernels_(kernels), pool_(pool), memory_(memory), calibration_(calibration),
        spec_(model::check_spec(reader.manifest(), memory)), slots_(model::weight_slots(spec_, memory)),
        chosen_(chosen.begin(), chosen.end(), memory) {}

  std::pmr::vector<ModuleOptions> divide() {
    find_parts();
    const uint64_t budget = budget_of_parts();
    ask();
    measure_costs(reader_, parts_, calibration_, options_, kernels_, pool_, memory_);
    find_choices();
    const std::vector<uint32_t> taken = allocate(choices_, budget);
    if (taken.empty()) refuse(budget);
    for (size_t part = 0; part < parts_.size(); ++part)
      for (const uint32_t slot : parts_[part].slots) chosen_[slot] = settings_[part][taken[part]];
    tell(taken);
    return chosen_;
  }

 private:
  // A matrix that was given settings of its own is no part of it.
  bool is_free(size_t slot) const { return slots_[slot].quantizable() && chosen_[slot] == options_.module && chosen_[slot].bits; }
  bool is_free_head(size_t slot) const {
    return options_.any_head && options_.file_bytes_max && slots_[slot].id.role == model::head_role(spec_) && !slots_[slot].id.bias &&
           reader_.find(slots_[slot].name);
  }

  void find_parts() {
    std::map<std::pair<uint32_t, Role>, size_t> places;
    for (uint32_t slot = 0; slot < slots_.size(); ++slot) {
      if (!is_free(slot) && !is_free_head(slot)) continue;
      const auto key = std::pair(slots_[slot].id.layer, joined(slots_[slot].id.role));
      const auto [place, is_new] = places.emplace(key, parts_.size());
      if (is_new) parts_.push_back({});
      parts_[place->second].slots.push_back(slot);
    }
    if (parts_.empty()) base::fail(GPTQ_E_INVALID_ARGUMENT, "a budget needs matrices whose bits may be chosen, and every one has settings of its own");
  }

  uint64_t elements(size_t slot) const { return uint64_t{slots_[slot].n} * slots_[slot].k; }

  // Bytes for the parts: of the file, less all else in it.
  uint64_t budget_of_parts() const {
    std::vector<bool> free(slots_.size());
    for (const Part& part : parts_)
      for (const uint32_t slot : part.slots) free[slot] = true;
    uint64_t others = 64 + reader_.manifest_bytes();
    double weights = 0;
    for (uint32_t slot = 0; slot < slots_.size(); ++slot) {
      const format::fb::Tensor* tensor = reader_.find(slots_[slot].name);
      if (!tensor) continue;
      if (free[slot]) weights += static_cast<double>(elements(slot)), others += matrix_overhead;
      else if (!chosen_[slot].bits) others = base::add(others, model::placed_bytes(*tensor));
      else others = base::add(others, packed_bytes(slots_[slot].n, slots_[slot].k, chosen_[slot]) + matrix_overhead);
    }
    if (!options_.file_bytes_max) return static_cast<uint64_t>(weights * options_.mean_bits / 8);
    if (const format::fb::Part* part = reader_.manifest().tokenizer()) others = base::add(others, part->bytes());
    if (others >= options_.file_bytes_max)
      base::fail(GPTQ_E_INVALID_ARGUMENT, "a file of ", options_.file_bytes_max, " bytes: what is not quantized takes ", others, " already");
    return options_.file_bytes_max - others;
  }

  std::vector<ModuleOptions> settings_of(const Part& part) const {
    const bool head = !slots_[part.slots[0]].in_layer();
    std::vector<ModuleOptions> out;
    for (const uint32_t bits : bits_known)
      for (const int32_t group : groups_known) {
        if (head && bits < 4) continue;
        ModuleOptions options = options_.module;
        options.bits = bits;
        if (options_.any_group) options.group_size = group;
        if (std::find(out.begin(), out.end(), options) == out.end()) out.push_back(options);
      }
    if (head) out.push_back({.bits = 0});  // as it is
    return out;
  }

  void ask() {
    for (Part& part : parts_) {
      settings_.push_back(settings_of(part));
      part.asked = options_.module;
      part.asked.bits = slots_[part.slots[0]].in_layer() ? 3 : 4;
      if (options_.any_group) part.asked.group_size = 64;
    }
  }

  void find_choices() {
    for (size_t i = 0; i < parts_.size(); ++i) {
      std::vector<ModuleOptions> tried = settings_[i];
      std::erase_if(tried, [](const ModuleOptions& o) { return !o.bits; });
      tried.push_back(parts_[i].asked);
      std::vector<double> errors(tried.size());
      for (const uint32_t slot : parts_[i].slots) {
        const model::Weights weights(reader_, {&slots_[slot], 1}, {}, pool_, memory_);
        const std::vector<double> of_slot = nearest_errors(*weights.find(slots_[slot].id), tried, kernels_, pool_, memory_);
        for (size_t j = 0; j < tried.size(); ++j) errors[j] += of_slot[j];
      }
      std::vector<Choice>& choices = choices_.emplace_back();
      for (size_t j = 0; j < settings_[i].size(); ++j) {
        uint64_t bytes = 0;
        for (const uint32_t slot : parts_[i].slots)
          bytes += settings_[i][j].bits ? packed_bytes(slots_[slot].n, slots_[slot].k, settings_[i][j]) : model::placed_bytes(*reader_.find(slots_[slot].name));
        const double error = settings_[i][j].bits && errors.back() > 0 ? errors[j] / errors.back() : 0;
        choices.push_back({bytes, parts_[i].cost * error});
      }
    }
  }

  [[noreturn]] void refuse(uint64_t budget) const {
    uint64_t least = 0;
    double weights = 0;
    for (size_t i = 0; i < parts_.size(); ++i) {
      uint64_t bytes = UINT64_MAX;
      for (const Choice& choice : choices_[i]) bytes = std::min(bytes, choice.bytes);
      least += bytes;
      for (const uint32_t slot : parts_[i].slots) weights += static_cast<double>(elements(slot));
    }
    if (options_.file_bytes_max)
      base::fail(GPTQ_E_INVALID_ARGUMENT, "a file of ", options_.file_bytes_max, " bytes is too small: the least is ", options_.file_bytes_max - budget + least);
    char text[32];
    std::snprintf(text, sizeof text, "%.3f", 8.0 * static_cast<double>(least) / weights);
    base::fail(GPTQ_E_INVALID_ARGUMENT, "so few bits a weight cannot be had: the least is ", text);
  }

  void tell(const std::vector<uint32_t>& taken) const {
    if (!options_.log) return;
    std::map<uint32_t, uint64_t> matrices;
    double bytes = 0, weights = 0, cost = 0;
    for (size_t i = 0; i < parts_.size(); ++i) {
      matrices[settings_[i][taken[i]].bits] += parts_[i].slots.size();
      bytes += static_cast<double>(choices_[i][taken[i]].bytes), cost += choices_[i][taken[i]].cost;
      for (const uint32_t slot : parts_[i].slots) weights += static_cast<double>(elements(slot));
    }
    std::string text = "chosen:";
    for (const auto& [bits, n] : matrices) text += " " + std::to_string(n) + (bits ? " matrices of " + std::to_string(bits) + " bits," : " as it is,");
    char mean[96];
    std::snprintf(mean, sizeof mean, " %.3f bits a weight with scales", 8 * bytes / weights);
    options_.log(text + mean);
  }

  const format::Reader& reader_;
  const Options& options_;
  const kernels::Kernels& kernels_;
  base::Pool& pool_;
  std::pmr::memory_resource* memory_;
  const Calibration& calibration_;
  const model::ModelSpec spec_;
  const std::pmr::vector<model::Slot> slots_;
  std::pmr::vector<ModuleOptions> chosen_;
  std::vector<Part> parts_;
  std::vector<std::vector<ModuleOptions>> settings_;  // of each part
  std::vector<std::vector<Choice>> choices_;          // the same, weighed
};

uint32_t best_at(const std::vector<Choice>& choices, double price) {
  uint32_t best = 0;
  const auto value = [&](const Choice& c) { return c.cost + price * static_cast<double>(c.bytes); };
  for (uint32_t i = 1; i < choices.size(); ++i)
    if (value(choices[i]) < value(choices[best]) || (value(choices[i]) == value(choices[best]) && choices[i].bytes < choices[best].bytes)) best = i;
  return best;
}

}  // namespace

std::vector<uint32_t> allocate(std::span<const std::vector<Choice>> parts, uint64_t bytes_max) {
  std::vector<uint32_t> taken(parts.size());
  uint64_t bytes = 0;
  const auto take = [&](double price) {
    bytes = 0;
    for (size_t i = 0; i < parts.size(); ++i) bytes += parts[i][taken[i] = best_at(parts[i], price)].bytes;
    return bytes <= bytes_max;
  };
  double dear = 1e-30;
  while (!take(dear)) {  // by then the smallest of all are taken
    if (dear > 1e30) return {};
    dear *= 1e3;
  }
  for (double cheap = dear / 1e3, steps = 0; steps < 200; ++steps) {
    const double middle = std::sqrt(cheap * dear);
    (take(middle) ? dear : cheap) = middle;
  }
  take(dear);
  // What is left goes to the step that gains most for its bytes, as long as one fits.
  for (;;) {
    double most = 0;
    size_t part = 0;
    uint32_t choice = 0;
    for (size_t i = 0; i < parts.size(); ++i)
      for (uint32_t j = 0; j < parts[i].size(); ++j) {
        const Choice &now = parts[i][taken[i]], &then = parts[i][j];
        if (!(then.cost < now.cost) || then.bytes <= now.bytes || bytes - now.bytes + then.bytes > bytes_max) continue;
        const double gain = (now.cost - then.cost) / static_cast<double>(then.bytes - now.bytes);
        if (gain > most) most = gain, part = i, choice = j;
      }
    if (!(most > 0)) return taken;
    bytes += parts[part][choice].bytes - parts[part][taken[part]].bytes;
    taken[part] = choice;
  }
}

std::pmr::vector<ModuleOptions> divide_budget(const format::Reader& reader, std::span<const ModuleOptions> chosen, const Calibration& calibration,
                                              const Options& options, const kernels::Kernels& kernels, base::Pool& pool,
                                              std::pmr::memory_resource* memory) {
  return Mixture(reader, chosen, calibration, options, kernels, pool, memory).divide();
}

}  // namespace gptq::quantize
