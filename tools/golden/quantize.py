#!/usr/bin/env python3
"""What llama.cpp's quantizers lose on real weights, with and without an importance matrix: bars for ours.

    tools/golden/quantize.py LIBGGML_BASE.so [SMOLLM2.gguf STORIES260K.gguf]

writes tests/golden/tensor/quantize.f32 (24 rows of 512 from the storyteller in models/, 8 rows of Student's t, then 512
importances) and tests/golden/tensor/quantize.json (root mean square errors; llama.cpp of llama-cpp-python 0.3.36).
Weighted errors are sqrt(sum w e^2 / sum w). Needs gguf 0.17 or later.
"""
import ctypes
import json
import sys
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import GGML_QUANT_SIZES, GGUFReader, quants

root = Path(__file__).resolve().parents[2]
lib = ctypes.CDLL(sys.argv[1])
P = ctypes.POINTER(ctypes.c_float)
lib.ggml_quantize_chunk.restype = ctypes.c_size_t
lib.ggml_quantize_chunk.argtypes = [ctypes.c_int, P, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [P]
TYPES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4"]


def tensor(path, name):
    for t in GGUFReader(path).tensors:
        if t.name == name:
            return np.ascontiguousarray(quants.dequantize(t.data, t.tensor_type), np.float32)
    raise SystemExit(f"{path}: no {name}")


def measure(x, importance=None):
    out = {}
    for name in TYPES:
        block, size = GGML_QUANT_SIZES[T[name]]
        if x.shape[1] % block:
            continue
        raw = np.zeros((x.shape[0], x.shape[1] // block * size), np.uint8)
        w = None if importance is None else importance.ctypes.data_as(P)
        lib.ggml_quantize_chunk(int(T[name]), x.ctypes.data_as(P), raw.ctypes.data, 0, *x.shape, w)
        e = (quants.dequantize(raw, T[name]).astype(np.float64).reshape(x.shape) - x) ** 2
        if importance is not None:
            e = e * importance / importance.mean()
        out[name.lower()] = float(np.sqrt(e.mean()))
    return out


rng = np.random.default_rng(20261121)
story = tensor(root / "models/storyteller.gguf", "blk.2.ffn_down.weight")
real = story.reshape(-1)[: 24 * 512].reshape(24, 512)
heavy = (rng.standard_t(3, size=(8, 512)) * 0.02).astype(np.float32)
x = np.concatenate([real, heavy])
importance = rng.lognormal(0, 1.5, 512).astype(np.float32)
with open(root / "tests/golden/tensor/quantize.f32", "wb") as f:
    f.write(x.tobytes() + importance.tobytes())
result = {"sample": measure(x), "sample_weighted": measure(x, importance)}
if len(sys.argv) > 2:
    for key, path, names in (("smollm2", sys.argv[2], ("blk.5.attn_q.weight", "blk.7.ffn_down.weight")),
                             ("stories260k", sys.argv[3], ("blk.0.attn_q.weight", "blk.3.ffn_up.weight"))):
        result[key] = {n: measure(tensor(path, n)) for n in names}
(root / "tests/golden/tensor/quantize.json").write_text(json.dumps(result, indent=1) + "\n")
