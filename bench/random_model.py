#!/usr/bin/env python3
"""A model of a real shape with random weights, for measuring speed: its text is noise.

    bench/random_model.py bench/configs/qwen2.5-0.5b.json OUT.gguf --type q4_k_m
    bench/random_model.py bench/configs/qwen2.5-0.5b.json FOLDER --type bf16 --hf     (config.json, safetensors, tokenizer)

Types: f32 f16 bf16 q4_0 q4_1 q5_0 q5_1 q8_0 q2_k q3_k q4_k_m q5_k_m q6_k iq4_nl iq4_xs mxfp4. A file has the mix of types that
llama-quantize and `ingot quantize` give it (an output matrix in Q6_K, some values and down projections with more bits,
other types where rows hold no whole blocks). The bytes of blocks are random, their scales such that activations stay
finite: nothing is quantized, a file takes seconds. The vocabulary is byte-level BPE of the real size, made up: bytes, all
pairs of bytes, triples. Needs numpy.
"""
import argparse, json, os, struct
import numpy as np

# name: GGUF id, numbers a block, bytes a block, where the f16 numbers lie as (offset, factor of the row's scale)
TYPES = {
    "f32": (0, 1, 4, ()), "f16": (1, 1, 2, ()), "bf16": (30, 1, 2, ()),
    "q4_0": (2, 32, 18, ((0, 1 / 4.6),)), "q4_1": (3, 32, 20, ((0, 1 / 4.6), (2, -7.5 / 4.6))),
    "q5_0": (6, 32, 22, ((0, 1 / 9.2),)), "q5_1": (7, 32, 24, ((0, 1 / 9.2), (2, -15.5 / 9.2))),
    "q8_0": (8, 32, 34, ((0, 1 / 74),)),
    "q2_k": (10, 256, 84, ((80, 1 / 24), (82, 1.5 / 24))), "q3_k": (11, 256, 110, ((108, 1 / 42),)),
    "q4_k": (12, 256, 144, ((0, 1 / 440), (2, 7.5 / 440))), "q5_k": (13, 256, 176, ((0, 1 / 900), (2, 15.5 / 900))),
    "q6_k": (14, 256, 210, ((208, 1 / 1370),)),
    "iq4_nl": (20, 32, 18, ((0, 1 / 68),)), "iq4_xs": (23, 256, 136, ((0, 1 / 1260),)), "mxfp4": (39, 32, 17, ()),
}
FALLBACK = {"iq4_xs": "iq4_nl", "q2_k": "q4_0", "q3_k": "q4_0", "q4_k": "q5_0", "q5_k": "q5_1", "q6_k": "q8_0"}
FILE_TYPE = {"f32": 0, "f16": 1, "bf16": 32, "q4_0": 2, "q4_1": 3, "q5_0": 8, "q5_1": 9, "q8_0": 7, "q2_k": 10, "q3_k": 12,
             "q4_k_m": 15, "q5_k_m": 17, "q6_k": 18, "iq4_nl": 25, "iq4_xs": 30, "mxfp4": 38}
POOL = 8 << 20


