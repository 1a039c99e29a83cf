// SPDX-License-Identifier: Apache-2.0
// What is done of a long job, kept beside its result so that the same job goes on from there: one small .gptq file a layer. Where
// nothing is done yet, nothing stays.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "base/os.h"
#include "format/container.h"
#include "model/pack.h"
#include "quantize/options.h"

namespace gptq::quantize {

struct PackedModule {
  std::string name;  // of the slot
  uint32_t n, k;
  int32_t group_size;
  model::PackedTensor tensor;
};

// The reports that save() wrote into a file.
void read_reports(const format::Reader& reader, const std::function<void(const ModuleReport&)>& tell);

class WorkFolder {
 public:
  // The folder "<target>.work"; what lies there of another job (another key) is removed. Fails where another process is at it.
  WorkFolder(std::string_view target, uint64_t key);
  ~WorkFolder();
  WorkFolder(const WorkFolder&) = delete;
  const std::string& path() const { return path_; }
  // place: a layer, or the head behind them.
  std::string path_of(uint32_t place) const;
  bool is_sound(uint32_t place, std::pmr::memory_resource* memory) const;  // and there; reads all of it
  // spec: of the model, which every file must have.
  void save(uint32_t place, const std::vector<PackedModule>& modules, const std::vector<ModuleReport>& reports, const format::fb::Spec& spec);
  void remove_all();

 private:
  void begin(const std::string& key);

  std::string path_;
  base::os::File lock_;
  bool empty_ = true;
};

}  // namespace gptq::quantize
