// SPDX-License-Identifier: Apache-2.0
#include "converter/safetensors/folder.h"

#include <algorithm>
#include <charconv>

#include "base/checked.h"
#include "converter/safetensors/files.h"
#include "model/spec.h"

namespace gptq::convert {

using base::fail;

namespace {

// "model.layers.12.mlp.up_proj.weight": the first part that is a number; no_index = none is.
uint32_t layer_of(std::string_view tensor) {
  while (!tensor.empty()) {
    const std::string_view part = tensor.substr(0, tensor.find('.'));
    uint32_t layer;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), layer);
    if (error == std::errc() && end == part.data() + part.size()) return layer;
    tensor.remove_prefix(std::min(part.size() + 1, tensor.size()));
  }
  return model::no_index;
}

}  // namespace

TensorFolder::TensorFolder(const std::string& folder, const FolderOptions& options) : done_with_(options.done_with) {
  const ChosenFiles chosen = choose_files(folder, options);
  for (const std::string& file : chosen.files) add_shard(folder, file, chosen.file_of);
  size_t stale = 0;
  std::string first;
  for (const auto& [tensor, file] : chosen.file_of) {
    const auto place = places_.find(tensor);
    if ((place == places_.end() || shards_[place->second.shard].name != file) && stale++ == 0) first = tensor;
  }
  if (stale)
    options.warn("'" + chosen.index + "' is stale: " + std::to_string(stale) + (stale == 1 ? " tensor is" : " tensors are") +
                 " not in the file it says, such as '" + first + "'");
}

// Where two shards hold the same tensor, the index decides.
void TensorFolder::add_shard(const std::string& folder, const std::string& name, const FileOfTensor& map) {
  auto source = std::make_unique<base::FileSource>(folder + "/" + name);
  for (TensorEntry& entry : read_safetensors_header(*source, name)) {
    const std::string tensor = entry.name;
    const auto [place, added] = places_.try_emplace(tensor, Place{entry, shards_.size()});
    if (added) continue;
    const auto said = map.find(tensor);
    const std::string& earlier = shards_[place->second.shard].name;
    if (said == map.end() || (said->second != name && said->second != earlier))
      fail(GPTQ_E_FORMAT, "tensor '", tensor, "' is in '", earlier, "' and again in '", name, "'");
    if (said->second == name) place->second = Place{std::move(entry), shards_.size()};
  }
  shards_.push_back({name, std::move(source)});
}

const TensorEntry* TensorFolder::find(const std::string& name) const {
  const auto place = places_.find(name);
  return place == places_.end() ? nullptr : &place->second.entry;
}

const TensorEntry& TensorFolder::get(const std::string& name) const {
  const TensorEntry* entry = find(name);
  if (!entry) fail(GPTQ_E_FORMAT, "the checkpoint has no tensor '", name, "'");
  return *entry;
}

void TensorFolder::read(const TensorEntry& entry, std::span<std::byte> dst, uint64_t skip) const {
  if (skip > entry.bytes || dst.size() > entry.bytes - skip) fail(GPTQ_E_INTERNAL, "read past tensor '", entry.name, "'");
  const Place& place = places_.at(entry.name);
  if (place.gone) fail(GPTQ_E_INTERNAL, "tensor '", entry.name, "' was given up and is needed again");
  if (done_with_) read_.insert(entry.name);
  shards_[place.shard].source->read_at(entry.offset + skip, dst);
}

void TensorFolder::finish_layer(uint32_t layer) {
  for (const std::string& name : read_) {
    Place& place = places_.at(name);
    if (layer_of(name) != layer || place.gone) continue;
    place.gone = true;
    done_with_(shards_[place.shard].name, place.entry.offset, place.entry.bytes);
  }
  read_.clear();
}

std::vector<std::byte> TensorFolder::read(const TensorEntry& entry) const {
  std::vector<std::byte> bytes(base::to_size(entry.bytes));
  read(entry, bytes);
  return bytes;
}

uint64_t TensorFolder::bytes() const {
  uint64_t bytes = 0;
  for (const Shard& shard : shards_) bytes += shard.source->size();
  return bytes;
}

std::vector<std::string_view> TensorFolder::names() const {
  std::vector<std::string_view> out;
  for (const auto& [name, place] : places_) out.push_back(name);
  return out;
}

std::vector<std::string_view> TensorFolder::files() const {
  std::vector<std::string_view> out;
  for (const Shard& shard : shards_) out.push_back(shard.name);
  return out;
}

}  // namespace gptq::convert
