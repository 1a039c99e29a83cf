#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How many of the places where the library and the converter refuse something the tests reach, and which they do not.

    rm -f /tmp/sites; export GPTQ_ERROR_SITES=/tmp/sites
    meson test -C build/release --suite unit --suite api --suite fuzz
    tests/error_sites.py /tmp/sites          # --all lists every place that is not reached

A place is a call of base/failure.h, or of what names its caller's place: require() and most refuse(). Other functions that refuse for
several callers count once. Left out is what needs a GPU or the network."""
import argparse
import collections
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent
LEFT_OUT = ("runtime/device/", "converter/hub/", "runtime/base/os_windows.cpp", "runtime/base/failure")
# Whose calls of refuse() name their own place.
LOCATED = ("converter/safetensors/file.cpp", "converter/dialects/linear.cpp", "runtime/text/constraint/gbnf.cpp", "runtime/text/constraint/regex.cpp",
           "converter/hf/config.cpp", "runtime/model/tensor.cpp")
CALL = re.compile(r"(?P<before>[\w)\]]\.|->|::|\s|^|[({!&|,?:])(?P<name>fail|fail_at|fail_os|require|refuse|refuse_feature|rule)\((?=(?P<rest>[^;]{0,160}))", re.M)


def calls(path):
    """The first and last line of each."""
    text = path.read_text()
    name = str(path.relative_to(ROOT))
    plain = re.sub(r"(?<!:)//[^\n]*", lambda m: " " * len(m.group()), text)
    for match in CALL.finditer(plain):
        line_begin = plain.rfind("\n", 0, match.start("name")) + 1
        before = plain[line_begin:match.start("name")]
        if re.search(r"\bvoid\s+(\w+::)*$", before) or "[[noreturn]]" in before and "{" not in before:
            continue
        what, rest = match.group("name"), match.group("rest").lstrip()
        with_code = re.match(r"GPTQ_E_|base::Code\(|\w+ == \w+ \? (base::)?Code\(|\w+ \? GPTQ_E_", rest)
        method = match.group("before").endswith(".")
        located = what in ("require", "rule", "refuse_feature") or (what == "refuse" and (method and "/regex/" not in name or name in LOCATED))
        if not with_code and not located or re.match(r"[^;]*\bcode\)", rest):
            continue
        depth, at = 0, match.end("name")
        while at < len(plain):
            depth += {"(": 1, ")": -1}.get(plain[at], 0)
            at += 1
            if depth == 0:
                break
        yield plain.count("\n", 0, match.start("name")) + 1, plain.count("\n", 0, at) + 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reached", nargs="+", type=pathlib.Path)
    parser.add_argument("--all", action="store_true")
    args = parser.parse_args()
    reached = collections.defaultdict(set)
    for file in args.reached:
        for line in file.read_text().split():
            path, number = line.rsplit(":", 1)
            for folder in ("runtime/", "converter/"):
                if folder in path:
                    reached[folder + path.rsplit(folder, 1)[1]].add(int(number))
                    break
    total = found = 0
    groups = collections.Counter()
    for folder in ("runtime", "converter"):
        for path in sorted((ROOT / folder).rglob("*")):
            name = str(path.relative_to(ROOT))
            if path.suffix not in (".cpp", ".h") or name.startswith(LEFT_OUT):
                continue
            for first, last in calls(path):
                total += 1
                if any(first <= line <= last for line in reached[name]):
                    found += 1
                    continue
                groups[name] += 1
                if args.all:
                    print(f"{name}:{first}: {path.read_text().splitlines()[first - 1].strip()}")
    print(f"{found} of {total} places reached")
    for name, count in groups.most_common(12):
        print(f"{count:4} not reached in {name}")


if __name__ == "__main__":
    main()
