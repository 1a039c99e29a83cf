#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# linters.sh [clang-tidy | cppcheck]: reads runtime/ and kernels/ with Debian's clang-tidy (the checks of .clang-tidy) and cppcheck (all but what
# cppcheck.txt lists). Nothing is printed where all is well. A quarter of an hour on two cores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
which=${1:-both} build=build/tidy jobs=$(nproc) status=0

[[ -f $build/build.ninja ]] || CC=clang CXX=clang++ meson setup "$build" -Dtests=disabled -Dcuda=disabled >/dev/null
ninja -C "$build" --quiet runtime/model_generated.h runtime/tokenizer_generated.h
if [[ $which != cppcheck ]]; then
  sed -nE 's,.*"file": "../../((runtime|kernels)/.*\.cpp).*,\1,p' "$build/compile_commands.json" | sort -u |
    xargs -n 4 -P "$jobs" clang-tidy -p "$build" --quiet 2> >(grep -v 'warnings\? generated' >&2 || true) || status=1
fi
if [[ $which != clang-tidy ]]; then
  # It reads no header of the system's: these are flatbuffers' macros.
  cppcheck --project="$build/compile_commands.json" --file-filter='runtime/*' --file-filter='kernels/*' --enable=warning --quiet -j "$jobs" \
    '-DFLATBUFFERS_DEFINE_BITMASK_OPERATORS(a,b)=' '-DFLATBUFFERS_MANUALLY_ALIGNED_STRUCT(a)=struct' -DFLATBUFFERS_FINAL_CLASS= \
    '-DFLATBUFFERS_STRUCT_END(a,b)=' --suppressions-list=tests/checks/cppcheck.txt --error-exitcode=1 || status=1
fi
exit "$status"
