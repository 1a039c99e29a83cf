// SPDX-License-Identifier: Apache-2.0
#include "quantize/work_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>

#include "base/checked.h"

namespace gptq::quantize {
namespace {

namespace fb = format::fb;

std::string text_of(uint64_t key) {
  char digits[20];
  return {digits, std::to_chars(digits, digits + sizeof digits, key, 16).ptr};
}

int open_locked(const std::string& path) {
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (file < 0) base::fail_os(GPTQ_E_IO, errno, "cannot create", path);
  if (flock(file, LOCK_EX | LOCK_NB) == 0) return file;
  close(file);
  base::fail(GPTQ_E_INVALID_STATE, "another process is writing to '", path, "'");
}

std::string read_key(int file) {
  char text[32];
  const ssize_t n = pread(file, text, sizeof text, 0);
  return {text, static_cast<size_t>(n > 0 ? n : 0)};
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
  if (mkdir(path_.c_str(), 0777) != 0 && errno != EEXIST) base::fail_os(GPTQ_E_IO, errno, "cannot create", path_);
  lock_ = open_locked(path_ + "/job");
  const std::string wanted = text_of(key);
  std::error_code ignored;
  if (read_key(lock_) == wanted) {
    empty_ = std::none_of(std::filesystem::directory_iterator(path_, ignored), {}, [](const auto& entry) { return entry.path().extension() == ".gptq"; });
    return;
  }
  for (const auto& entry : std::filesystem::directory_iterator(path_, ignored))
    if (entry.path().extension() == ".gptq") std::filesystem::remove(entry.path(), ignored);
  if (ftruncate(lock_, 0) != 0 || pwrite(lock_, wanted.data(), wanted.size(), 0) != static_cast<ssize_t>(wanted.size()))
    base::fail_os(GPTQ_E_IO, errno, "cannot write", path_);
}

WorkFolder::~WorkFolder() {
  if (lock_ < 0) return;
  if (empty_) remove_all();
  close(lock_);
}

std::string WorkFolder::path_of(uint32_t place) const { return path_ + "/" + std::to_string(place) + ".gptq"; }

bool WorkFolder::is_sound(uint32_t place, std::pmr::memory_resource* memory) const {
  const std::string path = path_of(place);
  if (access(path.c_str(), F_OK) != 0) return false;
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

void WorkFolder::remove_all() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace gptq::quantize
