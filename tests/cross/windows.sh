#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds for Windows x86-64 with MinGW-w64 and runs it under Wine. The last line is 'N passed, N failed, N skipped'.
set -euo pipefail

usage() {
  cat <<'END'
usage: tests/cross/windows.sh [--short] [--build DIR] [--native CONVERTER] [-j N]

  --short              without the tests of the C API and of the converter's insides
  --build DIR          build there; otherwise in build/windows
  --native CONVERTER   a gptq-convert of this machine, whose files the Windows one's are compared with
  -j N                 compile N files at a time; otherwise as many as there are cores

Installs what is missing of Debian's packages: MinGW-w64, Wine and what the library itself needs. Without them, and
without the right to install them, it says what is missing and exits with 77.
GPTQ_TEST_DATA names the folder of reference checkpoints and tokenizers, as for tests/run.sh.
END
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
short=no build=$root/build/windows native='' jobs=$(nproc)
while [[ $# -gt 0 ]]; do
  case $1 in
    --short) short=yes ;;
    --build) build=$(realpath -m "${2:?--build needs a folder}"); shift ;;
    --native) native=$(realpath "${2:?--native needs a program}"); shift ;;
    -j) jobs=${2:?-j needs a number}; shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done

"$root/examples/install_dependencies.sh" --packages gcc-mingw-w64-x86-64-posix g++-mingw-w64-x86-64-posix wine wine64 \
  meson ninja-build pkg-config flatbuffers-compiler libflatbuffers-dev libxxhash-dev libcli11-dev libgtest-dev python3 \
  ccache || true
for tool in x86_64-w64-mingw32-g++-posix wine flatc; do
  command -v "$tool" >/dev/null || { echo "skipped: $tool is missing" >&2; exit 77; }
done

"$root/tests/cross/libraries.sh" "$root/build/windows-libraries"
[[ -f $build/build.ninja ]] || meson setup "$build" "$root" --cross-file "$root/tests/cross/windows.ini" \
  --cross-file "$root/build/windows-libraries/meson.ini" -Dtests=enabled -Dconverter=enabled -Dhub=disabled \
  -Dcuda=disabled -Db_pch=true
targets=(tests/kernels/kernel_test.exe tests/unit/unit_tests.exe converter/gptq-convert.exe examples/gptq-run.exe
  examples/hello.exe runtime/gptq-0.def)
[[ $short == yes ]] || targets+=(tests/api/api_tests.exe)
ninja -C "$build" -j "$jobs" "${targets[@]}"

work=$(mktemp -d)
trap 'umount "$work/small" "$work/fixed" 2>/dev/null || true; rm -rf "$work"' EXIT
export WINEPREFIX=$work/wine WINEDEBUG=-all WINEDLLOVERRIDES='mscoree,mshtml=' WINEARCH=win64
export WINEPATH="Z:${build//\//\\}\\runtime" GPTQ_GOLDEN=$root/tests/golden TMP=Z:${work//\//\\} TEMP=Z:${work//\//\\}
wine wineboot --init >/dev/null 2>&1

# shellcheck source=tests/cross/counted.sh
. "$root/tests/cross/counted.sh"
convert() { wine "$build/converter/gptq-convert.exe" "$@"; }
generate() { wine "$build/examples/gptq-run.exe" "$@"; }

# suite PROGRAM [ARGUMENT]...: a GoogleTest program, whose cases count.
suite() {
  local log=$work/log status=0
  wine "$@" >"$log" 2>&1 || status=$?
  sed -i 's/\r$//' "$log"
  local ok bad left
  ok=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$log")
  bad=$(grep -c '^\[  FAILED  \] .*ms)' "$log" || true)
  left=$(sed -n 's/^\[  SKIPPED \] \([0-9]*\) test.*/\1/p' "$log")
  if [[ -z $ok || ($status != 0 && $bad == 0) ]]; then
    bad=$((bad + 1))  # it ended in the middle
    tail -n 5 "$log"
  fi
  grep '^\[  FAILED  \] .*ms)' "$log" || true
  # What stands between "RUN" and "SKIPPED" says why.
  grep -A 2 'Skipped$' "$log" | grep -v -e 'Skipped$' -e '^--' -e '^\[' | sort | uniq -c || true
  echo "$(basename "$1"): ${ok:-0} passed, $bad failed, ${left:-0} skipped"
  passed=$((passed + ${ok:-0})) failed=$((failed + bad)) skipped=$((skipped + ${left:-0}))
}

imports_of_windows_alone() {
  local dll
  for dll in $(x86_64-w64-mingw32-objdump -p "$1" | awk '/DLL Name:/ { print tolower($3) }'); do
    case $dll in
      kernel32.dll | msvcrt.dll | bcrypt.dll | shell32.dll | api-ms-win-core-synch-l1-2-0.dll | gptq-0.dll) ;;
      *) echo "$1 needs $dll"; return 1 ;;
    esac
  done
}

