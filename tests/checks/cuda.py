# SPDX-License-Identifier: Apache-2.0
# cuda.py LIBGPTQ_CUDA.so NVCC: the backend has code for every architecture, no kernel of it spills registers or has memory of its own, it exports
# one function and is not large.
import os
import re
import subprocess
import sys

LIMIT = 10_000_000
ARCHITECTURES = {"sm_75", "sm_80", "sm_86", "sm_89", "sm_90"}

backend, nvcc = sys.argv[1:]


def run(*command):
  return subprocess.run(command, check=True, capture_output=True, text=True).stdout


usage = run(os.path.join(os.path.dirname(os.path.realpath(nvcc)), "cuobjdump"), "--dump-resource-usage", backend)
problems, kernels, architecture, name, most = [], 0, "", "", 0
found = set()
for line in usage.splitlines():
  if match := re.search(r"arch = (sm_\d+)", line):
    architecture = match[1]
    found.add(architecture)
  if match := re.search(r"Function (\S+):", line):
    name = match[1]
  if match := re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", line):
    registers, stack, local = map(int, match.groups())
    kernels, most = kernels + 1, max(most, registers)
    if stack or local:
      problems.append(f"{architecture} {name}: {stack} bytes of stack, {local} of local memory")
problems += [f"no code for {missing}" for missing in sorted(ARCHITECTURES - found)]

exported = [line.split()[-1] for line in run("nm", "-D", "--defined-only", backend).splitlines()]
problems += [f"exported: {symbol}" for symbol in exported if symbol != "gptq_cuda_backend"]
size = os.path.getsize(backend)
if size > LIMIT:
  problems.append(f"{size} bytes, at most {LIMIT} allowed")
print(f"{kernels} kernels, at most {most} registers; {size} bytes; {len(exported)} functions exported")
print("\n".join(problems))
sys.exit(bool(problems) or not kernels or not exported)
