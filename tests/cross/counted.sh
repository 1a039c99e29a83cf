# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Sourced by scripts that count what passed, failed and was skipped; they set work, a folder of their own, before.
passed=0 failed=0 skipped=0
# check NAME COMMAND...: one that must succeed.
check() {
  local said=$1
  shift
  # shellcheck disable=SC2154
  if "$@" >"$work/log" 2>&1; then
    passed=$((passed + 1))
    echo "passed: $said"
  else
    failed=$((failed + 1))
    echo "FAILED: $said"
    tail -n 10 "$work/log"
  fi
}
skip() {
  # shellcheck disable=SC2034
  skipped=$((skipped + 1))
  echo "skipped: $1: $2"
}
