// SPDX-License-Identifier: Apache-2.0
#include "converter/safetensors/writer.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "converter/json_writer.h"

namespace gptq::convert {
namespace {

using base::fail;

uint64_t bytes_of(const TensorPlan& tensor) {
  uint64_t bytes = dtype_bytes(tensor.dtype);
  for (const uint64_t size : tensor.shape) bytes = base::mul(bytes, size);
  return bytes;
}

// "model.safetensors", "model-00002-of-00003.safetensors"
std::string file_name(size_t index, size_t count) {
  if (count == 1) return "model.safetensors";
  const auto five = [](size_t n) {
    const std::string digits = std::to_string(n);
    return std::string(digits.size() < 5 ? 5 - digits.size() : 0, '0') + digits;
  };
  return "model-" + five(index + 1) + "-of-" + five(count) + ".safetensors";
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(std::string folder, const std::vector<TensorPlan>& tensors, uint64_t shard_bytes)
    : folder_(std::move(folder)) {
  const auto shards = cut(tensors, shard_bytes);
  for (size_t i = 0; i < shards.size(); ++i) begin_file(shards[i], file_name(i, shards.size()));
}

std::vector<std::vector<TensorPlan>> SafetensorsWriter::cut(const std::vector<TensorPlan>& tensors, uint64_t shard_bytes) const {
  std::vector<std::vector<TensorPlan>> shards(1);
  uint64_t bytes = 0;
  for (const TensorPlan& tensor : tensors) {
    const uint64_t more = bytes_of(tensor);
    if (!shards.back().empty() && base::add(bytes, more) > shard_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    shards.back().push_back(tensor);
    bytes = base::add(bytes, more);
  }
  return shards;
}

// Wide elements before narrow ones, so that every tensor lies at a multiple of its element.
void SafetensorsWriter::begin_file(std::vector<TensorPlan> tensors, const std::string& name) {
  std::stable_sort(tensors.begin(), tensors.end(),
                   [](const TensorPlan& a, const TensorPlan& b) { return dtype_bytes(a.dtype) > dtype_bytes(b.dtype); });
  JsonWriter header;
  header.add_raw("__metadata__", R"({"format": "pt"})");
  uint64_t at = 0;
  const auto number = [](uint64_t n) { return std::to_string(n); };
  for (const TensorPlan& tensor : tensors) {
    const uint64_t end = base::add(at, bytes_of(tensor));
    header.add_raw(tensor.name, JsonWriter()
                                    .add("dtype", dtype_name(tensor.dtype))
                                    .add_raw("shape", json_list(tensor.shape, number))
                                    .add_raw("data_offsets", json_list(std::initializer_list<uint64_t>{at, end}, number))
                                    .object());
    if (!places_.try_emplace(tensor.name, Place{files_.size(), at, end - at, false}).second)
      fail(GPTQ_E_INTERNAL, "tensor '", tensor.name, "' is to be written twice");
    at = end;
  }
  bytes_ = base::add(bytes_, at);
  std::string text = header.object();
  text.resize(base::round_up(text.size(), 8), ' ');
  const uint64_t size = text.size();
  auto file = std::make_unique<base::AtomicFile>(folder_ + "/" + name, base::AtomicFile::IfExists::refuse);
  file->append(std::as_bytes(std::span(&size, 1)));
  file->append(std::as_bytes(std::span(text)));
  for (const TensorPlan& tensor : tensors) places_.at(tensor.name).offset += file->size();
  files_.push_back({name, std::move(file), tensors.size()});
}

void SafetensorsWriter::write(const std::string& name, std::span<const std::byte> bytes) {
  const auto at = places_.find(name);
  if (at == places_.end() || at->second.written || at->second.bytes != bytes.size())
    fail(GPTQ_E_INTERNAL, "tensor '", name, "' of ", bytes.size(), " bytes was not planned so");
  File& file = files_[at->second.file];
  file.file->write_at(at->second.offset, bytes);
  at->second.written = true;
  if (--file.missing == 0) {
    file.file->commit();
    file.file.reset();
  }
}

void SafetensorsWriter::finish() {
  for (const auto& [name, place] : places_)
    if (!place.written) fail(GPTQ_E_INTERNAL, "tensor '", name, "' was not written");
  if (files_.size() > 1) write_index();
}

void SafetensorsWriter::write_index() const {
  JsonWriter map;
  for (const auto& [name, place] : places_) map.add(name, files_[place.file].name);
  const std::string text = JsonWriter()
                               .add_raw("metadata", JsonWriter().add("total_size", bytes_).object())
                               .add_raw("weight_map", map.object())
                               .object();
  base::AtomicFile file(folder_ + "/model.safetensors.index.json", base::AtomicFile::IfExists::refuse);
  file.append(std::as_bytes(std::span(text)));
  file.commit();
}

}  // namespace gptq::convert
