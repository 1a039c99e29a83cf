// SPDX-License-Identifier: Apache-2.0
#include "converter/hub/refusal.h"

#include "base/failure.h"

namespace gptq::convert::hub {

using base::fail;

void refuse(const Answer& answer, const Name& name, const std::string& file, const Settings& settings) {
  const std::string code = answer.header("x-error-code"), model = "'" + name.repository() + "'";
  const std::string nothing = "there is no file or folder " + model + ", and no such model at " + settings.endpoint;
  const std::string page = settings.endpoint + "/" + name.repository();
  const bool token = !settings.token.empty();
  if (answer.trouble.empty() && (answer.status == 401 || answer.status == 403)) {
    if (code == "GatedRepo")
      fail(GPTQ_E_IO, model, " is gated: accept its licence at ", page,
           token ? " with the account of your token, which has no access yet"
                 : " and set HF_TOKEN to a token of your account");
    if (answer.status == 403)
      fail(GPTQ_E_IO, "the token may not read ", model, " (HTTP 403): give it the right to read this repository");
    if (token)
      fail(GPTQ_E_IO, "the server refuses the token, or its account may not see ", model,
           " (HTTP 401): is HF_TOKEN right?");
    fail(GPTQ_E_NOT_FOUND, nothing, ", or it is private and HF_TOKEN must be set (HTTP 401)");
  }
  if (answer.trouble.empty() && answer.status == 404) {
    if (code == "RevisionNotFound") fail(GPTQ_E_NOT_FOUND, model, " has no revision '", name.revision, "'");
    if (code == "EntryNotFound" || !file.empty()) fail(GPTQ_E_NOT_FOUND, model, " has no file '", file, "' (any more)");
    if (code == "RepoNotFound" || name.revision == "main") fail(GPTQ_E_NOT_FOUND, nothing);
    fail(GPTQ_E_NOT_FOUND, nothing, ", or it has no revision '", name.revision, "'");
  }
  const std::string said = answer.header("x-error-message");
  fail(GPTQ_E_IO, "cannot load ", file.empty() ? model : "'" + file + "' of " + model, " from ", settings.endpoint,
       ": ", answer.text(), said.empty() ? "" : ": ", said);
}

}  // namespace gptq::convert::hub
