// SPDX-License-Identifier: Apache-2.0
// Keys under the architecture's prefix.
#pragma once
#include <algorithm>
#include <set>

#include "base/failure.h"
#include "converter/gguf/gguf_reader.h"

namespace gptq::convert {

class GgufKeys {
 public:
  GgufKeys(const GgufFile& file, std::string_view architecture) : file_(file), prefix_(std::string(architecture) + ".") {}
  const GgufFile& file() const { return file_; }
  std::string full(std::string_view key) const { return prefix_ + std::string(key); }
  bool has(std::string_view key) const { return file_.values().contains(full(key)); }
  uint32_t count(std::string_view key) const { return file_.count(asked(key)); }
  uint32_t count(std::string_view key, uint32_t otherwise) const { return file_.count(asked(key), otherwise); }
  std::optional<double> number(std::string_view key) const { return file_.number(asked(key)); }
  std::optional<std::string_view> string(std::string_view key) const { return file_.string(asked(key)); }
  std::optional<bool> boolean(std::string_view key) const { return file_.boolean(asked(key)); }
  // One a layer; NULL where the key is absent or holds one number.
  const std::vector<int64_t>* list(std::string_view key) const {
    const auto at = file_.values().find(asked(key));
    return at == file_.values().end() ? nullptr : std::get_if<std::vector<int64_t>>(&at->second);
  }

  // A count that some writers give per layer: then all must be the same, zeros apart where those mean layers without it.
  uint32_t same_count(std::string_view key, bool zeros = false) const {
    const std::vector<int64_t>* items = list(key);
    if (!items) return count(key);
    const int64_t most = items->empty() ? -1 : *std::max_element(items->begin(), items->end());
    if (most < 0 || most > INT32_MAX) file_.refuse(full(key), "is out of range");
    if (std::any_of(items->begin(), items->end(), [&](int64_t item) { return item != most && !(zeros && item == 0); }))
      base::fail(GPTQ_E_UNSUPPORTED, "GGUF: '", full(key), "' differs between layers, which is not supported");
    return static_cast<uint32_t>(most);
  }
  // Whether somebody has read it.
  bool is_used(std::string_view key) const { return asked_.contains(full(key)); }

 private:
  std::string asked(std::string_view key) const { return *asked_.insert(full(key)).first; }

  const GgufFile& file_;
  std::string prefix_;
  mutable std::set<std::string> asked_;
};

}  // namespace gptq::convert
