#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""deepen.py CHECKPOINT FOLDER TIMES [STRENGTH]: a GPTQ checkpoint of Llama's shape with TIMES as many layers, which says what the first says.

The layers that are added compute and read as much as the others, but the scales of their o and down projections are multiplied by STRENGTH,
usually 0, so that they add nothing: a large target for which the first model is a draft that is always right, or with a strength above 0
less often, for measuring what speculation can give. TIMES below 1 (0.25) keeps the first layers alone instead, an early exit.
"""
import json
import os
import shutil
import struct
import sys


def read(path):
  with open(path, "rb") as file:
    size = struct.unpack("<Q", file.read(8))[0]
    header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    data = file.read()
  return {name: (t["dtype"], t["shape"], data[t["data_offsets"][0]:t["data_offsets"][1]]) for name, t in header.items()}


def write(path, tensors):
  header, at = {"__metadata__": {"format": "pt"}}, 0
  for name, (dtype, shape, data) in tensors.items():
    header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
    at += len(data)
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)
  with open(path, "wb") as file:
    file.write(struct.pack("<Q", len(text)) + text)
    for _, _, data in tensors.values():
      file.write(data)


def scaled(halves, strength):
  return b"".join(struct.pack("<e", strength * value) for value, in struct.iter_unpack("<e", halves)) if strength else bytes(len(halves))


def main(source, target, times, strength=0.0):
  with open(os.path.join(source, "config.json"), encoding="utf-8") as file:
    config = json.load(file)
  before = config["num_hidden_layers"]
  after = config["num_hidden_layers"] = max(1, round(before * times))
  os.makedirs(target)
  for name in os.listdir(source):
    if not name.endswith(".safetensors") and not name.startswith("reference") and name != "config.json":
      shutil.copy(os.path.join(source, name), target)
  with open(os.path.join(target, "config.json"), "w", encoding="utf-8") as file:
    json.dump(config, file, indent=1)
  given = read(os.path.join(source, "model.safetensors"))
  tensors = {}
  for name, tensor in given.items():
    if not name.startswith("model.layers."):
      tensors[name] = tensor
      continue
    layer, rest = name[len("model.layers."):].split(".", 1)
    for other in range(int(layer), after, before):
      dtype, shape, data = tensor
      idle = other >= before and rest in ("self_attn.o_proj.scales", "mlp.down_proj.scales")
      tensors[f"model.layers.{other}.{rest}"] = (dtype, shape, scaled(data, strength) if idle else data)
  write(os.path.join(target, "model.safetensors"), tensors)
  print(f"{before} layers, now {after}")


if __name__ == "__main__":
  if len(sys.argv) not in (4, 5):
    sys.exit(__doc__)
  main(sys.argv[1], sys.argv[2], *map(float, sys.argv[3:]))
