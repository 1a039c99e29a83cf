// SPDX-License-Identifier: Apache-2.0
// Which of a folder's files hold the model. In this order: the name that the quantization config gives, model.safetensors, shards that
// an index names, shards by their own names, the only file there is. An index that names other files than those there is stale.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "converter/safetensors/folder.h"

namespace gptq::convert {

struct ChosenFiles {
  std::vector<std::string> files;                            // at least one
  std::string index;                                         // "" = none
  std::map<std::string, std::string, std::less<>> file_of;  // as the index says: tensor -> file
};

// Fails with NOT_FOUND, FORMAT or UNSUPPORTED where there are none or too many.
ChosenFiles choose_files(const std::string& folder, const FolderOptions& options);
// The same of files that are not all there yet; their indexes are. names: with paths where they are in folders inside.
ChosenFiles choose_files(const std::string& folder, const FolderOptions& options, const std::vector<std::string>& names);
// All files of a folder, sorted.
std::vector<std::string> files_in(const std::string& folder);

}  // namespace gptq::convert
