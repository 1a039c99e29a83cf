# SPDX-License-Identifier: Apache-2.0
# cuda.py LIBGPTQ_CUDA.so ARCHS USAGE...: the backend has kernels for each of ARCHS (75,80,...), none spills registers or has memory
# of its own (by what ptxas said), it exports one function and is not large.
import os
import re
import subprocess
import sys

LIMIT = 10_000_000  # bytes

backend, architectures, *usage = sys.argv[1:]
problems, kernels, most, found = [], 0, 0, set()
for path in usage:
  name = architecture = ""
  with open(path, encoding="utf-8") as file:
    for line in file:
      if match := re.search(r"Compiling entry function '(\S+)' for '(sm_\d+)'", line):
        name, architecture = match.groups()
        found.add(architecture)
        kernels += 1
      if match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
        if any(int(n) for n in match.groups()):
          problems.append(f"{architecture} {name}: {match[0]}")
      if match := re.search(r"Used (\d+) registers", line):
        most = max(most, int(match[1]))
problems += [f"no code for {missing}" for missing in sorted({f"sm_{arch}" for arch in architectures.split(",")} - found)]

exported = [line.split()[-1] for line in subprocess.run(["nm", "-D", "--defined-only", backend], check=True, capture_output=True, text=True).stdout.splitlines()]
problems += [f"exported: {symbol}" for symbol in exported if symbol != "gptq_gpu_backend"]
size = os.path.getsize(backend)
if size > LIMIT:
  problems.append(f"{size} bytes, at most {LIMIT} allowed")
print(f"{kernels} kernels, at most {most} registers; {size} bytes; {len(exported)} functions exported")
print("\n".join(problems))
sys.exit(bool(problems) or not kernels or not exported)
