// SPDX-License-Identifier: Apache-2.0
#include "quantize/token_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

#include "base/checked.h"

namespace gptq::quantize {
namespace {

int open_nameless(std::string_view folder) {
  std::string path(folder);
  path += "/tokens-XXXXXX";
  const int file = mkostemp(path.data(), O_CLOEXEC);
  if (file < 0) base::fail_os(GPTQ_E_IO, errno, "cannot create", path);
  unlink(path.c_str());
  return file;
}

// All of a transfer, or a failure.
template <class Transfer>
void transfer_all(uint64_t offset, size_t bytes, const char* what, Transfer&& transfer) {
  for (size_t done = 0; done < bytes;) {
    const ssize_t n = transfer(done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) base::fail_os(GPTQ_E_IO, n < 0 ? errno : ENOSPC, what, "the file of activations");
    done += static_cast<size_t>(n);
  }
}

}  // namespace

TokenStore::TokenStore(uint64_t n_tokens, uint32_t width, std::string_view folder, std::pmr::memory_resource* memory) : width_(width) {
  if (folder.empty()) memory_ = base::Buffer(memory, base::to_size(base::mul(n_tokens, width, sizeof(float))));
  else file_ = open_nameless(folder);
}

TokenStore::~TokenStore() {
  if (file_ >= 0) close(file_);
}

void TokenStore::read(uint64_t first, uint64_t count, float* to) const {
  const uint64_t offset = first * width_ * sizeof(float);
  const size_t bytes = base::to_size(count * sizeof(float));
  auto* out = reinterpret_cast<std::byte*>(to);
  if (file_ < 0) std::memcpy(out, memory_.data() + offset, bytes);
  else transfer_all(offset, bytes, "cannot read", [&](size_t done, off_t at) { return pread(file_, out + done, bytes - done, at); });
}

void TokenStore::write(uint64_t first, uint64_t count, const float* from) {
  const uint64_t offset = first * width_ * sizeof(float);
  const size_t bytes = base::to_size(count * sizeof(float));
  const auto* in = reinterpret_cast<const std::byte*>(from);
  if (file_ < 0) std::memcpy(memory_.data() + offset, in, bytes);
  else transfer_all(offset, bytes, "cannot write", [&](size_t done, off_t at) { return pwrite(file_, in + done, bytes - done, at); });
}

}  // namespace gptq::quantize
