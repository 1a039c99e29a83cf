// SPDX-License-Identifier: Apache-2.0
// Windows 10 and later. Every open file may be renamed and removed by others, as elsewhere.
#include <windows.h>
// behind windows.h
#include <bcrypt.h>

#include <algorithm>
#include <cerrno>

#include "base/os.h"
#include "base/windows_path.h"

namespace gptq::base::os {
namespace {

constexpr DWORD share_all = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
// Of Windows 10 1709: FileDispositionInfoEx and FileRenameInfoEx, which MinGW's headers of version 10 hide.
constexpr auto dispose_as_posix = static_cast<FILE_INFO_BY_HANDLE_CLASS>(21),
               rename_as_posix = static_cast<FILE_INFO_BY_HANDLE_CLASS>(22);
constexpr size_t most_at_once = size_t{1} << 30;  // a call counts bytes in 32 bits

struct Code {
  DWORD windows;
  int posix;
};
constexpr Code codes[] = {
    {ERROR_FILE_NOT_FOUND, ENOENT},
    {ERROR_PATH_NOT_FOUND, ENOENT},
    {ERROR_INVALID_NAME, ENOENT},
    {ERROR_BAD_PATHNAME, ENOENT},
    {ERROR_INVALID_DRIVE, ENOENT},
    {ERROR_BAD_NETPATH, ENOENT},
    {ERROR_BAD_NET_NAME, ENOENT},
    {ERROR_MOD_NOT_FOUND, ENOENT},
    {ERROR_PROC_NOT_FOUND, ENOENT},
    {ERROR_NO_MORE_FILES, ENOENT},
    {ERROR_TOO_MANY_OPEN_FILES, EMFILE},
    {ERROR_ACCESS_DENIED, EACCES},
    {ERROR_SHARING_VIOLATION, EACCES},
    {ERROR_WRITE_PROTECT, EROFS},
    {ERROR_PRIVILEGE_NOT_HELD, EPERM},
    {ERROR_INVALID_HANDLE, EBADF},
    {ERROR_NOT_ENOUGH_MEMORY, ENOMEM},
    {ERROR_OUTOFMEMORY, ENOMEM},
    {ERROR_COMMITMENT_LIMIT, ENOMEM},
    {ERROR_FILE_EXISTS, EEXIST},
    {ERROR_ALREADY_EXISTS, EEXIST},
    {ERROR_DISK_FULL, ENOSPC},
    {ERROR_HANDLE_DISK_FULL, ENOSPC},
    {ERROR_WRITE_FAULT, EIO},
    {ERROR_FILE_TOO_LARGE, EFBIG},
    {ERROR_DIR_NOT_EMPTY, ENOTEMPTY},
    {ERROR_NOT_SAME_DEVICE, EXDEV},
    {ERROR_DIRECTORY, ENOTDIR},
    {ERROR_LOCK_VIOLATION, EWOULDBLOCK},
    {ERROR_INVALID_PARAMETER, EINVAL},
    {ERROR_FILENAME_EXCED_RANGE, ENAMETOOLONG},
    {ERROR_NOT_SUPPORTED, ENOTSUP},
    {ERROR_INVALID_FUNCTION, ENOTSUP},
    {ERROR_CANT_RESOLVE_FILENAME, ELOOP},
};

// False, with errno from what Windows says.
bool failed() {
  const DWORD code = GetLastError();
  const auto found = std::find_if(std::begin(codes), std::end(codes), [&](const Code& c) { return c.windows == code; });
  errno = found == std::end(codes) ? EIO : found->posix;
  return false;
}
bool done(BOOL result) { return result ? true : failed(); }

HANDLE handle_of(intptr_t handle) { return reinterpret_cast<HANDLE>(handle); }

intptr_t open_file(const std::string& path, DWORD access, DWORD creation, DWORD flags) {
  const std::wstring name = windows_path(path);
  const HANDLE handle = CreateFileW(name.c_str(), access, share_all, nullptr, creation, flags, nullptr);
  if (handle != INVALID_HANDLE_VALUE) return reinterpret_cast<intptr_t>(handle);
  failed();
  // Windows refuses to open a folder as one refuses a file that one may not read.
  if (errno == EACCES && kind_of(path) == Kind::folder) errno = EISDIR;
  return -1;
}

// A closed one at the end of a scope, and for the calls that need one only for a moment.
class Scoped {
 public:
  Scoped(const std::string& path, DWORD access)
      : handle_(open_file(path, access, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS)) {}
  ~Scoped() {
    if (handle_ != -1) CloseHandle(get());
  }
  Scoped(const Scoped&) = delete;
  explicit operator bool() const { return handle_ != -1; }
  HANDLE get() const { return handle_of(handle_); }

