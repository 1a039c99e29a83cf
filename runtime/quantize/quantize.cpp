// SPDX-License-Identifier: Apache-2.0
#include "quantize/quantize.h"

#include <cerrno>

#include "base/checked.h"
#include "base/os.h"
#include "quantize/job.h"
#include "quantize/mixture.h"

namespace gptq::quantize {
namespace {

void check(const Calibration& calibration, const model::ModelSpec& spec) {
  uint64_t total = 0;
  for (const uint32_t n : calibration.row_tokens) total += n;
  if (total == 0 || total != calibration.tokens.size())
    base::fail(GPTQ_E_INVALID_ARGUMENT, "calibration: rows of ", total, " tokens for ", calibration.tokens.size(), " tokens");
  for (const int32_t token : calibration.tokens)
    if (token < 0 || token >= static_cast<int64_t>(spec.n_vocab))
      base::fail(GPTQ_E_INVALID_ARGUMENT, "calibration: token ", token, " is outside the vocabulary of ", spec.n_vocab);
}

// Better now than after hours.
void check_space(std::string_view target, const gptq_quantize_estimate& estimate) {
  uint64_t free = 0;
  if (!base::os::free_bytes(base::os::folder_of(target), free)) return;
  const uint64_t wanted = base::add(estimate.file_bytes, estimate.work_bytes);
  if (free < wanted) base::fail(GPTQ_E_IO, "'", target, "' and the work folder beside it need ", wanted, " bytes, the disk has ", free);
}

}  // namespace

void check_target(std::string_view target, bool replace) {
  const std::string path(target);
  if (!replace && base::os::exists(path)) base::fail(GPTQ_E_IO, "'", path, "' exists already; remove it or ask to replace it");
  const std::string folder = base::os::folder_of(path);
  if (!base::os::can_write_into(folder)) base::fail_os(GPTQ_E_IO, errno, "cannot write into", folder);
}

void quantize(const base::Source& source, std::string_view target, const Calibration& calibration, const Options& options,
              const kernels::Kernels& kernels, base::Pool& pool, std::pmr::memory_resource* memory) {
  std::pmr::vector<ModuleOptions> chosen(memory);
  Options settled = options;
  {
    const format::Reader reader(source, memory);
    model::check_features(reader.manifest());
    const model::ModelSpec spec = model::check_spec(reader.manifest(), memory);
    check(calibration, spec);
    check_target(target, options.replace);
    chosen = choose_options(reader, options, memory);
    if (options.has_budget()) chosen = divide_budget(reader, chosen, calibration, options, kernels, pool, memory);
    const auto slots = model::weight_slots(spec, memory);
    for (size_t i = 0; i < slots.size(); ++i)
      if (slots[i].id.role == model::head_role(spec) && !slots[i].is_vector) settled.head = chosen[i];
    const auto rows = static_cast<uint64_t>(calibration.row_tokens.size());
    check_space(target, estimate(reader, chosen, rows, calibration.row_tokens[0], options, kernels, pool, memory));
  }
  Job(source, target, calibration, settled, chosen, kernels, pool, memory).run();
}

}  // namespace gptq::quantize
