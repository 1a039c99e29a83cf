# SPDX-License-Identifier: Apache-2.0
"""layout.py FACTS: constants, sizes and offsets as ctypes has them, against what the C program layout.c printed."""
import ctypes
import sys

from gptq import _native as native


def value_of(name):
  if "." in name:
    struct, field = name.split(".")
    return getattr(getattr(native, struct), field).offset
  found = getattr(native, name)
  return ctypes.c_ssize_t(found).value if isinstance(found, int) else ctypes.sizeof(found)


def main(path):
  with open(path, encoding="utf-8") as file:
    facts = dict(line.split() for line in file)
  wrong = [f"{name} is {value_of(name)}, not {value}" for name, value in facts.items() if value_of(name) != int(value)]
  print("\n".join([*wrong, f"{'not ' if wrong or not facts else ''}ok - layout: {len(facts)} constants, sizes and offsets"]))
  return wrong or not facts


if __name__ == "__main__":
  sys.exit(bool(main(sys.argv[1])))
