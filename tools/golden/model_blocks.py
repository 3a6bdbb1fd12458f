#!/usr/bin/env python3
"""Golden logits of small models stored in block types: Q5_0, Q5_1, Q2_K to Q6_K, IQ4_NL, IQ4_XS, MXFP4.

Made with torch 2.15 (CPU), transformers 5.23, gguf 0.19, numpy. Run: python tools/golden/model_blocks.py
Writes tests/golden/model/blocks.json. No weights are stored: tests/model/test_blocks.c makes the same bytes.

  byte i of a tensor in blocks   splitmix64(fnv1a64(GGUF name) + i * 0x9e3779b97f4a7c15) & 255
  then, in block b, each field [offset, width, base, mask] of the tensor's type becomes the little-endian number
                                 base + (splitmix64(fnv1a64(GGUF name) + b * 0x9e3779b97f4a7c15) & mask)
  other tensors                  as in model_families.py, grid "q8", by GGUF name, in GGUF's order of rows

The numbers that the bytes stand for are those of PyPI's gguf; transformers computes with them in f32. Shapes: "whole",
every row a whole number of blocks; "odd", numbers of rows that no panel divides, and rows without whole blocks, which
are f16; "experts", stacked ones. "rounding" is what rounding activations to int8 per 32 changes, as in model_families.py.
"""
import json, math, os, sys, tempfile
import numpy as np, torch, gguf
from transformers import AutoConfig, AutoModelForCausalLM
import model_families as mf

BLOCK, POSITIONS = {"q5_0": "Q5_0", "q5_1": "Q5_1", "q2_k": "Q2_K", "q3_k": "Q3_K", "q4_k": "Q4_K", "q5_k": "Q5_K", "q6_k": "Q6_K",
                    "iq4_nl": "IQ4_NL", "iq4_xs": "IQ4_XS", "mxfp4": "MXFP4"}, [0, 16, 39]
# offset of each f16 scale, and its part of the deviation of the row's numbers
SCALES = {"q5_0": [(0, 1 / 9.2)], "q5_1": [(0, 1 / 9.2), (2, -15.5 / 9.2)], "q2_k": [(80, 1 / 24), (82, 1.5 / 24)], "q3_k": [(108, 1 / 42)],
          "q4_k": [(0, 1 / 440), (2, 7.5 / 440)], "q5_k": [(0, 1 / 900), (2, 15.5 / 900)], "q6_k": [(208, 1 / 1370)],
          "iq4_nl": [(0, 1 / 68)], "iq4_xs": [(0, 1 / 1260)]}
WHOLE = dict(mf.S, hidden_size=256, num_attention_heads=8, num_key_value_heads=2, head_dim=32, intermediate_size=768)
ODD = dict(mf.S, hidden_size=512, num_attention_heads=5, num_key_value_heads=1, head_dim=20, intermediate_size=172)
EXPERTS = dict(mf.S, hidden_size=256, num_attention_heads=4, num_key_value_heads=2, head_dim=64, num_experts=4,
               num_experts_per_tok=2, moe_intermediate_size=256, norm_topk_prob=True, num_hidden_layers=1)
CASES = [(f"{t}-{shape}", t, dict(config, model_type=family))
         for i, t in enumerate(BLOCK)
         for shape, config, family in (("whole", WHOLE, ("llama", "qwen3")[i % 2]), ("odd", ODD, "qwen3"))]
CASES += [(f"{t}-experts", t, dict(EXPERTS, model_type="qwen3_moe")) for t in ("q4_k", "q6_k")]


def half(x):
    return int(np.float16(x).view(np.uint16))


def fields_of(kind, n_in):
    deviation = 1.5 / math.sqrt(n_in)
    if kind == "mxfp4":
        return [[0, 1, 128 + round(math.log2(deviation / 5.7)), 1]]
    return [[at, 2, half(part * deviation), 63] for at, part in SCALES[kind]]


