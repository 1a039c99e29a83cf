// SPDX-License-Identifier: Apache-2.0
#include "converter/safetensors/files.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <optional>
#include <set>

#include "base/checked.h"
#include "base/os.h"
#include "converter/json.h"

namespace gptq::convert {
namespace {

using base::fail;
constexpr uint64_t index_bytes_max = 64u << 20, shards_max = 4096;
constexpr std::string_view file_suffix = ".safetensors", index_suffix = ".safetensors.index.json";

bool contains(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool plain_basename(std::string_view name) {
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == name.npos;
}

// Of a file in this folder or in a folder inside it.
bool plain_path(std::string_view name) {
  for (size_t slash; (slash = name.find('/')) != name.npos; name.remove_prefix(slash + 1))
    if (!plain_basename(name.substr(0, slash))) return false;
  return plain_basename(name);
}

// "model-00002-of-00003.safetensors": the name before the numbers, which shard it is, and of how many.
struct ShardName {
  std::string stem;
  uint32_t number = 0, count = 0;
  bool same_model(const ShardName& other) const { return stem == other.stem && count == other.count; }
};

std::optional<uint32_t> number_of(std::string_view digits) {
  uint32_t out = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), out);
  return digits.empty() || error != std::errc() || end != digits.data() + digits.size() ? std::nullopt : std::optional(out);
}

std::optional<ShardName> shard_name(std::string_view file) {
  if (!file.ends_with(file_suffix)) return {};
  file.remove_suffix(file_suffix.size());
  const size_t of = file.rfind("-of-");
  if (of == file.npos || of == 0) return {};
  const size_t dash = file.rfind('-', of - 1);
  if (dash == file.npos) return {};
  const auto number = number_of(file.substr(dash + 1, of - dash - 1)), count = number_of(file.substr(of + 4));
  if (!number || !count || *number < 1 || *number > *count || *count > shards_max) return {};
  return ShardName{std::string(file.substr(0, dash)), *number, *count};
}

class Chooser {
 public:
  Chooser(const std::string& folder, const FolderOptions& options, const std::vector<std::string>& names)
      : folder_(folder), options_(options), all_(names) {
    for (const std::string& name : all_) {
      const bool adapter = name.starts_with("adapter_model");
      if (name.find('/') != name.npos) continue;  // only an index leads there
      if (name.ends_with(file_suffix)) (adapter ? adapters_ : files_).push_back(name);
      if (name.ends_with(index_suffix) && !adapter) indexes_.push_back(name);
    }
  }

  ChosenFiles choose() {
    for (const std::string& name : options_.names)
      if (take(name)) {
        tell_of_left_out(name);
        return std::move(out_);
      }
    if (take("model") || take_only_index() || take_only_files()) {
      if (!index_problem_.empty() && out_.index.empty()) warn(index_problem_ + ": '" + out_.files[0] + "' is read instead, without an index");
      return std::move(out_);
    }
    if (!index_problem_.empty()) fail(GPTQ_E_FORMAT, index_problem_);
    if (files_.empty()) refuse_without_files();
    fail(GPTQ_E_FORMAT, "'", folder_, "' has ", files_.size(), " files like '", files_[0],
         "' and none named 'model.safetensors': leave the one to convert, or add the index of the shards");
  }

 private:
  // The files of that name: one file, or what an index says, or shards.
  bool take(const std::string& stem) {
    const std::string file = stem + std::string(file_suffix), index = stem + std::string(index_suffix);
    const bool has_file = contains(files_, file);
    if (contains(indexes_, index)) {
      const bool usable = read_index(index) && (!has_file || contains(out_.files, file));
      if (usable && take_indexed()) return true;
      if (has_file) index_problem_ = "'" + index + "' does not name '" + file + "'";
    }
    out_ = {};
    if (has_file) {
      out_.files.push_back(file);
      return true;
    }
    for (const std::string& name : files_)
      if (const auto shard = shard_name(name); shard && shard->stem == stem && take_shards(*shard)) return true;
    return false;
  }

  bool take_only_index() { return indexes_.size() == 1 && read_index(indexes_[0]) && take_indexed(); }

  // One file, or the shards of one model. Mistral's consolidated files hold the same once more in other names.
  bool take_only_files() {
    out_ = {};
    std::vector<std::string> left = files_;
    const auto consolidated = [](const std::string& name) { return name.starts_with("consolidated"); };
    if (!std::all_of(left.begin(), left.end(), consolidated)) std::erase_if(left, consolidated);
    if (left.size() == 1) {
      out_.files = left;
    } else if (const auto first = left.empty() ? std::nullopt : shard_name(left[0])) {
      for (const std::string& name : left)
        if (const auto shard = shard_name(name); !shard || !shard->same_model(*first)) return false;
      if (!take_shards(*first)) return false;
    } else {
      return false;
    }
    return true;
  }

