#!/usr/bin/env python3
"""Which type llama.cpp gives each matrix, for every recipe and three shapes of models.

    tools/golden/recipes.py LLAMA_QUANTIZE         (llama.cpp of llama-cpp-python 0.3.36; gguf 0.17 or later)

writes tests/golden/model/recipes.json. The models are zeros with the right shapes.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np

RECIPES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S",
           "Q5_K_M", "Q6_K", "IQ4_NL", "IQ4_XS"]
SHAPES = [dict(n_layer=32, n_head=8, n_kv_head=8, n_embd=256, n_ff=512, tied=False),
          dict(n_layer=28, n_head=8, n_kv_head=2, n_embd=256, n_ff=512, tied=True),
          dict(n_layer=30, n_head=9, n_kv_head=3, n_embd=288, n_ff=768, tied=True)]


def write(path, s):
    w = gguf.GGUFWriter(path, "llama")
    d = s["n_embd"] // s["n_head"]
    w.add_block_count(s["n_layer"])
    w.add_context_length(512)
    w.add_embedding_length(s["n_embd"])
    w.add_feed_forward_length(s["n_ff"])
    w.add_head_count(s["n_head"])
    w.add_head_count_kv(s["n_kv_head"])
    w.add_layer_norm_rms_eps(1e-5)
    w.add_vocab_size(64)
    w.add_tokenizer_model("none")
    kv = d * s["n_kv_head"]

    def put(name, *shape):
        w.add_tensor(name, np.zeros(shape, np.float16 if len(shape) > 1 else np.float32))
    e, f = s["n_embd"], s["n_ff"]
    put("token_embd.weight", 64, e)
    for i in range(s["n_layer"]):
        b = f"blk.{i}."
        for name, shape in (("attn_norm", (e,)), ("attn_q", (e, e)), ("attn_k", (kv, e)), ("attn_v", (kv, e)), ("attn_output", (e, e)),
                            ("ffn_norm", (e,)), ("ffn_gate", (f, e)), ("ffn_down", (e, f)), ("ffn_up", (f, e))):
            put(b + name + ".weight", *shape)
    put("output_norm.weight", e)
    if not s["tied"]:
        put("output.weight", 64, e)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


result = []
with tempfile.TemporaryDirectory() as folder:
    for s in SHAPES:
        path = folder + "/m.gguf"
        write(path, s)
        recipes = {}
        for r in RECIPES:
            out = folder + "/out.gguf"
            p = subprocess.run([sys.argv[1], path, out, r, "1"], capture_output=True, text=True)
            if p.returncode:
                raise SystemExit(p.stdout[-2000:] + p.stderr[-2000:])
            recipes[r.lower()] = {t.name: t.tensor_type.name.lower() for t in gguf.GGUFReader(out).tensors
                                  if t.tensor_type.name not in ("F32",)}
        result.append({**s, "recipes": recipes})
target = Path(__file__).resolve().parents[2] / "tests/golden/model/recipes.json"
target.write_text(json.dumps(result, separators=(",", ":")) + "\n")
