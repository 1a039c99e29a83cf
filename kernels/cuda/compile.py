# SPDX-License-Identifier: Apache-2.0
# compile.py USAGE NVCC ARGS...: runs nvcc and keeps what ptxas says of every kernel's registers and memory in the file USAGE, for tests/checks/cuda.py.
import subprocess
import sys

usage, command = sys.argv[1], sys.argv[2:]
done = subprocess.run([*command, "-Xptxas=-v"], stderr=subprocess.PIPE, text=True)
ptxas = [line for line in done.stderr.splitlines() if "ptxas info" in line or "bytes stack frame" in line]
rest = [line for line in done.stderr.splitlines() if line not in ptxas]
with open(usage, "w", encoding="utf-8") as file:
  file.write("\n".join(ptxas) + "\n")
if rest:
  print("\n".join(rest), file=sys.stderr)
sys.exit(done.returncode)
