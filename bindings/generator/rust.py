# SPDX-License-Identifier: Apache-2.0
"""gptq-sys: the C API as Rust declares it."""
import textwrap

from generator.header import NOTICE, layout_facts

TYPES = {"int32_t": "i32", "uint32_t": "u32", "int64_t": "i64", "uint64_t": "u64", "uint8_t": "u8", "char": "c_char", "float": "f32",
         "double": "f64", "size_t": "usize", "void": "c_void"}
KEYWORDS = {"type", "fn", "in", "ref", "match", "mod", "move", "where", "use", "loop"}


def ident(name):
  return name + "_" if name in KEYWORDS else name


def result_of(kind):
  return "" if kind == ("name", "void") else f" -> {type_of(kind)}"


def type_of(kind):
  if kind[0] == "name":
    return TYPES.get(kind[1], kind[1])
  if kind[0] == "pointer":
    return ("*const " if kind[1] else "*mut ") + type_of(kind[2])
  if kind[0] == "array":
    return f"[{type_of(kind[1])}; {kind[2]}]"
  return f"Option<unsafe extern \"C\" fn({', '.join(map(type_of, kind[2]))}){result_of(kind[1])}>"


def doc(text, indent=""):
  return [f"{indent}/// {line}" for line in textwrap.wrap(text.replace("[", "\\[").replace("<", "\\<"), 115)]


def sys(header):
  out = ["// SPDX-License-Identifier: Apache-2.0", f"// {NOTICE}", "//! The C API of libgptq, as it is. The safe layer is the crate `gptq`.",
         "#![allow(non_camel_case_types)]", "#![no_std]", "use core::ffi::{c_char, c_void};", ""]
  out += [f"pub type {name} = {type_of(kind)};" for name, kind in header.aliases]
  for name in header.opaque:
    out += ["#[repr(C)]", f"pub struct {name} {{", "    _opaque: [u8; 0],", "    _neither_send_nor_sync: core::marker::PhantomData<*mut u8>,", "}"]
  out.append("")
  for constant in header.constants:
    value = "usize::MAX" if constant.type == "size_t" else constant.value
    out += doc(constant.doc) + [f"pub const {constant.name}: {TYPES[constant.type]} = {value};"]
  out.append("")
  for callback in header.callbacks:
    out += doc(callback.doc) + [f"pub type {callback.name} = {type_of(('function', callback.result, callback.parameters))};"]
  for struct in header.structs:
    out += ["", *doc(struct.doc), "#[repr(C)]", "#[derive(Clone, Copy)]", f"pub struct {struct.name} {{"]
    for member in struct.fields:
      out += doc(member.doc, "    ") + [f"    pub {ident(member.name)}: {type_of(member.type)},"]
    out += ["}", f"impl Default for {struct.name} {{", "    /// All fields zero, which is the C API's default." + (
      " `struct_size` is set." if struct.sized else ""), "    fn default() -> Self {"]
    if struct.sized:
      out += ["        let mut value: Self = unsafe { core::mem::zeroed() };", "        value.struct_size = core::mem::size_of::<Self>() as u32;",
              "        value"]
    else:
      out.append("        unsafe { core::mem::zeroed() }")
    out += ["    }", "}"]
  out += ["", 'extern "C" {']
  for function in header.functions:
    parameters = ", ".join(f"{ident(parameter.name)}: {type_of(parameter.type)}" for parameter in function.parameters)
    out += doc(function.doc, "    ") + [f"    pub fn {function.name}({parameters}){result_of(function.result)};"]
  return "\n".join([*out, "}", ""])


def layout(header):
  out = ["// SPDX-License-Identifier: Apache-2.0", f"// {NOTICE}",
         "/// Every constant, size and offset as Rust has them, by the names of layout.c.", "pub const FACTS: &[(&str, i64)] = &["]
  for name, kind, member in layout_facts(header):
    if kind == "constant":
      value, label = f"gptq_sys::{name} as i64", name
    elif kind == "size":
      value, label = f"core::mem::size_of::<gptq_sys::{name}>() as i64", name
    else:
      value, label = f"core::mem::offset_of!(gptq_sys::{name}, {ident(member)}) as i64", f"{name}.{member}"
    out.append(f'    ("{label}", {value}),')
  return "\n".join([*out, "];", ""])
