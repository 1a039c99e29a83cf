// SPDX-License-Identifier: Apache-2.0
#include "model/adapter.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/checked.h"

namespace gptq::model {
namespace {

namespace fb = format::fb;
using base::fail;

std::pmr::string with(const Slot& slot, std::string_view suffix) { return std::pmr::string(slot.name, slot.name.get_allocator()).append(suffix); }

// The matrices of two models' layers must be the same; norms, ropes and the vocabulary may differ.
void check_same_shape(const ModelSpec& made_for, const ModelSpec& here, std::pmr::memory_resource* memory) {
  if (made_for.n_layers != here.n_layers)
    fail(GPTQ_E_UNSUPPORTED, "the adapter is for another model, one of ", made_for.n_layers, " layers; this one has ", here.n_layers);
  for (uint32_t layer = 0; layer < here.n_layers; ++layer) {
    const auto a = layer_slots(made_for, layer, memory), b = layer_slots(here, layer, memory);
    for (size_t i = 0; i < std::max(a.size(), b.size()); ++i) {
      const Slot& named = i < b.size() ? b[i] : a[i];
      if (i >= std::min(a.size(), b.size()) || a[i].name != b[i].name || a[i].n != b[i].n || a[i].k != b[i].k)
        fail(GPTQ_E_UNSUPPORTED, "the adapter is for another model: '", std::string_view(named.name), "' has another shape here");
    }
  }
}

// One tensor of a change: its description, checked, and where its bytes are.
struct Found {
  const Slot* slot;
  const fb::Tensor *a, *b;
  uint32_t rank;
};

void check_matrix(const fb::Tensor& tensor, const Slot& slot, uint32_t n, uint32_t k) {
  const Slot expected{slot.id, std::pmr::string(tensor.name()->string_view(), slot.name.get_allocator()), n, k, false, true};
  if (kernels::is_quantized(check_tensor(tensor, expected).kind)) fail(GPTQ_E_UNSUPPORTED, "'", std::string_view(expected.name), "' is quantized");
}

uint64_t bytes_of(const fb::Tensor& tensor) { return tensor.parts()->Get(0)->bytes(); }
uint32_t padded(uint32_t rank) { return (rank + 15) / 16 * 16; }
uint64_t element_bytes(const fb::Tensor& tensor) { return kernels::bits_of(static_cast<kernels::Kind>(tensor.kind())) / 8; }
uint64_t a_bytes(const Found& f) { return base::mul(padded(f.rank), f.slot->k, element_bytes(*f.a)); }
uint64_t b_bytes(const Found& f) { return base::mul(padded(f.rank), f.slot->n, element_bytes(*f.b)); }
uint64_t placed(uint64_t bytes) { return base::round_up(bytes, uint64_t{base::Buffer::align}); }

std::pmr::vector<Found> find_changes(const format::Reader& reader, const std::pmr::vector<Slot>& slots, std::pmr::memory_resource* memory) {
  std::pmr::vector<Found> found(memory);
  for (const Slot& slot : slots) {
    if (!may_change(slot.id) || slot.is_vector) continue;
    const fb::Tensor *a = reader.find(name_of_a(slot)), *b = reader.find(name_of_b(slot));
    if (!a && !b) continue;
    if (!a || !b) fail(GPTQ_E_FORMAT, "the adapter has one of two matrices for '", std::string_view(slot.name), "'");
    if (a->n() == 0 || a->n() > adapter_rank_max) fail(GPTQ_E_FORMAT, "'", std::string_view(slot.name), "': rank ", a->n(), " is not within 1 and ", adapter_rank_max);
    check_matrix(*a, slot, a->n(), slot.k);
    check_matrix(*b, slot, slot.n, a->n());
    if (!std::isfinite(b->scale())) fail(GPTQ_E_FORMAT, "'", std::string_view(slot.name), "': its scale is not finite");
    found.push_back({&slot, a, b, a->n()});
  }
  if (2 * found.size() != reader.manifest().tensors()->size()) fail(GPTQ_E_FORMAT, "the adapter has tensors that belong to no matrix of the model's layers");
  if (found.empty()) fail(GPTQ_E_FORMAT, "the adapter changes nothing");
  return found;
}

kernels::Matrix matrix(const fb::Tensor& tensor, uint32_t n, uint32_t k, const std::byte* data) {
  kernels::Matrix w{};
  w.kind = static_cast<kernels::Kind>(tensor.kind());
  w.n = n;
  w.k = w.k_padded = k;
  w.codes = data;
  return w;
}

// Reads the part's rows of `from` bytes and spreads them to rows of `to` bytes, zeros behind.
void read_rows(const format::Reader& reader, const fb::Tensor& tensor, uint64_t from, uint64_t to, std::span<std::byte> dst, std::pmr::memory_resource* memory) {
  const fb::Part& part = *tensor.parts()->Get(0);
  reader.read_part(part, dst.first(base::to_size(part.bytes())), memory);
  std::memset(dst.data() + part.bytes(), 0, dst.size() - part.bytes());
  if (from == to) return;
  for (uint64_t row = part.bytes() / from; row-- > 0;) {
    std::memmove(dst.data() + row * to, dst.data() + row * from, from);
    std::memset(dst.data() + row * to + from, 0, to - from);
  }
}

}  // namespace

std::pmr::string name_of_a(const Slot& slot) { return with(slot, ".a"); }
std::pmr::string name_of_b(const Slot& slot) { return with(slot, ".b"); }

bool may_change(const SlotId& id) {
  return id.layer != no_index && id.expert == no_index && !id.bias && !info_of(id.role).is_vector() && id.role != Role::k_b && id.role != Role::v_b;
}

Adapter::Adapter(const base::Source& source, const ModelSpec& spec, base::Pool& pool, std::pmr::memory_resource* memory) : changes_(memory) {
  const format::Reader reader(source, memory);
  check_features(reader.manifest(), FileKind::adapter);
  check_same_shape(check_spec(*reader.manifest().spec(), memory), spec, memory);
  fingerprint_ = reader.manifest_hash();
  const std::pmr::vector<Slot> slots = weight_slots(spec, memory);
  const std::pmr::vector<Found> found = find_changes(reader, slots, memory);
  uint64_t bytes = 0;
  for (const Found& f : found) bytes = base::add(bytes, base::add(placed(a_bytes(f)), placed(b_bytes(f))));
  block_ = base::Buffer(memory, base::to_size(bytes));
  changes_.resize(uint64_t{spec.n_layers} * n_layer_roles);
  std::byte* at = block_.data();
  for (const Found& f : found) {
    const uint32_t rank = padded(f.rank);
    kernels::LowRank& change = changes_[slot_number(f.slot->id.layer, f.slot->id.role)];
    change.a = matrix(*f.a, rank, f.slot->k, at);
    at += placed(a_bytes(f));
    change.b = matrix(*f.b, f.slot->n, rank, at);
    at += placed(b_bytes(f));
    change.scale = f.b->scale();
    rank_ = std::max(rank_, f.rank);
  }
  n_matrices_ = static_cast<uint32_t>(found.size());
  for (uint32_t layer = 0; layer < spec.n_layers; ++layer) {
    uint32_t width = 0;
    for (const kernels::LowRank& change : changes().subspan(uint64_t{layer} * n_layer_roles, n_layer_roles)) width += change.a.n;
    width_ = std::max(width_, width);
  }
  pool.run_throwing(n_matrices_, [&](uint32_t i) {
    const Found& f = found[i];
    const kernels::LowRank& change = changes_[slot_number(f.slot->id.layer, f.slot->id.role)];
    const auto bytes_at = [](const kernels::Matrix& w) { return static_cast<std::byte*>(const_cast<void*>(w.codes)); };
    read_rows(reader, *f.a, bytes_of(*f.a), bytes_of(*f.a), {bytes_at(change.a), base::to_size(a_bytes(f))}, memory);
    read_rows(reader, *f.b, f.rank * element_bytes(*f.b), change.b.k * element_bytes(*f.b), {bytes_at(change.b), base::to_size(b_bytes(f))}, memory);
    check_values(change.a, f.a->name()->string_view());
    check_values(change.b, f.b->name()->string_view());
  });
}

}  // namespace gptq::model
