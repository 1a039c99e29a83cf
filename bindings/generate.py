#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""generate.py [--check]: writes the low layers of the bindings from include/gptq/gptq.h; with --check says which are not up to date,
and which functions of gptq.h the layers above them do not use without a reason in generator/coverage.py.

Needs clang. What it writes is checked in, so that building a binding does not need it.
"""
import os
import sys

from generator import c, coverage, csharp, go, python, rust
from generator.header import read

ROOT = os.path.dirname(os.path.abspath(__file__))
FILES = {
  "layout.c": c.layout,
  "rust/gptq-sys/src/lib.rs": rust.sys,
  "rust/gptq-sys/tests/facts/mod.rs": rust.layout,
  "go/constants.go": go.constants,
  "go/internal/layout/layout.go": go.layout,
  "csharp/Native.cs": csharp.native,
  "csharp/tests/LayoutFacts.cs": csharp.layout,
  "python/gptq/_native.py": python.native,
}


def main(check):
  header = read(os.path.join(ROOT, "../include/gptq/gptq.h"))
  stale = []
  for name, write in FILES.items():
    path, text = os.path.join(ROOT, name), write(header)
    if os.path.exists(path):
      with open(path, encoding="utf-8") as file:
        if file.read() == text:
          continue
    stale.append(name)
    if not check:
      os.makedirs(os.path.dirname(path), exist_ok=True)
      with open(path, "w", encoding="utf-8") as file:
        file.write(text)
  for name in stale:
    print(f"bindings/{name}: {'is not what gptq.h gives: run bindings/generate.py' if check else 'written'}")
  missing = list(coverage.problems(ROOT)) if check else []
  for problem in missing:
    print(f"bindings: {problem}")
  print(f"{len(header.functions)} functions, {len(header.structs)} structs, {len(header.constants)} constants, "
        f"{len(FILES)} files, {len(stale)} {'stale' if check else 'written'}")
  return bool(check and stale or missing)


if __name__ == "__main__":
  if sys.argv[1:] not in ([], ["--check"]):
    sys.exit(__doc__)
  sys.exit(main(sys.argv[1:] == ["--check"]))
