# SPDX-License-Identifier: Apache-2.0
"""Which functions of gptq.h the hand-written layer of each language uses: all but the exceptions."""
import glob
import os
import re

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


def problems(header, root):
  names = [function.name for function in header.functions]
  for name in EXCEPTIONS.keys() - set(names):
    yield f"generator/coverage.py: gptq.h has no {name}"
  for language, (_, pattern) in LAYERS.items():
    code = code_of(root, language)
    with open(os.path.join(root, {"rust": "rust/gptq"}.get(language, language), "README.md"), encoding="utf-8") as file:
      readme = file.read()
    for name in names:
      used, excepted = bool(re.search(pattern.format(name), code)), language in EXCEPTIONS.get(name, ())
      if not used and not excepted:
        yield f"{language}: nothing calls {name}, and generator/coverage.py says not why"
      if used and excepted:
        yield f"{language}: {name} is called, but is an exception in generator/coverage.py"
      if excepted and name not in readme:
        yield f"{language}: its README does not say that {name} is left out"
