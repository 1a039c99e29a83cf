# SPDX-License-Identifier: Apache-2.0
# def.py GPTQ_H DLL OUT: the list of the header's functions, from which Windows' linkers make import libraries.
import re
import sys

header, dll, out = sys.argv[1:]
with open(header, encoding="utf-8") as file:
  names = sorted(set(re.findall(r"^GPTQ_API .*?GPTQ_CALL (gptq_\w+)\(", file.read(), re.MULTILINE)))
with open(out, "w", encoding="utf-8", newline="\n") as file:
  file.write(f"LIBRARY {dll}\nEXPORTS\n" + "".join(f"    {name}\n" for name in names))
