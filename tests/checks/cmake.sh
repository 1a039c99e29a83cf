#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# cmake.sh BUILD SOURCE [--fetch]: a CMake project finds the installed library; with --fetch it also builds it from its sources
# with FetchContent, which takes some minutes. Ends with 77 (skipped) without CMake.
set -euo pipefail
build=$1 source=$(realpath "$2") fetch=${3:-}
command -v cmake >/dev/null || { echo 'there is no cmake'; exit 77; }
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
quietly() { "$@" >"$stage/log" 2>&1 || { cat "$stage/log"; exit 1; }; }

# game FOLDER OPTION...: configures and builds the game.
game() {
  local folder=$stage/$1
  shift
  quietly cmake -S "$source/tests/checks/cmake" -B "$folder" -G Ninja "-DHELLO=$source/examples/hello.c" "$@"
  quietly cmake --build "$folder"
}
# A usage line and exit status 2 is all it says without a model.
says_hello() {
  local status=0
  "$1" 2>/dev/null || status=$?
  [[ $status == 2 ]] || { echo "$1 ended with $status"; exit 1; }
}

meson install -C "$build" --no-rebuild --quiet --destdir "$stage/root"
config=$(find "$stage/root" -name gptq-config.cmake)
game installed "-Dgptq_DIR=${config%/*}"
says_hello "$stage/installed/hello-shared"
says_hello "$stage/installed/hello-static"
[[ $(ldd "$stage/installed/hello-static") != *libgptq* ]] || { echo 'hello-static wants libgptq.so'; exit 1; }
if (game other "-Dgptq_DIR=${config%/*}" -DGPTQ_WANTED=1.0) >/dev/null; then
  echo 'version 1.0 is found, which is not there'
  exit 1
fi
echo 'hello.c builds with find_package(gptq), shared and static'
if [[ $fetch == --fetch ]]; then
  game fetched "-DGPTQ_SOURCE=$source" '-DGPTQ_MESON_OPTIONS=--buildtype=plain'
  says_hello "$stage/fetched/hello-fetched"
  echo 'and with FetchContent'
fi
