# SPDX-License-Identifier: Apache-2.0
"""Writes the library as a few files that a program adds to its own project, as SQLite's: gptq.h, gptq.cpp and a file of
kernels per instruction set. FlatBuffers and xxHash, which are headers alone, are inside; zstd must be linked."""
import argparse
import pathlib
import re
import shutil
import subprocess
import tempfile

root = pathlib.Path(__file__).resolve().parent.parent
x86, arm = "defined(__x86_64__)", "defined(__aarch64__)"
# The kernels of an instruction set: the processors that have it, its features as gcc and clang name them, and the macros by which
# sources ask for it, which compilers do not define for a part of a file.
avx2, avx512 = "avx2,fma,f16c", "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni"
sets = {
  "avx2": (x86, avx2, avx2, ["__AVX2__"]),
  "avx512vnni": (x86, avx512, avx512, ["__AVX2__", "__AVX512F__"]),
  "avx512bf16": (x86, avx512 + ",avx512bf16", avx512 + ",avx512bf16", ["__AVX2__", "__AVX512F__"]),
  "neon": (arm, "", "", ["__ARM_NEON"]),
  "neon_dotprod": (arm, "arch=armv8.2-a+dotprod", "dotprod", ["__ARM_NEON", "__ARM_FEATURE_DOTPROD"]),
  "neon_i8mm": (arm, "arch=armv8.2-a+i8mm", "i8mm", ["__ARM_NEON", "__ARM_FEATURE_MATMUL_INT8"]),
}
all_macros = set().union(*(macros for *_, macros in sets.values()))
include = re.compile(r'\s*#\s*include\s*(["<])([^">]+)[">]')


class Unit:
  """One file: what the sources include is put where it is first asked for, the system's headers before everything else."""

  def __init__(self, folders, inside, macros):
    self.folders, self.inside = folders, inside  # inside: headers in <> that are put in as well
    self.macros = macros  # of all_macros, those that will be defined
    self.seen, self.system, self.lines = set(), [], []

  def add(self, path, conditional=False):
    """conditional: the lines will stand in an #if, and so must what they include."""
    if path in self.seen:
      return
    self.seen.add(path)
    branches = []  # of the #ifs around the line: whether its branch is compiled, and whether one before it was; None where that is not known
    for line in path.read_text().splitlines():
      directive = line.strip()
      if directive.startswith("#if"):
        branches.append((self.holds(directive), False))
      elif directive.startswith(("#elif", "#else")) and branches[-1][0] is not None:
        before = any(branches[-1])
        branches[-1] = (not before and (directive == "#else" or self.holds(directive)), before)
      known = [holds for holds, _ in branches if holds is not None]
      if directive.startswith(("#if", "#elif", "#else", "#endif")) and branches[-1][0] is not None:
        known.append(False)  # the directive itself is not needed
      if directive.startswith("#endif"):
        branches.pop()
      if directive.startswith("#pragma once") or directive == "// SPDX-License-Identifier: Apache-2.0" or not all(known):
        continue
      found = include.match(line)
      name = found and found[2]
      header = self.find(name, path) if name and (found[1] == '"' or name.startswith(self.inside)) else None
      inner = conditional or len(known) < len(branches)
      if header:
        self.add(header, inner)
      elif name and not inner:
        self.system += [name] if name not in self.system else []
      else:
        self.lines.append(line)

  def holds(self, directive):
    macro = re.search(r"defined\((\w+)\)$", directive)
    return macro[1] in self.macros if macro and macro[1] in all_macros else None

  def find(self, name, by):
    for folder in [by.parent, *self.folders]:
      if (folder / name).is_file():
        return (folder / name).resolve()
    if by.is_relative_to(root):
      raise SystemExit(f"amalgamate.py: {by} includes {name}, which is in none of the folders; --include FOLDER adds one")
    return None  # of a library's, for others than us


