// SPDX-License-Identifier: Apache-2.0
// The two hashes by which the hub names a file's bytes. OpenSSL's, which libcurl brings along: several times as fast as
// plain C++ where the CPU has instructions for them, and files have gigabytes.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace gptq::convert::hub {

// Whether it is one: 64 hex digits of a SHA-256, or 40 of a git blob's SHA-1, which begins with the file's size.
bool is_hash(std::string_view etag);

// Of the kind that etag is.
class Hash {
 public:
  Hash(std::string_view etag, uint64_t file_size);
  ~Hash();
  Hash(Hash&&) noexcept;
  Hash& operator=(Hash&&) noexcept;

  void add(std::span<const std::byte> bytes);
  std::string hex();  // once, at the end

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

}  // namespace gptq::convert::hub
