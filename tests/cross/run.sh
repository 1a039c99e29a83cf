#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds for AArch64 and runs under QEMU: all kernel tests, then gptq-run on reference checkpoints against their greedy ids.
set -euo pipefail

usage() {
  cat <<'END'
usage: tests/cross/run.sh CONVERTER [CHECKPOINT]...

  CONVERTER   a gptq-convert that runs on this machine, as build/release/converter/gptq-convert
  CHECKPOINT  folders with a reference.json; otherwise those of tests/golden

Builds in build/aarch64. What it needs of Debian's packages is told in tests/cross/aarch64.ini; without them it says what is missing and exits with 77.
END
}

[[ $# -gt 0 && $1 != -h && $1 != --help ]] || { usage; exit 2; }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
converter=$(realpath "$1") build=$root/build/aarch64
shift
checkpoints=("$@")
[[ $# -gt 0 ]] || checkpoints=("$root"/tests/golden/checkpoints/*)

for tool in aarch64-linux-gnu-g++ qemu-aarch64; do
  command -v "$tool" >/dev/null || { echo "skipped: $tool is missing" >&2; exit 77; }
done
[[ -f $build/build.ninja ]] || meson setup "$build" "$root" --cross-file "$root/tests/cross/aarch64.ini" -Dtests=enabled
ninja -C "$build" tests/kernels/kernel_test examples/gptq-run
qemu-aarch64 "$build/tests/kernels/kernel_test" --gtest_brief=1

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for checkpoint in "${checkpoints[@]}"; do
  "$converter" "$checkpoint" "$work/model.gptq" --force >/dev/null
  python3 "$root/tests/cross/greedy.py" "$checkpoint" qemu-aarch64 "$build/examples/gptq-run" "$work/model.gptq"
done
