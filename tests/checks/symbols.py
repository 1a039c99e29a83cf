# SPDX-License-Identifier: Apache-2.0
# symbols.py LIBGPTQ.so LIBGPTQ.a: the shared library exports gptq_* alone, and none of our objects refers to a function that ends the
# process, prints, or looks at the environment.
import re
import subprocess
import sys

FORBIDDEN = re.compile(r"""
  (abort|exit|_exit|_Exit|quick_exit|raise|kill|__assert_fail|__assert|_ZSt21__glibcxx_assert_fail.*
  |v?f?printf|v?dprintf|__v?f?printf_chk|puts|fputs|fputc|putc|putchar|fwrite|perror|stdout|stderr|_ZSt4cout|_ZSt4cerr
  |getenv|secure_getenv|setenv|putenv|setlocale|newlocale|uselocale|signal|sigaction|fesetround|fesetenv)""", re.VERBOSE)


def nm(*args):
  return subprocess.run(["nm", *args], check=True, capture_output=True, text=True).stdout.splitlines()


shared, static = sys.argv[1:]
problems = []
exported = [line.split()[-1].split("@")[0] for line in nm("-D", "--defined-only", shared)]
exported = [name for name in exported if name != "GPTQ_0"]  # the version itself
problems += [f"exported: {name}" for name in exported if not name.startswith("gptq_")]
if not exported:
  problems.append("nothing is exported")

objects, member = 0, ""
for line in nm("--undefined-only", static):
  if line.endswith(":"):
    member, objects = line[:-1], objects + 1
  elif line and FORBIDDEN.fullmatch(line.split()[-1].split("@")[0]):
    problems.append(f"{member} refers to {line.split()[-1]}")

print(f"{len(exported)} functions exported, {objects} objects looked at")
print("\n".join(problems))
sys.exit(bool(problems) or not objects)
