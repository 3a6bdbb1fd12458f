#!/usr/bin/env python3
"""Golden values of every block type, from the `gguf` package (0.17 or later, numpy 2).

    tools/golden/tensor_dtypes.py        writes tests/golden/tensor/blocks.bin

Records: u32 length of the name, name, u32 blocks, u32 elements, u32 has_quantized, the stored bytes, the f32 values;
when has_quantized: f32 inputs and the bytes the reference quantizer makes of them.
"""
import struct
from pathlib import Path

import numpy as np
import gguf
from gguf import quants, GGMLQuantizationType as T

first_rng = np.random.default_rng(20260101)
out = Path(__file__).resolve().parents[2] / "tests/golden/tensor/blocks.bin"
# where the f16 scales of a block lie
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
          "IQ4_NL": [0], "IQ4_XS": [0], "MXFP4": []}
with open(out, "wb") as f:
    for name, offsets in SCALES.items():
        t = T[name]
        n, size = gguf.GGML_QUANT_SIZES[t]
        blocks = 6
        late = name in ("IQ4_NL", "IQ4_XS", "MXFP4")  # added later: the first stream stays as it was
        rng = np.random.default_rng(20260101 + t.value) if late else first_rng
        raw = rng.integers(0, 256, (blocks, size), dtype=np.uint8)
        for i in range(blocks):
            for o in offsets:  # finite scales: a random f16 may be NaN, whose payload is nobody's business
                h = np.float16(rng.normal() * 0.1) if i else np.float16(5.9e-6)  # the first: subnormal
                raw[i, o:o + 2] = np.frombuffer(h.tobytes(), np.uint8)
        if name == "MXFP4":  # exponents: every border, and some in the middle
            raw[:, 0] = [0, 1, 2, 127, 120, 250]
        values = quants.dequantize(raw, t).astype(np.float32)
        assert values.size == blocks * n
        can = name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
        f.write(struct.pack("<I", len(name)) + name.encode() + struct.pack("<III", blocks, n, can))
        f.write(raw.tobytes() + values.tobytes())
        if can:
            x = rng.normal(size=(blocks, n)).astype(np.float32)
            x[1] = 0
            x[2] = np.round(x[2] * 4) / 4  # many ties
            x[3] *= 1e-6
            f.write(x.tobytes() + quants.quantize(x, t).tobytes())
rng = first_rng
# every f16 to f32, and f32 values around all f16 and bf16 rounding borders
with open(out.with_name("halves.bin"), "wb") as f:
    h = np.arange(0, 65536, 7, dtype=np.uint16)
    v = h.view(np.float16).astype(np.float32)
    keep = ~np.isnan(v)
    h, v = h[keep], v[keep]
    f.write(struct.pack("<I", len(h)) + h.tobytes() + v.tobytes())
    u = rng.integers(0, 2**32, 3000, dtype=np.uint32)
    borders = (h[::3].view(np.float16).astype(np.float32).view(np.uint32)[:, None] + np.array([0, 0xfff, 0x1000, 0x1001], np.uint32)).ravel()
    u = np.concatenate([u, borders])
    x = u.view(np.float32)
    x = x[~np.isnan(x)]
    with np.errstate(over="ignore"):
        half = x.astype(np.float16).view(np.uint16)
    import torch
    bf = torch.from_numpy(x.copy()).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    f.write(struct.pack("<I", len(x)) + x.tobytes() + half.tobytes() + bf.tobytes())
