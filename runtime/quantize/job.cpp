// SPDX-License-Identifier: Apache-2.0
#include "quantize/job.h"

#include <algorithm>

#include "base/checked.h"
#include "format/header.h"

namespace gptq::quantize {

namespace fb = format::fb;
using model::Role;

Job::Job(const base::Source& source, std::string_view target, const Calibration& calibration, const Options& options,
         std::span<const ModuleOptions> chosen, const kernels::Kernels& kernels, base::Pool& pool, std::pmr::memory_resource* memory)
    : options_(options), chosen_(chosen), calibration_(calibration), kernels_(kernels), pool_(pool), memory_(memory), target_(target),
      reader_(source, memory), spec_(model::check_spec(reader_.manifest(), memory)), slots_(model::weight_slots(spec_, memory)),
      plan_(calibration.row_tokens, memory), aimed_tokens_(options.aim ? plan_.n_tokens : 0), work_(target, key()),
      replay_(spec_, plan_, aimed_tokens_, store_folder(), kernels, pool, memory) {
  if (options.first_token_weight != 1 && !options.reference) weights_.emplace(plan_.chunk_tokens, memory);
  for (const model::Slot& slot : slots_)
    if (slot.quantizable()) work_total_ += pass_work(slot) + solve_work(slot);
}

void Job::run() {
  embed();
  for (uint32_t layer = 0; layer < spec_.n_layers; ++layer) do_layer(layer);
  if (options_.head.bits) do_head();
  write();
  work_.remove_all();
}

std::string Job::store_folder() const {
  const uint64_t stores = Replay::store_bytes(spec_, plan_.n_tokens + aimed_tokens_);
  return keeps_on_disk(stores, options_.memory_max) ? work_.path() : std::string();
}

// Everything the result depends on.
uint64_t Job::key() const {
  std::string text = GPTQ_VERSION_TEXT;
  const auto add = [&](const auto& value) { text.append(reinterpret_cast<const char*>(&value), sizeof value); };
  const auto add_options = [&](const ModuleOptions& o) { add(o.bits), add(o.group_size), add(o.symmetric), add(o.static_groups), add(o.order), add(o.damp); };
  add(reader_.manifest_hash());
  add(options_.reference), add(options_.first_token_weight), add(options_.aim);
  for (const ModuleOptions& chosen : chosen_) add_options(chosen);
  add(format::hash_bytes(std::as_bytes(calibration_.tokens)));
  add(format::hash_bytes(std::as_bytes(calibration_.row_tokens)));
  return format::hash_bytes(std::as_bytes(std::span(text)));
}

// What was made for a place of the model, or as it was: the layers, and after them the head.
void Job::begin(uint32_t place) {
  index_ = place;
  replay_.drop_all();
  made_.reset();
  packed_.clear();
  reports_.clear();
  done_ = work_.is_sound(place, memory_);
}

void Job::end(uint32_t place) {
  if (!done_) work_.save(place, packed_, reports_, *reader_.manifest().spec());
}

void Job::embed() {
  const model::Weights weights(reader_, slots_of(spec_.n_layers), {}, pool_, memory_);
  const auto of = [&](Role role) { return weights.linear({.role = role}); };
  const model::Ends ends{.embed = of(Role::embed), .positions = of(Role::positions), .embed_proj = of(Role::embed_proj),
                         .embed_norm = of(Role::embed_norm), .final_norm = {}, .head_proj = {}, .head = {}};
  step_all([&](const Chunk& chunk, const model::Layer&) {
    replay_.embed(chunk, calibration_.tokens.subspan(chunk.first_token, chunk.n_tokens), ends);
  });
}

void Job::do_layer(uint32_t index) {
  const model::Weights weights(reader_, layer_slots(index), {}, pool_, memory_);
  layer_ = weights.layer(spec_, index);
  begin(index);
  replay_.begin_layer(index);
  hold_original();
  if (done_) load_done(index);
  do_mixer();
  if (spec_.layers[index].experts) do_experts();
  else do_dense_mlp();
  end(index);
}

// The matrices that read the layer's input; those inside of latent attention; o.
void Job::do_mixer() {
  const bool two_steps = static_cast<bool>(layer_[Role::q_a]);  // to the queries of latent attention
  const Modules first = two_steps ? modules({Role::q_a, Role::kv_a})
                                  : modules({Role::q, Role::k, Role::v, Role::attn_gate, Role::kv_a, Role::z, Role::conv_in});
  stage(first, [&](const Chunk& chunk, const model::Layer& layer) { return replay_.mixer_input(chunk, layer); });
  if (spec_.layers[index_].mixer == model::Mixer::latent) {
    std::vector<Modules> inner;
    if (two_steps) inner.push_back(modules({Role::q}));
    inner.push_back(modules({Role::k_b, Role::v_b}));
    Tap tap(memory_);
    tap[layer_[Role::k_b].w].last = true;
    tapped_stage(inner, tap, [&](const Chunk& chunk) { replay_.tap_mixer(chunk, layer_, tap, weights_of(chunk)); });
  }
  stage(modules({Role::o}), [&](const Chunk& chunk, const model::Layer& layer) { return replay_.mix(chunk, layer); });
}

void Job::do_dense_mlp() {
  stage(modules({Role::gate, Role::up}), [&](const Chunk& chunk, const model::Layer& layer) { return replay_.add_mixed(chunk, layer); });
  stage(modules({Role::down}), [&](const Chunk& chunk, const model::Layer& layer) { return replay_.activate(chunk, layer); });
  step_all([&](const Chunk& chunk, const model::Layer& layer) { replay_.finish(chunk, layer); });
}

void Job::do_head() {
  const Role role = model::head_role(spec_);
  const auto wanted = [&](const model::Slot& slot) {
    return slot.id.role == role || slot.id.role == Role::final_norm || slot.id.role == Role::head_proj;
  };
  std::pmr::vector<model::Slot> slots(memory_);
  std::copy_if(slots_.begin(), slots_.end(), std::back_inserter(slots), wanted);
  const model::Weights weights(reader_, slots, {}, pool_, memory_);
  model::Ends ends{};
  ends.final_norm = weights.linear({.role = Role::final_norm});
  ends.head_proj = weights.linear({.role = Role::head_proj});
  ends.head = weights.linear({.role = role});
  begin(spec_.n_layers);
  if (done_) tell_reports(format::Reader(base::FileSource(work_.path_of(spec_.n_layers)), memory_));
  else stage({{&slot_of({.role = role}), &ends.head}}, [&](const Chunk& chunk, const model::Layer&) { return replay_.head_input(chunk, ends); });
  end(spec_.n_layers);
}

// Before anything of the layer is quantized.
void Job::hold_original() {
  if (!aimed_tokens_) return;
  original_ = layer_;
  for (const model::Slot& slot : layer_slots(index_))
    if (!slot.is_vector && slot.id.expert == model::no_index && original_.at(slot.id)) original_.at(slot.id).w = replay_.hold(original_.at(slot.id).w);
}

void Job::load_done(uint32_t index) {
  const base::FileSource file(work_.path_of(index));
  const format::Reader reader(file, memory_);
  tell_reports(reader);
  std::pmr::vector<model::Slot> slots(memory_);  // matrices alone, none required
  for (const model::Slot& slot : layer_slots(index))
    if (!slot.is_vector) slots.push_back({slot.id, slot.name, slot.n, slot.k, false, false});
  made_.emplace(reader, slots, model::LoadOptions{}, pool_, memory_);
  for (const model::Slot& slot : slots)
    if (const kernels::Matrix* w = made_->find(slot.id)) layer_.at(slot.id).w = stand_in(slot, *w);
}

// Experts are too many to be held ready.
kernels::Matrix Job::stand_in(const model::Slot& slot, const kernels::Matrix& w) {
  return slot.id.expert == model::no_index ? replay_.hold(w) : w;
}

std::span<const model::Slot> Job::layer_slots(uint32_t layer) const {
  const auto inside = [&](const model::Slot& slot) { return slot.id.layer == layer; };
  const auto first = std::find_if(slots_.begin(), slots_.end(), inside);
  return {first, std::find_if_not(first, slots_.end(), inside)};
}

const model::Slot& Job::slot_of(const model::SlotId& id) const {
  const auto same = [&](const model::Slot& slot) { return slot.id.key() == id.key(); };
  if (id.layer == model::no_index) return *std::find_if(slots_.begin(), slots_.end(), same);
  const auto slots = layer_slots(id.layer);
  return *std::find_if(slots.begin(), slots.end(), same);
}

// The slots of a layer; at the place behind the last layer those that belong to none.
std::pmr::vector<model::Slot> Job::slots_of(uint32_t place) const {
  std::pmr::vector<model::Slot> slots(memory_);
  if (place < spec_.n_layers) {
    const auto of_layer = layer_slots(place);
    slots.assign(of_layer.begin(), of_layer.end());
  } else {
    std::copy_if(slots_.begin(), slots_.end(), std::back_inserter(slots), [](const model::Slot& s) { return !s.in_layer(); });
  }
  return slots;
}

// All tensors in the order of the slots: from the layers' files where they are quantized, else as they were.
void Job::write() {
  format::Writer writer(target_, options_.replace ? base::AtomicFile::IfExists::replace : base::AtomicFile::IfExists::refuse, options_.zstd);
  fb::ManifestT manifest;
  reader_.manifest().UnPackTo(&manifest);
  manifest.tensors.clear();
  for (uint32_t place = 0; place <= spec_.n_layers; ++place) {
    std::optional<base::FileSource> file;
    std::optional<format::Reader> made;
    if (place < spec_.n_layers || options_.head.bits) made.emplace(file.emplace(work_.path_of(place)), memory_);
    for (const model::Slot& slot : slots_of(place)) {
      const fb::Tensor* tensor = made ? made->find(slot.name) : nullptr;
      if (tensor) manifest.tensors.push_back(copy(*made, *tensor, writer));
      else if ((tensor = reader_.find(slot.name))) manifest.tensors.push_back(copy(reader_, *tensor, writer));
    }
  }
  if (const fb::Part* part = reader_.manifest().tokenizer()) manifest.tokenizer = std::make_unique<fb::Part>(copy(reader_, *part, writer, format::Compression::zstd));
  std::erase_if(manifest.meta, [](const auto& meta) { return meta->key == "quantization"; });
  format::add_meta(manifest, "quantization", "libgptq " GPTQ_VERSION_TEXT ", " + std::to_string(options_.module.bits) + " bits, group_size " +
                                                 std::to_string(options_.module.group_size));
  writer.finish(manifest);
}

std::unique_ptr<format::fb::TensorT> Job::copy(const format::Reader& from, const fb::Tensor& tensor, format::Writer& writer) const {
  std::unique_ptr<fb::TensorT> out(tensor.UnPack());
  out->parts.clear();
  for (const fb::Part* part : *tensor.parts())
    out->parts.push_back(copy(from, *part, writer, part->role() == fb::Role::codes ? format::Compression::stored : format::Compression::zstd));
  return out;
}

format::fb::Part Job::copy(const format::Reader& from, const fb::Part& part, format::Writer& writer, format::Compression compression) const {
  const base::Buffer bytes(memory_, base::to_size(part.bytes()));
  from.read_part(part, bytes.bytes(), memory_);
  return writer.add(part.role(), bytes.bytes(), compression);
}

}  // namespace gptq::quantize