class Shape:
    def __init__(self, path):
        c = self.config = json.load(open(path))
        self.arch = c["model_type"]
        self.hidden, self.ffn, self.layers = c["hidden_size"], c["intermediate_size"], c["num_hidden_layers"]
        self.heads, self.kv, self.vocab = c["num_attention_heads"], c["num_key_value_heads"], c["vocab_size"]
        self.d = c.get("head_dim") or self.hidden // self.heads
        self.tied = c.get("tie_word_embeddings", False)

    def tensors(self):
        """(GGUF name, Hugging Face name, shape, what it is, layer)"""
        h, q, kv = self.hidden, self.heads * self.d, self.kv * self.d
        yield "token_embd.weight", "model.embed_tokens.weight", (self.vocab, h), "head" if self.tied else "embed", -1
        for i in range(self.layers):
            g, f = f"blk.{i}.", f"model.layers.{i}."
            yield g + "attn_norm.weight", f + "input_layernorm.weight", (h,), "one", i
            for n, out in (("q", q), ("k", kv), ("v", kv)):
                yield g + f"attn_{n}.weight", f + f"self_attn.{n}_proj.weight", (out, h), "value" if n == "v" else "", i
                if self.arch == "qwen2":
                    yield g + f"attn_{n}.bias", f + f"self_attn.{n}_proj.bias", (out,), "bias", i
                if self.arch == "qwen3" and n != "v":
                    yield g + f"attn_{n}_norm.weight", f + f"self_attn.{n}_norm.weight", (self.d,), "one", i
            yield g + "attn_output.weight", f + "self_attn.o_proj.weight", (h, q), "", i
            yield g + "ffn_norm.weight", f + "post_attention_layernorm.weight", (h,), "one", i
            for n, out, into in (("gate", self.ffn, h), ("up", self.ffn, h), ("down", h, self.ffn)):
                yield g + f"ffn_{n}.weight", f + f"mlp.{n}_proj.weight", (out, into), n, i
        yield "output_norm.weight", "model.norm.weight", (h,), "one", -1
        if not self.tied:
            yield "output.weight", "lm_head.weight", (self.vocab, h), "head", -1
        if self.config.get("rope_scaling"):
            yield "rope_freqs.weight", None, (self.d // 2,), "freqs", -1

    def params(self):
        return sum(int(np.prod(s)) for *_, s, what, _ in self.tensors() if what not in ("one", "bias", "freqs"))

    def bytes(self, kind):
        return sum(int(np.prod(s)) // TYPES[t][1] * TYPES[t][2] for _, _, s, what, l in self.tensors()
                   for t in [self.type_of(kind, s, what, l)])

    def type_of(self, kind, shape, what, layer):
        """llama-quantize's choice for a matrix: what docs/quantization.md describes."""
        if len(shape) == 1:
            return "f32"
        t = kind[:4] if kind.endswith("_m") else kind
        if "k" in kind or t in ("q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl", "iq4_xs"):
            eighth = self.layers // 8
            more = layer < eighth or layer >= 7 * self.layers // 8 or (layer - eighth) % 3 == 2
            if what == "head":
                t = "q6_k" if shape[1] % TYPES[t][1] == 0 else "q8_0"
            elif kind.endswith("_m") and what in ("value", "down") and more:
                t = "q6_k"
            elif kind in ("q2_k", "q3_k") and what in ("value", "down"):
                t = "q3_k" if kind == "q2_k" else "q4_k"
        while shape[1] % TYPES[t][1]:
            t = FALLBACK.get(t, "f16")
        return t


class Numbers:
    """Random bytes of a type, the same few MB again and again from another place: rows differ, files come fast."""

    def __init__(self, seed=1):
        self.rng, self.pools = np.random.Generator(np.random.SFC64(seed)), {}

    def pool(self, kind, scale):
        _, block, size, places = TYPES[kind]
        n = POOL // size
        if block == 1:
            x = self.rng.standard_normal(n, dtype=np.float32) * np.float32(scale)
            return bf16(x).tobytes() if kind == "bf16" else x.astype("<f2" if kind == "f16" else "<f4").tobytes()
        b = self.rng.integers(0, 256, (n, size), dtype=np.uint8)
        if kind == "mxfp4":
            b[:, 0] = 128 + round(np.log2(scale / 5.7))
        for at, factor in places:
            d = (self.rng.uniform(0.8, 1.2, n) * scale * factor).astype("<f2")
            b[:, at:at + 2] = d.view(np.uint8).reshape(n, 2)
        return b.tobytes()

    def write(self, f, kind, count, scale):
        _, block, size, _ = TYPES[kind]
        key = kind, scale
        if key not in self.pools:
            self.pools[key] = self.pool(kind, scale)
        p, left = self.pools[key], count // block * size
        at = int(self.rng.integers(0, len(p) // size)) * size
        while left:
            n = min(left, len(p) - at)
            f.write(p[at:at + n])
            left, at = left - n, 0


def bf16(x):
    u = x.view(np.uint32)
    return ((u + 0x7fff + ((u >> 16) & 1)) >> 16).astype("<u2")


def write_numbers(f, shape, numbers, what, kind, s):
    if what == "one":
        f.write(np.ones(shape, "<f4").astype({"f32": "<f4", "f16": "<f2"}.get(kind, "<f4")).tobytes())
    elif what == "freqs":
        f.write(rope_divisors(s).astype("<f4").tobytes())
    else:
        numbers.write(f, kind, int(np.prod(shape)), 0.1 if what == "bias" else 0.02 if what in ("head", "embed") else shape[1] ** -0.5)


def rope_divisors(s):
    r = s.config["rope_scaling"]
    wave = 2 * np.pi * s.config["rope_theta"] ** (np.arange(0, s.d, 2) / s.d)
    low, high, n, factor = r["low_freq_factor"], r["high_freq_factor"], r["original_max_position_embeddings"], r["factor"]
    smooth = (n / wave - low) / (high - low)
    return np.where(wave < n / high, 1, np.where(wave > n / low, factor, 1 / ((1 - smooth) / factor + smooth)))


# ---- the vocabulary ----
def byte_chars():
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(other)) for b in range(256)]


def vocabulary(n):
    """n - 3 tokens and their merges; the last three are special."""
    c = byte_chars()
    tokens, merges = list(c), []
    for length in (2, 3):
        tails, start = c, c if length == 2 else tokens[256:]
        for a in start:
            for b in tails:
                if len(tokens) == n - 3:
                    return tokens, merges
                tokens.append(a + b)
                merges.append(a + " " + b)
    return tokens, merges


SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


# ---- GGUF ----
def text(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def value(v):
    if isinstance(v, bool):
        return struct.pack("<IB", 7, v)
    if isinstance(v, int):
        return struct.pack("<II", 4, v)
    if isinstance(v, float):
        return struct.pack("<If", 6, v)
    if isinstance(v, str):
        return struct.pack("<I", 8) + text(v)
    if isinstance(v[0], str):
        return struct.pack("<IIQ", 9, 8, len(v)) + b"".join(map(text, v))
    return struct.pack("<IIQ", 9, 5, len(v)) + np.array(v, "<i4").tobytes()


def metadata(s, name, kind):
    c, a = s.config, s.arch
    tokens, merges = vocabulary(s.vocab)
    return {
        "general.architecture": a, "general.name": name, "general.file_type": FILE_TYPE[kind], "general.quantization_version": 2,
        a + ".block_count": s.layers, a + ".context_length": c["max_position_embeddings"], a + ".embedding_length": s.hidden,
        a + ".feed_forward_length": s.ffn, a + ".attention.head_count": s.heads, a + ".attention.head_count_kv": s.kv,
        a + ".attention.key_length": s.d, a + ".attention.value_length": s.d, a + ".rope.dimension_count": s.d,
        a + ".rope.freq_base": float(c["rope_theta"]), a + ".attention.layer_norm_rms_epsilon": float(c["rms_norm_eps"]),
        a + ".vocab_size": s.vocab,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "llama-bpe" if a == "llama" else "qwen2",
        "tokenizer.ggml.tokens": tokens + SPECIAL, "tokenizer.ggml.token_type": [1] * len(tokens) + [3] * 3,
        "tokenizer.ggml.merges": merges, "tokenizer.ggml.eos_token_id": s.vocab - 1, "tokenizer.ggml.bos_token_id": s.vocab - 3,
        "tokenizer.ggml.padding_token_id": s.vocab - 3, "tokenizer.ggml.add_bos_token": False, "tokenizer.chat_template": CHAT,
    }


def write_gguf(s, out, kind, name):
    keys, rows = metadata(s, name, kind), list(s.tensors())
    head, at = [struct.pack("<4sIQQ", b"GGUF", 3, len(rows), len(keys))], 0
    head += [text(k) + value(v) for k, v in keys.items()]
    kinds = []
    for g, _, shape, what, layer in rows:
        t = s.type_of(kind, shape, what, layer)
        kinds.append(t)
        head.append(text(g) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape[::-1])
                    + struct.pack("<IQ", TYPES[t][0], at))
        at += -(-int(np.prod(shape)) // TYPES[t][1] * TYPES[t][2] // 32) * 32
    head = b"".join(head)
    numbers = Numbers()
    with open(out + ".part", "wb") as f:
        f.write(head + b"\0" * (-len(head) % 32))
        for (_, _, shape, what, _), t in zip(rows, kinds):
            write_numbers(f, shape, numbers, what, t, s)
            f.write(b"\0" * (-f.tell() % 32))
    os.rename(out + ".part", out)


# ---- Hugging Face ----
def write_tokenizer(s, folder):
    tokens, merges = vocabulary(s.vocab)
    pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    added = [{"id": s.vocab - 3 + i, "content": x, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for i, x in enumerate(SPECIAL)]
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    tok = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
           "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]}, "post_processor": None, "decoder": level,
           "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
                     "fuse_unk": False, "byte_fallback": False, "vocab": {t: i for i, t in enumerate(tokens)}, "merges": merges}}
    json.dump(tok, open(os.path.join(folder, "tokenizer.json"), "w"))
    json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIAL[0], "eos_token": SPECIAL[2],
               "pad_token": SPECIAL[0], "chat_template": CHAT}, open(os.path.join(folder, "tokenizer_config.json"), "w"))


