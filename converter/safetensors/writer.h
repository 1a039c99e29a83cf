// SPDX-License-Identifier: Apache-2.0
// Writes the tensors of a checkpoint: one safetensors file, or shards with an index. Names and shapes come first, data as it is made.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/io.h"
#include "converter/safetensors/file.h"

namespace gptq::convert {

struct TensorPlan {
  std::string name;
  Dtype dtype;
  std::vector<uint64_t> shape;
};

class SafetensorsWriter {
 public:
  // Cuts the tensors into files of at most shard_bytes of data, in the order given.
  SafetensorsWriter(std::string folder, const std::vector<TensorPlan>& tensors, uint64_t shard_bytes);
  // One tensor's bytes, once each and in any order.
  void write(const std::string& name, std::span<const std::byte> bytes);
  // Every tensor must have been written. Adds the index where there are several files.
  void finish();
  uint64_t bytes() const { return bytes_; }
  size_t n_files() const { return files_.size(); }

 private:
  struct Place {
    size_t file;
    uint64_t offset, bytes;
    bool written;
  };
  struct File {
    std::string name;
    std::unique_ptr<base::AtomicFile> file;
    size_t missing;  // tensors to come; at 0 the file is committed
  };
  std::vector<std::vector<TensorPlan>> cut(const std::vector<TensorPlan>& tensors, uint64_t shard_bytes) const;
  void begin_file(std::vector<TensorPlan> tensors, const std::string& name);
  void write_index() const;

  std::string folder_;
  std::vector<File> files_;
  std::map<std::string, Place, std::less<>> places_;
  uint64_t bytes_ = 0;
};

}  // namespace gptq::convert
