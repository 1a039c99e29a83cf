// SPDX-License-Identifier: Apache-2.0
// What the environment says, under the names that huggingface_hub has for it.
#pragma once
#include <string>

namespace gptq::convert::hub {

struct Settings {
  std::string endpoint;   // HF_ENDPOINT
  std::string token;      // HF_TOKEN, or the file that `hf auth login` writes; "" = none
  std::string cache;      // HF_HUB_CACHE, HF_HOME/hub
  std::string converted;  // GPTQ_CACHE: what gptq-run makes of models
  std::string ca_file;    // CURL_CA_BUNDLE, REQUESTS_CA_BUNDLE, SSL_CERT_FILE; "" = the system's
  long timeout_s = 20;    // HF_HUB_DOWNLOAD_TIMEOUT: how long a connection may stand still
  int tries = 8;          // GPTQ_HUB_TRIES: how often in a row a request may fail
  bool offline = false;   // HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE
};

Settings settings_of_environment();

}  // namespace gptq::convert::hub