def write_hf(s, folder, kind):
    os.makedirs(folder, exist_ok=True)
    size, header, at = {"f32": 4, "f16": 2, "bf16": 2}[kind], {"__metadata__": {"format": "pt"}}, 0
    rows = [r for r in s.tensors() if r[1]]
    for _, name, shape, _, _ in rows:
        header[name] = {"dtype": kind.upper(), "shape": list(shape), "data_offsets": [at, at + int(np.prod(shape)) * size]}
        at += int(np.prod(shape)) * size
    head, numbers = json.dumps(header).encode(), Numbers()
    head += b" " * (-len(head) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(head)) + head)
        for _, _, shape, what, _ in rows:
            if what == "one":
                x = np.ones(shape, np.float32)
                f.write(bf16(x).tobytes() if kind == "bf16" else x.astype("<f2" if kind == "f16" else "<f4").tobytes())
            else:
                write_numbers(f, shape, numbers, what, kind, s)
    types = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
    config = {**s.config, "torch_dtype": types[kind], "bos_token_id": s.vocab - 3, "eos_token_id": s.vocab - 1}
    json.dump(config, open(os.path.join(folder, "config.json"), "w"), indent=1)
    write_tokenizer(s, folder)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("config")
    a.add_argument("out")
    a.add_argument("--type", default="q8_0", choices=FILE_TYPE)
    a.add_argument("--hf", action="store_true")
    o = a.parse_args()
    s = Shape(o.config)
    if o.hf:
        write_hf(s, o.out, o.type)
    else:
        write_gguf(s, o.out, o.type, os.path.basename(o.config)[:-5])


if __name__ == "__main__":
    main()
