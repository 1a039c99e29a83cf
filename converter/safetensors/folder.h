// SPDX-License-Identifier: Apache-2.0
// The tensors of a checkpoint folder: one safetensors file, or shards, with an index or without.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "converter/safetensors/file.h"

namespace gptq::convert {

struct FolderOptions {
  std::vector<std::string> names;  // file names without their ending, which are looked for before "model"
  std::function<void(std::string_view)> warn = [](std::string_view) {};
  std::function<void(std::string_view file, uint64_t offset, uint64_t bytes)> done_with;  // empty: nobody wants to know
};

class TensorFolder {
 public:
  // Which files are the model (files.h) is decided as transformers does it, with a warning where the folder contradicts itself.
  explicit TensorFolder(const std::string& folder, const FolderOptions& options = {});

  // NULL where there is none.
  const TensorEntry* find(const std::string& name) const;
  // The same, but fails with FORMAT.
  const TensorEntry& get(const std::string& name) const;
  void read(const TensorEntry& entry, std::span<std::byte> dst, uint64_t skip = 0) const;
  std::vector<std::byte> read(const TensorEntry& entry) const;
  // Of the tensors that were read since the last call, those of the layer are read no more; model::no_index: those of no layer.
  void finish_layer(uint32_t layer);
  // The file a tensor is in, for messages.
  std::string_view file_of(const TensorEntry& entry) const { return shards_[places_.at(entry.name).shard].name; }
  std::vector<std::string_view> names() const;
  uint64_t bytes() const;  // of all files
  // The files that are read, in the order of their names.
  std::vector<std::string_view> files() const;

 private:
  struct Shard {
    std::string name;
    std::unique_ptr<base::FileSource> source;
  };
  struct Place {
    TensorEntry entry;
    size_t shard;
    bool gone = false;
  };
  using FileOfTensor = std::map<std::string, std::string, std::less<>>;
  void add_shard(const std::string& folder, const std::string& name, const FileOfTensor& map);

  std::vector<Shard> shards_;
  std::map<std::string, Place, std::less<>> places_;
  std::function<void(std::string_view, uint64_t, uint64_t)> done_with_;
  mutable std::set<std::string> read_;  // since the last call of finish_layer
};

}  // namespace gptq::convert