 private:
  intptr_t handle_;
};

OVERLAPPED at(uint64_t offset) {
  OVERLAPPED place{};
  place.Offset = static_cast<DWORD>(offset);
  place.OffsetHigh = static_cast<DWORD>(offset >> 32);
  return place;
}

template <class Call>
int64_t transfer(uint64_t offset, size_t bytes, Call&& call) {
  size_t moved = 0;
  while (moved < bytes) {
    OVERLAPPED place = at(offset + moved);
    DWORD n = 0;
    if (!call(moved, static_cast<DWORD>(std::min(bytes - moved, most_at_once)), &n, &place)) {
      if (GetLastError() == ERROR_HANDLE_EOF) break;
      failed();
      return -1;
    }
    if (n == 0) break;
    moved += n;
  }
  return static_cast<int64_t>(moved);
}

DWORD attributes_of(const std::string& path) { return GetFileAttributesW(windows_path(path).c_str()); }
bool is_folder(DWORD attributes) {
  return attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_DIRECTORY);
}
bool is_link(DWORD attributes) {
  return attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_REPARSE_POINT);
}

// One place past the end of every file: a lock there keeps nobody from reading.
constexpr uint64_t lock_place = uint64_t{1} << 62;

bool lock_file(HANDLE file, DWORD flags) {
  OVERLAPPED place = at(lock_place);
  if (LockFileEx(file, LOCKFILE_EXCLUSIVE_LOCK | flags, 0, 1, 0, &place)) return true;
  if (GetLastError() == ERROR_IO_PENDING) SetLastError(ERROR_LOCK_VIOLATION);
  return failed();
}

bool move_file(const std::string& from, const std::string& to, DWORD flags) {
  return done(MoveFileExW(windows_path(from).c_str(), windows_path(to).c_str(), flags | MOVEFILE_WRITE_THROUGH));
}

}  // namespace

File::File(const std::string& path, Open how) {
  constexpr DWORD both = GENERIC_READ | GENERIC_WRITE;
  switch (how) {
    case Open::read:
      handle_ = open_file(path, GENERIC_READ, OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL);
      break;
    case Open::read_write:
      handle_ = open_file(path, both, OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL);
      break;
    // A new file is renamed by its open handle, which has to be allowed.
    case Open::create_new:
      handle_ = open_file(path, both | DELETE, CREATE_NEW, FILE_ATTRIBUTE_NORMAL);
      break;
    case Open::open_or_create:
      handle_ = open_file(path, both, OPEN_ALWAYS, FILE_ATTRIBUTE_NORMAL);
      break;
    case Open::open_or_create_no_link:
      if (is_link(attributes_of(path))) {
        errno = ELOOP;
        return;
      }
      handle_ = open_file(path, both, OPEN_ALWAYS, FILE_ATTRIBUTE_NORMAL);
      break;
  }
}

File File::without_name(const std::string& folder) {
  File file;
  for (int tries = 0; tries < 16 && !file; ++tries) {
    uint64_t number = 0;
    random_bytes(&number, sizeof number);
    file.handle_ = open_file(folder + "/.part-" + std::to_string(number), GENERIC_READ | GENERIC_WRITE | DELETE,
                             CREATE_NEW, FILE_ATTRIBUTE_TEMPORARY | FILE_ATTRIBUTE_HIDDEN | FILE_FLAG_DELETE_ON_CLOSE);
    if (!file && errno != EEXIST) break;
  }
  return file;
}

void File::close() {
  if (handle_ == none) return;
  CloseHandle(handle_of(handle_));
  handle_ = none;
}

int64_t File::size() const {
  LARGE_INTEGER size;
  if (GetFileType(handle_of(handle_)) != FILE_TYPE_DISK || !GetFileSizeEx(handle_of(handle_), &size)) return -1;
  return size.QuadPart;
}

int64_t File::read_at(uint64_t offset, void* to, size_t bytes) const {
  return transfer(offset, bytes, [&](size_t moved, DWORD left, DWORD* n, OVERLAPPED* place) {
    return ReadFile(handle_of(handle_), static_cast<std::byte*>(to) + moved, left, n, place);
  });
}

int64_t File::write_at(uint64_t offset, const void* from, size_t bytes) {
  return transfer(offset, bytes, [&](size_t moved, DWORD left, DWORD* n, OVERLAPPED* place) {
    return WriteFile(handle_of(handle_), static_cast<const std::byte*>(from) + moved, left, n, place);
  });
}

