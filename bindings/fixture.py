# SPDX-License-Identifier: Apache-2.0
"""fixture.py FOLDER: writes a small 16-bit Llama with a tokenizer and a chat template as a Hugging Face folder, and as the folder
FOLDER/adapter a PEFT LoRA for it, the same bytes every time.

Two layers of random weights, 384 tokens, context 256. Tokens of single bytes are never likely, so that it writes letters.
"""
import json
import os
import struct
import sys

VOCAB, WIDTH, FF, LAYERS, HEADS, HEAD, RANK = 384, 64, 128, 2, 4, 16, 4
TEMPLATE = ("{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
            "{% if add_generation_prompt %}<s>bot:{% endif %}"
            "{# It thinks in <think></think> and calls tools with <tool_call>{\"name\": , \"arguments\": }</tool_call>. #}")


def vocabulary():
  """Pieces in the order of their ids, and the merges."""
  letters = ["▁", *"abcdefghijklmnopqrstuvwxyz:,.é猫"]
  pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
  merges = []
  for left in letters[:27]:
    for right in "aeiou":
      if len(pieces) < VOCAB:
        merges.append([left, right])
        pieces.append(left + right)
  return pieces, merges


def tokenizer():
  pieces, merges = vocabulary()
  special = [{"id": i, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
             for i, name in enumerate(pieces[:3])]
  begin = {"SpecialToken": {"id": "<s>", "type_id": 0}}
  return {
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
    "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False},
    "post_processor": {"type": "TemplateProcessing", "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
                       "pair": [begin, {"Sequence": {"id": "A", "type_id": 0}}, begin, {"Sequence": {"id": "B", "type_id": 1}}],
                       "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
    "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                                                 {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None,
              "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
              "vocab": {piece: i for i, piece in enumerate(pieces)}, "merges": merges},
  }


class Random:
  """Uniform numbers, the same on every machine."""
  state = 20240229

  def floats(self, count, scale):
    values = []
    for _ in range(count):
      self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
      values.append(((self.state >> 40) / 2**23 - 1) * scale)
    return values


def weights():
  random = Random()
  embed = random.floats(VOCAB * WIDTH, 1.0)
  for token in (0, 1, *range(3, 259)):
    embed[token * WIDTH:(token + 1) * WIDTH] = [x / 64 for x in embed[token * WIDTH:(token + 1) * WIDTH]]
  yield "model.embed_tokens.weight", [VOCAB, WIDTH], embed
  for layer in range(LAYERS):
    at = f"model.layers.{layer}."
    for name, n, k in (("self_attn.q_proj", HEADS * HEAD, WIDTH), ("self_attn.k_proj", HEADS * HEAD, WIDTH),
                       ("self_attn.v_proj", HEADS * HEAD, WIDTH), ("self_attn.o_proj", WIDTH, HEADS * HEAD),
                       ("mlp.gate_proj", FF, WIDTH), ("mlp.up_proj", FF, WIDTH), ("mlp.down_proj", WIDTH, FF)):
      yield f"{at}{name}.weight", [n, k], random.floats(n * k, 3.0 / k**0.5)
    for name in ("input_layernorm", "post_attention_layernorm"):
      yield f"{at}{name}.weight", [WIDTH], [1.0] * WIDTH
  yield "model.norm.weight", [WIDTH], [1.0] * WIDTH


def lora():
  random = Random()
  for layer in range(LAYERS):
    for name in ("q_proj", "v_proj"):
      at = f"base_model.model.model.layers.{layer}.self_attn.{name}."
      yield at + "lora_A.weight", [RANK, WIDTH], random.floats(RANK * WIDTH, 0.4)
      yield at + "lora_B.weight", [HEADS * HEAD, RANK], random.floats(HEADS * HEAD * RANK, 0.4)


def main(folder):
  os.makedirs(folder, exist_ok=True)
  config = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": WIDTH, "intermediate_size": FF,
    "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "head_dim": HEAD, "vocab_size": VOCAB,
    "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True, "bos_token_id": 1,
    "eos_token_id": 2, "torch_dtype": "float16",
  }
  texts = {"config.json": config, "tokenizer.json": tokenizer(),
           "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
                                     "chat_template": TEMPLATE}}
  for name, content in texts.items():
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
      json.dump(content, file, ensure_ascii=False)
  safetensors(os.path.join(folder, "model.safetensors"), "e", weights())
  adapter = os.path.join(folder, "adapter")
  os.makedirs(adapter, exist_ok=True)
  with open(os.path.join(adapter, "adapter_config.json"), "w", encoding="utf-8") as file:
    json.dump({"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "text", "r": RANK, "lora_alpha": 2 * RANK,
               "target_modules": ["q_proj", "v_proj"], "bias": "none", "fan_in_fan_out": False, "lora_dropout": 0.0}, file)
  safetensors(os.path.join(adapter, "adapter_model.safetensors"), "f", lora())


def safetensors(path, kind, tensors):
  header, data = {}, b""
  for name, shape, values in tensors:
    packed = struct.pack(f"<{len(values)}{kind}", *values)
    header[name] = {"dtype": "F16" if kind == "e" else "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(packed)]}
    data += packed
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)
  with open(path, "wb") as file:
    file.write(struct.pack("<Q", len(text)) + text + data)


if __name__ == "__main__":
  if len(sys.argv) != 2:
    sys.exit(__doc__)
  main(sys.argv[1])
