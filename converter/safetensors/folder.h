// SPDX-License-Identifier: Apache-2.0
// The tensors of a checkpoint folder: one safetensors file, or shards with an index.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "converter/safetensors/file.h"

namespace gptq::convert {

class TensorFolder {
 public:
  explicit TensorFolder(const std::string& folder);

  // NULL where there is none.
  const TensorEntry* find(const std::string& name) const;
  // The same, but fails with FORMAT.
  const TensorEntry& get(const std::string& name) const;
  void read(const TensorEntry& entry, std::span<std::byte> dst, uint64_t skip = 0) const;
  std::vector<std::byte> read(const TensorEntry& entry) const;
  // The file a tensor is in, for messages.
  std::string_view file_of(const TensorEntry& entry) const { return shards_[places_.at(entry.name).shard].name; }
  std::vector<std::string_view> names() const;

 private:
  struct Shard {
    std::string name;
    std::unique_ptr<base::FileSource> source;
  };
  struct Place {
    TensorEntry entry;
    size_t shard;
  };
  void add_shard(const std::string& folder, const std::string& name);
  void add_indexed(const std::string& folder, const std::string& index);

  std::vector<Shard> shards_;
  std::map<std::string, Place, std::less<>> places_;
};

}  // namespace gptq::convert
