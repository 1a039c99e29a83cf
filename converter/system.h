// SPDX-License-Identifier: Apache-2.0
// What the tools ask the operating system for beside base/os.h, which the library has too: system_posix.cpp,
// system_windows.cpp.
#pragma once
#include <filesystem>
#include <string>
#include <string_view>

namespace gptq::convert::system {

// From UTF-8, for which Windows' C++ library does not take strings; path::string() is UTF-8 again.
inline std::filesystem::path path_of(std::string_view utf8) { return std::u8string(utf8.begin(), utf8.end()); }

bool errors_on_terminal();               // whether a person reads stderr as it is written
std::string variable(const char* name);  // of the environment; "" = not set
std::string home_folder();               // "" = not known

// What happens when the user wishes the program to end: by Ctrl-C, by closing its terminal, by asking it to. The
// handler runs once, maybe in the middle of anything, so it may touch static memory alone; a second wish ends the
// program, and so does the first one where the handler is null.
void on_interrupt(void (*handler)(int signal));
void remove_and_end(const char* path,
                    int signal);  // for such a handler: the file goes, if path is not empty, then the program

bool make_link(const std::string& target,
               const std::string& path);                     // path leads to target, which may be relative to it
bool exchange(const std::string& a, const std::string& b);   // two paths at once; false where that cannot be done
bool same_disk(const std::string& a, const std::string& b);  // of two paths that are there

}  // namespace gptq::convert::system
