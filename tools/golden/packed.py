#!/usr/bin/env python3
"""Tiny Llama folders whose weights are packed as AWQ and GPTQ checkpoints are, and what they say.

    tools/golden/packed.py        writes tests/golden/formats/packed/* (numpy 2, safetensors 0.6)

One random set of levels, zeros and scales, packed four ways: awq (gemm order), gptq (zero - 1), gptq_v2 and gptq_order
(act-order: columns belong to shuffled groups). expected.safetensors has scale * (level - zero) in f32 of two matrices, in
gptq_order.safetensors for the shuffled groups.
"""
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

OUT = Path(__file__).resolve().parents[2] / "tests/golden/formats/packed"
E, F, H, KV, V, LAYERS, G = 64, 96, 4, 2, 48, 1, 32
rng = np.random.default_rng(20261121)
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]  # nibble i of a word holds column AWQ_ORDER[i]


def words(nibbles, axis):
    """Eight consecutive values along axis into one int32, the first in the low bits."""
    x = np.moveaxis(nibbles.astype(np.uint32), axis, -1)
    x = x.reshape(*x.shape[:-1], -1, 8)
    w = np.zeros(x.shape[:-1], np.uint32)
    for i in range(8):
        w |= x[..., i] << np.uint32(4 * i)
    return np.ascontiguousarray(np.moveaxis(w, -1, axis)).view(np.int32)


def awq_words(x):  # [rows, n] along the last axis, in the interleaved order
    x = x.reshape(x.shape[0], -1, 8)[:, :, AWQ_ORDER].reshape(x.shape[0], -1)
    return words(x, 1)


plain = {"model.embed_tokens.weight": (rng.normal(size=(V, E)) * 0.5).astype(np.float16),
         "lm_head.weight": (rng.normal(size=(V, E)) * 0.2).astype(np.float16),
         "model.norm.weight": np.ones(E, np.float16)}
sets = {"awq": dict(plain), "gptq": dict(plain), "gptq_v2": dict(plain), "gptq_order": dict(plain)}
expected, ordered = {}, {}
for layer in range(LAYERS):
    b = f"model.layers.{layer}."
    for s in sets.values():
        s[b + "input_layernorm.weight"] = np.ones(E, np.float16)
        s[b + "post_attention_layernorm.weight"] = np.ones(E, np.float16)
    kv = E // H * KV
    for name, n, k in (("self_attn.q_proj", E, E), ("self_attn.k_proj", kv, E), ("self_attn.v_proj", kv, E), ("self_attn.o_proj", E, E),
                       ("mlp.gate_proj", F, E), ("mlp.up_proj", F, E), ("mlp.down_proj", E, F)):
        q = rng.integers(0, 16, (k, n))
        z = rng.integers(0, 16, (k // G, n))  # 0 is stored as 15 in the first GPTQ format
        s = (rng.random((k // G, n)) * 0.05 + 0.01).astype(np.float16)
        g = np.arange(k) // G
        shuffled = rng.permutation(g)
        if name in ("self_attn.q_proj", "mlp.down_proj"):
            expected[b + name + ".weight"] = np.ascontiguousarray((s[g].astype(np.float32) * (q - z[g]).astype(np.float32)).T)
            ordered[b + name + ".weight"] = np.ascontiguousarray(
                (s[shuffled].astype(np.float32) * (q - z[shuffled]).astype(np.float32)).T)
        sets["awq"].update({b + name + ".qweight": awq_words(q), b + name + ".qzeros": awq_words(z), b + name + ".scales": s})
        for key, zeros, order in (("gptq", (z - 1) % 16, g), ("gptq_v2", z, g), ("gptq_order", (z - 1) % 16, shuffled)):
            sets[key].update({b + name + ".qweight": words(q, 0), b + name + ".qzeros": words(zeros, 1), b + name + ".scales": s,
                              b + name + ".g_idx": order.astype(np.int32)})
config = dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=E, intermediate_size=F, num_hidden_layers=LAYERS,
              num_attention_heads=H, num_key_value_heads=KV, vocab_size=V, max_position_embeddings=64, rms_norm_eps=1e-5,
              tie_word_embeddings=False, torch_dtype="float16")
quant = {"awq": dict(quant_method="awq", bits=4, group_size=G, version="gemm", zero_point=True),
         "gptq": dict(quant_method="gptq", bits=4, group_size=G, desc_act=False, sym=False),
         "gptq_v2": dict(quant_method="gptq", bits=4, group_size=G, checkpoint_format="gptq_v2"),
         "gptq_order": dict(quant_method="gptq", bits=4, group_size=G, desc_act=True, checkpoint_format="gptq")}
for key, tensors in sets.items():
    folder = OUT / key
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": quant[key]}) + "\n")
save_file(expected, OUT / "expected.safetensors")
save_file(ordered, OUT / "expected_order.safetensors")
