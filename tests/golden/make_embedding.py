# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/embedding: a small random Qwen 3 body as sentence-transformers keep one, and what transformers gives for a few texts."""
import json
import os
import sys

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, decoders, processors
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

out = sys.argv[1]
os.makedirs(out + "/1_Pooling", exist_ok=True)
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
vocab = {c: i for i, c in enumerate(alphabet)}
tok = Tokenizer(models.BPE(vocab=vocab, merges=[]))
tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tok.decoder = decoders.ByteLevel()
tok.add_special_tokens(["<|endoftext|>"])
end = tok.token_to_id("<|endoftext|>")
tok.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(single="$A <|endoftext|>", pair="$A $B <|endoftext|>", special_tokens=[("<|endoftext|>", end)])])
fast = PreTrainedTokenizerFast(tokenizer_object=tok, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
fast.save_pretrained(out)
torch.manual_seed(7)
config = Qwen3Config(vocab_size=288, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
                     max_position_embeddings=256, tie_word_embeddings=True, eos_token_id=end, bos_token_id=None, pad_token_id=end)
model = Qwen3Model(config).eval()
for p in model.parameters():
    if p.dim() > 1: torch.nn.init.normal_(p, std=0.15)
    else: torch.nn.init.normal_(p, mean=1.0, std=0.2)
model = model.to(torch.bfloat16)
model.save_pretrained(out)
json.dump([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
           {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
           {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}], open(out + "/modules.json", "w"), indent=1)
json.dump({"word_embedding_dimension": 64, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": False,
           "pooling_mode_lasttoken": True, "include_prompt": True}, open(out + "/1_Pooling/config.json", "w"), indent=1)
model = model.to(torch.float32)
texts = ["", "a", "The quick brown fox jumps over the lazy dog.", "Wie heißt das auf Deutsch? 狐 🦊", "x" * 200]
rows = []
for t in texts:
    ids = fast(t)["input_ids"]
    with torch.no_grad():
        h = model(torch.tensor([ids])).last_hidden_state[0]
    rows.append({"text": t, "ids": ids, "last": h[-1].tolist(), "mean": h.mean(0).tolist()})
json.dump(rows, open(out + "/reference_embeddings.json", "w"))
for f in os.listdir(out): print(f, os.path.getsize(os.path.join(out, f)))