def variants(arch):
  levels = ["ref"] + [name for name, (where, *_) in sets.items() if where == arch]
  pairs = [f"X({path.parent.name}, {level})" for level in levels for path in sorted(root.glob(f"kernels/*/{level}.cpp"))]
  return f'#define GPTQ_KERNEL_VARIANTS(X) {" ".join(pairs)}\n#define GPTQ_KERNEL_LEVELS "{", ".join(["reference"] + levels[1:])}"\n'


settings = """#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#define ZSTD_STATIC_LINKING_ONLY
#define XXH_INLINE_ALL
#define FLATBUFFERS_ASSERT(x) static_cast<void>(0)
#if defined(_WIN32)
#define _WIN32_WINNT 0x0A00
#define NTDDI_VERSION 0x0A000007
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#define UNICODE
#define _USE_MATH_DEFINES
#endif
"""
# Products and sums are not contracted, so that every compiler gives the same numbers; and what compilers say of files put together.
compiling = """#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC optimize("fp-contract=off")
#pragma GCC diagnostic ignored "-Wpsabi"
#endif
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-const-variable"
"""


def text_of(unit, before="", after=""):
  system = "".join(f"#include <{name}>\n" for name in sorted(unit.system))
  return before + system + compiling + after + "\n".join(unit.lines) + "\n"


def library(folders):
  unit = Unit(folders, ("flatbuffers/", "xxhash.h"), [])
  last = ["os_posix.cpp", "windows_path.cpp", "os_windows.cpp"]  # windows.h defines many a name
  for path in sorted([*root.glob("runtime/**/*.cpp"), *root.glob("kernels/*.cpp"), *root.glob("kernels/*/ref.cpp")]):
    if path.name not in last:
      unit.add(path)
  for name in last:
    unit.lines.append("#if defined(_WIN32)" if "windows" in name else "#if !defined(_WIN32)")
    unit.add(root / "runtime/base" / name, conditional=True)
    unit.lines.append("#endif")
  version = re.search(r"version: '([0-9.]+)'", (root / "meson.build").read_text())[1]
  return text_of(unit, settings + f'#define GPTQ_VERSION_TEXT "{version}"\n')


def kernels(folders, level):
  where, gcc, clang, macros = sets[level]
  unit = Unit(folders, (), macros)
  for path in sorted(root.glob(f"kernels/*/{level}.cpp")):
    unit.add(path)
  start = end = ""
  if gcc:
    start = f'''#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("{clang}"))), apply_to = function)
#else
#pragma GCC target("{gcc}")
// About gcc 12's own intrinsics.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
'''
    end = "#if defined(__clang__)\n#pragma clang attribute pop\n#endif\n"
  return f"#if {where}\n" + text_of(unit, after=start) + end + "#endif\n"


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("out", type=pathlib.Path, help="the folder to write to")
  parser.add_argument("--flatc", default="flatc", help="FlatBuffers' compiler")
  parser.add_argument("--include", type=pathlib.Path, action="append", default=[],
                      help="a folder with flatbuffers/ and xxhash.h, before the usual ones")
  args = parser.parse_args()
  args.out.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory() as generated:
    made = pathlib.Path(generated)
    (made / "kernels").mkdir()
    schemas = [root / "runtime/format/model.fbs", root / "runtime/text/tokenizer.fbs"]
    subprocess.run([args.flatc, "--cpp", "--scoped-enums", "--gen-object-api", "-o", made, *schemas], check=True)
    (made / "kernels/kernel_variants.h").write_text(f"#if {x86}\n{variants(x86)}#elif {arm}\n{variants(arm)}#else\n{variants('')}#endif\n")
    folders = [root, root / "runtime", root / "include", made, made / "kernels",
               *args.include, pathlib.Path("/usr/include"), pathlib.Path("/usr/local/include")]
    files = {"gptq": library(folders)} | {f"gptq_{level}": kernels(folders, level) for level in sets}
  for name, text in files.items():
    (args.out / f"{name}.cpp").write_text(f"// SPDX-License-Identifier: Apache-2.0\n"
                                          f"// libgptq in a few files, written by packaging/amalgamate.py: change the sources instead.\n{text}")
  shutil.copy(root / "include/gptq/gptq.h", args.out / "gptq.h")


main()
