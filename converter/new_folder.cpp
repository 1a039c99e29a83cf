// SPDX-License-Identifier: Apache-2.0
#include "converter/new_folder.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <iterator>
#include <span>
#include <vector>

#include "base/failure.h"
#include "base/io.h"
#include "base/os.h"
#include "converter/system.h"

namespace gptq::convert {
namespace {

using base::fail;
namespace os = base::os;

std::string without_slashes(std::string_view path) {
  while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  return std::string(path);
}

// Files that checkpoints are made of; anybody's other files are not taken away with one.
bool is_of_checkpoint(std::string_view name) {
  static constexpr std::string_view names[] = {"config.json", "generation_config.json", "quantize_config.json", "model.safetensors.index.json",
                                               "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
                                               "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json",
                                               "preprocessor_config.json", "processor_config.json", "README.md", "LICENSE", ".gitattributes"};
  return name.ends_with(".safetensors") || std::find(std::begin(names), std::end(names), name) != std::end(names);
}

void check_replaceable(const std::string& path) {
  bool is_checkpoint = false;
  std::vector<std::string> names;
  if (!os::list_folder(path, names)) base::fail_os(GPTQ_E_IO, errno, "cannot replace", path);
  for (const std::string& name : names) {
    if (!is_of_checkpoint(name) || !os::is_plain_file(path + "/" + name))
      fail(GPTQ_E_IO, "'", path, "' is not replaced: '", name, "' in it is not a file of a checkpoint; remove the folder yourself");
    is_checkpoint |= name == "config.json";
  }
  if (!names.empty() && !is_checkpoint)
    fail(GPTQ_E_IO, "'", path, "' is not replaced: it holds files, but no checkpoint (config.json); remove the folder yourself");
}

}  // namespace

NewFolder::NewFolder(std::string_view path, bool replace) : path_(without_slashes(path)), replace_(replace) {
  if (path_.empty()) fail(GPTQ_E_INVALID_ARGUMENT, "the folder to write has no name");
  if (path_ == "." || path_ == ".." || path_.ends_with("/.") || path_.ends_with("/.."))
    fail(GPTQ_E_INVALID_ARGUMENT, "'", path_, "' is no name for a folder that is written beside it and renamed: give its own name");
  if (os::is_link(path_)) fail(GPTQ_E_IO, "'", path_, "' is a link: name the folder it leads to");
  if (os::exists(path_)) {
    if (os::kind_of(path_) != os::Kind::folder) fail(GPTQ_E_IO, "'", path_, "' is not a folder, and is not replaced");
    if (!replace_) fail(GPTQ_E_IO, "'", path_, "' exists already; --force replaces it");
    check_replaceable(path_);
  }
  const std::string temporary = base::AtomicFile::temporary_path(path_);
  // One that is there is of a killed process that had this one's number.
  const bool made = os::make_folder(temporary) || (errno == EEXIST && os::remove_tree(temporary) && os::make_folder(temporary));
  if (!made) base::fail_os(GPTQ_E_IO, errno, "cannot create the folder", temporary);
  temporary_ = temporary;
}

NewFolder::~NewFolder() {
  if (!temporary_.empty()) os::remove_tree(temporary_);
}

void NewFolder::write(const std::string& name, std::string_view text) const {
  base::AtomicFile file(temporary_ + "/" + name, base::AtomicFile::IfExists::refuse);
  file.append(std::as_bytes(std::span(text)));
  if (!text.ends_with('\n')) file.append(std::as_bytes(std::span("\n", 1)));
  file.commit();
}

// A folder cannot be renamed over one that holds files: they are exchanged, or, where the system cannot do that, the old one steps aside, and back
// if the new one does not come.
void NewFolder::commit() {
  const std::string old = path_ + ".old-" + std::to_string(os::process_id());
  const bool had_old = replace_ && os::exists(path_);
  if (had_old) {
    check_replaceable(path_);
    if (system::exchange(temporary_, path_)) return;  // the old one goes in the end
    if (!os::rename_replacing(path_, old)) base::fail_os(GPTQ_E_IO, errno, "cannot replace", path_);
  }
  if (!os::rename_replacing(temporary_, path_)) {
    const int code = errno;
    if (had_old) os::rename_replacing(old, path_);
    base::fail_os(GPTQ_E_IO, code, "cannot create", path_);
  }
  temporary_.clear();
  if (had_old) os::remove_tree(old);
}

}  // namespace gptq::convert
