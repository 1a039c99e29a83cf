// SPDX-License-Identifier: Apache-2.0
#include "quantize/quantize.h"

#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <optional>

#include "base/checked.h"
#include "format/header.h"
#include "model/weights.h"
#include "quantize/replay.h"
#include "quantize/solver.h"
#include "quantize/work_folder.h"

namespace gptq::quantize {
namespace {

namespace fb = format::fb;
using Clock = std::chrono::steady_clock;

// One matrix of the layer at hand.
struct Module {
  const model::Slot* slot;
  model::Linear* linear;
};

// The slots of one layer.
std::span<const model::Slot> layer_slots(std::span<const model::Slot> slots, uint32_t layer) {
  const auto inside = [&](const model::Slot& slot) { return slot.id.layer == layer; };
  const auto first = std::find_if(slots.begin(), slots.end(), inside);
  return {first, std::find_if_not(first, slots.end(), inside)};
}

class Job {
 public:
  // chosen: by choose_options.
  Job(const base::Source& source, std::string_view target, const Calibration& calibration, const Options& options,
      std::span<const ModuleOptions> chosen, const kernels::Kernels& kernels, base::Pool& pool, std::pmr::memory_resource* memory)
      : options_(options), chosen_(chosen), calibration_(calibration), kernels_(kernels), pool_(pool), memory_(memory), target_(target),
        reader_(source, memory), spec_(model::check_spec(*reader_.manifest().spec(), memory)), slots_(model::weight_slots(spec_, memory)),
        plan_(calibration.row_tokens, memory), work_(target, key()),
        replay_(spec_, plan_, store_folder(), kernels, pool, memory) {
    if (options.first_token_weight != 1 && !options.reference) weights_.emplace(plan_.chunk_tokens, memory);
    count_work();
  }

  void run() {
    embed();
    for (uint32_t layer = 0; layer < spec_.n_layers; ++layer) do_layer(layer);
    if (options_.head.bits) do_head();
    write();
    work_.remove_all();
  }

 private:
  std::string store_folder() const {
    const uint64_t stores = Replay::store_bytes(spec_, plan_.n_tokens);
    return keeps_on_disk(stores, options_.memory_max) ? work_.path() : std::string();
  }

  // Everything the result depends on.
  uint64_t key() const {
    std::string text = GPTQ_VERSION_TEXT;
    const auto add = [&](const auto& value) { text.append(reinterpret_cast<const char*>(&value), sizeof value); };
    const auto add_options = [&](const ModuleOptions& o) { add(o.bits), add(o.group_size), add(o.symmetric), add(o.static_groups), add(o.order), add(o.damp); };
    add(reader_.manifest_hash());
    add(options_.reference), add(options_.first_token_weight);
    for (const ModuleOptions& chosen : chosen_) add_options(chosen);
    add(format::hash_bytes(std::as_bytes(calibration_.tokens)));
    add(format::hash_bytes(std::as_bytes(calibration_.row_tokens)));
    return format::hash_bytes(std::as_bytes(std::span(text)));
  }

  // What was made for a place of the model, or as it was: the layers, and after them the head.
  void begin(uint32_t place) {
    replay_.drop_all();
    packed_.clear();
    reports_.clear();
    done_ = work_.is_sound(place, memory_);
  }
  void end(uint32_t place) {
    if (!done_) work_.save(place, packed_, reports_, *reader_.manifest().spec());
  }

  void embed() {
    const model::Weights weights(reader_, slots_of(spec_.n_layers), {}, pool_, memory_);
    const auto of = [&](model::Role role) { return weights.linear({.role = role}); };
    const model::Ends ends{.embed = of(model::Role::embed), .positions = of(model::Role::positions), .embed_proj = of(model::Role::embed_proj),
                           .embed_norm = of(model::Role::embed_norm), .final_norm = {}, .head_proj = {}, .head = {}};
    for (const Chunk& chunk : plan_.chunks)
      replay_.embed(chunk, calibration_.tokens.subspan(chunk.first_token, chunk.n_tokens), ends);
  }

