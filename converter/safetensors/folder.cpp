// SPDX-License-Identifier: Apache-2.0
#include "converter/safetensors/folder.h"

#include <algorithm>
#include <filesystem>

#include "base/checked.h"
#include "converter/json.h"

namespace gptq::convert {
namespace {

using base::fail;
constexpr uint64_t index_bytes_max = 64u << 20;
constexpr std::string_view file_suffix = ".safetensors", index_suffix = ".safetensors.index.json";

std::vector<std::string> files_in(const std::string& folder) {
  std::error_code error;
  std::vector<std::string> names;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    names.push_back(it->path().filename().string());
  if (error) base::fail_os(GPTQ_E_IO, error.value(), "cannot list the folder", folder);
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> with_suffix(const std::vector<std::string>& names, std::string_view suffix) {
  std::vector<std::string> out;
  for (const std::string& name : names)
    if (name.ends_with(suffix)) out.push_back(name);
  return out;
}

// The one file of that kind: the usual name where it is there, else the only one.
std::string choose(const std::string& folder, const std::vector<std::string>& candidates, std::string_view usual) {
  if (std::find(candidates.begin(), candidates.end(), usual) != candidates.end()) return std::string(usual);
  if (candidates.size() > 1)
    fail(GPTQ_E_FORMAT, "'", folder, "' has ", candidates.size(), " files like '", candidates[0], "' and none named '", usual,
         "': leave the one to convert, or add the index of the shards");
  return candidates.empty() ? std::string() : candidates[0];
}

[[noreturn]] void refuse_without_safetensors(const std::string& folder, const std::vector<std::string>& names) {
  for (std::string_view suffix : {".bin", ".pt", ".pth"})
    if (const auto pickles = with_suffix(names, suffix); !pickles.empty())
      fail(GPTQ_E_UNSUPPORTED, "'", folder, "' has weights only as pickle ('", pickles[0],
           "'), which can run code when read; load it with transformers and save it again with safe_serialization=True");
  fail(GPTQ_E_NOT_FOUND, "'", folder, "' has no .safetensors file");
}

bool plain_basename(std::string_view name) {
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == name.npos;
}

}  // namespace

TensorFolder::TensorFolder(const std::string& folder) {
  const auto names = files_in(folder);
  const auto indexes = with_suffix(names, index_suffix), files = with_suffix(names, file_suffix);
  if (const std::string index = choose(folder, indexes, "model.safetensors.index.json"); !index.empty()) {
    add_indexed(folder, index);
    return;
  }
  const std::string file = choose(folder, files, "model.safetensors");
  if (file.empty()) refuse_without_safetensors(folder, names);
  add_shard(folder, file);
}

void TensorFolder::add_shard(const std::string& folder, const std::string& name) {
  auto source = std::make_unique<base::FileSource>(folder + "/" + name);
  for (TensorEntry& entry : read_safetensors_header(*source, name)) {
    const std::string tensor = entry.name;
    const auto [place, added] = places_.try_emplace(tensor, Place{std::move(entry), shards_.size()});
    if (!added) fail(GPTQ_E_FORMAT, "tensor '", tensor, "' is in '", shards_[place->second.shard].name, "' and again in '", name, "'");
  }
  shards_.push_back({name, std::move(source)});
}

void TensorFolder::add_indexed(const std::string& folder, const std::string& index) {
  const JsonDocument file = JsonDocument::read(folder + "/" + index, index, index_bytes_max);
  const auto map = file.root().object("weight_map");
  if (!map) file.root().refuse("weight_map", "is missing");
  std::map<std::string, size_t, std::less<>> shard_of;
  for (const auto field : map->fields()) {
    std::string_view name;
    if (field.value.get_string().get(name)) map->refuse(field.key, "must name a file");
    if (!plain_basename(name) || !name.ends_with(file_suffix))
      map->refuse(field.key, "must name a .safetensors file in this folder, without any path");
    shard_of.try_emplace(std::string(name), 0);
  }
  for (auto& [name, shard] : shard_of) {
    shard = shards_.size();
    add_shard(folder, name);
  }
  for (const auto field : map->fields()) {
    const auto place = places_.find(field.key);
    std::string_view name;
    if (field.value.get(name) || place == places_.end() || place->second.shard != shard_of.find(name)->second)
      fail(GPTQ_E_FORMAT, "'", index, "' says tensor '", field.key, "' is in '", name, "', but it is not there");
  }
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
  shards_[places_.at(entry.name).shard].source->read_at(entry.offset + skip, dst);
}

std::vector<std::byte> TensorFolder::read(const TensorEntry& entry) const {
  std::vector<std::byte> bytes(base::to_size(entry.bytes));
  read(entry, bytes);
  return bytes;
}

std::vector<std::string_view> TensorFolder::names() const {
  std::vector<std::string_view> out;
  for (const auto& [name, place] : places_) out.push_back(name);
  return out;
}

}  // namespace gptq::convert
