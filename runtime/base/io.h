// SPDX-License-Identifier: Apache-2.0
// Bytes in and out: files, memory and host callbacks behind one reading interface; files that appear whole or not at all.
#pragma once
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/memory.h"
#include "base/os.h"

namespace gptq::base {

// Random-access input. read_at may be called from several threads.
class Source {
 public:
  virtual ~Source() = default;
  virtual uint64_t size() const = 0;
  // Fills dst or fails with IO (read error, or the source ends early).
  virtual void read_at(uint64_t offset, std::span<std::byte> dst) const = 0;
};

class FileSource final : public Source {
 public:
  explicit FileSource(std::string_view path);  // fails with IO / NOT_FOUND; refuses what is not a regular file
  uint64_t size() const override { return size_; }
  void read_at(uint64_t offset, std::span<std::byte> dst) const override;

 private:
  std::string path_;
  os::File file_;
  uint64_t size_;
};

class MemorySource final : public Source {
 public:
  explicit MemorySource(std::span<const std::byte> bytes) : bytes_(bytes) {}
  uint64_t size() const override { return bytes_.size(); }
  void read_at(uint64_t offset, std::span<std::byte> dst) const override;

 private:
  std::span<const std::byte> bytes_;
};

class HostSource final : public Source {
 public:
  explicit HostSource(const gptq_io& io);
  uint64_t size() const override { return size_; }
  void read_at(uint64_t offset, std::span<std::byte> dst) const override;

 private:
  gptq_io io_;
  uint64_t size_;
};

// A part of another source.
class SubSource final : public Source {
 public:
  SubSource(const Source& whole, uint64_t offset, uint64_t size);  // size 0 = to the end
  uint64_t size() const override { return size_; }
  void read_at(uint64_t offset, std::span<std::byte> dst) const override;

 private:
  const Source& whole_;
  uint64_t offset_, size_;
};

// A file written beside its final name and renamed to it by commit(). Without commit nothing is left behind.
class AtomicFile {
 public:
  enum class IfExists { refuse, replace };
  AtomicFile(std::string_view path, IfExists if_exists);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  void append(std::span<const std::byte> bytes);
  void write_at(uint64_t offset, std::span<const std::byte> bytes);
  uint64_t size() const { return size_; }
  void commit();  // sync, rename, sync the folder
  static std::string temporary_path(std::string_view path);

 private:
  std::string path_, temporary_;
  IfExists if_exists_;
  os::File file_;
  uint64_t size_ = 0;
};

}  // namespace gptq::base
