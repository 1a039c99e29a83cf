# SPDX-License-Identifier: Apache-2.0
# mutate.py BUILD_DIR [--seed N] [--count N] [--files GLOB ...] [--tests NAME ...]: proves the tests. It changes one operator, constant or
# statement at a time, builds what depends on it, runs the tests, and restores the file. A mutant that no test notices is printed: it is
# a missing test, or does not change what the code does. Run it in a checkout of its own: the sources change while it works.
import argparse
import glob
import os
import random
import re
import resource
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FILES = ["runtime/engine/*.cpp", "runtime/engine/blocks/*.cpp", "runtime/model/*.cpp", "runtime/quantize/*.cpp", "runtime/text/*.cpp", "kernels/*/ref.cpp"]
TESTS = {"unit": "tests/unit/unit_tests", "api": "tests/api/api_tests", "kernels": "tests/kernels/kernel_test"}

# What is replaced by what, each where it stands alone between spaces or brackets.
OPERATORS = {
  " < ": [" <= ", " > "], " > ": [" >= ", " < "], " <= ": [" < "], " >= ": [" > "], " == ": [" != "], " != ": [" == "],
  " + ": [" - "], " - ": [" + "], " * ": [" + "], " / ": [" * "], " % ": [" / "], " && ": [" || "], " || ": [" && "],
  " += ": [" -= "], " -= ": [" += "], " << ": [" >> "], " & ": [" | "], "++": ["--"], "true": ["false"], "false": ["true"],
  "std::min(": ["std::max("], "std::max(": ["std::min("], "!": [""],
}
NUMBER = re.compile(r"(?<![\w.\"'])(\d+)(?=[;,)\]} ])")
SKIPPED = re.compile(r"^\s*(//|#|\*|\}|namespace|using|template|static_assert|case|public|private)|fail\(|require\(|constexpr uint32_t \w+_max")
STATEMENT = re.compile(r"^\s+[\w.\->\[\]()]+(\.|->|\()[^;{}]*;\s*$|^\s+[\w.\->\[\]]+ [-+*/|&]?= [^;{}]+;\s*$")


def without_text(line):
  """The line with its strings and comment blanked, so that places stay where they are."""
  line = re.sub(r'"(\\.|[^"\\])*"', lambda m: '"' + " " * (len(m.group()) - 2) + '"', line)
  return re.sub(r"//.*", lambda m: " " * len(m.group()), line)


def mutants_of(path):
  with open(path, encoding="utf-8") as file:
    lines = file.read().split("\n")
  for number, line in enumerate(lines):
    if SKIPPED.search(line) or "<<" in line and "std::" in line:
      continue
    code = without_text(line)
    for old, news in OPERATORS.items():
      at = code.find(old)
      while at >= 0:
        if not (old == "!" and code[at:at + 2] == "!=") and not (old in ("true", "false") and re.match(r"\w", code[at + len(old):])):
          yield from ((path, number, line[:at] + new + line[at + len(old):]) for new in news)
        at = code.find(old, at + 1)
    for match in NUMBER.finditer(code):
      changed = str(int(match.group(1)) + 1)
      yield path, number, line[:match.start()] + changed + line[match.end():]
    if STATEMENT.match(code) and "const " not in code:
      yield path, number, re.match(r"\s*", line).group() + ";"


def limit_memory():
  resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))


def noticed(build, tests, seconds):
  """Why the mutant is noticed, or None."""
  targets = [TESTS[test] for test in tests]
  built = subprocess.run(["ninja", "-C", build, *targets], capture_output=True)
  if built.returncode:
    return "does not compile"
  environment = dict(os.environ, GPTQ_GOLDEN=os.path.join(ROOT, "tests/golden"))
  for target in targets:
    try:
      if subprocess.run([os.path.join(build, target), "--gtest_brief=1", "--gtest_fail_fast"], env=environment, capture_output=True,
                        timeout=seconds, preexec_fn=limit_memory).returncode:
        return os.path.basename(target)
    except subprocess.TimeoutExpired:
      return os.path.basename(target) + " takes too long"
  return None


def main():
  parser = argparse.ArgumentParser(description="Changes the sources one place at a time; tests must notice.")
  parser.add_argument("build", help="a build folder with tests=enabled")
  parser.add_argument("--seed", type=int, default=1)
  parser.add_argument("--count", type=int, default=400)
  parser.add_argument("--files", nargs="*", default=FILES)
  parser.add_argument("--tests", nargs="*", default=["kernels", "unit", "api"], choices=list(TESTS))
  parser.add_argument("--seconds", type=int, default=300, help="most a test program may take")
  arguments = parser.parse_args()
  paths = sorted(path for pattern in arguments.files for path in glob.glob(os.path.join(ROOT, pattern)))
  everything = [mutant for path in paths for mutant in mutants_of(path)]
  chosen = random.Random(arguments.seed).sample(everything, min(arguments.count, len(everything)))
  if noticed(arguments.build, arguments.tests, arguments.seconds):
    sys.exit("the tests fail before anything is changed")
  counted = survived = 0
  for path, number, changed in sorted(chosen):
    with open(path, encoding="utf-8") as file:
      original = file.read()
    lines = original.split("\n")
    before, lines[number] = lines[number], changed
    try:
      with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines))
      why = noticed(arguments.build, arguments.tests, arguments.seconds)
    finally:
      with open(path, "w", encoding="utf-8") as file:
        file.write(original)
    place = f"{os.path.relpath(path, ROOT)}:{number + 1}"
    if why != "does not compile":
      counted += 1
      survived += why is None
    print(f"{why or 'NOT NOTICED'}: {place}\n  - {before.strip()}\n  + {changed.strip()}", flush=True)
  print(f"{counted} mutants of {len(everything)} possible (seed {arguments.seed}), {counted - survived} noticed, {survived} not")
  sys.exit(survived > counted / 10)


if __name__ == "__main__":
  main()
