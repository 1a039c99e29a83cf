# SPDX-License-Identifier: Apache-2.0
# families.py GPTQ-CONVERT SOURCE_ROOT: the table of families in docs/families.md is what `gptq-convert --families` prints.
import os
import subprocess
import sys

table = subprocess.run([sys.argv[1], "--families"], capture_output=True, text=True, check=True).stdout
with open(os.path.join(sys.argv[2], "docs/families.md"), encoding="utf-8") as file:
  found = table in file.read()
rows = len(table.splitlines()) - 2
print(f"{rows} families, " + ("as in docs/families.md" if found else "not as in docs/families.md: put in what `gptq-convert --families` prints"))
sys.exit(not found or rows < 10)
