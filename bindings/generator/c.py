# SPDX-License-Identifier: Apache-2.0
"""A C program that prints every constant, size and offset: what the layout tests of all languages compare with."""
from generator.header import NOTICE, layout_facts


def layout(header):
  lines = [f"/* SPDX-License-Identifier: Apache-2.0 */\n/* {NOTICE} */", "#include <gptq/gptq.h>", "#include <stdio.h>", "", "int main(void) {"]
  for name, kind, member in layout_facts(header):
    if kind == "constant":
      lines.append(f'  printf("{name} %lld\\n", (long long){name});')
    elif kind == "size":
      lines.append(f'  printf("{name} %lld\\n", (long long)sizeof({name}));')
    else:
      lines.append(f'  printf("{name}.{member} %lld\\n", (long long)offsetof({name}, {member}));')
  return "\n".join([*lines, "  return 0;", "}", ""])
