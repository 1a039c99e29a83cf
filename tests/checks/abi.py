# SPDX-License-Identifier: Apache-2.0
# abi.py SOURCE_ROOT CC... -- CXX... [--update]: gptq.h compiles by itself as strict C99 and C++11, its structs have no padding, and its
# constants, sizes, offsets and functions are those of abi.txt. --update writes abi.txt anew: for additions alone once 1.0 is out.
import difflib
import os
import re
import subprocess
import sys
import tempfile

STRICT = ["-Wall", "-Wextra", "-pedantic-errors", "-Werror", "-Wpadded"]


def facts(header):
  """Constants, structs with their fields, and functions, in the order of the header."""
  text = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
  constants = re.findall(r"^#define (GPTQ_(?!H\b|CALL\b|API\b)\w+) +\S", text, re.MULTILINE)
  constants += [name for body in re.findall(r"\benum\s*\{(.*?)\}", text, re.DOTALL) for name in re.findall(r"(\w+)\s*=", body)]
  structs = {}
  for name, body in re.findall(r"struct (gptq_\w+) \{(.*?)\}", text, re.DOTALL):
    structs[name] = re.findall(r"(\w+)(?:\[\d+\])?\s*;", body)
  functions = [" ".join(declaration.split()) for declaration in re.findall(r"^GPTQ_API ([^;]*);", text, re.MULTILINE)]
  return constants, structs, functions


def program(constants, structs):
  lines = ["#include <gptq/gptq.h>", "#include <stdio.h>", "int main(void) {"]
  lines += [f'  printf("{name} %lld\\n", (long long){name});' for name in constants]
  for name, fields in structs.items():
    lines.append(f'  printf("{name} %u\\n", (unsigned)sizeof(struct {name}));')
    lines += [f'  printf("{name}.{field} %u\\n", (unsigned)offsetof(struct {name}, {field}));' for field in fields]
  return "\n".join([*lines, "  return 0;", "}", ""])


arguments = [argument for argument in sys.argv[1:] if argument != "--update"]
root, split = arguments[0], arguments.index("--")
cc, cxx = arguments[1:split], arguments[split + 1:]
include = ["-I", os.path.join(root, "include")]
with open(os.path.join(root, "include/gptq/gptq.h"), encoding="utf-8") as file:
  constants, structs, functions = facts(file.read())

with tempfile.TemporaryDirectory() as folder:
  def write(name, text):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
      file.write(text)
    return os.path.join(folder, name)

  alone = "#include <gptq/gptq.h>\nint gptq_is_alone;\n"
  subprocess.run([*cc, "-std=c99", *STRICT, *include, "-c", write("alone.c", alone), "-o", os.path.join(folder, "c.o")], check=True)
  subprocess.run([*cxx, "-std=c++11", *STRICT, *include, "-c", write("alone.cpp", alone), "-o", os.path.join(folder, "cpp.o")], check=True)
  binary = os.path.join(folder, "facts")
  subprocess.run([*cc, "-std=c99", *include, write("facts.c", program(constants, structs)), "-o", binary], check=True)
  printed = subprocess.run([binary], check=True, capture_output=True, text=True).stdout.splitlines()

golden = os.path.join(os.path.dirname(os.path.abspath(__file__)), "abi.txt")
now = [line + "\n" for line in printed + functions]
if "--update" in sys.argv:
  with open(golden, "w", encoding="utf-8") as file:
    file.writelines(now)
with open(golden, encoding="utf-8") as file:
  changes = list(difflib.unified_diff(file.readlines(), now, "abi.txt", "gptq.h"))
sys.stdout.writelines(changes)
print(f"{len(constants)} constants, {len(structs)} structs, {len(functions)} functions")
sys.exit(bool(changes) or not (constants and structs and functions))