  // One step of a layer over all tokens, and then the matrices that read what it gives.
  template <class Step>
  void stage(std::span<const Module> modules, Step&& step) {
    std::optional<Gram> gram;
    const uint32_t k = modules[0].linear->w.k;
    if (!done_) gram.emplace(k, kernels_, pool_, memory_);
    for (const Chunk& chunk : plan_.chunks) {
      const float* x = step(chunk);
      if (gram) gram->add(x, weights_of(chunk), chunk.n_tokens);
      for (const Module& module : modules) work_done(pass_work(module.linear->w) * chunk.n_tokens / static_cast<double>(plan_.n_tokens));
    }
    if (!gram) {
      for (const Module& module : modules) work_done(solve_work(module.linear->w));
      return;
    }
    gram->finish();
    if (!gram->is_finite())
      base::fail(GPTQ_E_NUMERIC, "the inputs of '", modules.begin()->slot->name, "' are not finite: is there NaN or infinity in the model's norms or weights?");
    problem_.reset();
    for (const Module& module : modules) solve_module(module, *gram);
  }

  void do_layer(uint32_t index) {
    using model::Role;
    const model::Weights weights(reader_, layer_slots(slots_, index), {}, pool_, memory_);
    layer_ = weights.layer(spec_, index);
    begin(index);
    if (done_) load_done(index);
    const auto modules = [&](std::initializer_list<Role> roles) {
      std::vector<Module> out;
      for (const Role role : roles)
        if (layer_[role]) out.push_back({&slot_of({.role = role, .layer = index}), &layer_[role]});
      return out;
    };
    stage(modules({Role::q, Role::k, Role::v, Role::attn_gate}), [&](const Chunk& chunk) { return replay_.attention_input(chunk, layer_); });
    stage(modules({Role::o}), [&](const Chunk& chunk) { return replay_.attend(chunk, layer_, index); });
    stage(modules({Role::gate, Role::up}), [&](const Chunk& chunk) { return replay_.mlp_input(chunk, layer_); });
    stage(modules({Role::down}), [&](const Chunk& chunk) { return replay_.activate(chunk, layer_); });
    for (const Chunk& chunk : plan_.chunks) replay_.finish(chunk, layer_);
    end(index);
  }

  void do_head() {
    const model::SlotId id{.role = model::head_role(spec_)};
    const auto wanted = [&](const model::Slot& slot) { return slot.id.role == id.role || slot.id.role == model::Role::final_norm; };
    std::pmr::vector<model::Slot> slots(memory_);
    std::copy_if(slots_.begin(), slots_.end(), std::back_inserter(slots), wanted);
    const model::Weights weights(reader_, slots, {}, pool_, memory_);
    model::Linear head = weights.linear(id);
    const model::Linear norm = weights.linear({.role = model::Role::final_norm});
    const Module module{&slot_of(id), &head};
    begin(spec_.n_layers);
    if (done_) tell_reports(format::Reader(base::FileSource(work_.path_of(spec_.n_layers)), memory_));
    else stage({&module, 1}, [&](const Chunk& chunk) { return replay_.head_input(chunk, norm); });
    end(spec_.n_layers);
  }

  void load_done(uint32_t index) {
    const base::FileSource file(work_.path_of(index));
    const format::Reader reader(file, memory_);
    tell_reports(reader);
    const auto slots = optional_slots(layer_slots(slots_, index));
    const model::Weights weights(reader, slots, {}, pool_, memory_);
    for (const model::Slot& slot : slots)
      if (const kernels::Matrix* w = weights.find(slot.id)) layer_.at(slot.id).w = replay_.hold(*w);
  }

  // Matrices alone, none required.
  std::pmr::vector<model::Slot> optional_slots(std::span<const model::Slot> from) const {
    std::pmr::vector<model::Slot> slots(memory_);
    for (const model::Slot& slot : from)
      if (!slot.is_vector) slots.push_back({slot.id, slot.name, slot.n, slot.k, false, false});
    return slots;
  }

  const model::Slot& slot_of(const model::SlotId& id) const {
    return *std::find_if(slots_.begin(), slots_.end(), [&](const model::Slot& slot) { return slot.id.key() == id.key(); });
  }

