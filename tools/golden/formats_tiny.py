#!/usr/bin/env python3
"""Tiny files of every container, written by the official packages (torch 2.x, safetensors 0.5+, gguf 0.17+).

    tools/golden/formats_tiny.py        writes tests/golden/formats/

state.safetensors holds the tensors that every PyTorch file here holds, so that readers can be compared.
"""
import struct, zipfile
from collections import OrderedDict
from pathlib import Path

import gguf, numpy as np, torch
from safetensors.torch import save_file

out = Path(__file__).resolve().parents[2] / "tests/golden/formats"
out.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(7)
torch.manual_seed(7)

# ---- PyTorch and safetensors ----
state = OrderedDict([
    ("emb.weight", torch.randn(5, 4)),
    ("half", torch.randn(3).half()),
    ("brain", torch.randn(2, 1, 2).bfloat16()),
    ("ids", torch.tensor([-1, 2, 1 << 40])),
    ("scalar", torch.tensor(2.5, dtype=torch.float64)),
    ("flags", torch.tensor([True, False])),
    ("bytes", torch.arange(3, dtype=torch.uint8)),
])
save_file(state, out / "state.safetensors", metadata={"format": "pt"})
state._metadata = OrderedDict(version=1)  # as state_dict() has: an attribute of the dictionary
torch.save(state, out / "flat.pt")
model = torch.nn.Linear(2, 2)
shared = torch.arange(6.0)
tree = {
    "model": OrderedDict(state, **{"lin." + k: v for k, v in model.state_dict().items()},
                         param=torch.nn.Parameter(torch.ones(2)), whole=shared, part=shared[2:5], again=shared),
    "config": {"n_layer": 4, "rate": 0.25, "name": "tiny \u00fc\"", "tied": True, "none": None, "big": 1 << 40,
               "minus": -7, "shape": (1, 2), "list": [1, [2.5, "x"], {}], "size": torch.Size([3, 4])},
    "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
}
torch.save(tree, out / "tree.pt")
torch.save({"t": torch.arange(6.0).reshape(2, 3).t()}, out / "strided.pt")


class Evil:
    def __reduce__(self):
        import os
        return os.system, ("echo never",)


torch.save({"weights": torch.zeros(2), "x": Evil()}, out / "evil.pt")
with zipfile.ZipFile(out / "flat.pt") as z, zipfile.ZipFile(out / "deflated.pt", "w", zipfile.ZIP_DEFLATED) as d:
    for i in z.infolist():
        d.writestr(zipfile.ZipInfo(i.filename), z.read(i), zipfile.ZIP_DEFLATED)

# ---- GGUF ----
w = gguf.GGUFWriter(out / "tiny.gguf", "llama")
for t in ("uint8", "uint16", "uint32", "uint64"):
    getattr(w, "add_" + t)("n." + t, 200)
for t in ("int8", "int16", "int32", "int64"):
    getattr(w, "add_" + t)("n." + t, -100)
w.add_float32("n.float32", 0.1)
w.add_float64("n.float64", 0.1)
w.add_bool("n.yes", True)
w.add_string("n.text", "gr\u00fc\u00df")
w.add_array("tokenizer.ggml.tokens", ["<unk>", "", "\u2581the"])
w.add_array("a.ints", [1, -2, 3])
w.add_array("a.reals", [0.5, -1.5])
w.add_tensor("token_embd.weight", rng.normal(size=(3, 4)).astype(np.float32))
w.add_tensor("half", rng.normal(size=(2, 3)).astype(np.float16))
for name in ("Q4_0", "Q6_K"):
    t = gguf.GGMLQuantizationType[name]
    n, size = gguf.GGML_QUANT_SIZES[t]
    raw = rng.integers(0, 60, (2 if n == 32 else 1, size), dtype=np.uint8)
    w.add_tensor(name.lower(), raw, raw_dtype=t)
w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()

# ---- llama2.c: one model in three versions ----
dim, hidden, layers, heads, kv, vocab, seq, group = 8, 12, 2, 2, 1, 6, 4, 4
d_head = dim // heads
shape = {"emb": (vocab, dim), "an": (layers, dim), "wq": (layers, dim, dim), "wk": (layers, kv * d_head, dim),
         "wv": (layers, kv * d_head, dim), "wo": (layers, dim, dim), "fn": (layers, dim), "w1": (layers, hidden, dim),
         "w2": (layers, dim, hidden), "w3": (layers, hidden, dim), "norm": (dim,), "out": (vocab, dim)}
q = {}
p = {}
for k, s in shape.items():
    if k in ("an", "fn", "norm"):
        p[k] = rng.normal(size=s).astype(np.float32)
        continue
    per_layer = s if len(s) == 3 else (1,) + s
    ints = rng.integers(-127, 128, per_layer, dtype=np.int8).reshape(per_layer[0], -1)
    scales = rng.uniform(0.001, 0.01, (per_layer[0], ints.shape[1] // group)).astype(np.float32)
    q[k] = b"".join(i.tobytes() + c.tobytes() for i, c in zip(ints, scales))
    p[k] = (ints.reshape(per_layer[0], -1, group).astype(np.float32) * scales[:, :, None]).astype(np.float32).reshape(s)
sizes = (dim, hidden, layers, heads, kv)
rope = np.zeros(seq * d_head // 2 * 2, np.float32)
legacy = ["emb", "an", "wq", "wk", "wv", "wo", "fn", "w1", "w2", "w3", "norm"]
(out / "legacy.bin").write_bytes(struct.pack("<7i", *sizes, -vocab, seq) + b"".join(p[k].tobytes() for k in legacy)
                                 + rope.tobytes() + p["out"].tobytes())
later = ["an", "fn", "norm", "emb", "wq", "wk", "wv", "wo", "w1", "w2", "w3"]
head = struct.pack("<Ii7iB", 0x616b3432, 1, *sizes, vocab, seq, 1)
(out / "v1.bin").write_bytes(head.ljust(256, b"\0") + b"".join(p[k].tobytes() for k in later))
head = struct.pack("<Ii7iBi", 0x616b3432, 2, *sizes, vocab, seq, 0, group)
(out / "v2.bin").write_bytes(head.ljust(256, b"\0") + b"".join(p[k].tobytes() if k in ("an", "fn", "norm") else q[k]
                                                             for k in later) + q["out"])