# Every function of the header is in the DLL, and nothing else.
exports_the_interface() {
  # shellcheck disable=SC2016
  local names='/\[Ordinal\/Name Pointer\] Table/ { on = 1; next } on && NF == 0 { exit } on { print $NF }'
  diff <(grep -o 'GPTQ_CALL gptq_[a-z0-9_]*(' "$root/include/gptq/gptq.h" | sed 's/.* //; s/(//' | sort -u) \
    <(x86_64-w64-mingw32-objdump -p "$build/runtime/gptq-0.dll" | awk "$names" | sort)
}

# As Visual C++'s lib does it.
def_file_links_hello() {
  x86_64-w64-mingw32-dlltool -d "$build/runtime/gptq-0.def" -l "$work/gptq.lib"
  x86_64-w64-mingw32-gcc-posix -DGPTQ_SHARED "-I$root/include" "$root/examples/hello.c" "$work/gptq.lib" -o "$work/hello.exe"
  x86_64-w64-mingw32-objdump -p "$work/hello.exe" | grep 'DLL Name: gptq-0.dll'
  fails_with usage wine "$work/hello.exe"
}

# No move between memory and a vector register of 32 or 64 bytes that faults where the stack is aligned to 16, but
# some that do not.
no_aligned_vector_moves() {
  local code=$work/code moves='\s.*(%[yz]mm.*\(|\(.*%[yz]mm)'
  x86_64-w64-mingw32-objdump -d "$1" >"$code"
  ! grep -E '\svmov(aps|apd|dqa|dqa32|dqa64|ntdq|ntps|ntpd)'"$moves" "$code" | head -n 5 | grep . &&
    grep -q -E '\svmovu(ps|pd)'"$moves" "$code"
}

same_bytes() { cmp "$1" "$2"; }
fails_with() {
  local words=$1 said
  shift
  if said=$("$@" 2>&1); then
    echo "it did not fail: $said"
    return 1
  fi
  echo "$said"
  [[ $said == *"$words"* ]]
}

suite "$build/tests/kernels/kernel_test.exe"
if [[ $short == yes ]]; then
  suite "$build/tests/unit/unit_tests.exe" '--gtest_filter=Os*:Io*:Pool*:Format*:Quantize*:Sampler*:Pattern*'
else
  suite "$build/tests/unit/unit_tests.exe"
  suite "$build/tests/api/api_tests.exe"
fi

check 'gptq-0.dll needs Windows alone' imports_of_windows_alone "$build/runtime/gptq-0.dll"
check 'gptq-convert.exe needs Windows alone' imports_of_windows_alone "$build/converter/gptq-convert.exe"
check 'gptq-run.exe needs Windows and gptq-0.dll' imports_of_windows_alone "$build/examples/gptq-run.exe"
check 'gptq-0.dll exports the interface' exports_the_interface
check 'gptq-0.def makes an import library' def_file_links_hello
check 'no aligned moves of wide vectors' no_aligned_vector_moves "$build/runtime/gptq-0.dll"
# shellcheck source=tests/cross/windows_tools.sh
source "$root/tests/cross/windows_tools.sh"

wineserver -k 2>/dev/null || true
echo "$passed passed, $failed failed, $skipped skipped"
[[ $failed == 0 ]]