def block_numbers(name, shape, kind, fields):
    qtype = getattr(gguf.GGMLQuantizationType, BLOCK[kind])
    block, size = gguf.GGML_QUANT_SIZES[qtype]
    n = int(np.prod(shape)) // block
    raw = (mf.words(name, n * size) & np.uint64(255)).astype(np.uint8).reshape(n, size)
    word = mf.words(name, n)
    for at, width, base, mask in fields:
        v = (np.uint64(base) + (word & np.uint64(mask))).astype(np.uint16)
        raw[:, at:at + width] = v.view(np.uint8).reshape(n, 2)[:, :width]
    rows = gguf.quants.dequantize(raw.reshape(-1, shape[-1] // block * size), qtype)
    return torch.from_numpy(np.ascontiguousarray(rows.reshape(shape), dtype=np.float32))


def unpair(t, heads):
    """GGUF's rows of llama's Q and K, where pairs are neighbours -> Hugging Face's halves."""
    d = t.shape[0] // heads
    return t.reshape(heads, d // 2, 2, *t.shape[1:]).swapaxes(1, 2).reshape(t.shape)


def make(name, kind, config):
    cfg = AutoConfig.for_model(**json.loads(json.dumps(config)))
    cfg._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(cfg, dtype=torch.float32).eval()
    with tempfile.TemporaryDirectory() as folder:  # the names under which it is saved: experts one by one
        model.save_pretrained(folder)
        saved = mf.load_file(os.path.join(folder, "model.safetensors"))
        gnames = mf.gguf_names(saved, config["model_type"], cfg.num_hidden_layers)
        block = gguf.GGML_QUANT_SIZES[getattr(gguf.GGMLQuantizationType, BLOCK[kind])][0]
        tensors, listing, stacks = {}, [], {}
        for n, t in saved.items():
            stacks.setdefault(gnames[n], []).append(n)
        for g, names in stacks.items():
            names.sort(key=lambda n: int(n.split(".experts.")[1].split(".")[0]) if ".experts." in n else 0)
            shape = ([len(names)] if ".experts." in names[0] else []) + list(saved[names[0]].shape)
            if len(shape) > 1 and shape[-1] % block == 0 and "ffn_gate_inp" not in g:
                fields = fields_of(kind, shape[-1])
                value = block_numbers(g, shape, kind, fields)
                listing.append([g, shape, kind, fields])
            elif len(shape) > 1:
                value, k = mf.weight(g, shape, "q8", shape[-1])
                listing.append([g, shape, "f32" if "ffn_gate_inp" in g else "f16", k])
            else:
                value = mf.weight(g, shape, "q8", 0)
                listing.append([g, shape, "f32"])
            if config["model_type"] == "llama" and (".attn_q." in g or ".attn_k." in g):
                value = unpair(value, cfg.num_attention_heads if ".attn_q." in g else cfg.num_key_value_heads)
            for i, n in enumerate(names):
                tensors[n] = (value[i] if ".experts." in n else value).contiguous()
        mf.save_file(tensors, os.path.join(folder, "model.safetensors"), {"format": "pt"})
        model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                                           output_loading_info=True)
    if info["missing_keys"] or info["unexpected_keys"]:
        raise SystemExit(f"{name}: {info}")
    model.eval()
    with torch.no_grad():
        logits = model(torch.from_numpy(mf.ids_of(7, mf.N, 257))[None]).logits[0]
        # f16 matrices (rows without whole blocks) meet activations as they are
        mf.ROUNDINGS["int8"] = lambda x: mf.round_int8(x) if x.shape[-1] % block == 0 else x
        seeds, prompts = mf.prompts_for(model, 257, ["int8"])
        rounding = mf.simulate(model, "int8", prompts)
    case = dict(name=name, type=kind, config=config, tensors=listing, positions=POSITIONS, deviation=float(logits.std()),
                logits=mf.b64(logits[POSITIONS]), rounding=dict(int8=rounding), seeds=seeds)
    print(f"{name}: deviation {case['deviation']:.3f} rounding {rounding:.2e}", flush=True)
    return case


def main():
    cases = [make(*c) for c in CASES]
    path = os.path.join(os.path.dirname(__file__), "../../tests/golden/model/blocks.json")
    with open(path, "w") as f:
        f.write('{"n": %d, "cases": [\n' % mf.N)
        f.write(",\n".join(json.dumps(c, separators=(",", ":")) for c in cases))
        f.write("\n]}\n")
    print(os.path.getsize(path), "bytes")


main()
