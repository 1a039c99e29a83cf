#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# eval.sh GPTQ_EVAL MODEL: compared with itself a model is itself, and the commands agree with each other.
set -euo pipefail
eval_tool=$1 model=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf 'ab abc d %.0s' {1..60} >"$work/text"

fail() { echo "$1"; exit 1; }
run() { "$eval_tool" "$@" --ctx 60 -t 1; }

[[ $(run kl "$model" "$model" "$work/text" --exact) == 'KL mean 0.000000 nats'*'agreement 1.0000 over'* ]] || fail 'kl of a model from itself is not 0'
exact=$(run perplexity "$model" "$work/text" --exact --json | sed 's/{"perplexity": \([0-9.]*\),.*/\1/')
exact=$(printf '%.3f' "$exact")
rows=$(run table "$model" "$model" "$work/text" --exact | grep -c "| $exact |" || true)
[[ $rows == 2 ]] || fail "table has perplexity $exact in $rows rows of 2"

layers=$(run layers "$model" "$model" "$work/text" --exact | grep -c '| 0.0000 |' || true)
[[ $layers == 2 ]] || fail "a model's layers differ from themselves: $layers rows of zeros"
run layers "$model" "$model" "$work/text" | grep -q 'layer 0 | 0.00[0-9]*[1-9]' || fail 'layers does not see int8 activations'
[[ $(run table "$model" "$work/text" 2>&1) == *'At least 3 required'* ]] || fail 'table without a file to compare is not refused'
echo 'perplexity, kl, layers and table agree'
