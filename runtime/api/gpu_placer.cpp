// SPDX-License-Identifier: Apache-2.0
#include "api/gpu_placer.h"

#include <algorithm>

#include "base/checked.h"
#include "base/failure.h"
#include "engine/shape.h"

namespace gptq::api {
namespace {

constexpr uint32_t kv_tokens = 4096;
constexpr uint64_t room_bytes = 256u << 20;  // what products need and what the API itself takes

// What the GPU cannot do, by name.
struct Lack {
  const char* name;
  bool (*in)(const model::ModelSpec& spec);
};
constexpr Lack lacks[] = {
    {"a gated delta rule", [](const model::ModelSpec& s) { return s.any(model::Mixer::delta); }},
    {"short convolutions", [](const model::ModelSpec& s) { return s.any(model::Mixer::short_conv); }},
    {"latent attention", [](const model::ModelSpec& s) { return s.any(model::Mixer::latent); }},
    {"a mixture of experts",
     [](const model::ModelSpec& s) { return std::any_of(s.layers.begin(), s.layers.end(), [](const model::LayerSpec& l) { return l.experts; }); }},
    {"a norm over all heads' queries behind the rotation",
     [](const model::ModelSpec& s) { return s.qk_norm && s.qk_norm_span == kernels::Span::all && s.qk_norm_after_rope; }},
};

void check_gpu_can(const model::ModelSpec& spec) {
  for (const Lack& lack : lacks)
    if (lack.in(spec)) base::fail(GPTQ_E_UNSUPPORTED, "on a GPU a model with ", lack.name, " is not supported: load it on the CPU");
  if (spec.head_dim % 2 || spec.head_dim > gpu::head_dim_max)
    base::fail(GPTQ_E_UNSUPPORTED, "on a GPU heads of ", spec.head_dim, " are not supported, only even ones up to ", gpu::head_dim_max, ": load the model on the CPU");
}

bool on_host(const Share& share) { return share.memory == model::host_memory; }
bool has_any(const Share& share) { return share.layers != no_layers; }
bool is_fixed(const Share& share) { return share.layers != 0 && share.layers != no_layers; }

// Deals out layers, from both ends towards those that stay on the host.
class Deal {
 public:
  static constexpr uint32_t parts = 1 << 20;
  Deal(const model::ModelSpec& spec, const model::WeightBytes& bytes, std::span<const Share> shares)
      : spec_(spec), bytes_(bytes), shares_(shares),
        host_(static_cast<size_t>(std::find_if(shares.begin(), shares.end(), on_host) - shares.begin())),
        kv_(base::mul(uint64_t{std::min(kv_tokens, spec.n_ctx_train)} * spec.n_kv_heads, 4 * gpu::kv_dims(spec.head_dim))) {}

  // With so many parts of every GPU's room; how many layers are left for the host.
  uint32_t left(uint32_t room, model::Placement* out = nullptr) const {
    uint32_t first = 0, end = spec_.n_layers, reserved = 0;
    for (const Share& share : shares_) reserved += is_fixed(share) ? std::min(share.layers, spec_.n_layers) : 0;
    const auto deal = [&](size_t at, bool from_end) {
      const Share& share = shares_[at];
      if (is_fixed(share)) reserved -= std::min(share.layers, spec_.n_layers);
      const uint32_t all = end - first, most = all > reserved ? all - reserved : 0;
      const uint32_t n = is_fixed(share) ? std::min(share.layers, all) : has_any(share) ? fitting(share, first, end, from_end, most, room) : 0;
      if (from_end) end -= n;
      else first += n;
      if (out) out[at] = {share.memory, from_end ? end : first - n, from_end ? end + n : first};
    };
    for (size_t at = shares_.size(); at-- > host_ + 1;) deal(at, true);
    for (size_t at = 0; at < host_ && at < shares_.size(); ++at) deal(at, false);
    if (out) out[host_] = {model::host_memory, first, end};
    return end - first;
  }
  // How many the host is to have; the most: as many as are left.
  uint32_t wanted() const {
    const Share& host = shares_[host_];
    return is_fixed(host) ? std::min(host.layers, spec_.n_layers) : 0;
  }
  bool takes_rest() const { return shares_[host_].layers == 0; }

