// SPDX-License-Identifier: Apache-2.0
#include "quantize/work_folder.h"

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "base/checked.h"

namespace gptq::quantize {
namespace {

namespace fb = format::fb;
namespace os = base::os;

std::string text_of(uint64_t key) {
  char digits[20];
  return {digits, std::to_chars(digits, digits + sizeof digits, key, 16).ptr};
}

os::File open_locked(const std::string& path) {
  os::File file(path, os::Open::open_or_create);
  if (!file) base::fail_os(GPTQ_E_IO, errno, "cannot create", path);
  if (file.lock()) return file;
  if (errno != EWOULDBLOCK) base::fail_os(GPTQ_E_IO, errno, "cannot lock", path);
  base::fail(GPTQ_E_INVALID_STATE, "another process is writing to '", path, "'");
}

std::string read_key(const os::File& file, const std::string& path) {
  char text[32];
  const int64_t n = file.read_at(0, text, sizeof text);
  if (n < 0) base::fail_os(GPTQ_E_IO, errno, "cannot read", path);
  return {text, static_cast<size_t>(n)};
}

// The files of finished layers.
std::vector<std::string> saved_in(const std::string& folder) {
  std::vector<std::string> names;
  if (!os::list_folder(folder, names)) base::fail_os(GPTQ_E_IO, errno, "cannot list the folder", folder);
  std::erase_if(names, [](const std::string& name) { return !name.ends_with(".gptq"); });
  return names;
}

// Numbers separated by spaces, in the order of the struct; `f` is called with every field but the name.
template <class Report, class F>
void each_number(Report& r, F&& f) {
  f(r.options.bits), f(r.options.group_size), f(r.n), f(r.k), f(r.n_tokens), f(r.error), f(r.damp), f(r.seconds), f(r.dead_inputs), f(r.rounded), f(r.all_tokens);
}

std::string numbers_of(const ModuleReport& report) {
  std::string text;
  each_number(report, [&](const auto& value) {
    char digits[32];
    double number = static_cast<double>(value);
    text.append(digits, std::to_chars(digits, digits + sizeof digits, number).ptr).append(" ");
  });
  return text;
}

}  // namespace

void read_reports(const format::Reader& reader, const std::function<void(const ModuleReport&)>& tell) {
  if (!reader.manifest().meta()) return;
  for (const fb::Meta* meta : *reader.manifest().meta()) {
    ModuleReport report;
    report.name = meta->key()->str();
    const char *at = meta->value()->c_str(), *end = at + meta->value()->size();
    each_number(report, [&](auto& value) {
      double number = 0;
      at = std::min(end, std::from_chars(at, end, number).ptr + 1);
      value = static_cast<std::remove_reference_t<decltype(value)>>(number);
    });
    tell(report);
  }
}

WorkFolder::WorkFolder(std::string_view target, uint64_t key) : path_(std::string(target) + ".work") {
  if (!os::make_folder(path_) && errno != EEXIST) base::fail_os(GPTQ_E_IO, errno, "cannot create", path_);
  try {
    begin(text_of(key));
  } catch (...) {
    std::vector<std::string> names;
    if (os::list_folder(path_, names) && (names.empty() || (lock_ && names.size() == 1))) remove_all();
    throw;
  }
}

void WorkFolder::begin(const std::string& key) {
  lock_ = open_locked(path_ + "/job");
  const std::vector<std::string> saved = saved_in(path_);
  if (read_key(lock_, path_) == key) {
    empty_ = saved.empty();
    return;
  }
  for (const std::string& name : saved)
    if (!os::remove_file(path_ + "/" + name)) base::fail_os(GPTQ_E_IO, errno, "cannot remove", path_ + "/" + name);
  const int64_t n = lock_.make_empty() ? lock_.write_at(0, key.data(), key.size()) : -1;
  if (n != static_cast<int64_t>(key.size())) base::fail_os(GPTQ_E_IO, n < 0 ? errno : ENOSPC, "cannot write", path_);
}

WorkFolder::~WorkFolder() {
  if (empty_) remove_all();
}

std::string WorkFolder::path_of(uint32_t place) const { return path_ + "/" + std::to_string(place) + ".gptq"; }

bool WorkFolder::is_sound(uint32_t place, std::pmr::memory_resource* memory) const {
  const std::string path = path_of(place);
  if (!os::exists(path)) return false;
  try {
    const base::FileSource file(path);
    const format::Reader reader(file, memory);
    for (const fb::Tensor* tensor : *reader.manifest().tensors())
      for (const fb::Part* part : *tensor->parts()) {
        const base::Buffer bytes(memory, base::to_size(part->bytes()));
        reader.read_part(*part, bytes.bytes(), memory);
      }
    return true;
  } catch (const base::Failure& failure) {
    if (failure.detail.status == GPTQ_E_BUDGET_EXCEEDED) throw;
    return false;
  }
}

void WorkFolder::save(uint32_t place, const std::vector<PackedModule>& modules, const std::vector<ModuleReport>& reports, const fb::Spec& spec) {
  format::Writer writer(path_of(place), base::AtomicFile::IfExists::replace);
  fb::ManifestT manifest;
  for (const PackedModule& m : modules)
    manifest.tensors.push_back(model::write_tensor(writer, m.name, m.n, m.k, m.group_size, m.tensor, format::Compression::stored));
  manifest.spec = std::make_unique<fb::SpecT>();
  spec.UnPackTo(manifest.spec.get());
  for (const ModuleReport& report : reports) format::add_meta(manifest, report.name, numbers_of(report));
  writer.finish(manifest);
  empty_ = false;
}

// The lock is held until the folder is gone, so that nobody begins in it; on Windows a file that is open may keep its folder.
void WorkFolder::remove_all() {
  if (os::remove_tree(path_)) return;
  lock_.close();
  os::remove_tree(path_);
}

}  // namespace gptq::quantize
