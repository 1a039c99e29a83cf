# SPDX-License-Identifier: Apache-2.0
"""build.py [FOLDER]: the documents and the header's reference as HTML, in build/html or in FOLDER. Needs Python-Markdown
(Debian: python3-markdown). Prints the file to open."""
import glob
import html
import os
import re
import sys

try:
  import markdown
except ImportError:
  sys.exit("Python-Markdown is missing: apt-get install python3-markdown, or pip install markdown")

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HEADER = "include/gptq/gptq.h"
SOURCES = ["*.md", "docs/*.md", "bindings/**/README.md", "tests/bench/**/*.md"]
NAVIGATION = ["README.md", "docs/tutorial.md", "docs/embedding.md", HEADER, "docs/quantizing.md", "docs/families.md", "docs/gpu.md",
              "docs/figures.md", "docs/trust.md", "docs/format.md", "docs/design.md", "docs/testing.md", "CONTRIBUTING.md", "SECURITY.md",
              "CHANGELOG.md"]
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} - libgptq</title><style>
body {{ margin: 0; font: 16px/1.55 system-ui, sans-serif; color: #1d2430; background: #fff; display: flex; flex-wrap: wrap }}
nav {{ flex: 0 0 12rem; position: sticky; top: 0; align-self: flex-start; box-sizing: border-box; min-height: 100vh;
 padding: 1.5rem; background: #f3f5f8 }}
nav a {{ display: block; padding: .15rem 0 }}
nav a.here {{ font-weight: bold; color: inherit }}
main {{ flex: 1 1 30rem; min-width: 0; max-width: 56rem; padding: 1rem 2rem 4rem }}
a {{ color: #0b5cad; text-decoration: none }} a:hover {{ text-decoration: underline }}
h1, h2, h3 {{ line-height: 1.2 }} h2 {{ margin-top: 2.2rem; border-bottom: 1px solid #dde2ea }}
pre {{ background: #f3f5f8; padding: .8rem; overflow-x: auto; font-size: 14px; line-height: 1.4 }}
code {{ font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .92em }} pre code {{ font-size: inherit }}
table {{ border-collapse: collapse; display: block; overflow-x: auto }}
th, td {{ border: 1px solid #dde2ea; padding: .3rem .6rem; text-align: left }}
</style></head><body><nav>{navigation}</nav><main>{body}</main></body></html>
"""


def page_of(source):
  """The HTML file that a source becomes."""
  return {"README.md": "index.html", HEADER: "reference.html"}.get(source, re.sub(r"\.md$", ".html", source))


def anchor(heading, _separator="-"):
  return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def relative(target, page):
  return os.path.relpath(target, os.path.dirname(page) or ".")


def write(out, page, title, body):
  links = [(page_of(source), "Reference (gptq.h)" if source == HEADER else os.path.basename(source)[:-3]) for source in NAVIGATION]
  navigation = "".join(f'<a href="{relative(to, page)}"{" class=here" * (to == page)}>{name}</a>' for to, name in links)
  path = os.path.join(out, page)
  os.makedirs(os.path.dirname(path), exist_ok=True)
  with open(path, "w", encoding="utf-8") as file:
    file.write(PAGE.format(title=html.escape(title), navigation=navigation, body=body))


def linked(body, source, page, pages, functions, out):
  """Links to documents lead to their pages, others into the source tree; functions lead to the reference."""
  def link(match):
    target, hash_sign, part = match.group(1).partition("#")
    if not target or "://" in target:
      return match.group()
    at = os.path.normpath(os.path.join(os.path.dirname(source), target))
    to = page_of(at) if at in pages else os.path.relpath(os.path.join(ROOT, at), out)
    return f'href="{relative(to, page)}{hash_sign}{part}"'

  def function(match):
    name = match.group(1)
    return f'<a href="{relative("reference.html", page)}#{name}">{match.group()}</a>' if name in functions else match.group()

  return re.sub(r"<code>(gptq_\w+)</code>", function, re.sub(r'href="([^"]*)"', link, body))


def stretches(lines):
  """(comment, declarations) one after another: comments that begin a line, and what follows them."""
  comment, code, inside = [], [], False
  for line in lines:
    if line.startswith("/*") and not inside:
      if code:
        yield comment, code
        comment, code = [], []
      inside = True
    if inside:
      comment.append(re.sub(r"^/\* ?|^ \* ?|\*/\s*$", "", line).strip())
      if "*/" in line:
        inside = False
        if comment[-1].startswith("----"):
          yield comment, []
          comment = []
    elif line.strip():
      code.append(line)
    elif code:
      yield comment, code
      comment, code = [], []
  yield comment, code


def reference(header):
  """Comments of the header as text, declarations as they stand, functions with anchors."""
  parts, chapters = [], []
  for comment, code in stretches(header[header.index("#define GPTQ_VERSION_MAJOR"):header.rindex("#ifdef __cplusplus")].splitlines()):
    text = " ".join(comment)
    chapter = re.match(r"-+ (.*?) -+", text)
    if chapter:
      chapters.append(chapter.group(1))
      parts.append(f'<h2 id="{anchor(chapter.group(1))}">{html.escape(chapter.group(1))}</h2>')
    elif text:
      parts.append(f"<p>{html.escape(text)}</p>")
    if code:
      shown = re.sub(r"(GPTQ_CALL )(gptq_\w+)(\()", r'\1<b id="\2">\2</b>\3', html.escape("\n".join(code), quote=False))
      parts.append(f"<pre><code>{shown}</code></pre>")
  contents = " · ".join(f'<a href="#{anchor(name)}">{html.escape(name)}</a>' for name in chapters)
  rules = header[header.index(" * libgptq:"):header.index(" */")]
  rules = html.escape(re.sub(r"^ \* ?", "", rules, flags=re.MULTILINE))
  style = "<style>main { max-width: none } pre { white-space: pre-wrap }</style>"
  return f"<h1>Reference</h1>{style}<p>This page is made from {HEADER}.</p><p>{contents}</p><pre>{rules}</pre>" + "".join(parts)


def main():
  out = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "build/html"))
  with open(os.path.join(ROOT, HEADER), encoding="utf-8") as file:
    header = file.read()
  functions = set(re.findall(r"^GPTQ_API .*?GPTQ_CALL (gptq_\w+)\(", header, re.MULTILINE))
  found = (path for pattern in SOURCES for path in glob.glob(os.path.join(ROOT, pattern), recursive=True))
  pages = {os.path.relpath(path, ROOT) for path in found} | {HEADER}
  text = reference(header)
  missing = [name for name in functions if f'id="{name}"' not in text]
  assert not missing, missing
  write(out, page_of(HEADER), "Reference", text)
  for source in sorted(pages - {HEADER}):
    with open(os.path.join(ROOT, source), encoding="utf-8") as file:
      extensions = ["tables", "fenced_code", "toc", "sane_lists"]
      body = markdown.markdown(file.read(), extensions=extensions, extension_configs={"toc": {"slugify": anchor}})
      body = body.replace("\\|", "|")  # tables' bars in code
    title = re.search(r"<h1[^>]*>(.*?)</h1>", body)
    write(out, page_of(source), title.group(1) if title else source, linked(body, source, page_of(source), pages, functions, out))
  print(os.path.join(out, "index.html"))


main()
