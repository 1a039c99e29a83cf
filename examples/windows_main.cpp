// SPDX-License-Identifier: Apache-2.0
// On Windows the tools begin here: their arguments and what they print are UTF-8, and the bytes they write are those
// they write elsewhere. Their own main() is called gptq_tool_main there by the build.
#include <fcntl.h>
#include <io.h>
#include <windows.h>

#include <string>
#include <vector>

int gptq_tool_main(int argc, char** argv);

namespace {

std::string utf8(const wchar_t* text) {
  std::string out(static_cast<size_t>(WideCharToMultiByte(CP_UTF8, 0, text, -1, nullptr, 0, nullptr, nullptr)), '\0');
  WideCharToMultiByte(CP_UTF8, 0, text, -1, out.data(), static_cast<int>(out.size()), nullptr, nullptr);
  return out;  // with its NUL
}

}  // namespace

extern "C" int wmain(int argc, wchar_t** argv) {
  std::vector<std::string> arguments;
  for (int i = 0; i < argc; ++i) arguments.push_back(utf8(argv[i]));
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  SetConsoleCP(CP_UTF8);
  SetConsoleOutputCP(CP_UTF8);
  _setmode(1, _O_BINARY);
  return gptq_tool_main(argc, pointers.data());
}