  bool take_shards(const ShardName& like) {
    std::set<uint32_t> found;
    for (const std::string& name : files_)
      if (const auto shard = shard_name(name); shard && shard->same_model(like) && found.insert(shard->number).second)
        out_.files.push_back(name);
    if (found.size() == like.count) return true;
    uint32_t missing = 1;
    while (found.contains(missing)) ++missing;
    fail(GPTQ_E_FORMAT, "'", folder_, "': shard ", missing, " of ", like.count, " of '", like.stem,
         "' is not there: the download is not complete");
  }

  // Whether it can be read; out_ has then what it says.
  bool read_index(const std::string& index) {
    out_ = {};
    try {
      const JsonDocument file = JsonDocument::read(folder_ + "/" + index, index, index_bytes_max);
      const auto map = file.root().object("weight_map");
      if (!map) file.root().refuse("weight_map", "is missing");
      std::set<std::string> files;
      for (const auto field : map->fields()) {
        std::string_view name;
        if (field.value.get_string().get(name)) map->refuse(field.key, "must name a file");
        if (!plain_path(name) || !name.ends_with(file_suffix))
          map->refuse(field.key, "must name a .safetensors file in this folder or in one inside it, without any path that leads elsewhere");
        files.emplace(name);
        out_.file_of.emplace(field.key, name);
      }
      if (files.empty()) file.root().refuse("weight_map", "names no file");
      out_.index = index;
      out_.files.assign(files.begin(), files.end());
      return true;
    } catch (const base::Failure& failure) {
      index_problem_ = failure.detail.message;
      return false;
    }
  }

  // Whether the files that the index names are there. All of them missing: it belongs to other weights.
  bool take_indexed() {
    const auto here = [&](const std::string& file) {
      return contains(files_, file) || (file.find('/') != file.npos && (contains(all_, file) || file_exists(folder_ + "/" + file)));
    };
    const auto missing = std::find_if_not(out_.files.begin(), out_.files.end(), here);
    if (missing != out_.files.end()) {
      index_problem_ = "'" + out_.index + "' names '" + *missing + "', which is not there";
      if (std::any_of(out_.files.begin(), out_.files.end(), here))
        fail(GPTQ_E_FORMAT, index_problem_, ": the download is not complete");
      return false;
    }
    add_shards_left_out();
    return true;
  }

  void add_shards_left_out() {
    const std::vector<std::string> named = out_.files;
    for (const std::string& name : files_) {
      const auto shard = shard_name(name);
      const auto sibling = [&](const std::string& other) {
        const auto of = shard_name(other);
        return shard && of && of->same_model(*shard);
      };
      if (contains(named, name) || !std::any_of(named.begin(), named.end(), sibling)) continue;
      warn("'" + out_.index + "' leaves out '" + name + "', which belongs to the same model and is read");
      out_.files.push_back(name);
    }
    std::sort(out_.files.begin(), out_.files.end());
  }

  void tell_of_left_out(const std::string& stem) const {
    if (stem == "model") return;
    for (const std::string usual : {"model.safetensors", "model.safetensors.index.json"})
      if (contains(all_, usual))
        warn("'" + out_.files[0] + "' is read, as the quantization config has it; '" + usual + "' is left out");
  }

  [[noreturn]] void refuse_without_files() const {
    if (!adapters_.empty())
      fail(GPTQ_E_UNSUPPORTED, "'", folder_, "' has only an adapter ('", adapters_[0], "'), not a model: convert the model it belongs to");
    for (const std::string_view suffix : {".bin", ".pt", ".pth"})
      for (const std::string& name : all_)
        if (name.ends_with(suffix) && name.find('/') == name.npos)
          fail(GPTQ_E_UNSUPPORTED, "'", folder_, "' has weights only as pickle ('", name,
               "'), which can run code when read; load it with transformers and save it again with safe_serialization=True");
    fail(GPTQ_E_NOT_FOUND, "'", folder_, "' has no .safetensors file");
  }

  void warn(const std::string& text) const { options_.warn(text); }

  const std::string& folder_;
  const FolderOptions& options_;
  std::vector<std::string> all_, files_, indexes_, adapters_;
  std::string index_problem_;
  ChosenFiles out_;
};

}  // namespace

std::vector<std::string> files_in(const std::string& folder) {
  std::vector<std::string> names;
  if (!base::os::list_folder(folder, names)) base::fail_os(GPTQ_E_IO, errno, "cannot list the folder", folder);
  std::sort(names.begin(), names.end());
  return names;
}

ChosenFiles choose_files(const std::string& folder, const FolderOptions& options, const std::vector<std::string>& names) {
  return Chooser(folder, options, names).choose();
}
ChosenFiles choose_files(const std::string& folder, const FolderOptions& options) { return choose_files(folder, options, files_in(folder)); }

}  // namespace gptq::convert