 private:
  // Of the layers first .. end - 1, from one end.
  uint32_t fitting(const Share& share, uint32_t first, uint32_t end, bool from_end, uint32_t most, uint32_t room) const {
    const uint64_t fixed = base::add(room_bytes + share.bytes_max / engine::part_for_activations, end == spec_.n_layers && from_end ? bytes_.head : 0);
    uint64_t left = share.bytes_max > fixed ? share.bytes_max - fixed : 0;
    left = left / parts * room + left % parts * room / parts;
    uint32_t n = 0;
    for (; n < most; ++n) {
      const uint32_t layer = from_end ? end - 1 - n : first + n;
      const bool begins = layer == 0, ends = layer + 1 == spec_.n_layers;
      uint64_t needed = bytes_.layers[layer] + kv_;
      if (begins && !(end == spec_.n_layers && from_end && spec_.tied_head)) needed = base::add(needed, bytes_.embed);
      if (ends && !from_end) needed = base::add(needed, bytes_.head);
      if (needed > left) break;
      left -= needed;
    }
    return n;
  }

  const model::ModelSpec& spec_;
  const model::WeightBytes& bytes_;
  const std::span<const Share> shares_;
  const size_t host_;
  const uint64_t kv_;
};

}  // namespace

std::pmr::vector<model::Placement> split(const model::ModelSpec& spec, const model::WeightBytes& bytes, std::span<const Share> shares,
                                         std::pmr::memory_resource* memory) {
  if (std::any_of(shares.begin(), shares.end(), [](const Share& s) { return !on_host(s) && has_any(s); })) check_gpu_can(spec);
  std::pmr::vector<Share> all(shares.begin(), shares.end(), memory);
  if (std::none_of(all.begin(), all.end(), on_host)) all.insert(all.begin(), Share{model::host_memory});
  const Deal deal(spec, bytes, all);
  const uint32_t wanted = deal.wanted(), least = deal.left(Deal::parts);
  if (least > wanted && !deal.takes_rest())
    base::fail(GPTQ_E_OUT_OF_DEVICE_MEMORY, "the GPUs have room for ", spec.n_layers - least, " of ", spec.n_layers - wanted, " layers that are to go there");
  uint32_t room = Deal::parts;
  if (least == wanted)  // the smallest part with which it is so
    for (uint32_t below = 0; room - below > 1;) (deal.left((below + room) / 2) == wanted ? room : below) = (below + room) / 2;
  std::pmr::vector<model::Placement> placements(all.size(), model::Placement{}, memory);
  deal.left(room, placements.data());
  std::erase_if(placements, [](const model::Placement& p) { return p.n_layers() == 0; });
  return placements;
}

std::pmr::vector<model::Placement> GpuPlacer::choose(const model::ModelSpec& spec, const model::WeightBytes& bytes) {
  std::pmr::vector<model::Placement> placements = split(spec, bytes, shares_, bytes_.get_allocator().resource());
  for (const model::Placement& p : placements) {
    if (p.on_host()) continue;
    const device::Gpu& gpu = *gpus_[p.memory];
    const uint64_t needed = placed_bytes(spec, bytes, p), limit = gpu.account().limit, free = gpu.bytes_free();
    if (limit && needed > limit)
      base::fail(GPTQ_E_BUDGET_EXCEEDED, gpu.name(), ": ", p.n_layers(), " layers take ", needed, " bytes, more than the ", limit, " that it may hold");
    if (needed > free)
      base::fail(GPTQ_E_OUT_OF_DEVICE_MEMORY, gpu.name(), ": ", p.n_layers(), " layers take ", needed, " bytes, ", free, " are free");
  }
  return placements;
}

std::byte* GpuPlacer::place(uint32_t to, std::span<const std::byte> block) {
  const device::Gpu& gpu = *gpus_[to];
  const device::GpuMemory& copy = blocks_.emplace_back(gpu, block.size());
  gpu.table().copy_in(&gpu.stream(), copy.data(), block.data(), block.size());
  gpu.finish(UINT32_MAX);
  bytes_[to] += block.size();
  return copy.data();
}

}  // namespace gptq::api
