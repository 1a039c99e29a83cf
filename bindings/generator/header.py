# SPDX-License-Identifier: Apache-2.0
"""Reads gptq.h through clang's syntax tree.

A type is a tuple: ("name", NAME), ("pointer", CONST, TYPE), ("array", TYPE, COUNT) or ("function", RESULT, [TYPE]).
"""
import json
import os
import re
import subprocess
from dataclasses import dataclass, field

# A clang that is ccache in truth may answer with the tree of another folder's header.
UNCACHED = os.environ | {"CCACHE_DISABLE": "1"}
INTEGERS = {"int32_t", "uint32_t", "int64_t", "uint64_t", "uint8_t", "size_t", "char", "float", "double", "void"}


@dataclass
class Named:
  name: str
  doc: str = ""


@dataclass
class Constant(Named):
  value: int = 0
  type: str = "int32_t"  # enumerators; macros are uint32_t, GPTQ_NTS is size_t


@dataclass
class Member(Named):  # field or parameter
  type: tuple = ()


@dataclass
class Struct(Named):
  fields: list = field(default_factory=list)

  @property
  def sized(self):
    return self.fields[0].name == "struct_size"


@dataclass
class Callback(Named):
  result: tuple = ()
  parameters: list = field(default_factory=list)  # types


@dataclass
class Function(Named):
  result: tuple = ()
  parameters: list = field(default_factory=list)  # members


@dataclass
class Header:
  constants: list = field(default_factory=list)
  aliases: list = field(default_factory=list)  # (name, type): gptq_status and gptq_token
  opaque: list = field(default_factory=list)  # names
  structs: list = field(default_factory=list)
  callbacks: list = field(default_factory=list)
  functions: list = field(default_factory=list)

  def is_callback(self, name):
    return any(callback.name == name for callback in self.callbacks)


def split_arguments(text):
  parts, depth, start = [], 0, 0
  for at, c in enumerate(text + ","):
    depth += (c == "(") - (c == ")")
    if c == "," and depth == 0:
      parts.append(text[start:at].strip())
      start = at + 1
  return [part for part in parts if part not in ("", "void")]


def parse_type(text):
  text = text.strip()
  if match := re.fullmatch(r"(.*?)\(\*\)\((.*)\)", text):
    return ("function", parse_type(match[1]), [parse_type(argument) for argument in split_arguments(match[2])])
  if match := re.fullmatch(r"(.*?)\[(\d+)\]", text):
    return ("array", parse_type(match[1]), int(match[2]))
  if match := re.fullmatch(r"(.*)\*\s*(?:const)?", text):
    target = match[1].strip()
    if target.endswith("const"):  # T *const *
      return ("pointer", True, parse_type(target))
    constant = target.startswith("const ") and "*" not in target
    return ("pointer", constant, parse_type(target.removeprefix("const ") if constant else target))
  return ("name", text.removeprefix("const ").removeprefix("struct "))


def doc_of(node):
  words = []

  def visit(part):
    if part["kind"] == "TextComment":
      words.append(part["text"].strip().lstrip("*").strip())
    for inner in part.get("inner", []):
      visit(inner)

  for part in node.get("inner", []):
    if part["kind"] == "FullComment":
      visit(part)
  return re.sub(r"\s+", " ", " ".join(words)).strip()


def value_of(node):
  for part in node.get("inner", []):
    if part["kind"] == "FullComment":
      continue
    if "value" in part:
      return int(part["value"])
    inner = value_of(part)
    if inner is not None:
      return inner
  return None


def read_enum(header, node):
  following = 0
  for part in node.get("inner", []):
    if part["kind"] != "EnumConstantDecl" or not part["name"].startswith("GPTQ_"):
      continue
    given = value_of(part)
    value = following if given is None else given
    following = value + 1
    header.constants.append(Constant(part["name"], doc_of(part), value))


def read_macros(header, path, arguments):
  text = subprocess.run(["clang", "-x", "c", "-E", "-dM", *arguments, path], check=True, capture_output=True, text=True, env=UNCACHED).stdout
  for name, value in re.findall(r"^#define (GPTQ_\w+) (.+)$", text, re.MULTILINE):
    number = re.fullmatch(r"\(?(0[xX][0-9a-fA-F]+|\d+)[uU]?\)?", value)
    if number:
      header.constants.append(Constant(name, "", int(number[1], 0), "uint32_t"))
    elif value.startswith("((size_t)"):
      header.constants.append(Constant(name, "", int(re.search(r"-?\d+", value)[0]), "size_t"))


def read(path, arguments=()):
  """The header's declarations that begin with gptq, in its order."""
  command = ["clang", "-x", "c", "-fsyntax-only", "-fparse-all-comments", *arguments, "-Xclang", "-ast-dump=json", path]
  tree = json.loads(subprocess.run(command, check=True, capture_output=True, env=UNCACHED).stdout)
  header, typedefs = Header(), []
  read_macros(header, path, arguments)
  for node in tree["inner"]:
    kind, name = node["kind"], node.get("name", "")
    if kind == "EnumDecl":
      read_enum(header, node)
    elif not name.startswith("gptq_"):
      continue
    elif kind == "RecordDecl" and node.get("completeDefinition"):
      fields = [Member(part["name"], doc_of(part), parse_type(part["type"]["qualType"]))
                for part in node["inner"] if part["kind"] == "FieldDecl"]
      header.structs.append(Struct(name, doc_of(node), fields))
    elif kind == "TypedefDecl":
      kind_of = parse_type(node["type"]["qualType"])
      if kind_of[0] == "function":
        header.callbacks.append(Callback(name, doc_of(node), kind_of[1], kind_of[2]))
      elif kind_of != ("name", name):
        header.aliases.append((name, kind_of))
      else:
        typedefs.append(name)
    elif kind == "FunctionDecl":
      parameters = [Member(part["name"], "", parse_type(part["type"]["qualType"]))
                    for part in node.get("inner", []) if part["kind"] == "ParmVarDecl"]
      header.functions.append(Function(name, doc_of(node), parse_type(node["type"]["qualType"].split("(")[0]), parameters))
  defined = {struct.name for struct in header.structs}
  header.opaque = [name for name in typedefs if name not in defined]
  check(header)
  return header


def check(header):
  """Nothing that the languages' modules do not know."""
  known = INTEGERS | {name for name, _ in header.aliases} | set(header.opaque)
  known |= {item.name for item in header.structs + header.callbacks}

  def visit(kind):
    if kind[0] == "name" and kind[1] not in known:
      raise ValueError(f"gptq.h uses the type {kind[1]}, which no binding knows")
    for part in kind[1:]:
      for inner in part if isinstance(part, list) else [part]:
        if isinstance(inner, tuple):
          visit(inner)

  for struct in header.structs:
    for member in struct.fields:
      visit(member.type)
  for function in header.functions:
    visit(function.result)
    for parameter in function.parameters:
      visit(parameter.type)
  if not (header.constants and header.structs and header.callbacks and header.functions):
    raise ValueError("gptq.h gave no declarations")


NOTICE = "Generated by bindings/generate.py from include/gptq/gptq.h. Do not edit."


def layout_facts(header):
  """What the layout tests compare: (name, None) for a constant, (struct, None | field) for sizes and offsets."""
  for constant in header.constants:
    yield constant.name, "constant", None
  for struct in header.structs:
    yield struct.name, "size", None
    for member in struct.fields:
      yield struct.name, "offset", member.name
