// SPDX-License-Identifier: Apache-2.0
// Two bytes of length, a config.json of that length, then model.safetensors: a Hugging Face folder, of which every weight is taken as a conversion does.
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/failure.h"
#include "converter/source.h"
#include "model/spec.h"
#include "tests/fuzz/target.h"

using namespace gptq;

namespace {

// Of this process alone.
class Folder {
 public:
  Folder() : path_(std::filesystem::temp_directory_path() / ("gptq-fuzz-checkpoint-" + std::to_string(getpid()))) { std::filesystem::create_directories(path_); }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string path() const { return path_.string(); }
  void write(const char* name, const uint8_t* data, size_t size) const {
    std::ofstream(path_ / name, std::ios::binary).write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  }

 private:
  std::filesystem::path path_;
};

}  // namespace

FUZZ_TARGET(checkpoint) {
  if (size < 2) return;
  static const Folder folder;
  const size_t config = std::min<size_t>(data[0] | data[1] << 8, size - 2);
  folder.write("config.json", data + 2, config);
  folder.write("model.safetensors", data + 2 + config, size - 2 - config);
  try {
    const auto source = convert::open_source(folder.path(), {});
    flatbuffers::FlatBufferBuilder builder;
    builder.Finish(format::fb::Spec::Pack(builder, &source->description().spec));
    auto* memory = std::pmr::get_default_resource();
    const model::ModelSpec spec = model::check_spec(*flatbuffers::GetRoot<format::fb::Spec>(builder.GetBufferPointer()), memory);
    for (const model::Slot& slot : model::weight_slots(spec, memory)) source->load(slot);
  } catch (const base::Failure&) {
  }
}
