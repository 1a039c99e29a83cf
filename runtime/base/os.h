// SPDX-License-Identifier: Apache-2.0
// The one place where the library asks the operating system for something: os_posix.cpp, os_windows.cpp. Paths are
// UTF-8, of any length, and '/' separates folders everywhere. What fails says so by its result, and errno then says
// why, on every system.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace gptq::base::os {

enum class Open {
  read,                    // a file that is there; never waits, whatever the path names
  create_new,              // to write and read, refused where the path is taken
  read_write,              // a file that is there
  open_or_create,          // to write and read
  open_or_create_no_link,  // the same, refused where the path is a link
};

class File {
 public:
  File() = default;
  File(const std::string& path, Open how);
  // A file to write and read in this folder that is gone when it is closed, however the process ends.
  static File without_name(const std::string& folder);
  File(File&& other) noexcept : handle_(std::exchange(other.handle_, none)) {}
  File& operator=(File&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~File() { close(); }
  explicit operator bool() const { return handle_ != none; }
  void close();

  int64_t size() const;  // of a regular file; -1: it is none
  // How many bytes were read or written, fewer only where the file or the disk ends; -1 = failed.
  int64_t read_at(uint64_t offset, void* to, size_t bytes) const;
  int64_t write_at(uint64_t offset, const void* from, size_t bytes);
  bool make_empty();
  bool sync();  // until the disk has it
  void give_back(uint64_t offset,
                 uint64_t bytes);  // the disk's room of a part that nobody reads again, where the file system can
  // Held by one open file at a time, until it is closed. False with EWOULDBLOCK: another one holds it; with another
  // errno: there are no locks here.
  bool lock();
  bool wait_for_lock();

 private:
  static constexpr intptr_t none = -1;
  intptr_t handle_ = none;
};

// What a path leads to.
enum class Kind { nothing, file, folder, other };
Kind kind_of(const std::string& path);
bool exists(const std::string& path);         // also what may not be looked into
bool is_plain_file(const std::string& path);  // and no link to one
bool is_link(const std::string& path);        // also one that leads nowhere
bool can_write_into(const std::string& folder);
bool size_of(const std::string& path, uint64_t& size);  // of a file
bool remove_file(const std::string& path);
bool remove_tree(const std::string& path);   // a folder and all that is in it
bool make_folder(const std::string& path);   // false with EEXIST where the path is taken
bool make_folders(const std::string& path);  // and those it lies in, as far as they are missing
bool list_folder(const std::string& folder, std::vector<std::string>& names);  // in any order
bool rename_replacing(const std::string& from, const std::string& to);
bool rename_to_new(const std::string& from, const std::string& to);  // false with EEXIST where the path is taken
void sync_folder(const std::string& folder);  // so that a new name in it outlives a power cut, where the system can
bool free_bytes(const std::string& folder, uint64_t& bytes);
std::string full_path(const std::string& path);  // without links in it; "" = there is no such thing
// The folder that a path lies in, with its last separator; "." for a mere name.
std::string folder_of(std::string_view path);

void prefer_huge_pages(void* memory, size_t bytes);  // advice; whether it is taken does not matter
uint64_t free_memory();                              // bytes that nobody uses; 0 = not known
int64_t process_id();
bool random_bytes(void* to, size_t bytes);  // never waits; false where there are none

// Sleeps while the value is the one that was seen; may also return before it changes.
void wait_while(const std::atomic<uint32_t>& value, uint32_t seen);
void wake_one(std::atomic<uint32_t>& value);

// A shared library, which stays loaded. Null: it cannot be, and why says the reason.
void* load_library(const std::string& path, std::string& why);
void* find_symbol(void* library, const char* name);

}  // namespace gptq::base::os
