// SPDX-License-Identifier: Apache-2.0
// Which places of the library and the converter made a failure in this run, a line each, at the end of the file that GPTQ_ERROR_SITES names, for
// error_sites.py. Test programs are linked so that failures come here first (--wrap).
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <set>
#include <string>

#include "base/failure.h"

#if defined(__linux__) && defined(__GLIBC__)
namespace {

using gptq::base::Code, gptq::base::MessageWriter;

class Sites {
 public:
  void add(const Code& code) {
    if (!path_) return;
    const std::lock_guard lock(mutex_);
    sites_.insert(std::string(code.file) + ":" + std::to_string(code.line));
  }
  ~Sites() {
    std::FILE* const file = path_ ? std::fopen(path_, "a") : nullptr;
    for (const std::string& site : sites_)
      if (file) std::fprintf(file, "%s\n", site.c_str());
    if (file) std::fclose(file);
  }

 private:
  const char* const path_ = std::getenv("GPTQ_ERROR_SITES");
  std::mutex mutex_;
  std::set<std::string> sites_;
};
Sites& sites() {
  static Sites all;
  return all;
}

}  // namespace

extern "C" {
void __real__ZN4gptq4base13MessageWriterC1ENS0_4CodeE(MessageWriter*, Code);
[[noreturn]] void __real__ZN4gptq4base7fail_osENS0_4CodeEiSt17basic_string_viewIcSt11char_traitsIcEES5_(Code, int, std::string_view, std::string_view);

void __wrap__ZN4gptq4base13MessageWriterC1ENS0_4CodeE(MessageWriter* self, Code code) {
  sites().add(code);
  __real__ZN4gptq4base13MessageWriterC1ENS0_4CodeE(self, code);
}
[[noreturn]] void __wrap__ZN4gptq4base7fail_osENS0_4CodeEiSt17basic_string_viewIcSt11char_traitsIcEES5_(Code code, int os_code, std::string_view what,
                                                                                                          std::string_view name) {
  sites().add(code);
  __real__ZN4gptq4base7fail_osENS0_4CodeEiSt17basic_string_viewIcSt11char_traitsIcEES5_(code, os_code, what, name);
}
}
#endif
