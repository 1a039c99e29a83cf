# SPDX-License-Identifier: Apache-2.0
# layers.py SOURCE_ROOT: which folder may include what of ours. A folder may always include itself.
import os
import re
import sys

# A name ending in .h is that header alone.
MAY_INCLUDE = {
  "include": [],
  "kernels": [],
  "runtime/base": ["include"],
  "runtime/format": ["include", "base"],
  "runtime/text": ["include", "base"],
  "runtime/model": ["include", "base", "format", "kernels"],
  "runtime/device": ["include", "base", "kernels"],
  "runtime/engine": ["include", "base", "model", "device", "kernels", "text"],
  "runtime/quantize": ["include", "base", "format", "model", "engine", "device", "kernels"],
  "runtime/api": ["include", "base", "format", "model", "text", "engine", "device", "kernels", "quantize"],
  "converter": ["include", "api/quantize.h", "base", "format", "kernels/half.h", "kernels/layout.h", "model/spec.h", "model/model.h", "model/pack.h", "text/added_tokens.h", "text/chat_template.h",
                "text/bpe.h", "text/tokenizer.h", "text/tokenizer_file.h", "text/utf8.h"],
  "bindings": ["include"],
  "examples": ["include", "bindings"],
}
# Headers from outside, for the folders that may use them; the C++ library and the system's C headers are for all but include.
OUTSIDE = {
  "zstd.h": ["runtime/format", "converter"], "xxhash.h": ["runtime/format"], "flatbuffers/": ["runtime/format", "runtime/text", "converter"],
  "simdjson.h": ["converter"], "pcre2.h": ["converter"], "CLI/": ["converter", "examples"],
}
GENERATED = {"model_generated.h": "format", "tokenizer_generated.h": "text", "kernel_variants.h": "kernels", "_cgo_export.h": "bindings"}
# An instruction set's file may not take inline functions of the C++ library along: the linker could keep its copy for everyone.
ISA_FILE = re.compile(r"kernels/.*(\w*avx\w*|\w*neon\w*|\w*x86|half|element|common|kv|vector\w*|simd|merge|ahead)\.(h|cpp)$")
ISA_HEADERS = re.compile(r"(immintrin|arm_neon|cpuid|stddef|stdint|math|string|float)\.h|cstdint|cstring")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


def owner(name, folder, beside):
  """Which of our folders a header belongs to, or None."""
  if name in GENERATED:
    return GENERATED[name]
  if name.startswith("gptq/"):
    return "include"
  first = name.split("/")[0]
  if "/" not in name:
    if name == "gptq.hpp":
      return "bindings"
    return folder if any(os.path.exists(os.path.join(root, place, name)) for place in (folder, beside)) else None
  ours = [entry.split("/")[-1] for entry in MAY_INCLUDE]
  return first if first in ours else None


def problem(path, folder, form, name):
  target, own = owner(name, folder, os.path.dirname(path)), folder.split("/")[-1]
  if folder == "include" and name not in ("stddef.h", "stdint.h"):
    return "the C header needs stddef.h and stdint.h alone"
  if form == "<" and ISA_FILE.search(path) and not ISA_HEADERS.fullmatch(name):
    return "a file of an instruction set includes kernels, C and intrinsics headers alone"
  if target is None:
    users = next((users for header, users in OUTSIDE.items() if name.startswith(header)), None)
    if form == '"':
      return "no header of ours is called so"
    return None if users is None or folder in users else f"only {', '.join(users)} may use it"
  if target in (own, folder) or target in MAY_INCLUDE[folder] or name in MAY_INCLUDE[folder]:
    return None
  return f"{folder} may include {', '.join(MAY_INCLUDE[folder]) or 'nothing of ours'}"


root = sys.argv[1]
files = problems = 0
for folder in MAY_INCLUDE:
  for at, _, names in os.walk(os.path.join(root, folder)):
    for name in sorted(names):
      if not name.endswith((".h", ".hpp", ".c", ".cpp", ".cu", ".cuh", ".in")):
        continue
      path = os.path.relpath(os.path.join(at, name), root)
      files += 1
      with open(os.path.join(at, name), encoding="utf-8") as source:
        for form, header in INCLUDE.findall(source.read()):
          why = problem(path, folder, form, header)
          if why:
            print(f"{path} includes {header}: {why}")
            problems += 1
print(f"{files} files, {problems} problems")
sys.exit(problems > 0 or not files)
