# SPDX-License-Identifier: Apache-2.0
"""coverage.py: says which functions of gptq.h the hand-written layer of a language does not use, and which settings it does not take, without an
exception here that says why. generate.py --check does the same; this needs no clang.
"""
import glob
import os
import re
import sys

# Of each language: the files of its hand-written layer, and how they name a function of C.
LAYERS = {
  "cpp": (["cpp/*.hpp"], r"\b{}\b"),
  "csharp": (["csharp/*.cs"], r"\bApi\.{}\b"),
  "go": (["go/*.go"], r"\bC\.{}\b"),
  "python": (["python/gptq/*.py"], r"\blib\.{}\b"),
  "rust": (["rust/gptq/src/*.rs"], r"\bsys::{}\b"),
}
GENERATED = ("csharp/Native.cs", "go/constants.go", "python/gptq/_native.py")

# What a language has no use for, and why. Each README names its own.
EXCEPTIONS = {
  "gptq_session_set_user": {language: "the language's own objects, closures and fields know what belongs to a session" for language in LAYERS},
  "gptq_session_user": {language: "goes with gptq_session_set_user" for language in LAYERS},
  "gptq_session_set_user_free": {language: "goes with gptq_session_set_user" for language in LAYERS},
  "gptq_session_retain": {language: "a session's cancelling is guarded, so that it may come after its end"
                          for language in ("csharp", "go", "python", "rust")},
  "gptq_model_retain": {language: "models are shared by reference" for language in ("csharp", "go", "python")},
}


# Structs whose fields a caller sets, and the constants of what goes into them.
SETTINGS = ("gptq_source", "gptq_model_params", "gptq_chat", "gptq_message", "gptq_engine_params", "gptq_sampling", "gptq_generate_params",
            "gptq_quantize_params")
FLAGS = ("GPTQ_ENGINE_", "GPTQ_GEN_", "GPTQ_CONSTRAINT_", "GPTQ_CHAT_", "GPTQ_SAMPLE_", "GPTQ_TEXT_", "GPTQ_POOL_", "GPTQ_EMBED_", "GPTQ_SAVE_",
         "GPTQ_QUANTIZE_", "GPTQ_QUANT_ASYMMETRIC", "GPTQ_QUANT_STATIC_GROUPS")
COMMON = {"struct_size", "flags", "next", "reserved"}
OWN_STRUCTS = {"cpp": {"gptq_model_params", "gptq_engine_params", "gptq_sampling", "gptq_quantize_params"},  # taken as they are
               "python": {"gptq_sampling"}}                                         # keyword arguments by the struct's own names
OWN_FLAGS = ("cpp", "go", "rust")  # the generated constants are what a caller passes
FIELD_EXCEPTIONS = {
  "devices": {language: "several GPUs are for C and C++" for language in ("csharp", "go", "python", "rust")},
  "calibration": {language: "rows come as text or tokens" for language in ("csharp", "go", "python", "rust")},
  "module": {language: "a budget gives matrices bits of their own; names and rules are gptq-convert quantize's" for language in ("csharp", "go", "python", "rust")},
}


def settings(text):
  """The fields of SETTINGS, each with its struct, and the constants of FLAGS, of the header's text."""
  text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
  fields = []
  for name in SETTINGS:
    body = re.search(r"struct " + name + r" \{(.*?)\n?\}", text, re.DOTALL)[1]
    for declaration in body.split(";"):
      if found := re.findall(r"(\w+)(?:\[\d+\])?$", declaration.strip()):
        fields.append((name, found[0]))
  return [(struct, field) for struct, field in fields if field not in COMMON and not field.endswith(("_size", "_user")) and not field.startswith("n_")], sorted(
    {name for name in re.findall(r"\bGPTQ_\w+", text) if name.startswith(FLAGS)})


def setting_problems(text, language, code, readme):
  fields, flags = settings(text)
  for struct, field in fields:
    if struct in OWN_STRUCTS.get(language, ()):
      continue
    used, excepted = bool(re.search(rf"\b{field}\b", code)), language in FIELD_EXCEPTIONS.get(field, ())
    if excepted and f"`{field}`" not in readme:
      yield f"{language}: its README does not say that {struct}.{field} is left out"
    if not used and not excepted:
      yield f"{language}: nothing sets {struct}.{field}, and generator/coverage.py says not why"
  for flag in flags:
    if language not in OWN_FLAGS and not re.search(rf"\b{flag}\b", code):
      yield f"{language}: nothing uses {flag}"


def code_of(root, language):
  """The layer's text without its comments."""
  patterns, _ = LAYERS[language]
  paths = [path for pattern in patterns for path in glob.glob(os.path.join(root, pattern))]
  text = ""
  for path in sorted(paths):
    name = os.path.relpath(path, root).replace(os.sep, "/")
    if name not in GENERATED and not name.endswith("_test.go"):
      with open(path, encoding="utf-8") as file:
        text += file.read()
  return re.sub(r"#.*" if language == "python" else r"//.*", "", text)


def problems(root):
  with open(os.path.join(root, "../include/gptq/gptq.h"), encoding="utf-8") as file:
    text = file.read()
  names = re.findall(r"\bGPTQ_CALL (gptq_\w+)\(", text)
  for name in EXCEPTIONS.keys() - set(names):
    yield f"generator/coverage.py: gptq.h has no {name}"
  for language, (_, pattern) in LAYERS.items():
    code = code_of(root, language)
    with open(os.path.join(root, {"rust": "rust/gptq"}.get(language, language), "README.md"), encoding="utf-8") as file:
      readme = file.read()
    yield from setting_problems(text, language, code, readme)
    for name in names:
      used, excepted = bool(re.search(pattern.format(name), code)), language in EXCEPTIONS.get(name, ())
      if not used and not excepted:
        yield f"{language}: nothing calls {name}, and generator/coverage.py says not why"
      if used and excepted:
        yield f"{language}: {name} is called, but is an exception in generator/coverage.py"
      if excepted and name not in readme:
        yield f"{language}: its README does not say that {name} is left out"


if __name__ == "__main__":
  found = list(problems(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
  print("\n".join([*found, f"{len(LAYERS)} languages, {len(found)} problems"]))
  sys.exit(bool(found))