bool File::make_empty() {
  FILE_END_OF_FILE_INFO end{};
  return done(SetFileInformationByHandle(handle_of(handle_), FileEndOfFileInfo, &end, sizeof end));
}

bool File::sync() { return done(FlushFileBuffers(handle_of(handle_))); }
void File::give_back(uint64_t, uint64_t) {}  // only sparse files could
bool File::lock() { return lock_file(handle_of(handle_), LOCKFILE_FAIL_IMMEDIATELY); }
bool File::wait_for_lock() { return lock_file(handle_of(handle_), 0); }

Kind kind_of(const std::string& path) {
  const DWORD attributes = attributes_of(path);
  if (attributes == INVALID_FILE_ATTRIBUTES) return Kind::nothing;
  if (is_link(attributes) && !Scoped(path, FILE_READ_ATTRIBUTES)) return Kind::nothing;
  if (attributes & FILE_ATTRIBUTE_DEVICE) return Kind::other;
  return is_folder(attributes) ? Kind::folder : Kind::file;
}

bool exists(const std::string& path) { return kind_of(path) != Kind::nothing; }
bool is_link(const std::string& path) { return is_link(attributes_of(path)); }
bool is_plain_file(const std::string& path) { return kind_of(path) == Kind::file && !is_link(path); }

// Only trying tells: rights lie in lists that a call alone can judge.
bool can_write_into(const std::string& folder) {
  const Kind kind = kind_of(folder);
  if (kind == Kind::folder) return static_cast<bool>(File::without_name(folder));
  errno = kind == Kind::nothing ? ENOENT : ENOTDIR;
  return false;
}

bool size_of(const std::string& path, uint64_t& size) {
  if (kind_of(path) != Kind::file) return false;
  const Scoped file(path, FILE_READ_ATTRIBUTES);
  LARGE_INTEGER bytes;
  if (!file || !GetFileSizeEx(file.get(), &bytes)) return false;
  size = static_cast<uint64_t>(bytes.QuadPart);
  return true;
}

bool remove_file(const std::string& path) {
  const std::wstring name = windows_path(path);
  // The name is free at once, even where somebody reads the file; older file systems wait for its end.
  const HANDLE file =
      CreateFileW(name.c_str(), DELETE, share_all, nullptr, OPEN_EXISTING, FILE_FLAG_OPEN_REPARSE_POINT, nullptr);
  if (file == INVALID_HANDLE_VALUE) return failed();
  FILE_DISPOSITION_INFO_EX how{FILE_DISPOSITION_FLAG_DELETE | FILE_DISPOSITION_FLAG_POSIX_SEMANTICS};
  const bool gone = SetFileInformationByHandle(file, dispose_as_posix, &how, sizeof how);
  CloseHandle(file);
  return gone || done(DeleteFileW(name.c_str()));
}

bool remove_tree(const std::string& path) {
  const DWORD attributes = attributes_of(path);
  if (attributes == INVALID_FILE_ATTRIBUTES) return true;
  if (!is_folder(attributes)) return remove_file(path);
  std::vector<std::string> names;
  bool all = is_link(attributes) || list_folder(path, names);
  for (const std::string& name : names) all = remove_tree(path + "/" + name) && all;
  return done(RemoveDirectoryW(windows_path(path).c_str())) && all;
}

bool make_folder(const std::string& path) { return done(CreateDirectoryW(windows_path(path).c_str(), nullptr)); }

bool make_folders(const std::string& path) {
  if (kind_of(path) == Kind::folder || make_folder(path)) return true;
  if (errno == EEXIST) return kind_of(path) == Kind::folder;
  const std::string above = folder_of(std::string_view(path).substr(0, path.find_last_not_of("/\\") + 1));
  if (errno != ENOENT || above.size() >= path.size() || above == "." || !make_folders(above)) return false;
  return make_folder(path) || kind_of(path) == Kind::folder;
}

bool list_folder(const std::string& folder, std::vector<std::string>& names) {
  if (!is_folder(attributes_of(folder))) {
    errno = exists(folder) ? ENOTDIR : ENOENT;
    return false;
  }
  WIN32_FIND_DATAW entry;
  const HANDLE search = FindFirstFileW((windows_path(folder) + L"\\*").c_str(), &entry);
  if (search == INVALID_HANDLE_VALUE) return failed();
  do {
    std::string name = from_wide(entry.cFileName);
    if (name != "." && name != "..") names.push_back(std::move(name));
  } while (FindNextFileW(search, &entry));
  const bool whole = GetLastError() == ERROR_NO_MORE_FILES || failed();
  FindClose(search);
  return whole;
}

