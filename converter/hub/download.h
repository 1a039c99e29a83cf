// SPDX-License-Identifier: Apache-2.0
// One file on its way to its blob. Its bytes gather beside it, in ETAG.incomplete, and stay there when the connection,
// the program or the machine fails; under the blob's name there is nothing but what has the right hash.
#pragma once
#include "base/os.h"
#include "converter/hub/hash.h"
#include "converter/hub/http.h"
#include "converter/hub/progress.h"
#include "converter/hub/remote.h"

namespace gptq::convert::hub {

class Download {
 public:
  Download(const RemoteFile& file, const std::string& blob, Progress& progress);
  ~Download();
  Download(const Download&) = delete;

  uint64_t begin();  // of a request: the byte it has to begin at
  void take(const Answer& begun, std::span<const std::byte> bytes);
  void restart();
  bool whole() const { return received_ == file_.size; }
  // Whether it has come further than ever since the last call.
  bool came_further();
  // With all bytes there: makes it the blob if their hash is right. Else they are dropped, and wrong says what they
  // are.
  bool finish(std::string& wrong);

 private:
  void open_file();
  void hash_what_is_there();
  void place(const Answer& begun);
  void write(std::span<const std::byte> bytes);

  const RemoteFile& file_;
  std::string blob_, path_;
  Progress& progress_;
  base::os::File handle_;
  uint64_t received_ = 0, furthest_ = 0;
  bool placed_ = false;  // whether the answer's first bytes have come
  Hash hash_;
};

}  // namespace gptq::convert::hub
