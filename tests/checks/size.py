# SPDX-License-Identifier: Apache-2.0
# size.py LIBGPTQ.so: stripped, it has at most 2.6 MB.
import os
import subprocess
import sys
import tempfile

LIMIT = 2_600_000

with tempfile.TemporaryDirectory() as folder:
  stripped = os.path.join(folder, "libgptq.so")
  subprocess.run(["strip", "-o", stripped, sys.argv[1]], check=True)
  size = os.path.getsize(stripped)
print(f"{size} bytes stripped, at most {LIMIT} allowed")
sys.exit(size > LIMIT)
