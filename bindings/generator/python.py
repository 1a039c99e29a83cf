# SPDX-License-Identifier: Apache-2.0
"""gptq/_native.py: the C API through ctypes."""
from generator.header import NOTICE

TYPES = {"int32_t": "c_int32", "uint32_t": "c_uint32", "int64_t": "c_int64", "uint64_t": "c_uint64", "uint8_t": "c_uint8", "char": "c_char",
         "float": "c_float", "double": "c_double", "size_t": "c_size_t", "void": "None"}


def type_of(header, kind):
  if kind[0] == "name":
    return TYPES.get(kind[1], kind[1])
  if kind[0] == "array":
    return f"{type_of(header, kind[1])} * {kind[2]}"
  if kind[0] == "function":
    return f"CFUNCTYPE({', '.join(type_of(header, part) for part in [kind[1], *kind[2]])})"
  target = kind[2]
  if target[0] == "name" and (target[1] in ("void", "char") or target[1] in header.opaque):
    return "c_void_p"  # c_char_p would end at a NUL
  return f"POINTER({type_of(header, target)})"


def native(header):
  out = ["# SPDX-License-Identifier: Apache-2.0", f"# {NOTICE}", "# pylint: skip-file", "# mypy: ignore-errors",
         "from ctypes import (CFUNCTYPE, POINTER, Structure, c_char, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_uint8, c_uint32,",
         "                    c_uint64, c_void_p)", ""]
  out += [f"{name} = {type_of(header, kind)}" for name, kind in header.aliases]
  for constant in header.constants:
    out.append(f"{constant.name} = {'c_size_t(-1).value' if constant.type == 'size_t' else constant.value}")
  out.append("")
  out += [f"class {struct.name}(Structure): pass" for struct in header.structs]
  for callback in header.callbacks:
    out.append(f"{callback.name} = {type_of(header, ('function', callback.result, callback.parameters))}")
  for struct in header.structs:
    out += ["", f"{struct.name}._fields_ = ["]
    out += [f'  ("{member.name}", {type_of(header, member.type)}),' for member in struct.fields]
    out.append("]")
  out += ["", "FUNCTIONS = {"]
  for function in header.functions:
    text = function.result == ("pointer", True, ("name", "char"))
    result = "c_char_p" if text else type_of(header, function.result)
    parameters = ", ".join(type_of(header, parameter.type) for parameter in function.parameters)
    out.append(f'  "{function.name}": ({result}, [{parameters}]),')
  return "\n".join([*out, "}", ""])