  // The slots of a layer; at the place behind the last layer those that belong to none.
  std::pmr::vector<model::Slot> slots_of(uint32_t place) const {
    std::pmr::vector<model::Slot> slots(memory_);
    if (place < spec_.n_layers) {
      const auto of_layer = layer_slots(slots_, place);
      slots.assign(of_layer.begin(), of_layer.end());
    } else {
      std::copy_if(slots_.begin(), slots_.end(), std::back_inserter(slots), [](const model::Slot& s) { return !s.in_layer(); });
    }
    return slots;
  }

  void solve_module(const Module& module, const Gram& gram) {
    const model::Slot& slot = *module.slot;
    const std::string name(slot.name);
    const ModuleOptions& options = chosen_[static_cast<size_t>(&slot - slots_.data())];
    if (!options.bits) return work_done(solve_work(module.linear->w));
    if (kernels::is_quantized(module.linear->w.kind))
      base::fail(GPTQ_E_UNSUPPORTED, "'", name, "' is quantized to ", kernels::bits_of(module.linear->w.kind),
                 " bits already: start from the 16-bit model");
    const Clock::time_point begin = Clock::now();
    if (!problem_ || !(problem_->options == options)) problem_.emplace(gram, options, options_.reference, kernels_, pool_, memory_);
    const double work = solve_work(module.linear->w) / slot.n;
    Solution solution = solve(module.linear->w, *problem_, kernels_, pool_, memory_, [&](uint32_t rows) { work_done(work * rows); });
    PackedModule packed{name, slot.n, slot.k, options.group_size, model::pack_quantized(name, solution.weight, slot.n, slot.k, pool_, memory_)};
    module.linear->w = replay_.hold(packed.tensor.matrix(slot.n, slot.k));
    packed_.push_back(std::move(packed));
    note(module, *problem_, solution, std::chrono::duration<double>(Clock::now() - begin).count());
  }

  void note(const Module& module, const Problem& problem, const Solution& solution, double seconds) {
    ModuleReport report;
    report.name = module.slot->name;
    report.options = problem.options;
    report.n = module.linear->w.n;
    report.k = problem.k;
    report.n_tokens = plan_.n_tokens;
    report.error = solution.error;
    report.damp = problem.damp;
    report.seconds = seconds;
    report.dead_inputs = static_cast<uint32_t>(std::count(problem.dead.begin(), problem.dead.end(), true));
    report.rounded = !problem.solvable;
    reports_.push_back(report);
    if (options_.report) options_.report(report);
  }

  // What was said of modules that an earlier call made.
  void tell_reports(const format::Reader& reader) const {
    if (options_.report) read_reports(reader, options_.report);
  }

  const float* weights_of(const Chunk& chunk) {
    if (!weights_) return nullptr;
    std::fill(weights_->begin(), weights_->end(), 1.0f);
    for (const device::Sequence& s : chunk.sequences) (*weights_)[s.first_row] = static_cast<float>(options_.first_token_weight);
    return weights_->data();
  }

  void count_work() {
    for (const model::Slot& slot : slots_)
      if (slot.quantizable()) work_total_ += pass_work({.n = slot.n, .k = slot.k}) + solve_work({.n = slot.n, .k = slot.k});
  }
  // Floating-point operations, about: of the tokens' way through a matrix and its Hessian, and of finding the codes.
  double pass_work(const kernels::Matrix& w) const { return static_cast<double>(plan_.n_tokens) * w.k * (2.0 * w.n + w.k); }
  static double solve_work(const kernels::Matrix& w) { return 16.0 * w.n * w.k * w.k; }
  void work_done(double work) {
    work_now_ += work;
    if (options_.progress) options_.progress(static_cast<uint32_t>(std::min(999.0, 1000 * work_now_ / work_total_)));
  }

