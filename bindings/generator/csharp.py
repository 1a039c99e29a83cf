# SPDX-License-Identifier: Apache-2.0
"""Native.cs: the C API through P/Invoke."""
from generator.header import NOTICE, layout_facts

TYPES = {"int32_t": "int", "uint32_t": "uint", "int64_t": "long", "uint64_t": "ulong", "uint8_t": "byte", "char": "byte", "float": "float",
         "double": "double", "size_t": "UIntPtr", "void": "void", "gptq_status": "int", "gptq_token": "int"}
KEYWORDS = {"in", "out", "ref", "params", "string", "event", "base", "object", "fixed", "lock", "checked"}


def ident(name):
  return "@" + name if name in KEYWORDS else name


def type_of(header, kind):
  if kind[0] == "function" or (kind[0] == "name" and header.is_callback(kind[1])):
    return "IntPtr"
  if kind[0] == "name":
    return TYPES.get(kind[1], kind[1])
  if kind[2][0] == "name" and kind[2][1] in header.opaque:
    return "IntPtr"
  return type_of(header, kind[2]) + "*"


def native(header):
  out = ["// SPDX-License-Identifier: Apache-2.0", f"// {NOTICE}", "using System;", "using System.Runtime.InteropServices;", "",
         "namespace Gptq.Native {", "public static class Constants {"]
  for constant in header.constants:
    if constant.type == "size_t":
      out.append(f"  public static readonly UIntPtr {constant.name} = UIntPtr.Size == 8 ? (UIntPtr)ulong.MaxValue : (UIntPtr)uint.MaxValue;")
    else:
      out.append(f"  public const {TYPES[constant.type]} {constant.name} = {constant.value};")
  out.append("}")
  for callback in header.callbacks:
    parameters = ", ".join(f"{type_of(header, kind)} a{at}" for at, kind in enumerate(callback.parameters))
    out += ["[UnmanagedFunctionPointer(CallingConvention.Cdecl)]",
            f"public unsafe delegate {type_of(header, callback.result)} {callback.name}({parameters});"]
  for struct in header.structs:
    out += ["[StructLayout(LayoutKind.Sequential)]", f"public unsafe struct {struct.name} {{"]
    for member in struct.fields:
      if member.type[0] == "array":
        out.append(f"  public fixed {type_of(header, member.type[1])} {ident(member.name)}[{member.type[2]}];")
      else:
        out.append(f"  public {type_of(header, member.type)} {ident(member.name)};")
    if struct.sized:
      out.append(f"  public static {struct.name} New() {{ return new {struct.name} {{ struct_size = (uint)sizeof({struct.name}) }}; }}")
    out.append("}")
  out += ["public static unsafe class Api {", "#if GPTQ_INTERNAL  // iOS and consoles: linked into the program", '  const string Library = "__Internal";',
          "#else", '  const string Library = "gptq";', "#endif"]
  for function in header.functions:
    parameters = ", ".join(f"{type_of(header, parameter.type)} {ident(parameter.name)}" for parameter in function.parameters)
    out += ["  [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]",
            f"  public static extern {type_of(header, function.result)} {function.name}({parameters});"]
  return "\n".join([*out, "}", "}", ""])


def layout(header):
  out = ["// SPDX-License-Identifier: Apache-2.0", f"// {NOTICE}", "using System;", "using System.Collections.Generic;",
         "using System.Runtime.InteropServices;", "using Gptq.Native;", "", "static unsafe class LayoutFacts {",
         "  static long At(Type type, string field) { return (long)Marshal.OffsetOf(type, field); }",
         "  public static IEnumerable<KeyValuePair<string, long>> All() {", "    var facts = new List<KeyValuePair<string, long>>();",
         "    Action<string, long> add = (name, value) => facts.Add(new KeyValuePair<string, long>(name, value));"]
  for name, kind, member in layout_facts(header):
    if kind == "constant":
      sized = any(constant.name == name and constant.type == "size_t" for constant in header.constants)
      value = f"unchecked((long)(ulong)Constants.{name})" if sized else f"Constants.{name}"
      out.append(f'    add("{name}", {value});')
    elif kind == "size":
      out.append(f'    add("{name}", sizeof({name}));')
    else:
      out.append(f'    add("{name}.{member}", At(typeof({name}), "{member}"));')
  return "\n".join([*out, "    return facts;", "  }", "}", ""])
