// SPDX-License-Identifier: Apache-2.0
#include "converter/hub/hash.h"

#include <openssl/evp.h>

#include "base/failure.h"

namespace gptq::convert::hub {
namespace {

using base::fail;

void must(int result) {
  if (result != 1) fail(GPTQ_E_INTERNAL, "OpenSSL cannot compute a hash");
}

}  // namespace

bool is_hash(std::string_view etag) {
  return (etag.size() == 64 || etag.size() == 40) && etag.find_first_not_of("0123456789abcdef") == etag.npos;
}

struct Hash::Context {
  EVP_MD_CTX* handle = EVP_MD_CTX_new();
  Context() = default;
  ~Context() { EVP_MD_CTX_free(handle); }
  Context(const Context&) = delete;
};

Hash::Hash(std::string_view etag, uint64_t file_size) : context_(std::make_unique<Context>()) {
  if (!is_hash(etag)) fail(GPTQ_E_INTERNAL, "not a hash: '", etag, "'");
  must(context_->handle && EVP_DigestInit_ex(context_->handle, etag.size() == 40 ? EVP_sha1() : EVP_sha256(), nullptr));
  if (etag.size() != 40) return;
  const std::string header = "blob " + std::to_string(file_size);
  add(std::as_bytes(std::span(header.c_str(), header.size() + 1)));
}
Hash::~Hash() = default;
Hash::Hash(Hash&&) noexcept = default;
Hash& Hash::operator=(Hash&&) noexcept = default;

void Hash::add(std::span<const std::byte> bytes) {
  must(EVP_DigestUpdate(context_->handle, bytes.data(), bytes.size()));
}

std::string Hash::hex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  must(EVP_DigestFinal_ex(context_->handle, digest, &size));
  std::string out;
  for (unsigned i = 0; i < size; ++i)
    for (const int digit : {digest[i] >> 4, digest[i] & 15}) out += "0123456789abcdef"[digit];
  return out;
}

}  // namespace gptq::convert::hub
