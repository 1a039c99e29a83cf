#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# file_limit.sh GPTQ_CONVERT CHECKPOINT: where the user's limit on the size of a file (ulimit -f) ends an output, the tool says so, and leaves nothing.
set -euo pipefail
convert=$1 checkpoint=$2

folder=$(mktemp -d)
trap 'rm -rf "$folder" "$folder".*' EXIT
refused() {  # ARGUMENTS
  local status=0
  (ulimit -f 2; exec "$convert" "$@") >"$folder.log" 2>&1 || status=$?
  if [[ $status != 1 ]] || ! grep -q 'cannot write' "$folder.log" || [[ -n $(ls -A "$folder") ]]; then
    echo "gptq-convert $*: status $status, left $(ls -A "$folder")" >&2
    cat "$folder.log" >&2
    exit 1
  fi
  rm "$folder.log"
}
refused "$checkpoint" "$folder/model.gptq"
"$convert" "$checkpoint" "$folder.gptq" >/dev/null 2>&1
refused export "$folder.gptq" "$folder/exported"
