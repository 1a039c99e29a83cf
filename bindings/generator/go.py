# SPDX-License-Identifier: Apache-2.0
"""Go: cgo reads gptq.h itself, so the low layer is its constants; and what the layout test compares."""
from generator.header import NOTICE, layout_facts

KEYWORDS = {"type", "func", "range", "map", "select", "defer", "go", "chan", "var"}
STATUS = ("GPTQ_OK", "GPTQ_MORE", "GPTQ_IDLE", "GPTQ_E_")
WORDS = {"EOS": "EOS", "BOS": "BOS", "KV": "KV", "IO": "IO", "CPU": "CPU", "CUDA": "CUDA", "ACT": "Act"}


def go_name(name):
  """GPTQ_STOP_EOS -> StopEOS, GPTQ_E_IO -> ErrIO."""
  words = name.removeprefix("GPTQ_").split("_")
  if words[0] == "E" and len(words) > 1:
    words[0] = "ERR"
  return "".join(WORDS.get(word, word.capitalize()) for word in words)


def constants(header):
  out = ["// SPDX-License-Identifier: Apache-2.0", f"// Code generated from gptq.h; DO NOT EDIT. {NOTICE}", "", "package gptq", ""]
  for constant in header.constants:
    if constant.type == "size_t":
      continue  # of no use where strings know their size
    kind = " Status" if constant.name.startswith(STATUS) else ""
    out.append(f"const {go_name(constant.name)}{kind} = {constant.value}")
  return "\n".join([*out, ""])


def layout(header):
  out = ["// SPDX-License-Identifier: Apache-2.0", f"// Code generated from gptq.h; DO NOT EDIT. {NOTICE}", "",
         "// Package layout lists the constants, sizes and offsets of gptq.h as Go has them.", "package layout", "",
         "// #cgo pkg-config: gptq", "// #include <gptq/gptq.h>",
         'import "C"', "", "import (", '\t"unsafe"', "", '\t"libgptq/gptq"', ")", "",
         "// Facts has them by the names that layout.c prints.", "func Facts() map[string]int64 {", "\tfacts := map[string]int64{}"]
  for name, kind, member in layout_facts(header):
    if kind == "constant":
      sized = any(constant.name == name and constant.type == "size_t" for constant in header.constants)
      value = f"int64(^uintptr(0))" if sized else f"int64(gptq.{go_name(name)})"
      out.append(f'\tfacts["{name}"] = ' + ("-1 // GPTQ_NTS is not used in Go" if sized else value))
    elif kind == "size":
      out.append(f'\tfacts["{name}"] = int64(unsafe.Sizeof(C.{name}{{}}))')
    else:
      go_member = "_" + member if member in KEYWORDS else member
      out.append(f'\tfacts["{name}.{member}"] = int64(unsafe.Offsetof(C.{name}{{}}.{go_member}))')
  return "\n".join([*out, "\treturn facts", "}", ""])
