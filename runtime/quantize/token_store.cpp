// SPDX-License-Identifier: Apache-2.0
#include "quantize/token_store.h"

#include <cerrno>
#include <cstring>
#include <string>

#include "base/checked.h"

namespace gptq::quantize {
namespace {

void check_whole(int64_t done, size_t bytes, int short_is, const char* what) {
  if (done != static_cast<int64_t>(bytes)) base::fail_os(GPTQ_E_IO, done < 0 ? errno : short_is, what, "the file of activations");
}

}  // namespace

TokenStore::TokenStore(uint64_t n_tokens, uint32_t width, std::string_view folder, std::pmr::memory_resource* memory) : width_(width) {
  if (folder.empty()) {
    memory_ = base::Buffer(memory, base::to_size(base::mul(n_tokens, width, sizeof(float))));
    return;
  }
  file_ = base::os::File::without_name(std::string(folder));
  if (!file_) base::fail_os(GPTQ_E_IO, errno, "cannot create a file in", folder);
}

void TokenStore::read(uint64_t first, uint64_t count, float* to) const {
  const uint64_t offset = first * width_ * sizeof(float);
  const size_t bytes = base::to_size(count * sizeof(float));
  auto* out = reinterpret_cast<std::byte*>(to);
  if (!file_) std::memcpy(out, memory_.data() + offset, bytes);
  else check_whole(file_.read_at(offset, out, bytes), bytes, EIO, "cannot read");
}

void TokenStore::write(uint64_t first, uint64_t count, const float* from) {
  const uint64_t offset = first * width_ * sizeof(float);
  const size_t bytes = base::to_size(count * sizeof(float));
  const auto* in = reinterpret_cast<const std::byte*>(from);
  if (!file_) std::memcpy(memory_.data() + offset, in, bytes);
  else check_whole(file_.write_at(offset, in, bytes), bytes, ENOSPC, "cannot write");
}

}  // namespace gptq::quantize
