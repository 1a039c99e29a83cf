// SPDX-License-Identifier: Apache-2.0
#include "model/adapter.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/checked.h"
#include "kernels/element.h"

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

// Weights that read the same input, in the order in which a layer computes.
uint32_t input_of(Role role) {
  switch (role) {
    case Role::o: return 1;
    case Role::router: return 2;
    case Role::gate:
    case Role::up: return 3;
    case Role::down: return 4;
    case Role::shared_gate:
    case Role::shared_up: return 5;
    case Role::shared_switch: return 6;
    case Role::shared_down: return 7;
    default: return 0;
  }
}

// A change in the file.
struct Found {
  const Slot* slot;
  const fb::Tensor *a, *b;
  uint32_t rank;
  uint64_t turn() const { return uint64_t{slot->id.layer} * 8 + input_of(slot->id.role); }  // the same for those that read the same input
  uint32_t number() const { return slot_number(slot->id.layer, slot->id.role); }
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
uint32_t rank8(const Found& f) { return (f.rank + 3) / 4 * 4; }
uint64_t a8_bytes(const Found& f) { return base::mul(rank8(f), f.slot->k); }
uint64_t b8_bytes(const Found& f) { return base::mul(rank8(f), kernels::n_blocks(f.slot->n), 16); }
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

// Values in 8 bits, count of them `stride` apart; returns what a step is worth.
float round_to_8_bits(const kernels::Matrix& w, uint64_t first, uint64_t stride, uint64_t count, const auto& put) {
  float most = 0;
  for (uint64_t i = 0; i < count; ++i) most = std::max(most, std::abs(kernels::load_element(w.codes, first + i * stride, w.kind)));
  const float step = most / 127;
  for (uint64_t i = 0; i < count; ++i)
    put(i, step > 0 ? static_cast<int8_t>(std::lrint(kernels::load_element(w.codes, first + i * stride, w.kind) / step)) : int8_t{0});
  return step;
}

// Rows of A and columns of B with a scale each, which are one.
void fill_8_bits(kernels::LowRank& change, uint32_t rank) {
  const uint32_t k = change.a.k, n = change.b.n, rank8 = change.rank8;
  auto* a8 = const_cast<int8_t*>(change.a8);
  auto* b8 = const_cast<int8_t*>(change.b8);
  auto* scale8 = const_cast<float*>(change.scale8);
  std::fill_n(a8, uint64_t{rank8} * k, int8_t{0});
  std::fill_n(b8, uint64_t{rank8} * kernels::n_blocks(n) * 16, int8_t{0});
  std::fill_n(scale8, rank8, 0.0f);
  for (uint32_t r = 0; r < rank; ++r) {
    const float a = round_to_8_bits(change.a, uint64_t{r} * k, 1, k, [&](uint64_t i, int8_t code) { a8[uint64_t{r} * k + i] = code; });
    const float b = round_to_8_bits(change.b, r, change.b.k, n, [&](uint64_t i, int8_t code) { b8[(i / 16 * rank8 + r) * 16 + i % 16] = code; });
    scale8[r] = a * b * change.scale;
  }
}

// In the order in which they are read: first matrices of one input, second ones, first ones of the next.
void place_8_bits(std::span<const Found> found, std::pmr::vector<kernels::LowRank>& changes, const auto& take) {
  kernels::LowRank* before = nullptr;  // the first of the last input
  while (!found.empty()) {
    size_t n = 1;
    while (n < found.size() && found[n].turn() == found[0].turn()) ++n;
    const std::byte* end = nullptr;
    for (const Found& f : found.first(n)) {
      kernels::LowRank& change = changes[f.number()];
      change.rank8 = rank8(f);
      change.a8 = reinterpret_cast<const int8_t*>(take(a8_bytes(f)));
      change.scale8 = reinterpret_cast<const float*>(take(change.rank8 * sizeof(float)));
      end = reinterpret_cast<const std::byte*>(change.scale8 + change.rank8);
    }
    kernels::LowRank& first = changes[found[0].number()];
    if (before) {
      before->next8 = first.a8;
      before->next8_bytes = static_cast<uint64_t>(end - reinterpret_cast<const std::byte*>(first.a8));
    }
    before = &first;
    for (const Found& f : found.first(n)) changes[f.number()].b8 = reinterpret_cast<const int8_t*>(take(b8_bytes(f)));
    found = found.subspan(n);
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
  std::pmr::vector<Found> found = find_changes(reader, slots, memory);
  uint64_t bytes = 0;
  for (const Found& f : found)
    for (const uint64_t part : {a_bytes(f), b_bytes(f), a8_bytes(f), b8_bytes(f), rank8(f) * sizeof(float)}) bytes = base::add(bytes, placed(part));
  block_ = base::Buffer(memory, base::to_size(bytes));
  changes_.resize(uint64_t{spec.n_layers} * n_layer_roles);
  std::sort(found.begin(), found.end(), [](const Found& a, const Found& b) { return a.turn() != b.turn() ? a.turn() < b.turn() : a.slot->id.role < b.slot->id.role; });
  std::byte* at = block_.data();
  const auto take = [&](uint64_t size) { return std::exchange(at, at + placed(size)); };
  for (const Found& f : found) {
    const uint32_t rank = padded(f.rank);
    kernels::LowRank& change = changes_[f.number()];
    change.a = matrix(*f.a, rank, f.slot->k, take(a_bytes(f)));
    change.b = matrix(*f.b, f.slot->n, rank, take(b_bytes(f)));
    change.scale = f.b->scale();
    rank_ = std::max(rank_, f.rank);
  }
  n_matrices_ = static_cast<uint32_t>(found.size());
  place_8_bits(std::span<const Found>(found), changes_, take);
  for (uint32_t layer = 0; layer < spec.n_layers; ++layer) {
    uint32_t width = 0;
    for (const kernels::LowRank& change : changes().subspan(uint64_t{layer} * n_layer_roles, n_layer_roles)) width += change.a.n;
    width_ = std::max(width_, width);
  }
  pool.run_throwing(n_matrices_, [&](uint32_t i) {
    const Found& f = found[i];
    kernels::LowRank& change = changes_[f.number()];
    const auto bytes_at = [](const kernels::Matrix& w) { return static_cast<std::byte*>(const_cast<void*>(w.codes)); };
    read_rows(reader, *f.a, bytes_of(*f.a), bytes_of(*f.a), {bytes_at(change.a), base::to_size(a_bytes(f))}, memory);
    read_rows(reader, *f.b, f.rank * element_bytes(*f.b), change.b.k * element_bytes(*f.b), {bytes_at(change.b), base::to_size(b_bytes(f))}, memory);
    check_values(change.a, f.a->name()->string_view());
    check_values(change.b, f.b->name()->string_view());
    fill_8_bits(change, f.rank);
  });
}

}  // namespace gptq::model
