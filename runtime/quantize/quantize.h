// SPDX-License-Identifier: Apache-2.0
// A 16-bit model file -> a quantized one, layer by layer (true sequential: every matrix sees the inputs that the quantized ones before
// it give).
#pragma once
#include <functional>
#include <span>

#include "base/threads.h"
#include "format/container.h"
#include "kernels/kernels.h"
#include "quantize/options.h"

namespace gptq::quantize {

struct Calibration {
  std::span<const int32_t> tokens;
  std::span<const uint32_t> row_tokens;  // lengths of the rows that the tokens are cut into
};

struct Options {
  ModuleOptions module;              // of every matrix of the layers, unless choose says otherwise
  ModuleOptions head{.bits = 0};     // of the head, or of the embedding that serves as one
  bool reference = false;            // the published algorithm, nothing more
  double first_token_weight = 32;    // how many tokens the first of a row counts for
  bool aim = false;                  // at the original model's outputs, see aim.h; not with reference
  bool replace = false;              // an existing target
  format::MakeFrame zstd = nullptr;  // for what comes with the codes
  uint64_t memory_max = 0;           // beyond it activations go to a file; 0 = no limit
  // A budget, which bits (and group sizes, and the head's bits) are chosen by, matrix by matrix: see mixture.h. 0 = none.
  uint64_t file_bytes_max = 0;
  double mean_bits = 0;              // of the layers' matrices, with their scales
  bool any_group = false, any_head = false;
  bool has_budget() const { return file_bytes_max || mean_bits > 0; }
  std::function<void(std::string_view name, uint32_t n, uint32_t k, ModuleOptions&)> choose;
  std::function<void(const ModuleReport&)> report;
  std::function<void(uint32_t permille)> progress;  // throws to cancel
  std::function<void(uint32_t permille)> measuring; // the same, while costs are measured
  std::function<void(std::string_view)> log;
};

// What every slot of the model (weight_slots) is to become, choose asked once for each matrix; bits 0 = it stays as it is.
std::pmr::vector<ModuleOptions> choose_options(const format::Reader& reader, const Options& options, std::pmr::memory_resource* memory);

// Bytes of a quantized matrix in the file.
uint64_t packed_bytes(uint64_t n, uint64_t k, const ModuleOptions& options);

// What a job over rows of row_tokens tokens takes.
gptq_quantize_estimate estimate(const format::Reader& reader, std::span<const ModuleOptions> chosen, uint64_t rows, uint32_t row_tokens,
                                const Options& options, const kernels::Kernels& kernels, base::Pool& pool, std::pmr::memory_resource* memory);

// Whether the activations go to a file.
bool keeps_on_disk(uint64_t store_bytes, uint64_t memory_max);

// Bytes that the Hessians of one layer's experts may take together; it is gone through as often as that needs.
uint64_t grams_bytes_max(uint64_t memory_max);

// Fails where the target could not be written at the end of the job.
void check_target(std::string_view target, bool replace);

// The target appears whole or not at all. What is done lies in "<target>.work" until then; the same call goes on from there.
void quantize(const base::Source& source, std::string_view target, const Calibration& calibration, const Options& options,
              const kernels::Kernels& kernels, base::Pool& pool, std::pmr::memory_resource* memory);

}  // namespace gptq::quantize
