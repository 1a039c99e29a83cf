// SPDX-License-Identifier: Apache-2.0
// OWNER/NAME[@REVISION] or OWNER/NAME/FILE.gguf[@REVISION], as people write what the hub has.
#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace gptq::convert::hub {

struct Name {
  std::string owner, model;
  std::string revision = "main";  // a branch, a tag or a commit
  std::string file;               // "" = the safetensors

  std::string repository() const { return owner + "/" + model; }
};

// None where the text is not written like a name.
std::optional<Name> parse_name(std::string_view text);
// The name, where text means a model of the hub: it is written like one, and no file or folder is called so.
std::optional<Name> name_of_source(const std::string& text);

// A commit's full hash.
bool is_commit(std::string_view text);

}  // namespace gptq::convert::hub