  // All tensors in the order of the slots: from the layers' files where they are quantized, else as they were.
  void write() {
    format::Writer writer(target_, options_.replace ? base::AtomicFile::IfExists::replace : base::AtomicFile::IfExists::refuse, options_.zstd);
    fb::ManifestT manifest;
    reader_.manifest().UnPackTo(&manifest);
    manifest.tensors.clear();
    for (uint32_t place = 0; place <= spec_.n_layers; ++place) {
      std::optional<base::FileSource> file;
      std::optional<format::Reader> made;
      if (place < spec_.n_layers || options_.head.bits) made.emplace(file.emplace(work_.path_of(place)), memory_);
      for (const model::Slot& slot : slots_of(place)) {
        const fb::Tensor* tensor = made ? made->find(slot.name) : nullptr;
        if (tensor) manifest.tensors.push_back(copy(*made, *tensor, writer));
        else if ((tensor = reader_.find(slot.name))) manifest.tensors.push_back(copy(reader_, *tensor, writer));
      }
    }
    if (const fb::Part* part = reader_.manifest().tokenizer()) manifest.tokenizer = std::make_unique<fb::Part>(copy(reader_, *part, writer, format::Compression::zstd));
    std::erase_if(manifest.meta, [](const auto& meta) { return meta->key == "quantization"; });
    format::add_meta(manifest, "quantization", "libgptq " GPTQ_VERSION_TEXT ", " + std::to_string(options_.module.bits) + " bits, group_size " +
                                                   std::to_string(options_.module.group_size));
    writer.finish(manifest);
  }

  std::unique_ptr<fb::TensorT> copy(const format::Reader& from, const fb::Tensor& tensor, format::Writer& writer) const {
    std::unique_ptr<fb::TensorT> out(tensor.UnPack());
    out->parts.clear();
    for (const fb::Part* part : *tensor.parts())
      out->parts.push_back(copy(from, *part, writer, part->role() == fb::Role::codes ? format::Compression::stored : format::Compression::zstd));
    return out;
  }

  fb::Part copy(const format::Reader& from, const fb::Part& part, format::Writer& writer, format::Compression compression) const {
    const base::Buffer bytes(memory_, base::to_size(part.bytes()));
    from.read_part(part, bytes.bytes(), memory_);
    return writer.add(part.role(), bytes.bytes(), compression);
  }

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
  WorkFolder work_;
  Replay replay_;
  std::optional<std::pmr::vector<float>> weights_;
  double work_total_ = 0, work_now_ = 0;

  // The layer at hand.
  bool done_ = false;
  model::Layer layer_;
  std::vector<PackedModule> packed_;
  std::vector<ModuleReport> reports_;
  std::optional<Problem> problem_;
};

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
  const std::string path(target);
  const size_t slash = path.rfind('/');
  struct statvfs room;
  if (statvfs(slash == path.npos ? "." : path.substr(0, slash + 1).c_str(), &room) != 0) return;
  const uint64_t free = uint64_t{room.f_bavail} * room.f_frsize, wanted = base::add(estimate.file_bytes, estimate.work_bytes);
  if (free < wanted) base::fail(GPTQ_E_IO, "'", path, "' and the work folder beside it need ", wanted, " bytes, the disk has ", free);
}

}  // namespace

void check_target(std::string_view target, bool replace) {
  const std::string path(target);
  if (!replace && access(path.c_str(), F_OK) == 0) base::fail(GPTQ_E_IO, "'", path, "' exists already; remove it or ask to replace it");
  const size_t slash = path.rfind('/');
  const std::string folder = slash == path.npos ? "." : path.substr(0, slash + 1);
  if (access(folder.c_str(), W_OK) != 0) base::fail_os(GPTQ_E_IO, errno, "cannot write into", folder);
}

void quantize(const base::Source& source, std::string_view target, const Calibration& calibration, const Options& options,
              const kernels::Kernels& kernels, base::Pool& pool, std::pmr::memory_resource* memory) {
  std::pmr::vector<ModuleOptions> chosen(memory);
  {
    const format::Reader reader(source, memory);
    model::check_features(reader.manifest());
    const model::ModelSpec spec = model::check_spec(*reader.manifest().spec(), memory);
    check(calibration, spec);
    check_target(target, options.replace);
    chosen = choose_options(reader, options, memory);
    const auto rows = static_cast<uint64_t>(calibration.row_tokens.size());
    check_space(target, estimate(reader, chosen, rows, calibration.row_tokens[0], options.memory_max, kernels, pool, memory));
  }
  Job(source, target, calibration, options, chosen, kernels, pool, memory).run();
}

}  // namespace gptq::quantize
