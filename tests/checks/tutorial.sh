#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tutorial.sh SOURCE_ROOT BUILD_ROOT GPTQ-CONVERT CC...: the C blocks of docs/tutorial.md, one after another, are a program that does what
# the page says, with a small random model. It computes so fast that its steps get 1 microsecond instead of the page's 2000.
set -euo pipefail
root=$1 build=$2 convert=$3 cc=("${@:4}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() { echo "$1"; exit 1; }
python3 "$root/bindings/fixture.py" "$work/checkpoint"
"$convert" "$work/checkpoint" "$work/model.gptq" >/dev/null
sed -n '/^```c$/,/^```$/{/^```/d;s/, 2000))/, 1))/;p}' "$root/docs/tutorial.md" >"$work/game.c"
cd "$work"
library=(-L "$build/runtime" -lgptq -Wl,-rpath,"$build/runtime")
compile() { "${cc[@]}" -std=c99 "$@" -Wno-missing-field-initializers -I "$root/include" "${library[@]}"; }
said() { sed '/ frames)$/,$d' "$1"; }

compile game.c -Wall -Wextra -Werror -o game
./game model.gptq | tee talk
sed 's/^  save(&.*//; s/^  load(&.*/  printf("|");/' game.c >unsaved.c
compile unsaved.c -Wno-unused-function -o unsaved
./unsaved model.gptq >unsaved.talk
said unsaved.talk | grep -q '[a-z]|[a-z]' || fail 'the save is not made in the middle of a sentence'
cmp <(said talk) <(said unsaved.talk | tr -d '|') || fail 'saved and loaded, the knight says something else'
tail -n 1 talk | python3 -c '
import json, sys
answer = json.load(sys.stdin)
assert set(answer) == {"deed", "gold"}, answer
assert answer["deed"] in ("let pass", "fight", "ask") and answer["gold"] in range(10), answer' || fail 'the answer is not what the schema allows'
