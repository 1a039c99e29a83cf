#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds the library, tests the bindings. The last line is 'N passed, N failed, N skipped'.
set -euo pipefail

usage() {
  cat <<'END'
usage: bindings/test.sh [--build DIR] [LANGUAGE]...

  LANGUAGE      cpp, csharp, go, python, rust; otherwise all
  --build DIR   use the library and gptq-convert of this Meson build, or build them there; otherwise in build/release

Each language makes the calls of conformance.json and compares every constant, size and offset of gptq.h with C's; then come cancelling,
exceptions in callbacks, leaks, and the example of its README. What needs a package that cannot be installed is skipped.
END
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
here=$root/bindings build=$root/build/release languages=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --build) build=$(realpath -m "${2:?--build needs a folder}"); shift ;;
    cpp | csharp | go | python | rust) languages+=("$1") ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done
[[ ${#languages[@]} -gt 0 ]] || languages=(python rust go csharp cpp)

passed=0 failed=0 skipped=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Counts the lines "ok - NAME", "not ok - NAME" and "skip - NAME" that a command prints; if it fails without one, that is a failure.
count() {
  local status=0 bad
  "$@" 2>&1 | tee "$log" || status=$?
  bad=$(grep -c '^not ok - ' "$log" || true)
  if [[ $status != 0 && $bad == 0 ]]; then
    echo "not ok - ended with $status: $*"
    bad=1
  fi
  passed=$((passed + $(grep -c '^ok - ' "$log" || true)))
  failed=$((failed + bad)) skipped=$((skipped + $(grep -c '^skip - ' "$log" || true)))
}
skip() {
  echo "skip - $*"
  skipped=$((skipped + 1))
}
# needs COMMAND PACKAGE...: installs the packages where the command is missing.
needs() {
  command -v "$1" >/dev/null || "$root/examples/install_dependencies.sh" --packages "${@:2}" || true
  command -v "$1" >/dev/null
}

# ---- what all of them use ----

"$root/examples/install_dependencies.sh" tests clang
if [[ ! -f $build/build.ninja ]]; then
  meson setup "$build" "$root" -Dconverter=enabled
fi
ninja -C "$build" runtime/libgptq.so.0.1.0 converter/gptq-convert
work=$build/bindings
mkdir -p "$work"
export GPTQ_MODELS=$work/models GPTQ_CASES=$here/conformance.json GPTQ_LAYOUT=$work/layout.txt GPTQ_MODEL=$work/models/text.gptq
export LD_LIBRARY_PATH=$build/runtime${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export PKG_CONFIG_PATH=$work${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
printf 'Name: gptq\nDescription: as built\nVersion: 0\nCflags: -I%s\nLibs: -L%s -lgptq\n' "$root/include" "$build/runtime" >"$work/gptq.pc"

rm -rf "$GPTQ_MODELS"
mkdir -p "$GPTQ_MODELS"
python3 "$here/fixture.py" "$work/text"
convert() { "$build/converter/gptq-convert" "$1" "$GPTQ_MODELS/$2.gptq" >/dev/null 2>&1; }
convert "$work/text" text
"$build/converter/gptq-convert" lora "$work/text/adapter" "$GPTQ_MODELS/text.gptq-lora" --model "$GPTQ_MODELS/text.gptq" >/dev/null 2>&1
convert "$root/tests/golden/checkpoints/random-mistral-window-w4-g64" mistral
convert "$root/tests/golden/checkpoints/random-qwen3-w4-g128" qwen3
cc -I"$root/include" "$here/layout.c" -o "$work/layout"
"$work/layout" >"$GPTQ_LAYOUT"

generated() {
  python3 "$here/generate.py" --check || return 1
  echo 'ok - the low layers are what gptq.h gives, and the layers above use every function'
}
echo '==== generated code'
count generated

# ---- the languages ----

test_python() {
  needs python3 python3 && python3 -c 'import ensurepip, venv' 2>/dev/null || "$root/examples/install_dependencies.sh" --packages python3-venv || true
  if ! python3 -m venv --clear "$work/venv" 2>/dev/null; then
    skip 'python: there is no venv'
    return
  fi
  local python=$work/venv/bin/python
  rm -rf "$work/wheel"
  if ! "$python" -m pip -q wheel --no-deps -Cbuild-dir="$work/wheel-build" -w "$work/wheel" "$root" ||
     ! "$python" -m pip -q install "$work"/wheel/*.whl auditwheel; then
    count false
    return
  fi
  count wheel "$python"
  (unset LD_LIBRARY_PATH PYTHONPATH GPTQ_LIBRARY; cd "$work"  # so that only the installed package can be found
   count "$python" "$here/python/tests/layout.py" "$GPTQ_LAYOUT"
   count "$python" "$here/python/tests/conformance.py" "$GPTQ_CASES" "$GPTQ_MODELS"
   count "$python" "$here/python/tests/behaviour.py" "$GPTQ_MODELS"
   echo "$passed $failed $skipped" >"$work/counts")
  read -r passed failed skipped <"$work/counts"
}
# The wheel is for every Python 3, and runs where this machine's C library is as new.
wheel() {
  local file
  file=$(echo "$work"/wheel/*.whl)
  [[ $file == *-py3-none-linux_*.whl ]] || { echo "not ok - the wheel's name: $file"; return; }
  PATH=$work/venv/bin:$PATH "$1" -m auditwheel show "$file" | tr '\n' ' ' | grep -q manylinux_2 || { echo "not ok - no manylinux tag"; return; }
  echo 'ok - the wheel has the right name and a manylinux tag'
}

test_rust() {
  if ! needs cargo cargo-web rustc-web; then
    skip 'rust: no cargo'
    return
  fi
  export CARGO_TARGET_DIR=$work/cargo
  count cargo test --offline --quiet --manifest-path "$here/rust/Cargo.toml" --tests -- --nocapture
  count doctests
}
doctests() {
  cargo test --offline --quiet --manifest-path "$here/rust/Cargo.toml" --doc -p gptq || return 1
  echo 'ok - the example of the README'
}

test_go() {
  if ! needs go golang-go; then
    skip 'go: no go'
    return
  fi
  (cd "$here/go"
   count vet
   count go test -count=1 -v ./...
   count races
   echo "$passed $failed $skipped" >"$work/counts")
  read -r passed failed skipped <"$work/counts"
}
vet() {
  [[ -z $(gofmt -l .) ]] && go vet ./... || return 1
  echo 'ok - gofmt and go vet'
}
# Under the race detector, with C's pointers checked at every call; memory is not measured.
races() {
  CGO_ENABLED=1 GODEBUG=cgocheck=2 go test -count=1 -race -short . || return 1
  echo 'ok - no races'
}

test_csharp() {
  local out=$work/csharp
  if ! needs mcs mono-mcs || ! needs mono mono-runtime || ! compiles_csharp "$out"; then
    skip 'csharp: no mcs and mono'
    return
  fi
  count mcs -langversion:latest -unsafe -warnaserror -target:library -out:"$out/Gptq.dll" "$here"/csharp/*.cs
  count mcs -langversion:latest -unsafe -r:"$out/Gptq.dll" -r:System.Core.dll -out:"$out/tests.exe" "$here"/csharp/tests/*.cs
  count mono "$out/tests.exe" "$GPTQ_LAYOUT" "$GPTQ_CASES" "$GPTQ_MODELS"
  count csharp_example "$out"
}
# Debian has the compiler, the runtime and the class libraries in packages of their own.
compiles_csharp() {
  mkdir -p "$1"
  echo 'class A { static void Main() { System.Linq.Enumerable.Count(new int[1]); } }' >"$1/a.cs"
  mcs -r:System.Core.dll -out:"$1/a.exe" "$1/a.cs" >/dev/null 2>&1 && mono "$1/a.exe" && return
  "$root/examples/install_dependencies.sh" --packages mono-mcs mono-runtime mono-devel || true
  mcs -r:System.Core.dll -out:"$1/a.exe" "$1/a.cs" >/dev/null 2>&1 && mono "$1/a.exe"
}
csharp_example() {
  sed -n '/^```csharp$/,/^```$/p' "$here/csharp/README.md" | sed '1d;$d' >"$1/story.cs"
  mcs -langversion:latest -unsafe -out:"$1/story.exe" "$1/story.cs" "$here"/csharp/*.cs || return 1
  mono "$1/story.exe" "$GPTQ_MODEL" | grep ' tokens, ' || return 1
  echo 'ok - the example of the README'
}

test_cpp() {
  mkdir -p "$work/include/gptq"
  ln -sf "$here"/cpp/*.hpp "$work/include/gptq/"
  cpp() { "${CXX:-c++}" -std=c++17 -Wall -Wextra -Werror -O1 -I"$work/include" -I"$root/include" "$@" -L"$build/runtime" -lgptq -pthread; }
  count cpp -I"$here/cpp" "$here/cpp/tests/tests.cpp" -o "$work/cpp_tests"
  count "$work/cpp_tests" "$GPTQ_CASES" "$GPTQ_MODELS"
  count cpp_example
}
cpp_example() {
  sed -n '/^```cpp$/,/^```$/p' "$here/cpp/README.md" | sed '1d;$d' >"$work/story.cpp"
  cpp "$work/story.cpp" -o "$work/story" || return 1
  "$work/story" "$GPTQ_MODEL" | grep ' tokens$' || return 1
  echo 'ok - the example of the README'
}

for language in "${languages[@]}"; do
  echo "==== $language"
  "test_$language"
done
echo "$passed passed, $failed failed, $skipped skipped"
[[ $failed == 0 ]]
