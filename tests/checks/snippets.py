# SPDX-License-Identifier: Apache-2.0
# snippets.py SOURCE_ROOT CC...: every ```c block of README.md and docs/*.md compiles as strict C99 against gptq.h, docs/embedding.md shows
# every function, and links lead somewhere. A block with a main is a whole program, those of docs/tutorial.md are one together; others
# are put into a function, with what PRELUDE declares.
import glob
import os
import re
import subprocess
import sys
import tempfile

FLAGS = ["-std=c99", "-pedantic-errors", "-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers", "-Wno-unused", "-fsyntax-only"]
PRELUDE = """
#include <gptq/gptq.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
extern gptq_runtime *runtime;
extern gptq_model *model, *draft;
extern gptq_engine *engine;
extern gptq_session *session, *narrator, *knight, *elf, *ahead;
extern gptq_constraint *moods, *price, *answer, *reply;
extern gptq_adapter *elvish;
extern gptq_error err;
extern gptq_source source;
extern gptq_generate_params params;
extern gptq_session_info result;
extern gptq_step_info step;
extern gptq_chat chat;
extern gptq_token newline;
extern const char *prompt, *world, *stories;
extern char text[4096];
extern float vectors[], logits[];
extern uint32_t n_embd, n_vocab;
extern void *user, *npc, *cuda_stream;
int frame(void);
void say(void *character, const char *words, size_t size);
int32_t GPTQ_CALL on_text(void *user, const char *words, size_t size);
int32_t GPTQ_CALL on_progress(void *user, uint32_t phase, uint32_t permille);
int32_t GPTQ_CALL write_bytes(void *user, const void *bytes, size_t size);
void GPTQ_CALL npc_free(void *user);
void *GPTQ_CALL host_alloc(void *user, size_t size, size_t align, uint32_t kind, uint32_t tag);
void GPTQ_CALL host_free(void *user, void *ptr, size_t size, size_t align, uint32_t kind, uint32_t tag);
void GPTQ_CALL host_parallel(void *user, gptq_task_fn fn, void *ctx, uint32_t count);
void GPTQ_CALL host_log(void *user, int32_t level, const char *words, size_t size);
"""
BLOCK = re.compile(r"^```c\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(path):
  """The C blocks of a document with the lines they begin at."""
  with open(path, encoding="utf-8") as file:
    text = file.read()
  return [(text.count("\n", 0, block.start(1)) + 1, block.group(1)) for block in BLOCK.finditer(text)]


def placed(name, line, block):
  return f'#line {line} "{name}"\n{block}'


def documents(root):
  yield from (os.path.join(root, name) for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"))
  yield from sorted(glob.glob(os.path.join(root, "docs/*.md")))


def anchors(path):
  """What GitHub calls the headings of a document."""
  with open(path, encoding="utf-8") as file:
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", file.read()), re.MULTILINE)
  return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(path):
  with open(path, encoding="utf-8") as file:
    links = re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", BLOCK.sub("", file.read()))
  for target, anchor in links:
    at = os.path.join(os.path.dirname(path), target) if target else path
    if "://" not in target and (not os.path.exists(at) or anchor and anchor not in anchors(at)):
      yield f"{os.path.relpath(path, root)}: nothing is at {target}{'#' if anchor else ''}{anchor}"


def programs(root):
  """What is compiled: the name and the text of each."""
  for path in documents(root):
    name = os.path.relpath(path, root)
    found = blocks(path)
    if name == "docs/tutorial.md":
      yield name, "".join(placed(name, line, block) for line, block in found)
      continue
    for line, block in found:
      whole = re.search(r"^int main\(", block, re.MULTILINE)
      body = placed(name, line, block)
      yield f"{name}:{line}", body if whole else PRELUDE + "void snippet(void);\nvoid snippet(void) {\n" + body + "}\n"


root, cc = sys.argv[1], sys.argv[2:]
include = ["-I", os.path.join(root, "include")]
problems, count = [], 0
with tempfile.TemporaryDirectory() as folder:
  for name, program in programs(root):
    count += 1
    file_name = os.path.join(folder, "snippet.c")
    with open(file_name, "w", encoding="utf-8") as file:
      file.write(program)
    compiled = subprocess.run([*cc, *FLAGS, *include, file_name], capture_output=True, text=True)
    if compiled.returncode:
      problems.append(f"{name}: does not compile\n{compiled.stderr}")

with open(os.path.join(root, "include/gptq/gptq.h"), encoding="utf-8") as file:
  functions = re.findall(r"^GPTQ_API .*?GPTQ_CALL (gptq_\w+)\(", file.read(), re.MULTILINE)
shown = "".join(block for _, block in blocks(os.path.join(root, "docs/embedding.md")))
problems += [f"docs/embedding.md has no example of {name}" for name in functions if not re.search(rf"\b{name}\(", shown)]
problems += [problem for path in documents(root) for problem in dead_links(path)]
print("\n".join([*problems, f"{count} programs and snippets, {len(functions)} functions, {len(problems)} problems"]))
sys.exit(bool(problems) or count < 20 or not functions)
