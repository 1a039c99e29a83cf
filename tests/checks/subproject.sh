#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# subproject.sh SOURCE_ROOT: the library as a Meson subproject of a game of two files.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
game=$(mktemp -d)
trap 'rm -rf "$game"' EXIT

cp "$here"/subproject/* "$game"
mkdir "$game/subprojects"
ln -s "$1" "$game/subprojects/gptq"
meson setup "$game/build" "$game" --buildtype=plain >"$game/log" 2>&1 || { cat "$game/log"; exit 1; }
meson compile -C "$game/build" >"$game/log" 2>&1 || { cat "$game/log"; exit 1; }
"$game/build/game"
for file in gptq-convert gptq-run unit_tests kernel_test; do
  [[ -z $(find "$game/build" -name "$file") ]] || { echo "a subproject builds $file"; exit 1; }
done
