# SPDX-License-Identifier: Apache-2.0
# greedy.py CHECKPOINT COMMAND...: whether gptq-run (the command, ending in the model file) generates the greedy ids of CHECKPOINT/reference.json.
# Exact mode has to give all of them; with int8 activations a near tie may fall the other way, so there only the count is told.
import json
import os
import subprocess
import sys

folder, command = sys.argv[1], sys.argv[2:]
with open(os.path.join(folder, "reference.json"), encoding="utf-8") as file:
  prompts = json.load(file)


def generate(prompt, *options):
  ids = ",".join(map(str, prompt["ids"]))
  run = [*command, "--ids", ids, "-n", str(len(prompt["greedy"])), "-t", "2", "--ignore-eos", "--print-ids", *options]
  return [int(i) for i in subprocess.run(run, check=True, capture_output=True, text=True).stdout.split(",")]


exact = sum(generate(p, "--exact") == p["greedy"] for p in prompts)
int8 = sum(generate(p) == p["greedy"] for p in prompts)
print(f"{os.path.basename(os.path.normpath(folder))}: {exact} of {len(prompts)} prompts as the reference in exact mode, {int8} with int8 activations")
sys.exit(exact != len(prompts))
