// SPDX-License-Identifier: Apache-2.0
// The quantizer's way through a model: layer after layer, and in a layer the matrices in the order in which tokens meet them.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "model/weights.h"
#include "quantize/aim.h"
#include "quantize/quantize.h"
#include "quantize/replay.h"
#include "quantize/solver.h"
#include "quantize/work_folder.h"

namespace gptq::quantize {

class Job {
 public:
  // chosen: by choose_options.
  Job(const base::Source& source, std::string_view target, const Calibration& calibration, const Options& options,
      std::span<const ModuleOptions> chosen, const kernels::Kernels& kernels, base::Pool& pool, std::pmr::memory_resource* memory);
  void run();

 private:
  // One matrix of the layer at hand.
  struct Module {
    const model::Slot* slot;
    model::Linear* linear;
    bool all_tokens = false;  // of an expert that too few tokens reach
  };
  using Modules = std::vector<Module>;  // that read the same input

  std::string store_folder() const;
  uint64_t key() const;
  void embed();
  void do_layer(uint32_t index);
  void do_mixer();
  void do_dense_mlp();
  void do_head();
  void begin(uint32_t place);
  void end(uint32_t place);
  void load_done(uint32_t index);
  void hold_original();
  kernels::Matrix stand_in(const model::Slot& slot, const kernels::Matrix& w);
  void write();
  std::unique_ptr<format::fb::TensorT> copy(const format::Reader& from, const format::fb::Tensor& tensor, format::Writer& writer) const;
  format::fb::Part copy(const format::Reader& from, const format::fb::Part& part, format::Writer& writer, format::Compression compression) const;

  // job_experts.cpp
  void do_experts();
  void do_expert_stage(std::span<const uint64_t> tokens, bool down);
  void do_starved(const std::vector<uint32_t>& experts, bool down);
  void do_fed(std::span<const uint32_t> experts, bool down);
  Modules modules_of(uint32_t expert, bool down, bool all_tokens);

  // job_stages.cpp
  // One step of a layer over all tokens, and then the matrices that read what it gives; NULL: these tokens are not needed. The layer is
  // the one at hand, or as it was in the original model.
  void stage(const Modules& modules, const std::function<const float*(const Chunk&, const model::Layer&)>& step);
  // The same without matrices.
  void step_all(const std::function<void(const Chunk&, const model::Layer&)>& step);
  void follow_original(const Chunk& chunk, const std::function<void(const model::Layer&)>& step);
  // A pass that the tap looks at, and then the matrices, of which it sees each list's first.
  void tapped_stage(std::span<const Modules> inputs, Tap& tap, const std::function<void(const Chunk&)>& pass);
  uint32_t first_held(const Chunk& chunk) const;
  bool is_wanted(const Modules& modules) const;
  void solve_all(const Modules& modules, Gram* gram, Aim* aim = nullptr);
  void solve_module(const Module& module, const Gram& gram, const Target& target);
  void note(const Module& module, const Gram& gram, const Solution& solution, double seconds);
  void tell_reports(const format::Reader& reader) const;
  const float* weights_of(const Chunk& chunk);

  Modules modules(std::initializer_list<model::Role> roles);
  const model::Slot& slot_of(const model::SlotId& id) const;
  const ModuleOptions& options_of(const model::Slot& slot) const { return chosen_[static_cast<size_t>(&slot - slots_.data())]; }
  std::pmr::vector<model::Slot> slots_of(uint32_t place) const;
  std::span<const model::Slot> layer_slots(uint32_t layer) const;

  // Floating-point operations, about: of the tokens' way through a matrix and its Hessian, and of finding the codes.
  double pass_work(const model::Slot& slot) const;
  static double solve_work(const model::Slot& slot) { return 16.0 * slot.n * slot.k * slot.k; }
  void pass_done(const Modules& modules, const Chunk& chunk);
  void work_done(double work);

  const Options& options_;
  const std::span<const ModuleOptions> chosen_;
  const Calibration& calibration_;
  const kernels::Kernels& kernels_;
  base::Pool& pool_;
  std::pmr::memory_resource* memory_;
  const std::string target_;
  const format::Reader reader_;
  const model::ModelSpec spec_;
  const std::pmr::vector<model::Slot> slots_;
  const Plan plan_;
  const uint64_t aimed_tokens_;  // whose way through the original model is followed too: all or none
  WorkFolder work_;
  Replay replay_;
  std::optional<std::pmr::vector<float>> weights_;
  double work_total_ = 0, work_now_ = 0;

  // The layer at hand.
  uint32_t index_ = 0;
  bool done_ = false;
  model::Layer layer_, original_;
  std::optional<model::Weights> made_;  // where an earlier call did it
  std::vector<PackedModule> packed_;
  std::vector<ModuleReport> reports_;
  std::optional<Problem> problem_;
};

}  // namespace gptq::quantize