bool rename_replacing(const std::string& from, const std::string& to) {
  // With a reader on the old file only this way replaces it.
  {
    const Scoped file(from, DELETE);
    if (!file) return false;
    const std::wstring name = windows_path(to);
    std::vector<std::byte> memory(sizeof(FILE_RENAME_INFO) + name.size() * sizeof(wchar_t));
    auto* const how = reinterpret_cast<FILE_RENAME_INFO*>(memory.data());
    how->Flags = FILE_RENAME_FLAG_REPLACE_IF_EXISTS | FILE_RENAME_FLAG_POSIX_SEMANTICS;
    how->FileNameLength = static_cast<DWORD>(name.size() * sizeof(wchar_t));
    std::copy(name.begin(), name.end(), how->FileName);
    if (SetFileInformationByHandle(file.get(), rename_as_posix, how, static_cast<DWORD>(memory.size()))) return true;
  }
  return move_file(from, to, MOVEFILE_REPLACE_EXISTING);
}

bool rename_to_new(const std::string& from, const std::string& to) { return move_file(from, to, 0); }

void sync_folder(const std::string&) {}  // there is no such thing

bool free_bytes(const std::string& folder, uint64_t& bytes) {
  ULARGE_INTEGER free;
  if (!GetDiskFreeSpaceExW((windows_path(folder) + L"\\").c_str(), &free, nullptr, nullptr)) return failed();
  bytes = free.QuadPart;
  return true;
}

std::string full_path(const std::string& path) {
  const Scoped file(path, FILE_READ_ATTRIBUTES);
  if (!file) return {};
  std::wstring name(32768, L'\0');
  const DWORD n =
      GetFinalPathNameByHandleW(file.get(), name.data(), static_cast<DWORD>(name.size()), FILE_NAME_NORMALIZED);
  if (!n || n >= name.size()) return {};
  name.resize(n);
  if (name.starts_with(L"\\\\?\\UNC\\"))
    name.replace(0, 7, L"\\");
  else if (name.starts_with(L"\\\\?\\"))
    name.erase(0, 4);
  std::string full = from_wide(name);
  std::replace(full.begin(), full.end(), '\\', '/');
  return full;
}

std::string folder_of(std::string_view path) {
  const size_t end = path.find_last_of("/\\");
  if (end != path.npos) return std::string(path.substr(0, end + 1));
  return path.size() > 1 && path[1] == ':' ? std::string(path.substr(0, 2)) : ".";  // "C:name" lies where C: stands
}

void prefer_huge_pages(void*, size_t) {}

uint64_t free_memory() {
  MEMORYSTATUSEX memory;
  memory.dwLength = sizeof memory;
  return GlobalMemoryStatusEx(&memory) ? memory.ullAvailPhys : 0;
}

int64_t process_id() { return static_cast<int64_t>(GetCurrentProcessId()); }

bool random_bytes(void* to, size_t bytes) {
  return BCryptGenRandom(nullptr, static_cast<PUCHAR>(to), static_cast<ULONG>(bytes),
                         BCRYPT_USE_SYSTEM_PREFERRED_RNG) == 0;
}

// libstdc++'s std::atomic::wait loses wake-ups where the system has no futex.
void wait_while(const std::atomic<uint32_t>& value, uint32_t seen) {
  WaitOnAddress(const_cast<std::atomic<uint32_t>*>(&value), &seen, sizeof seen, INFINITE);
}
void wake_one(std::atomic<uint32_t>& value) { WakeByAddressSingle(&value); }

void* load_library(const std::string& path, std::string& why) {
  // A mere name is looked for where programs have their libraries; what lies beside a named library is found, too.
  const bool named = path.find_first_of("/\\") != path.npos;
  const std::wstring name = named ? windows_path(path) : to_wide(path);
  const HMODULE library = LoadLibraryExW(name.c_str(), nullptr, named ? LOAD_WITH_ALTERED_SEARCH_PATH : 0);
  if (library) return reinterpret_cast<void*>(library);
  const DWORD code = GetLastError();
  why = "'" + path + "': ";
  wchar_t text[512];
  DWORD n =
      FormatMessageW(FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS, nullptr, code, 0, text, 512, nullptr);
  while (n && (text[n - 1] == L'\n' || text[n - 1] == L'\r')) --n;
  why += n ? from_wide(std::wstring_view(text, n)) : "error " + std::to_string(code);
  return nullptr;
}

void* find_symbol(void* library, const char* name) {
  return reinterpret_cast<void*>(GetProcAddress(static_cast<HMODULE>(library), name));
}

}  // namespace gptq::base::os
